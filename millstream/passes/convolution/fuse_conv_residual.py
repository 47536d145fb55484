"""conv2d (with its bias) + elementwise_add of another value of the same shape -> conv2d with ResidualData."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import node, value
from millstream.passes._rule import Match, Rule
from millstream.passes.convolution.fold_conv_bn import plain_conv
from millstream.passes.convolution.fuse_conv_bias import BIASED, FUSED, not_for_fluid

_conv = node(BIASED, "conv", out="Output", Input=value("x"), Filter=value("filter"))
_add = node("elementwise_add", "add", X=_conv, Y=value("other"))


def _why_not(found: Match) -> str | None:
    conv, other = found["conv"], found.names["other"]
    why = not_for_fluid(found) or plain_conv(conv)
    if why is not None:
        return why
    shape, added = found.shape(conv.output("Output")[0]), found.shape(other)
    if shape is None or shape != added:
        return f"what is added has shape {list(added or ())}, not that of the result, {list(shape or ())}"
    if sum(d < 0 for d in shape) > 1:
        return f"the shapes {list(shape)} could still differ"
    readers, last = found.uses.readers[other], found.positions[-1]
    if found.work.fluid and (found.uses.seen_outside(other) or any(r > last for r in readers)):
        return f"PaddlePaddle adds in place, and {other!r} is read later"
    var = found.var(other)
    return "what is added is a parameter" if var is not None and var.persistable else None


def _build(found: Match) -> Operator:
    conv, add = found["conv"], found["add"]
    inputs = {**conv.inputs, "ResidualData": [found.names["other"]]}
    attrs = {**conv.attrs, **FUSED, "fuse_residual_connection": True}
    return found.make("conv2d", inputs, {"Output": add.output("Out")}, **attrs)


register("fuse_conv_residual", Rule("fuse_conv_residual", _add, _why_not, _build))
