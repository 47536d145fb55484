"""Readers over readers: what the operators of Fluid 1.1's reader layers make.

A reader has ``read_next()`` -> [(tensor, LoD)] (EOFException at the end), ``buffered()``, ``epoch`` (changes when another
pass begins) and ``over``, the readers made over it, by name: an operator that runs each step makes its reader once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from millstream.errors import EOFException, FeedError
from millstream.ops._values import NO_LOD

Batch = list[tuple[torch.Tensor, Any]]


def made_over(source: Any, name: str, make: Callable[[], Any]) -> Any:
    """The reader `name` over `source`, made at its first use."""
    if name not in source.over:
        source.over[name] = make()
    return source.over[name]


class ChainedReader:
    """A reader over `source` that keeps batches of the present pass."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.over: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._kept: list[Batch] = []
        self._epoch = source.epoch

    @property
    def epoch(self) -> Any:
        return self.source.epoch

    def buffered(self) -> ChainedReader:
        return self

    def read_next(self) -> Batch:
        with self._lock:
            if self._epoch != self.source.epoch:  # left over from a pass that was reset
                self._kept, self._epoch = [], self.source.epoch
            return self._next()

    def _next(self) -> Batch:
        raise NotImplementedError

    def _take(self, count: int) -> EOFException | None:
        """Keep up to `count` batches more; the EOFException that came before that, or None."""
        try:
            for _ in range(count):
                self._kept.append(self.source.read_next())
        except EOFException as end:
            return end
        return None


class ShuffleReader(ChainedReader):
    """`size` batches at a time, in random order."""

    def __init__(self, source: Any, size: int, rng: torch.Generator) -> None:
        super().__init__(source)
        self._size, self._rng = size, rng

    def _next(self) -> Batch:
        if not self._kept:
            end = self._take(self._size)
            if end is not None and not self._kept:
                raise end
            order = torch.randperm(len(self._kept), generator=self._rng, device=self._rng.device).tolist()
            self._kept = [self._kept[i] for i in order]
        return self._kept.pop()


class BatchReader(ChainedReader):
    """`size` batches laid one after another; what is left at the end is dropped or is a smaller batch."""

    def __init__(self, source: Any, size: int, discard_leftover: bool) -> None:
        super().__init__(source)
        self._size, self._discard = size, discard_leftover

    def _next(self) -> Batch:
        end = self._take(self._size)
        parts, self._kept = self._kept, []
        if end is not None and (self._discard or not parts):
            raise end
        return [_joined([part[k] for part in parts]) for k in range(len(parts[0]))]


def _joined(parts: Sequence[tuple[torch.Tensor, Any]]) -> tuple[torch.Tensor, Any]:
    depths = {len(lod) for _, lod in parts}
    if len(depths) > 1:
        raise FeedError(f"batch: tensors of one slot have different numbers of LoD levels: {sorted(depths)}")
    values = torch.cat([value for value, _ in parts])
    levels = []
    for k in range(depths.pop()):
        offsets = [np.zeros(1, np.int64)]
        for _, lod in parts:
            offsets.append(np.asarray(lod[k][1:], np.int64) + offsets[-1][-1])
        levels.append(np.concatenate(offsets))
    return values, tuple(levels) or NO_LOD


class RandomReader:
    """Tensors of the given shapes without end, float32, uniform in [low, high)."""

    def __init__(
        self, low: float, high: float, shapes: Sequence[tuple[int, ...]], rng: torch.Generator, device: torch.device
    ) -> None:
        self._bounds, self._shapes, self._rng, self._device = (low, high), shapes, rng, device
        self.over: dict[str, Any] = {}
        self.epoch = 0

    def buffered(self) -> RandomReader:
        return self

    def read_next(self) -> Batch:
        return [
            (torch.empty(shape, device=self._device).uniform_(*self._bounds, generator=self._rng), NO_LOD)
            for shape in self._shapes
        ]
