"""What passes did to a Program, as one HTML page (no network, no scripts from elsewhere) and as text."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from html import escape
from textwrap import wrap
from typing import NamedTuple

from millstream.ir import walk
from millstream.ir.draw import program_svg
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType, dtype_name
from millstream.ir.variable import Variable
from millstream.ops._values import TORCH_DTYPE
from millstream.passes._work import Work

_PLUMBING = ("feed", "fetch")
_NO_DATA = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER, VarType.RAW})


class Parameter(NamedTuple):
    """A stored variable: `state` is "kept", "gone" or "new"."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    state: str


class Report:
    """The differences between a Program and what passes made of it.

    Args:
        before: the Program as it was.
        work: what `passes.optimize` returned for it.
    """

    def __init__(self, before: Program, work: Work) -> None:
        self.before, self.work, self.after = before, work, work.program
        self.marks = _marks(before, self.after)
        old, new = _stored(before), _stored(self.after)
        states = {n: "kept" if n in old and n in new else "gone" if n in old else "new" for n in {**old, **new}}
        rows = [Parameter(n, v.shape, dtype_name(v.dtype), _bytes(v), states[n]) for n, v in {**old, **new}.items()]
        self.parameters = sorted(rows, key=lambda row: (-row.size, row.name))

    @property
    def operators(self) -> list[tuple[str, int, int]]:
        """(type, number before, number after), the most frequent first; feed and fetch are left out."""
        counts = [Counter(op.type for op in walk.all_ops(p) if op.type not in _PLUMBING) for p in (self.before, self.after)]
        types = counts[0] | counts[1]
        return [(t, counts[0][t], counts[1][t]) for t in sorted(types, key=lambda t: (-types[t], t))]

    @property
    def passes(self) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """(pass, changes, [(why it refused, how often)]) in the order of the first run."""
        found: dict[str, int] = {}
        for name, count in self.work.done:
            found[name] = found.get(name, 0) + count
        reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for name, op, why in self.work.refused:
            reasons[name][f"{op.type}: {why}"] += 1
        return [(name, count, reasons[name].most_common()) for name, count in found.items()]

    @property
    def idle(self) -> list[str]:
        """Passes that changed nothing and refused nothing."""
        return [name for name, count, refusals in self.passes if not count and not refusals]

    def totals(self) -> dict[str, tuple[int, int]]:
        """Operators and bytes of parameters, before and after."""
        sizes = [sum(p.size for p in self.parameters if p.state in states) for states in (("kept", "gone"), ("kept", "new"))]
        rows = self.operators
        return {"operators": (sum(r[1] for r in rows), sum(r[2] for r in rows)), "parameter bytes": (sizes[0], sizes[1])}

    # ---- text --------------------------------------------------------------------------------------
    def text(self) -> str:
        """A summary for a terminal."""
        totals = self.totals()
        lines = [f"{what}: {_number(what, a)} -> {_number(what, b)}" for what, (a, b) in totals.items()]
        lines += ["", f"{'operator':<32}{'before':>8}{'after':>8}"]
        lines += [f"{name:<32}{a:>8}{b:>8}" for name, a, b in self.operators]
        lines += ["", f"{'pass':<32}{'changes':>8}  refused"]
        for name, count, refusals in self.passes:
            if count or refusals:
                first = f"{sum(n for _, n in refusals)} ({refusals[0][0]})" if refusals else ""
                lines.append(f"{name:<32}{count:>8}  {first}".rstrip())
        if self.idle:
            lines += ["", *wrap(f"nothing to do for {', '.join(self.idle)}", 100, subsequent_indent="    ")]
        return "\n".join(lines)

    # ---- HTML ----------------------------------------------------------------------------------------
    def html(self, title: str) -> str:
        """The page: totals, passes, operators, parameters, and both graphs with the differences in colour."""
        totals = "".join(
            f"<div class='card'><b>{escape(what)}</b><span>{_number(what, a)} → {_number(what, b)}</span></div>"
            for what, (a, b) in self.totals().items()
        )
        graphs = "".join(
            f"<section class='graph'><h2>{name}</h2><div class='view'>{graph}</div></section>"
            for name, graph in (
                ("Before", program_svg(self.before, self.marks, parameters=False)),
                ("After", program_svg(self.after, self.marks, parameters=False)),
            )
        )
        return _PAGE.format(
            title=escape(title), totals=totals, passes=self._passes_html(), operators=self._operators_html(),
            parameters=self._parameters_html(), graphs=graphs,
        )  # fmt: skip

    def _passes_html(self) -> str:
        rows = []
        for name, count, refusals in self.passes:
            if not count and not refusals:
                continue
            details = ""
            if refusals:
                listed = "".join(f"<li>{escape(why)}{f' ({n} times)' if n > 1 else ''}</li>" for why, n in refusals)
                total = sum(n for _, n in refusals)
                details = f"<details><summary>{total}</summary><ul>{listed}</ul></details>"
            style = " class='fired'" if count else ""
            rows.append(f"<tr{style}><td>{escape(name)}</td><td class='n'>{count}</td><td>{details}</td></tr>")
        if self.idle:
            rows.append(f"<tr><td colspan='3'>nothing to do: {escape(', '.join(self.idle))}</td></tr>")
        return "".join(rows)

    def _operators_html(self) -> str:
        rows = []
        for name, a, b in self.operators:
            style = "less" if b < a else "more" if b > a else ""
            rows.append(f"<tr class='{style}'><td>{escape(name)}</td><td class='n'>{a}</td><td class='n'>{b}</td></tr>")
        return "".join(rows)

    def _parameters_html(self) -> str:
        return "".join(
            f"<tr class='{p.state}'><td>{escape(p.name)}</td><td>{p.dtype}{list(p.shape)}</td>"
            f"<td class='n'>{_number('bytes', p.size)}</td><td>{p.state}</td></tr>"
            for p in self.parameters
        )


