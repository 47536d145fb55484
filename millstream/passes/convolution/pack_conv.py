"""conv2d over stored weights (with what was fused into it) -> packed_conv2d, which reorders the weights once."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.ops.fused.conv import ACTIVATIONS
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule

_conv = node("conv2d|depthwise_conv2d", "conv", out="Output", Input=value("x"), Filter=constant("filter"))


def _activation(conv: Operator) -> str:
    if not conv.attr("use_mkldnn"):
        return ""
    return conv.attr("fuse_activation") or ("relu" if conv.attr("fuse_relu") else "")


def _why_not(found: Match) -> str | None:
    conv = found["conv"]
    if conv.input("Bias") and not conv.attr("use_mkldnn"):
        return "without use_mkldnn its Bias does not count"
    if found.work.value(found.names["filter"]) is None:
        return "the weights are not known, or may change"
    var = found.var(found.names["x"])
    if var is None or not var.has_dtype or var.dtype.name != "FP32" or conv.attr("data_format") not in ("NCHW", "AnyLayout"):
        return "it is not float32 in NCHW"
    if conv.attr("padding_algorithm") != "EXPLICIT" or len(conv.attr("paddings")) != 2 or conv.attr("fuse_brelu"):
        return "its padding or activation is another one than oneDNN's"
    kind = _activation(conv)
    if kind not in ACTIVATIONS or (conv.input("ResidualData") and not ACTIVATIONS[kind][1]):
        return f"its activation {kind!r} is not one that oneDNN computes here"
    return None


def _build(found: Match) -> Operator:
    conv = found["conv"]
    inputs = {slot: conv.input(slot) for slot in ("Input", "Filter", "Bias")}
    summed = conv.attr("fuse_residual_connection") and conv.attr("use_mkldnn")
    inputs["ResidualData"] = conv.input("ResidualData") if summed else []
    attrs = {name: conv.attr(name) for name in ("strides", "paddings", "dilations", "groups")}
    kind = _activation(conv)
    number = conv.attr("fuse_alpha") or (6.0 if kind == "relu6" else 0.0)
    return found.make("packed_conv2d", inputs, {"Output": conv.output("Output")}, activation=kind, number=number, **attrs)


register("pack_conv", Rule("pack_conv", _conv, _why_not, _build))
