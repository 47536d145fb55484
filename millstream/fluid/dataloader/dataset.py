"""What a DataLoader reads: datasets by index, and datasets that can only be iterated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["Dataset", "IterableDataset", "TensorDataset"]


class Dataset:
    """Samples by index: define ``__getitem__(idx)`` and ``__len__()``."""

    def __init__(self) -> None:
        pass

    def __getitem__(self, idx: int) -> Any:
        raise NotImplementedError(f"'__getitem__' not implement in class {type(self).__name__}")

    def __len__(self) -> int:
        raise NotImplementedError(f"'__len__' not implement in class {type(self).__name__}")


class IterableDataset(Dataset):
    """Samples in an order of their own: define ``__iter__()``.

    Every worker process of a DataLoader iterates over its own copy: divide the data by ``get_worker_info()``.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"'__iter__' not implement in class {type(self).__name__}")

    def __getitem__(self, idx: int) -> Any:
        raise RuntimeError(f"{type(self).__name__} is an IterableDataset: it can't be read by index")

    def __len__(self) -> int:
        raise RuntimeError(f"{type(self).__name__} is an IterableDataset: its length is not known")


class TensorDataset(Dataset):
    """Arrays of equal first dimension; sample i is the tuple of their rows i."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = [np.asarray(t) for t in tensors]
        if not self.tensors or any(len(t) != len(self.tensors[0]) for t in self.tensors):
            raise ValueError(f"TensorDataset takes arrays of one length, received lengths {[len(t) for t in self.tensors]}")

    def __getitem__(self, idx: int) -> tuple[Any, ...]:
        return tuple(t[idx] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])
