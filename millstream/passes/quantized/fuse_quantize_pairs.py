"""quantize_linear and dequantize_linear by the same one scale -> quantize_dequantize_linear. Without gradients."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import node
from millstream.passes._rule import Match, Rule

_pair = node("dequantize_linear", "back", out="Y", X=node("quantize_linear", "there", out="Y", shared=True))


def _why_not(found: Match) -> str | None:
    there, back = found["there"], found["back"]
    one, two = ([op.input(slot)[:1] for slot in ("Scale", "ZeroPoint")] for op in (there, back))
    for a, b in zip(one, two):
        same = a == b or (a and b and _equal(found, a[0], b[0]))
        if not same:
            return "the two have other scales or zero points"
    return None if found.shape(there.input("Scale")[0]) in ((1,), ()) else "there is a scale for each channel"


def _equal(found: Match, a: str, b: str) -> bool:
    x, y = found.work.value(a), found.work.value(b)
    return x is not None and y is not None and x.dtype == y.dtype and x.shape == y.shape and bool((x == y).all())


def _build(found: Match) -> Operator:
    there = found["there"]
    inputs = {slot: there.input(slot) for slot in ("X", "Scale", "ZeroPoint")}
    return found.make("quantize_dequantize_linear", inputs, {"Y": found["back"].output("Y")}, dtype=there.attr("dtype"))


register("fuse_quantize_pairs", Rule("fuse_quantize_pairs", _pair, _why_not, _build))
