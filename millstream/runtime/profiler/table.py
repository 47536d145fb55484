"""Fluid's table of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.runtime.profiler import Event

SORT_KEYS = ("default", "calls", "total", "max", "min", "ave")
_ORDER = {
    "default": "event first end time",
    "calls": "number of calls",
    "total": "total time",
    "max": "maximum time",
    "min": "minimum time",
    "ave": "average time",
}


@dataclass
class Row:
    """All calls of one operator type in one thread; milliseconds; `own` leaves out the operators it ran itself."""

    name: str
    calls: int
    total: float
    own: float
    low: float
    high: float
    first_end: int
    flops: int = 0
    bytes: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.calls


def rows_of(events: Sequence[Event], sorted_key: str) -> list[Row]:
    """One row for each operator type and thread, by thread and then by `sorted_key`, largest first."""
    made: dict[tuple[int, str], Row] = {}
    for event, inner in zip(events, inner_times(events)):
        if event.op is None:
            continue
        ms = (event.end - event.start) / 1e6
        row = made.setdefault(
            (event.thread, event.name), Row(f"thread{event.thread}::{event.name}", 0, 0.0, 0.0, ms, ms, event.end)
        )
        row.calls += 1
        row.total += ms
        row.own += ms - inner / 1e6
        row.low, row.high = min(row.low, ms), max(row.high, ms)
        row.flops += event.cost.flops
        row.bytes += event.cost.bytes
    fields = {"calls": "calls", "total": "total", "max": "high", "min": "low", "ave": "mean"}

    def order(item: tuple[tuple[int, str], Row]) -> tuple[Any, ...]:
        (thread, _), row = item
        return thread, row.first_end if sorted_key == "default" else -getattr(row, fields[sorted_key])

    return [row for _, row in sorted(made.items(), key=order)]


def inner_times(events: Sequence[Event]) -> list[int]:
    """Nanoseconds of each event that its direct inner events took (they end before it does)."""
    waiting: dict[tuple[int, int], int] = {}
    inner = []
    for event in events:
        inner.append(waiting.pop((event.thread, event.depth + 1), 0))
        key = (event.thread, event.depth)
        waiting[key] = waiting.get(key, 0) + event.end - event.start
    return inner


def totals(events: Sequence[Event], rows: Sequence[Row]) -> tuple[float, float]:
    """(milliseconds of all runs, of operators alone)."""
    inside = sum(r.own for r in rows)
    runs = sum(e.end - e.start for e in events if e.op is None) / 1e6
    return max(runs, inside), inside


def table(events: Sequence[Event], state: str, sorted_key: str) -> str:
    """What 1.8.5 prints, column by column."""
    rows = rows_of(events, sorted_key)
    total, inside = totals(events, rows)
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
        f"  Computation time       Total: {inside:<10.6g}  Ratio: {share(inside, total) * 100:.6g}%",
        f"  Framework overhead     Total: {rest:<10.6g}  Ratio: {share(rest, total) * 100:.6g}%",
        "",
        "-------------------------     GpuMemCpy Summary     -------------------------",
        "",
        "GpuMemcpy                Calls: 0           Total: 0           Ratio: 0%",
        "",
        "-------------------------       Event Summary       -------------------------",
        "",
    ]
    width = max((len(r.name) for r in rows), default=len("Event")) + 8
    titles = ("Calls", "Total", "Min.", "Max.", "Ave.", "Ratio.")
    lines.append(f"{'Event':<{width}}" + "".join(f"{t:<12}" for t in titles))
    for r in rows:
        cells = (r.calls, r.total, r.low, r.high, r.mean, share(r.total, total))
        lines.append(f"{r.name:<{width}}" + "".join(f"{c:<12.6g}" for c in cells))
    return "\n".join(lines) + "\n"


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
