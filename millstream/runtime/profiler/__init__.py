"""Times, costs and memory of operators while Plans run: a table, a trace for chrome://tracing, an HTML report."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from millstream.files.atomic import write_bytes
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.runtime.profiler.costs import Cost, cost_of
from millstream.runtime.profiler.memory import LiveMemory
from millstream.runtime.profiler.table import SORT_KEYS, Row, rows_of, table

__all__ = ["SORT_KEYS", "Event", "Recorder", "Row", "active", "switch"]
RUN = "Executor.run"


class Event(NamedTuple):
    """One call of an operator, or one run of a Program (op None); nanoseconds.

    `live` are bytes that tensors held when it ended, without what was there before the first.
    """

    name: str
    thread: int
    start: int
    end: int
    depth: int
    site: str
    op: Operator | None = None
    cost: Cost = Cost(0, 0)
    live: int = 0


class _Open(NamedTuple):
    start: int
    names: Sequence[str]
    values: Sequence[Any]


class Recorder:
    """What the emitted code calls before and after each operator, while a profiler is on.

    Its clock stands still while it works itself (one for each thread), so that what is recorded inside a loop or a run
    does not count as time of that loop or run.

    Args:
        detail: keep the user's line with each event.
    """

    def __init__(self, detail: bool = False) -> None:
        self.detail = detail
        self.events: list[Event] = []
        self.began = time.perf_counter_ns()
        self.memory = LiveMemory()
        self.programs: dict[int, Program] = {}
        self._threads: dict[int, int] = {}
        self._open = threading.local()
        self._lock = threading.Lock()

    def _thread(self) -> int:
        ident = threading.get_ident()
        with self._lock:
            return self._threads.setdefault(ident, len(self._threads))

    def _stack(self) -> list[_Open]:
        if not hasattr(self._open, "stack"):
            self._open.stack, self._open.spent = [], 0
        return self._open.stack

    def run(self, program: Program) -> None:
        """A run of `program` (as passes left it) begins."""
        self.programs.setdefault(id(program), program)
        self.enter(None)

    def enter(self, op: Operator | None, names: Sequence[str] = (), values: Sequence[Any] = ()) -> None:
        """An operator begins, with the values of the variables that it reads (None: a whole run)."""
        came = time.perf_counter_ns()
        stack = self._stack()
        self.memory.read(values)
        went = time.perf_counter_ns()
        self._open.spent += went - came
        stack.append(_Open(went - self._open.spent, names, values))

    def leave(self, op: Operator | None, names: Sequence[str] = (), outs: Sequence[Any] = ()) -> None:
        """It ended, and wrote these."""
        came = time.perf_counter_ns()
        stack = self._stack()
        if not stack:
            return  # reset in the middle
        end = came - self._open.spent
        self._ended(op, end, stack.pop(), len(stack), names, outs)
        self._open.spent += time.perf_counter_ns() - came

    def _ended(
        self, op: Operator | None, end: int, begun: _Open, depth: int, names: Sequence[str], outs: Sequence[Any]
    ) -> None:
        start, read, values = begun
        if op is None:
            self.events.append(Event(RUN, self._thread(), start, end, depth, "", live=self.memory.live))
            return
        self.memory.write(outs)
        cost = Cost(0, 0) if op.sub_blocks() else cost_of(op, read, values, zip(names, outs))
        site = str(op.site) if self.detail and op.site is not None else ""
        self.events.append(Event(op.type, self._thread(), start, end, depth, site, op, cost, self.memory.live))

    def abandon(self) -> None:
        """A run ended by an exception: what it began will not end."""
        self._stack().clear()

    def clear(self) -> None:
        """Forget all events."""
        self._open = threading.local()
        self.events = []
        self.began = time.perf_counter_ns()

    # ---- results -----------------------------------------------------------------------------
    def rows(self, sorted_key: str = "default") -> list[Row]:
        """One row for each operator type and thread, by thread and then by `sorted_key`, largest first."""
        return rows_of(self.events, sorted_key)

    def report(self, state: str, sorted_key: str = "default") -> str:
        """Fluid's table."""
        return table(self.events, state, sorted_key)

    def live_bytes(self) -> list[tuple[int, int]]:
        """(nanoseconds since the start, bytes held by tensors) at the end of each operator, by time."""
        points = [(e.end - self.began, e.live + self.memory.before) for e in self.events if e.op is not None]
        return sorted(points)

    def trace(self) -> dict[str, Any]:
        """Chrome's trace-event format: complete events with costs, and a counter of memory; microseconds."""
        process = os.getpid()
        events: list[dict[str, Any]] = []
        for e in sorted(self.events, key=lambda e: e.start):
            shown: dict[str, Any] = {"at": e.site} if e.site else {}
            if e.op is not None:
                shown.update(flops=e.cost.flops, bytes=e.cost.bytes)
            event = {
                "name": e.name, "cat": "run" if e.op is None else "operator", "ph": "X", "ts": (e.start - self.began) / 1e3,
                "dur": (e.end - e.start) / 1e3, "pid": process, "tid": e.thread,
            }  # fmt: skip
            events.append({**event, "args": shown} if shown else event)
        for at, held in self.live_bytes():
            counter = {"name": "memory", "ph": "C", "ts": at / 1e3, "pid": process, "args": {"bytes": held}}
            events.append(counter)
        return {"displayTimeUnit": "ms", "traceEvents": events}

    def save(self, path: str) -> None:
        """Write an HTML report when `path` ends with .html, else :meth:`trace` as JSON."""
        if os.fspath(path).endswith((".html", ".htm")):
            from millstream.runtime.profiler.page import page

            write_bytes(path, page(self).encode())
        else:
            write_bytes(path, json.dumps(self.trace()).encode())


class _Active:
    recorder: Recorder | None = None


def active() -> Recorder | None:
    """The recorder that is on, or None."""
    return _Active.recorder


def switch(recorder: Recorder | None) -> Recorder | None:
    """Turn a recorder on (None: off); returns the one before."""
    old, _Active.recorder = _Active.recorder, recorder
    return old
