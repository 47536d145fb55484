"""mul + elementwise_add of a bias -> fc: the sum happens in the product's registers. Without gradients."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._rule import Match, Rule


def _why_not(found: Match) -> str | None:
    mul, add = found.ops
    x, w = found.var(mul.input("X")[0]), found.var(mul.input("Y")[0])
    bias = found.var(add.input("Y")[0])
    if x is None or w is None or bias is None or not (x.has_shape and w.has_shape and bias.has_shape):
        return "a shape is not known"
    rows = mul.attr("x_num_col_dims")
    if len(w.shape) != 2 or mul.attr("y_num_col_dims") != 1:
        return f"Y of mul has {len(w.shape)} dims, not 2"
    if not w.has_dtype or w.dtype.name not in ("FP32", "FP64"):
        return "the weight is not float32 or float64"
    if len(bias.shape) != 1 or bias.shape[0] != w.shape[1] or add.attr("axis") not in (-1, rows):
        return f"what is added has shape {list(bias.shape)}, not that of a bias over {w.shape[1]} columns"
    return None


def _build(found: Match) -> Operator:
    mul, add = found.ops
    inputs = {"Input": mul.input("X"), "W": mul.input("Y"), "Bias": add.input("Y")}
    return found.make("fc", inputs, {"Out": add.output("Out")}, in_num_col_dims=mul.attr("x_num_col_dims"))


register("fuse_fc", Rule("fuse_fc", "mul Out:X elementwise_add", _why_not, _build))
