"""The order in which a dataset is read, and how it is cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["BatchSampler", "RandomSampler", "Sampler", "SequenceSampler"]


class Sampler:
    """Indices of a dataset in some order: define ``__iter__``."""

    def __init__(self, data_source: Any = None) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        raise NotImplementedError(f"'__iter__' not implement in class {type(self).__name__}")

    def __len__(self) -> int:
        return len(self.data_source)


class SequenceSampler(Sampler):
    """0, 1, 2, …"""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))


class RandomSampler(Sampler):
    """A new random order at every pass (numpy's global generator, so ``np.random.seed`` repeats it).

    Args:
        replacement: draw with replacement, `num_samples` times.
    """

    def __init__(self, data_source: Any, replacement: bool = False, num_samples: int | None = None) -> None:
        super().__init__(data_source)
        if num_samples is not None and not replacement:
            raise ValueError("RandomSampler: num_samples needs replacement=True")
        self.replacement = replacement
        self.num_samples = len(data_source) if num_samples is None else num_samples

    def __iter__(self) -> Iterator[int]:
        n = len(self.data_source)
        order = np.random.randint(0, n, self.num_samples) if self.replacement else np.random.permutation(n)
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler:
    """Lists of indices.

    Args:
        dataset: whose length gives the indices; or
        indices: the indices themselves, or a Sampler.
        shuffle: a new order at every pass.
        batch_size: indices in a batch.
        drop_last: leave out a last batch that is short.
    """

    def __init__(
        self,
        dataset: Any = None,
        indices: Any = None,
        shuffle: bool = False,
        batch_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if (dataset is None) == (indices is None):
            raise AssertionError("BatchSampler: either dataset or indices should be set, and not both")
        for name, value in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(value, bool):
                raise AssertionError(f"BatchSampler: {name} should be a boolean value, but got {type(value).__name__}")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise AssertionError(f"BatchSampler: batch_size should be a positive integer, but got {batch_size!r}")
        if indices is not None and not isinstance(indices, Iterable):
            raise AssertionError(f"BatchSampler: indices should be iterable, but got {type(indices).__name__}")
        self.dataset = dataset
        self.indices: Any = indices if indices is None or isinstance(indices, Sampler) else list(indices)
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.drop_last = drop_last

    def _order(self) -> Iterable[int]:
        indices = self.indices if self.indices is not None else range(len(self.dataset))
        if self.shuffle:
            indices = list(indices)
            return [indices[k] for k in np.random.permutation(len(indices)).tolist()]
        return indices

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self._order():
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.indices if self.indices is not None else self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
