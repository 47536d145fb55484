"""sequence_conv + elementwise_add of a bias + relu -> fusion_seqconv_eltadd_relu."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule

_conv = node("sequence_conv", "conv", X=value("x"), Filter=constant("filter"))
_relu = node("relu", "relu", X=node("elementwise_add", "add", X=_conv, Y=constant("bias")))


def _why_not(found: Match) -> str | None:
    conv, add = found["conv"], found["add"]
    if conv.attr("paddingTrainable"):
        return "the padding is a parameter"
    bias, weight = found.shape(found.names["bias"]), found.shape(found.names["filter"])
    if bias is None or weight is None or len(weight) != 2 or bias not in ((weight[1],), (1, weight[1])):
        return f"what is added has shape {list(bias or ())}, not that of a bias"
    return None if add.attr("axis") in (-1, 1, 2 - len(bias)) else f"the bias stands at axis {add.attr('axis')}"


def _build(found: Match) -> Operator:
    conv = found["conv"]
    inputs = {"X": conv.input("X"), "Filter": conv.input("Filter"), "Bias": [found.names["bias"]]}
    out = found["relu"].output("Out")
    columns = found.work.declare(found.block, out[0])
    attrs = {k: conv.attr(k) for k in ("contextLength", "contextStart", "contextStride")}
    return found.make("fusion_seqconv_eltadd_relu", inputs, {"Out": out, "ColMat": [columns]}, **attrs)


register("fuse_seqconv_relu", Rule("fuse_seqconv_relu", _relu, _why_not, _build))
