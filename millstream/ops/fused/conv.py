"""conv2d over weights that are prepared once, with bias, sum and activation in its own loop. Passes make it.

oneDNN's reordered weights, or for 3x3 filters of stride 1 combinations of them (ops/nn/_conv_winograd.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from millstream.errors import AttributeTypeError
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops.nn import _conv_winograd
from millstream.ops.nn.conv import _conv2d, infer_conv

# activation -> (oneDNN's name, whether it may follow a sum); relu6 and leaky_relu have a number
ACTIVATIONS = {"": ("none", True), "relu": ("relu", True), "relu6": ("hardtanh", False), "leaky_relu": ("leaky_relu", False)}


@cache
def _onednn() -> tuple[Any, Any, Any, Any] | None:
    """oneDNN's reorder, convolution, the same with a sum, and into the summand; None where torch has none that compute."""
    found = torch.ops.mkldnn
    try:
        x, w = torch.ones(1, 2, 3, 3).contiguous(memory_format=torch.channels_last), torch.ones(2, 2, 1, 1)
        packed = found._reorder_convolution_weight(w, [0, 0], [1, 1], [1, 1], 1, [1, 2, 3, 3])
        alone, summed = found._convolution_pointwise, found._convolution_pointwise.binary
        into = found._convolution_pointwise_.binary
        one = alone(x, packed, None, [0, 0], [1, 1], [1, 1], 1, "relu", [], "")
        two = summed(x, x, packed, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, "relu", [], "")
        three = into(x.clone(), x, packed, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, "relu", [], "")
        right = bool((one == 2).all()) and bool((two == 3).all()) and bool((three == 3).all())
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
    return (found._reorder_convolution_weight, alone, summed, into) if right else None


def _spec(x, w, bias, residual, *, activation, number, reuse, **attrs):
    if activation not in ACTIVATIONS or (residual is not None and not ACTIVATIONS[activation][1]):
        raise AttributeTypeError(f"activation {activation!r} is not known, or can't follow ResidualData")
    return infer_conv(x, w, padding_algorithm="EXPLICIT", data_format="NCHW", **attrs)


def _takes(x, w, bias, residual, strides, paddings, dilations, groups) -> bool:
    """Whether oneDNN can compute it. Its bridge checks nothing and would end the process; conv2d says what is wrong."""
    plain = x.dtype is w.dtype is torch.float32 and x.is_cpu and x.dim() == w.dim() == 4
    if not plain or torch.is_autocast_enabled("cpu"):
        return False
    if min(*strides, *dilations, groups) < 1 or min(paddings) < 0 or len(strides) + len(dilations) + len(paddings) != 6:
        return False
    n, c, *sizes = x.shape
    out, per, *window = w.shape
    if c != per * groups or out % groups or not w.numel() or (bias is not None and bias.numel() != out):
        return False
    result = [(a + 2 * p - d * (k - 1) - 1) // s + 1 for a, p, d, k, s in zip(sizes, paddings, dilations, window, strides)]
    if min(n, *result) < 1:
        return False
    return residual is None or (residual.dtype is torch.float32 and tuple(residual.shape) == (n, out, *result))


def _after(bias, residual, activation: str, number: float) -> _conv_winograd.After | None:
    slope = {"": 1.0, "relu": 0.0, "relu6": 0.0, "leaky_relu": number}[activation]
    if not 0 <= slope <= 1:
        return None
    return _conv_winograd.After(bias, residual, slope, number if activation == "relu6" else float("inf"))


@op("packed_conv2d", slots="Input, Filter, Bias?, ResidualData? -> Output", infer=_spec, lod="Input", grad=False,
    flops=_flops.convolution)  # fmt: skip
def packed_conv2d(
    x, w, bias, residual, *, strides: list[int], paddings: list[int], dilations: list[int], groups: int = 1,
    activation: str = "", number: float = 0.0, reuse: bool = False, state,
):
    """activation(conv2d(Input, Filter) + Bias + ResidualData), NCHW shapes in channels-last memory.

    Filter does not change while the operator lives: it is prepared at the first call. `number`: relu6's threshold,
    leaky_relu's alpha. `reuse`: the result may take ResidualData's memory, which nobody reads later. What oneDNN does not
    take goes to conv2d.
    """
    form = (paddings, strides, dilations, groups)
    follows = _after(bias, residual, activation, number)
    if follows and (out := _conv_winograd.packed(state, x, w, follows, *form, reuse=reuse)) is not None:
        return out
    onednn = _onednn()
    if onednn is None or not _takes(x, w, bias, residual, strides, paddings, dilations, groups):
        return _conv2d(
            x, w, bias, residual, strides=strides, paddings=paddings, dilations=dilations, groups=groups,
            fuse_activation=activation, fuse_alpha=number, fuse_residual_connection=residual is not None, use_mkldnn=True,
        )
    reorder, alone, summed, into = onednn
    x = x.contiguous(memory_format=torch.channels_last)
    held = state.get("weight")
    if held is None or held[0] is not w:
        held = state["weight"] = (w, reorder(w, paddings, strides, dilations, groups, list(x.shape)))
    bias = None if bias is None else bias.reshape(-1)
    name = ACTIVATIONS[activation][0]
    if residual is None:
        numbers = [0.0, number] if activation == "relu6" else [number] if activation == "leaky_relu" else []
        return alone(x, held[1], bias, paddings, strides, dilations, groups, name, numbers, "")
    residual = residual.contiguous(memory_format=torch.channels_last)
    after = name if activation else None
    if reuse:
        return into(residual, x, held[1], bias, paddings, strides, dilations, groups, "add", 1.0, after, [], "")
    return summed(x, residual, held[1], bias, paddings, strides, dilations, groups, "add", 1.0, after, [], "")
