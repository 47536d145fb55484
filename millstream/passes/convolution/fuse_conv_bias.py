"""conv2d + elementwise_add of a bias -> conv2d with Bias."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule
from millstream.passes.convolution.fold_conv_bn import bias_of_channels, plain_conv

BIASED = "conv2d|depthwise_conv2d"
# Of PaddlePaddle's kernels on a CPU only oneDNN's conv2d looks at Bias, ResidualData and the fuse_* attributes.
FUSED = {"use_mkldnn": True}

_conv = node(BIASED, "conv", out="Output", Input=value("x"), Filter=value("filter"))
_add = node("elementwise_add", "add", X=_conv, Y=constant("bias"))


def not_for_fluid(found: Match) -> str | None:
    """Why PaddlePaddle could not run the fused convolution, or None; None too when it need not."""
    dilated = any(d != 1 for d in found["conv"].attr("dilations"))
    return "oneDNN's convolution in PaddlePaddle has no dilation" if dilated and found.work.fluid else None


def _why_not(found: Match) -> str | None:
    conv, add = found["conv"], found["add"]
    if conv.input("Bias"):
        return "the convolution has a bias already"
    return not_for_fluid(found) or plain_conv(conv) or bias_of_channels(found, add, conv, found.names["bias"])


def _build(found: Match) -> Operator:
    conv, add = found["conv"], found["add"]
    inputs = {"Input": conv.input("Input"), "Filter": conv.input("Filter"), "Bias": [found.names["bias"]]}
    return found.make("conv2d", inputs, {"Output": add.output("Out")}, **{**conv.attrs, **FUSED})


register("fuse_conv_bias", Rule("fuse_conv_bias", _add, _why_not, _build))