def _stored(program: Program) -> dict[str, Variable]:
    return {v.name: v for v in program.list_vars() if v.persistable and v.type not in _NO_DATA}


def _bytes(var: Variable) -> int:
    width = TORCH_DTYPE[var.dtype].itemsize if var.dtype in TORCH_DTYPE else 4
    return abs(math.prod(var.shape)) * width if var.has_shape else 0


def _number(what: str, value: int) -> str:
    if "bytes" not in what:
        return f"{value:,}"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value} B"


def _marks(before: Program, after: Program) -> dict[int, str]:
    """``id()`` of operators that are on one side only ("gone", "new"), or read or do something else there ("changed")."""

    def key(op: Operator) -> tuple[object, ...]:
        return op.type, tuple(sorted((s, tuple(n)) for s, n in op.outputs.items() if n))

    def rest(op: Operator) -> tuple[object, ...]:
        attrs = sorted((k, repr(v)) for k, v in op.all_attrs().items() if not k.startswith("op_") and not op.sub_blocks())
        return tuple(sorted((s, tuple(n)) for s, n in op.inputs.items() if n)), tuple(attrs)

    sides = [{key(op): op for op in walk.all_ops(p)} for p in (before, after)]
    found: dict[int, str] = {}
    for program, others, word in ((before, sides[1], "gone"), (after, sides[0], "new")):
        for op in walk.all_ops(program):
            twin = others.get(key(op))
            if op.type in _PLUMBING:
                continue
            if twin is None:
                found[id(op)] = word
            elif rest(twin) != rest(op):
                found[id(op)] = "changed"
    return found


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.4 Helvetica, Arial, sans-serif; color: #1f2933; margin: 0; padding: 16px 20px; background: #f5f7fa; }}
h1 {{ font-size: 20px; margin: 0 0 12px; }} h2 {{ font-size: 15px; margin: 0 0 8px; }}
.cards, .tables, .graphs {{ display: flex; gap: 14px; align-items: flex-start; margin-bottom: 16px; flex-wrap: wrap; }}
.card, .box, .graph {{ background: #fff; border: 1px solid #cbd2d9; border-radius: 6px; padding: 10px 14px; }}
.card span {{ display: block; font-size: 18px; }}
.box {{ max-height: 330px; overflow: auto; flex: 1 1 300px; }}
.graphs {{ flex-wrap: nowrap; }} .graph {{ flex: 1 1 50%; min-width: 0; }}
.view {{ overflow: auto; max-height: 90vh; }} .view svg {{ max-width: 100%; height: auto; }}
#full:checked ~ .graphs .view svg {{ max-width: none; }}
table {{ border-collapse: collapse; width: 100%; font-size: 12px; }}
td, th {{ text-align: left; padding: 2px 8px 2px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }}
.n {{ text-align: right; }} .fired td:first-child {{ font-weight: bold; }}
tr {{ color: #52606d; }} tr.fired {{ color: #1f2933; }}
.less td, .gone td {{ color: #b3261e; }} .more td, .new td {{ color: #1e7d34; }}
.key i {{ display: inline-block; width: 14px; height: 14px; border: 2px solid; border-radius: 3px;
 margin: 0 4px -3px 12px; }}
ul {{ margin: 2px 0; padding-left: 18px; }}
</style></head><body>
<h1>{title}</h1>
<div class="cards">{totals}
<div class="card key"><b>In the graphs</b><span style="font-size:13px">
<i style="background:#f8c9c4;border-color:#b3261e"></i>gone
<i style="background:#bfe8c6;border-color:#1e7d34"></i>new
<i style="background:#fdf0b5;border-color:#a67c00"></i>other inputs or attributes</span></div></div>
<div class="tables">
<div class="box"><h2>Passes</h2><table><tr><th>pass</th><th class="n">changes</th><th>refused</th></tr>{passes}</table></div>
<div class="box"><h2>Operators</h2><table><tr><th>type</th><th class="n">before</th><th class="n">after</th></tr>
{operators}</table></div>
<div class="box"><h2>Parameters</h2><table><tr><th>name</th><th>value</th><th class="n">size</th><th></th></tr>
{parameters}</table></div></div>
<input type="checkbox" id="full"><label for="full">
graphs in full size (parameters stand in the operators' hover texts)</label>
<div class="graphs">{graphs}</div>
</body></html>
"""
