"""Times of operators while Plans run: a table, and a trace that chrome://tracing and Perfetto open."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from millstream.files.atomic import write_bytes
from millstream.ir.operator import Operator

SORT_KEYS = ("default", "calls", "total", "max", "min", "ave")
_ORDER = {
    "default": "event first end time",
    "calls": "number of calls",
    "total": "total time",
    "max": "maximum time",
    "min": "minimum time",
    "ave": "average time",
}


class Event(NamedTuple):
    """One call of an operator, or one run of a Program; nanoseconds."""

    name: str
    thread: int
    start: int
    end: int
    depth: int
    site: str


@dataclass
class Row:
    """All calls of one operator type in one thread; `own` leaves out the operators it ran itself."""

    name: str
    calls: int
    total: float
    own: float
    low: float
    high: float
    first_end: int

    @property
    def mean(self) -> float:
        return self.total / self.calls


class Recorder:
    """What the emitted code calls before and after each operator, while a profiler is on.

    Args:
        detail: keep the user's line with each event.
    """

    def __init__(self, detail: bool = False) -> None:
        self.detail = detail
        self.events: list[Event] = []
        self.began = time.perf_counter_ns()
        self._threads: dict[int, int] = {}
        self._open = threading.local()
        self._lock = threading.Lock()

    def _thread(self) -> int:
        ident = threading.get_ident()
        with self._lock:
            return self._threads.setdefault(ident, len(self._threads))

    def _stack(self) -> list[int]:
        if not hasattr(self._open, "stack"):
            self._open.stack = []
        return self._open.stack

    def enter(self, op: Operator | None) -> None:
        """An operator begins (None: a whole run)."""
        self._stack().append(time.perf_counter_ns())

    def leave(self, op: Operator | None, outs: Any = ()) -> None:
        """It ended."""
        end = time.perf_counter_ns()
        stack = self._stack()
        if not stack:
            return  # reset in the middle
        start = stack.pop()
        name = op.type if op is not None else "Executor.run"
        site = str(op.site) if self.detail and op is not None and op.site is not None else ""
        self.events.append(Event(name, self._thread(), start, end, len(stack), site))

    def abandon(self) -> None:
        """A run ended by an exception: what it began will not end."""
        self._stack().clear()

    def clear(self) -> None:
        """Forget all events."""
        self.events = []
        self.began = time.perf_counter_ns()

    # ---- results -----------------------------------------------------------------------------
    def rows(self, sorted_key: str = "default") -> list[Row]:
        """One row for each operator type and thread, by thread and then by `sorted_key`, largest first."""
        made: dict[tuple[int, str], Row] = {}
        for event, inner in zip(self.events, self._inner_times()):
            if event.name == "Executor.run":
                continue
            ms = (event.end - event.start) / 1e6
            key = (event.thread, event.name)
            row = made.get(key)
            if row is None:
                made[key] = Row(f"thread{event.thread}::{event.name}", 1, ms, ms - inner / 1e6, ms, ms, event.end)
                continue
            row.calls += 1
            row.total += ms
            row.own += ms - inner / 1e6
            row.low, row.high = min(row.low, ms), max(row.high, ms)
        fields = {"calls": "calls", "total": "total", "max": "high", "min": "low", "ave": "mean"}

        def order(item: tuple[tuple[int, str], Row]) -> tuple[Any, ...]:
            (thread, _), row = item
            return thread, row.first_end if sorted_key == "default" else -getattr(row, fields[sorted_key])

        return [row for _, row in sorted(made.items(), key=order)]

    def _inner_times(self) -> list[int]:
        """Nanoseconds of each event that its direct inner events took (they end before it does)."""
        waiting: dict[tuple[int, int], int] = {}
        inner = []
        for event in self.events:
            inner.append(waiting.pop((event.thread, event.depth + 1), 0))
            key = (event.thread, event.depth)
            waiting[key] = waiting.get(key, 0) + event.end - event.start
        return inner

    def report(self, state: str, sorted_key: str = "default") -> str:
        """The table."""
        rows = self.rows(sorted_key)
        inside = sum(r.own for r in rows)
        runs = sum(e.end - e.start for e in self.events if e.name == "Executor.run") / 1e6
        total = max(runs, inside)
        rest = total - inside
        lines = [
            "",
            "------------------------->     Profiling Report     <-------------------------",
            "",
            f"Place: {state}",
            "Time unit: ms",
            f"Sorted by {_ORDER[sorted_key]} in descending order in the same thread",
            "",
            f"Total time: {total:.6g}",
            f"  Computation time       Total: {inside:<10.6g}  Ratio: {_share(inside, total) * 100:.6g}%",
            f"  Framework overhead     Total: {rest:<10.6g}  Ratio: {_share(rest, total) * 100:.6g}%",
            "",
            "-------------------------       Event Summary       -------------------------",
            "",
        ]
        width = max([30, *(len(r.name) + 2 for r in rows)])
        titles = ("Calls", "Total", "Min.", "Max.", "Ave.", "Ratio.")
        lines.append(f"{'Event':<{width + 2}}" + "".join(f"{t:<12}" for t in titles))
        for r in rows:
            cells = (r.calls, r.total, r.low, r.high, r.mean, _share(r.total, total))
            lines.append(f"{r.name:<{width + 2}}" + "".join(f"{c:<12.6g}" for c in cells))
        return "\n".join(lines) + "\n"

    def trace(self) -> dict[str, Any]:
        """Chrome's trace-event format: complete events, microseconds."""
        return {
            "displayTimeUnit": "ms",
            "traceEvents": [
                {
                    "name": e.name,
                    "cat": "run" if e.name == "Executor.run" else "operator",
                    "ph": "X",
                    "ts": (e.start - self.began) / 1e3,
                    "dur": (e.end - e.start) / 1e3,
                    "pid": os.getpid(),
                    "tid": e.thread,
                    **({"args": {"at": e.site}} if e.site else {}),
                }
                for e in sorted(self.events, key=lambda e: e.start)
            ],
        }

    def save(self, path: str) -> None:
        """Write :meth:`trace` as JSON."""
        write_bytes(path, json.dumps(self.trace()).encode())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


class _Active:
    recorder: Recorder | None = None


def active() -> Recorder | None:
    """The recorder that is on, or None."""
    return _Active.recorder


def switch(recorder: Recorder | None) -> Recorder | None:
    """Turn a recorder on (None: off); returns the one before."""
    old, _Active.recorder = _Active.recorder, recorder
    return old
