"""matmul with a stored matrix [+ elementwise_add of a bias] -> fc: one product over all rows. Without gradients."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule

_matmul = node("matmul", "matmul", X=value("x"), Y=constant("weight"))
_add = node("elementwise_add", "add", X=_matmul, Y=constant("bias"))


def _why_not(found: Match) -> str | None:
    matmul, add = found["matmul"], found["add"]
    x, w, bias = (found.shape(found.names[n]) for n in ("x", "weight", "bias"))
    if x is None or w is None or len(x) < 2 or len(w) != 2:
        return "the product is not one of rows with a matrix"
    if matmul.attr("transpose_X") or matmul.attr("alpha") != 1.0:
        return "X is transposed, or the product is scaled"
    if matmul.attr("transpose_Y") and found.work.value(found.names["weight"]) is None:
        return "the weight is transposed and its value is not known"
    columns = w[0] if matmul.attr("transpose_Y") else w[1]
    if add.input("Y") != [found.names["bias"]] or bias != (columns,) or add.attr("axis") not in (-1, len(x) - 1):
        return f"what is added has shape {list(bias or ())}, not that of a bias over {columns} columns"
    return None


def _build(found: Match) -> Operator:
    matmul, name = found["matmul"], found.names["weight"]
    if matmul.attr("transpose_Y"):
        weight = found.work.value(name)
        assert weight is not None  # _why_not looked
        name = found.work.store(name, weight.t())
    inputs = {"Input": [found.names["x"]], "W": [name], "Bias": [found.names["bias"]]}
    rows = len(found.shape(found.names["x"]) or ()) - 1
    return found.make("fc", inputs, {"Out": found["add"].output("Out")}, in_num_col_dims=rows)


register("fuse_matmul_fc", Rule("fuse_matmul_fc", _add, _why_not, _build))
