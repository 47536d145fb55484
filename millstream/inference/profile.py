"""Time by operator type, as a predictor with its profile switched on keeps it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from millstream.ir.operator import Operator


class Times:
    """A recorder for Plans (one thread each): calls and seconds by operator type."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._stack: list[float] = []

    def enter(self, op: Operator, names: Sequence[str] = (), values: Sequence[Any] = ()) -> None:
        self._stack.append(time.perf_counter())

    def leave(self, op: Operator, names: Sequence[str] = (), values: Sequence[Any] = ()) -> None:
        spent = time.perf_counter() - self._stack.pop()
        self.seconds[op.type] = self.seconds.get(op.type, 0.0) + spent
        self.calls[op.type] = self.calls.get(op.type, 0) + 1

    def add(self, other: Times) -> None:
        """Count another recorder's times too."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self.calls[name] = self.calls.get(name, 0) + other.calls[name]

    def table(self) -> str:
        """One line an operator type, the longest time first."""
        total = sum(self.seconds.values()) or 1.0
        lines = [f"{'operator':<32}{'calls':>8}{'total ms':>12}{'share':>8}"]
        for name, spent in sorted(self.seconds.items(), key=lambda item: -item[1]):
            lines.append(f"{name:<32}{self.calls[name]:>8}{spent * 1e3:>12.3f}{spent / total:>8.1%}")
        return "\n".join(lines) + "\n"
