"""Convolution + [bias] + batch_norm in test form (or affine_channel) -> convolution with other weights + bias."""

from __future__ import annotations

import torch

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import Node, constant, maybe, node, value
from millstream.passes._rule import Match, Rule
from millstream.passes._work import keeps_statistics

PLAIN = "conv2d|depthwise_conv2d|conv3d"
TRANSPOSED = "conv2d_transpose|depthwise_conv2d_transpose|conv3d_transpose"

_conv = node(f"{PLAIN}|{TRANSPOSED}", "conv", out="Output", Input=value("x"), Filter=constant("filter"))
_biased = maybe("elementwise_add", "add", _conv, Y=constant("bias"))
_scale, _shift = constant("scale"), constant("shift")
_statistics = {"Mean": constant("mean"), "Variance": constant("variance")}
_norm = Node(("batch_norm", "sync_batch_norm"), "norm", "Y", {"X": _biased, "Scale": _scale, "Bias": _shift, **_statistics})
_affine = node("affine_channel", "norm", X=_biased, Scale=_scale, Bias=_shift)


def channel_axis(conv: Operator) -> int:
    """The dimension of the channels in a convolution's output; -1 is the last."""
    layout = conv.attr("data_format") if conv.has_attr("data_format") else "NCHW"
    return -1 if layout in ("NHWC", "NDHWC") else 1


def plain_conv(conv: Operator) -> str | None:
    """Why a convolution's output is not just that of its weights, or None."""
    for name in ("fuse_relu", "fuse_brelu", "fuse_residual_connection", "fuse_activation"):
        if conv.attrs.get(name):
            return f"the convolution has {name} already"
    return "the convolution has ResidualData" if conv.input("ResidualData") else None


def bias_of_channels(found: Match, add: Operator, conv: Operator, bias: str) -> str | None:
    """Why `add` does not add one number for each channel of the convolution, or None."""
    shape, out = found.shape(bias), found.shape(conv.output("Output")[0])
    if shape is None or out is None:
        return "a shape is not known"
    axis = add.attr("axis")
    at = axis if axis >= 0 else len(out) - len(shape)
    where = channel_axis(conv) % len(out)
    channels = out[where]
    if add.input("Y") != [bias] or len(shape) != 1 or at != where or shape[0] != channels:
        return f"what is added has shape {list(shape)} at axis {axis}, not one number a channel ({channels})"
    return None


def _why_not(found: Match) -> str | None:
    conv, norm, add = found["conv"], found["norm"], found.get("add")
    why = plain_conv(conv)
    if why is None and add is not None:
        why = bias_of_channels(found, add, conv, found.names["bias"])
    if why is not None:
        return why
    if norm.type != "affine_channel" and not keeps_statistics(norm):
        return "the batch normalisation is not in test form"
    layout = norm.attr("data_layout")
    if (layout in ("NHWC", "NDHWC")) != (channel_axis(conv) == -1):
        return f"the normalisation has layout {layout}, the convolution another one"
    if not found.unused(norm, "SavedMean", "SavedVariance"):
        return "its saved statistics are read"
    for slot in ("Mean", "Variance"):
        for name in norm.output(slot + "Out"):
            if name not in norm.input(slot) and (found.uses.readers.get(name) or found.uses.seen_outside(name)):
                return f"{name!r} is read"
    missing = [n for leaf, n in found.names.items() if leaf != "x" and found.work.value(n) is None]
    missing += [n for n in conv.input("Bias") if found.work.value(n) is None]
    return f"the value of {missing[0]!r} is not known, or may change" if missing else None


def _build(found: Match) -> list[Operator]:
    work, conv, norm = found.work, found["conv"], found["norm"]

    def number(leaf: str) -> torch.Tensor:
        held = work.value(found.names[leaf])
        assert held is not None  # _why_not looked
        return held.reshape(-1).double()

    factor, shift = number("scale"), number("shift")
    if norm.type != "affine_channel":
        factor = factor / torch.sqrt(number("variance") + norm.attr("epsilon"))
        shift = shift - number("mean") * factor
    for held in (found.names.get("bias"), *conv.input("Bias")):
        if held is not None:
            before = work.value(held)
            assert before is not None
            shift = shift + before.reshape(-1).double() * factor
    name = found.names["filter"]
    weight = work.value(name)
    assert weight is not None
    folded = work.store(name, _scaled(weight, factor, conv).to(weight.dtype))
    bias = work.store(norm.input("Bias")[0], shift.to(weight.dtype))
    inputs = {"Input": conv.input("Input"), "Filter": [folded]}
    middle = conv.output("Output")
    out = norm.output("Y" if norm.type != "affine_channel" else "Out")
    attrs = {"axis": channel_axis(conv) % len(found.shape(middle[0]) or (0, 0, 0, 0))}
    return [
        found.make(conv.type, inputs, {"Output": middle}, **dict(conv.attrs)),
        found.make("elementwise_add", {"X": middle, "Y": [bias]}, {"Out": out}, **attrs),
    ]


def _scaled(weight: torch.Tensor, factor: torch.Tensor, conv: Operator) -> torch.Tensor:
    if conv.type in PLAIN.split("|"):
        return weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))
    groups = conv.attr("groups")  # a transposed filter is [in channels, out channels / groups, …]
    grouped = weight.double().reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return (grouped * factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))).reshape(weight.shape)


_after_norm = Rule("fold_conv_bn", _norm, _why_not, _build)
_after_affine = Rule("fold_conv_bn", _affine, _why_not, _build)
register("fold_conv_bn", lambda work: _after_norm(work) + _after_affine(work))
