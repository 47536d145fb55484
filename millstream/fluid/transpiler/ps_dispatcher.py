"""``fluid.transpiler.ps_dispatcher``: which server holds which variable."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

__all__ = ["HashName", "PSDispatcher", "RoundRobin"]


class PSDispatcher:
    """Base of what assigns variables to endpoints.

    Args:
        pserver_endpoints: list of "host:port".
    """

    def __init__(self, pserver_endpoints: Sequence[str]) -> None:
        self._eps = list(pserver_endpoints)
        self._step = 0

    @property
    def eps(self) -> list[str]:
        """The endpoints."""
        return self._eps

    def reset(self) -> None:
        """Begin with the first endpoint again."""
        self._step = 0

    def dispatch(self, varlist: Sequence[Any]) -> list[str]:
        """The endpoint of each of `varlist`."""
        raise NotImplementedError(f"{type(self).__name__}: a dispatcher defines dispatch(varlist)")


class RoundRobin(PSDispatcher):
    """Endpoints in turn."""

    def dispatch(self, varlist: Sequence[Any]) -> list[str]:
        found = []
        for _ in varlist:
            found.append(self._eps[self._step])
            self._step = (self._step + 1) % len(self._eps)
        return found


class HashName(PSDispatcher):
    """An endpoint by the variable's name, the same in every process."""

    def dispatch(self, varlist: Sequence[Any]) -> list[str]:
        names = [var.name() if callable(var.name) else var.name for var in varlist]  # descriptions, or variables
        return [self._eps[zlib.crc32(name.encode()) % len(self._eps)] for name in names]
