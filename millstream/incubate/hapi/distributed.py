"""``paddle.incubate.hapi.distributed``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError
from millstream.fluid.dataloader.batch_sampler import BatchSampler
from millstream.fluid.dygraph.parallel import ParallelEnv

__all__ = ["DistributedBatchSampler"]


class DistributedBatchSampler(BatchSampler):
    """The batches of one process of several that share a dataset.

    All processes get equally many samples: the first ones come twice where the dataset cannot be divided. The processes
    take batches in turn.

    Args:
        dataset: with ``len``.
        shuffle: a new order at every pass, the same in all processes: numpy's RandomState(epoch).
        drop_last: leave out a last batch that is not full.

    Raises InvalidProgramError (an AssertionError): batch_size is no positive int, or a flag no bool.
    """

    def __init__(self, dataset: Any, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidProgramError(f"batch_size should be a positive integer, received {batch_size!r}")
        for value, name in ((shuffle, "shuffle"), (drop_last, "drop_last")):
            if not isinstance(value, bool):
                raise InvalidProgramError(f"{name} should be a boolean value, received {value!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        environment = ParallelEnv()
        self.nranks = environment.nranks
        self.local_rank = environment.local_rank
        self.epoch = 0
        self.num_samples = math.ceil(len(dataset) / self.nranks)
        self.total_size = self.num_samples * self.nranks

    def __iter__(self) -> Iterator[list[int]]:
        order = np.resize(np.arange(len(self.dataset)), self.total_size)  # repeats from the front
        if self.shuffle:
            np.random.RandomState(self.epoch).shuffle(order)
            self.epoch += 1
        mine = self._mine(order).tolist()
        stop = len(mine) // self.batch_size * self.batch_size if self.drop_last else len(mine)
        for k in range(0, stop, self.batch_size):
            yield mine[k : k + self.batch_size]

    def _mine(self, order: np.ndarray) -> np.ndarray:
        full = self.batch_size * self.nranks
        whole = self.total_size // full * full
        batches = order[:whole].reshape(-1, self.nranks, self.batch_size)[:, self.local_rank].ravel()
        rest = order[whole:].reshape(self.nranks, -1)[self.local_rank]
        return np.concatenate([batches, rest])

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The number that the next order is drawn from."""
        self.epoch = epoch
