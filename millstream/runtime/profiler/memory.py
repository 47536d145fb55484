"""Bytes that tensors hold while a Program runs."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from millstream.runtime.profiler.costs import tensors


class LiveMemory:
    """Counts storages that operators read or write until their last tensor dies.

    Attributes:
        live: bytes at this moment, without what was there before (`before`).
        before: bytes of storages that were read before any operator wrote them: parameters, feeds.
    """

    def __init__(self) -> None:
        self.live = 0
        self.before = 0
        self._held: dict[int, tuple[int, int]] = {}  # address: (tensors, bytes)
        self._tensors: dict[int, weakref.ref[torch.Tensor]] = {}

    def read(self, values: Any) -> None:
        """An operator reads these."""
        for tensor in tensors(values):
            self.before += self._add(tensor)

    def write(self, values: Any) -> None:
        """An operator made these."""
        for tensor in tensors(values):
            self.live += self._add(tensor)

    def _add(self, tensor: torch.Tensor) -> int:
        """Bytes of the tensor's storage, or 0 when it is counted already."""
        ident = id(tensor)
        if ident in self._tensors or tensor.is_sparse:
            return 0
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not address:
            return 0

        def died(_: Any) -> None:
            self._tensors.pop(ident, None)
            count, held = self._held.get(address, (1, 0))
            if count > 1:
                self._held[address] = (count - 1, held)
            else:
                self._held.pop(address, None)
                self.live -= held

        self._tensors[ident] = weakref.ref(tensor, died)
        count, held = self._held.get(address, (0, 0))
        self._held[address] = (count + 1, held or size)
        return 0 if held else size
