"""elementwise_add of two values of one shape + layer_norm -> fused_add_layer_norm."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import node, value
from millstream.passes._rule import Match, Rule

_norm = node("layer_norm", "norm", out="Y", X=node("elementwise_add", "add", X=value("x"), Y=value("y")))


def _why_not(found: Match) -> str | None:
    norm = found["norm"]
    if not found.unused(norm, "Mean", "Variance"):
        return "the statistics of layer_norm are read"
    x, y = found.shape(found.names["x"]), found.shape(found.names["y"])
    if x is None or x != y or sum(d < 0 for d in x) > 1:
        return f"the two that are added have shapes {list(x or ())} and {list(y or ())}, which may differ"
    return None


def _build(found: Match) -> Operator:
    norm = found["norm"]
    inputs = {"X": [found.names["x"]], "Y": [found.names["y"]], "Scale": norm.input("Scale"), "Bias": norm.input("Bias")}
    attrs = {k: norm.attr(k) for k in ("epsilon", "begin_norm_axis")}
    return found.make("fused_add_layer_norm", inputs, {"Out": norm.output("Y")}, **attrs)


register("fuse_add_layer_norm", Rule("fuse_add_layer_norm", _norm, _why_not, _build))
