"""``paddle.batch``: turn a reader of samples into a reader of mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["batch"]


def batch(reader: Callable[[], Any], batch_size: int, drop_last: bool = False) -> Callable[[], Iterator[list[Any]]]:
    """Group the samples of `reader` into lists of `batch_size`.

    The last list may be shorter; `drop_last=True` leaves it out. Raises ValueError at once,
    not at the first iteration, when `batch_size` is not a positive integer.
    """
    size = int(batch_size)
    if size <= 0:
        raise ValueError(f"paddle.batch: batch_size must be a positive integer, got {batch_size!r}")
    if not callable(reader):
        raise TypeError(
            "paddle.batch: reader must be a function that returns an iterator of samples, got "
            f"{type(reader).__name__}. Hint: pass `train`, or what a reader creator returned"
        )

    def batch_reader() -> Iterator[list[Any]]:
        pending: list[Any] = []
        for sample in reader():
            pending.append(sample)
            if len(pending) == size:
                yield pending
                pending = []
        if pending and not drop_last:
            yield pending

    return batch_reader
