"""conv2d (with bias and residual) + activation -> conv2d with its activation."""

from __future__ import annotations

from typing import Any

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import node, value
from millstream.passes._rule import Match, Rule
from millstream.passes.convolution.fuse_conv_bias import BIASED, FUSED, not_for_fluid

_conv = node(BIASED, "conv", out="Output", Input=value("x"), Filter=value("filter"))
_act = node("relu|relu6|leaky_relu|swish|sigmoid|tanh", "act", X=_conv)


def _settings(act: Operator) -> dict[str, Any] | None:
    """The attributes of conv2d that stand for an activation."""
    if act.type == "relu":
        return {"fuse_relu": True, "fuse_activation": "relu"}
    if act.type == "relu6":
        return {"fuse_activation": "relu6", "fuse_alpha": act.attr("threshold")}
    if act.type == "leaky_relu":
        return {"fuse_activation": "leaky_relu", "fuse_alpha": act.attr("alpha")}
    if act.type == "swish":
        beta = act.attr("beta")
        return {"fuse_activation": "swish", "fuse_alpha": beta} if beta else None
    return {"fuse_activation": act.type}


def _why_not(found: Match) -> str | None:
    conv, act = found["conv"], found["act"]
    for name in ("fuse_relu", "fuse_brelu", "fuse_activation"):
        if conv.attrs.get(name):
            return "the convolution has an activation already"
    if act.type == "relu6" and act.attr("threshold") <= 0:
        return f"relu6 has threshold {act.attr('threshold')}"
    if found.work.fluid and act.type in ("sigmoid", "tanh"):
        return f"oneDNN's convolution in PaddlePaddle has no {act.type}"
    return not_for_fluid(found) if _settings(act) else f"{act.type} has a setting that conv2d does not know"


def _build(found: Match) -> Operator:
    conv, act = found["conv"], found["act"]
    attrs = {**conv.attrs, **FUSED, **(_settings(act) or {})}
    return found.make("conv2d", dict(conv.inputs), {"Output": act.output("Out")}, **attrs)


register("fuse_conv_activation", Rule("fuse_conv_activation", _act, _why_not, _build))
