"""A profile as one HTML page that needs nothing else: summary, operators against the machine's peaks, memory, graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from millstream.ir.draw import Heat, program_svg
from millstream.ir.operator import Operator
from millstream.runtime.profiler.costs import Peaks, measured_peaks
from millstream.runtime.profiler.table import inner_times, rows_of, share, totals

if TYPE_CHECKING:
    from millstream.runtime.profiler import Recorder

_MOST_OPERATORS = 400  # in the list of single operators
_LARGEST_GRAPH = 3000  # operators; a picture of more can't be read, and takes minutes to lay out
_NOTE = (
    "Times leave out the operators that an operator runs itself. Peaks are a float32 matrix product and a copy through main "
    "memory, measured on this machine; more than 100 % of the copy means that the data came from a cache."
)
_STYLE = """
body { font: 14px/1.45 Helvetica, Arial, sans-serif; color: #1f2933; margin: 24px auto; max-width: 1180px; padding: 0 16px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 32px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; }
.facts div { background: #f5f7fa; border-radius: 6px; padding: 10px 16px; }
.facts b { display: block; font-size: 19px; }
.scroll { overflow: auto; max-height: 560px; border: 1px solid #e1e5ea; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th { position: sticky; top: 0; background: #f5f7fa; cursor: pointer; user-select: none; }
th.up::after { content: " \\25b2"; } th.down::after { content: " \\25bc"; }
td:first-child, th:first-child, td.text, th.text { text-align: left; }
td.text { max-width: 420px; overflow: hidden; text-overflow: ellipsis; }
.bar { display: inline-block; height: 9px; background: #f03b20; border-radius: 2px; vertical-align: middle; }
.graph { overflow: auto; max-height: 900px; border: 1px solid #e1e5ea; border-radius: 6px; }
.note { color: #52606d; font-size: 13px; }
"""
_SCRIPT = """
document.querySelectorAll("table.sorts th").forEach(function (head) {
  head.addEventListener("click", function () {
    var table = head.closest("table"), at = head.cellIndex, body = table.tBodies[0];
    var down = !head.classList.contains("down");
    table.querySelectorAll("th").forEach(function (other) { other.className = other.className.replace(/ ?(up|down)/, ""); });
    head.classList.add(down ? "down" : "up");
    Array.from(body.rows).sort(function (a, b) {
      var x = a.cells[at].dataset.value || a.cells[at].textContent, y = b.cells[at].dataset.value || b.cells[at].textContent;
      var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    }).forEach(function (row) { body.appendChild(row); });
  });
});
"""


@dataclass
class _Spent:
    """All calls of one operator (or of one type); nanoseconds without the operators that it ran itself."""

    calls: int = 0
    own: int = 0
    flops: int = 0
    bytes: int = 0

    def add(self, own: int, flops: int, moved: int) -> None:
        self.calls += 1
        self.own += own
        self.flops += flops
        self.bytes += moved


def page(recorder: Recorder, peaks: Peaks | None = None) -> str:
    """The HTML text; `peaks` are measured (once on a machine) when they are not given."""
    peaks = peaks or measured_peaks()
    by_operator: dict[int, _Spent] = {}
    by_type: dict[str, _Spent] = {}
    operators: dict[int, Operator] = {}
    for event, inner in zip(recorder.events, inner_times(recorder.events)):
        if event.op is None:
            continue
        operators[id(event.op)] = event.op
        own = event.end - event.start - inner
        for spent in (by_operator.setdefault(id(event.op), _Spent()), by_type.setdefault(event.name, _Spent())):
            spent.add(own, *event.cost)
    whole = sum(s.own for s in by_type.values())
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Profile</title>',
        f"<style>{_STYLE}</style></head>",
        "<body><h1>Profile</h1>",
        _facts(recorder, by_type, peaks),
        "<h2>Operators by type</h2>",
        _table([(name, "", spent) for name, spent in by_type.items()], whole, peaks, ""),
        f'<p class="note">{_NOTE}</p>',
        "<h2>Memory held by tensors</h2>",
        _memory(recorder.live_bytes()),
        *_graphs(recorder, by_operator, whole),
        "<h2>Single operators</h2>",
        _single(operators, by_operator, whole, peaks),
        f"<script>{_SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _facts(recorder: Recorder, by_type: dict[str, _Spent], peaks: Peaks) -> str:
    total, inside = totals(recorder.events, rows_of(recorder.events, "default"))
    runs = sum(e.op is None for e in recorder.events)
    flops = sum(s.flops for s in by_type.values())
    highest = max((held for _, held in recorder.live_bytes()), default=0)
    facts = [
        ("total", f"{total:.4g} ms"),
        ("runs", str(runs)),
        ("between operators", f"{100 * share(total - inside, total):.1f} %"),
        ("operations", f"{_big(flops)}FLOP"),
        ("reached", f"{_big(1000 * share(flops, inside))}FLOP/s of {_big(peaks.flops)}"),
        ("copying reaches", f"{_big(peaks.bytes)}B/s"),
        ("tensors at most", f"{_big(highest)}B"),
    ]
    return '<div class="facts">' + "".join(f"<div><b>{v}</b>{n}</div>" for n, v in facts) + "</div>"


def _table(rows: Sequence[tuple[str, str, _Spent]], whole: int, peaks: Peaks, about: str) -> str:
    """Rows (name, text, spent), the costliest first; `about` heads the texts, which are left out when all are empty."""
    texts = any(text for _, text, _ in rows)
    heads = ["Operator", "Share", "ms", "Calls", "us a call", "GFLOP/s", "% of peak", "GB/s", "% of peak", "Bound by"]
    marks = {"ms": ' class="down"', "Share": ' class="text"'}
    head = "".join(f"<th{marks.get(h, '')}>{h}</th>" for h in heads)
    head += f'<th class="text">{about}</th>' if texts else ""
    lines = []
    for name, text, spent in sorted(rows, key=lambda row: -row[2].own):
        part = share(spent.own, whole)
        compute, copy = share(spent.flops, spent.own), share(spent.bytes, spent.own)  # G a second: ns cancel
        of_flops, of_bytes = 1e9 * compute / peaks.flops, 1e9 * copy / peaks.bytes
        bar = f'<span class="bar" style="width: {120 * part:.0f}px"></span> {100 * part:.1f} %'
        cells = [
            f"<td>{escape(name)}</td>", f'<td data-value="{part}" style="text-align: left">{bar}</td>',
            *(_cell(v) for v in (spent.own / 1e6, spent.calls, spent.own / 1e3 / spent.calls)),
            *(_cell(v) for v in (compute, 100 * of_flops, copy, 100 * of_bytes)),
            f"<td>{_bound(of_flops, of_bytes)}</td>",
        ]  # fmt: skip
        if texts:
            cells.append(f'<td class="text" title="{escape(text)}">{escape(text)}</td>')
        lines.append("<tr>" + "".join(cells) + "</tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table class="sorts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: float) -> str:
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f'<td data-value="{value}">{text}</td>'


def _bound(of_flops: float, of_bytes: float) -> str:
    """What keeps an operator from being faster; below a tenth of both peaks, calling it does."""
    if max(of_flops, of_bytes) < 0.1:
        return "calls, latency"
    return "arithmetic" if of_flops >= of_bytes else "memory"


def _single(operators: dict[int, Operator], spent: dict[int, _Spent], whole: int, peaks: Peaks) -> str:
    costly = sorted(spent, key=lambda ident: -spent[ident].own)[:_MOST_OPERATORS]
    rows = []
    for ident in costly:
        op = operators[ident]
        result = ", ".join(op.output_arg_names[:2])
        rows.append((f"{op.type}", f"{result} {op.site or ''}".strip(), spent[ident]))
    left = len(spent) - len(costly)
    note = f'<p class="note">The {left} cheapest are left out.</p>' if left else ""
    return _table(rows, whole, peaks, "Result, line of the program") + note


def _graphs(recorder: Recorder, spent: dict[int, _Spent], whole: int) -> list[str]:
    """The Programs that ran, as passes left them, coloured by cost."""
    parts = []
    for program in recorder.programs.values():
        count = sum(len(b.ops) for b in program.blocks)
        if not any(id(op) in spent for b in program.blocks for op in b.ops):
            continue
        parts.append("<h2>Program</h2>")
        if count > _LARGEST_GRAPH:
            parts.append(f'<p class="note">{count} operators are too many for a picture.</p>')
            continue
        heat = {}
        for ident, s in spent.items():
            part = share(s.own, whole)
            heat[ident] = Heat(part, f"{s.own / 1e6 / s.calls:.3g} ms x {s.calls}, {100 * part:.1f} %")
        parts.append(f'<div class="graph">{program_svg(program, parameters=False, heat=heat)}</div>')
    return parts


def _memory(points: list[tuple[int, int]], width: int = 1120, height: int = 200) -> str:
    """A line of bytes over time as SVG; of many points the highest in each of `width` steps stands."""
    if not points:
        return '<p class="note">No operator ran.</p>'
    end, highest = max(points[-1][0], 1), max(max(held for _, held in points), 1)
    left, top = 70, 12
    best: dict[int, int] = {}
    for at, held in points:
        column = int(at / end * (width - left - 10))
        best[column] = max(best.get(column, 0), held)
    floor = height - 24

    def y(held: float) -> float:
        return floor - (floor - top) * held / highest

    line = " ".join(f"{left + column},{y(held):.1f}" for column, held in sorted(best.items()))
    first, last = left + min(best), left + max(best)
    marks = "".join(
        f'<line x1="{left}" x2="{width - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e1e5ea"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end" font-size="11" fill="#52606d">{_big(v)}B</text>'
        for v in (0, highest / 2, highest)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{marks}'
        f'<polygon points="{first},{floor} {line} {last},{floor}" fill="#c6dbef"/>'
        f'<polyline points="{line}" fill="none" stroke="#2c7fb8" stroke-width="1.5"/>'
        f'<text x="{left}" y="{height - 6}" font-size="11" fill="#52606d">0 ms</text>'
        f'<text x="{width - 10}" y="{height - 6}" text-anchor="end" font-size="11" fill="#52606d">{end / 1e6:.4g} ms</text>'
        "</svg>"
    )


def _big(value: float) -> str:
    """Three digits and a prefix: 1.23 G."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} P"
