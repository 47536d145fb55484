"""Convolution + a bias of integers -> convolution with Bias, which engines take as one convolution of integers."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import node, value
from millstream.passes._rule import Match, Rule
from millstream.passes.convolution.fold_conv_bn import bias_of_channels, plain_conv
from millstream.passes.convolution.fuse_conv_bias import BIASED, FUSED

_conv = node(BIASED, "conv", out="Output", Input=value("x"), Filter=value("filter"))
_add = node("elementwise_add", "add", X=_conv, Y=value("bias"))


def _why_not(found: Match) -> str | None:
    conv, add, bias = found["conv"], found["add"], found.names["bias"]
    at = found.uses.producer(bias, found.positions[-1])
    if at is None or found.uses.ops[at].type != "dequantize_linear":
        return "the bias is not one of integers"
    if conv.input("Bias"):
        return "the convolution has a bias already"
    return plain_conv(conv) or bias_of_channels(found, add, conv, bias)


def _build(found: Match) -> Operator:
    conv, add = found["conv"], found["add"]
    inputs = {"Input": conv.input("Input"), "Filter": conv.input("Filter"), "Bias": [found.names["bias"]]}
    return found.make(conv.type, inputs, {"Output": add.output("Out")}, **{**conv.attrs, **FUSED})


register("fuse_quantized_bias", Rule("fuse_quantized_bias", _add, _why_not, _build))
