"""Convolutions and transposed convolutions in two and three dimensions, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops import _flops
from millstream.ops._half import slow_half
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn import _conv_dilated, _conv_grouped, _conv_rows, _conv_winograd, _conv_winograd_pairs
from millstream.ops.nn._window import (
    CHANNELS_LAST,
    channels_back,
    channels_second,
    conv_size,
    join_layout,
    nearby_channels,
    pad_input,
    positive,
    resolve,
    split_layout,
    unpad,
)

_ZEROS: tuple[list[int], ...] = ([], [0], [0, 0], [0, 0, 0])
_convolution = torch.convolution
_backward = torch.ops.aten.convolution_backward.default
# What may be faster than these; the first that applies is taken.
_OUTPUTS = (
    _conv_winograd.forward, _conv_winograd_pairs.forward, _conv_dilated.forward, _conv_rows.by_planes, _conv_grouped.forward,
)  # fmt: skip
_INPUT_GRADIENTS = (
    _conv_winograd.backward_input, _conv_winograd_pairs.backward_input, _conv_dilated.backward_input,
    _conv_rows.by_planes_backward, _conv_grouped.backward_input, _conv_rows.depthwise_backward_input,
    _conv_rows.one_channel_backward_input,
)  # fmt: skip
_FILTER_GRADIENTS = (
    _conv_winograd.filter_gradient, _conv_winograd_pairs.filter_gradient, _conv_dilated.filter_gradient,
    _conv_rows.filter_gradient, _conv_grouped.filter_gradient, _conv_rows.depthwise_filter_gradient,
)  # fmt: skip


# ---- convolution ---------------------------------------------------------------------------------
def infer_conv(
    x: Spec, w: Spec, *_: Any, strides, paddings, dilations, groups, padding_algorithm, data_format, **__
) -> Spec:
    rank = len(x.shape) - 2
    if rank not in (2, 3) or len(w.shape) != rank + 2:
        raise ShapeError(
            "Input and Filter must both have 4 (2-D) or 5 (3-D) dimensions, "
            f"received Input {list(x.shape)} and Filter {list(w.shape)}"
        )
    positive("strides", strides, rank)
    positive("dilations", dilations, rank)
    n, c, sizes = split_layout(x, data_format)
    if groups <= 0 or (c >= 0 and c != w.shape[1] * groups):
        raise ShapeError(
            f"Input has {c} channels, but Filter {list(w.shape)} with groups {groups} takes {w.shape[1] * groups} "
            f"(Input {list(x.shape)} in layout {data_format})"
        )
    if w.shape[0] % groups:
        raise ShapeError(f"the number of filters {w.shape[0]} must be a multiple of groups {groups}")
    pairs, dilations = resolve(padding_algorithm, paddings, sizes, w.shape[2:], strides, dilations)
    out = [conv_size(*a) for a in zip(sizes, w.shape[2:], pairs, strides, dilations)]
    return Spec(join_layout(n, w.shape[0], out, data_format), x.dtype, x.lod_level)


def _activate(out: torch.Tensor, kind: str, alpha: float, beta: float) -> torch.Tensor:
    """The activation that an inference pass fused into a convolution."""
    if kind == "relu":
        return torch.relu_(out)
    if kind == "relu6" or kind == "bounded_relu":
        return out.clamp_(0, alpha or 6.0)
    if kind == "leaky_relu":
        return F.leaky_relu_(out, alpha)
    if kind == "swish":
        return out * torch.sigmoid(out * (alpha or 1.0))
    if kind in ("sigmoid", "tanh"):
        return getattr(torch, kind)(out)
    if kind in ("identity", "linear"):
        return out * alpha + beta if kind == "linear" else out
    raise AttributeTypeError(
        f"fuse_activation {kind!r} is not known; expected relu, relu6, leaky_relu, swish, sigmoid, tanh or linear"
    )


def conv_forward(x, w, bias, strides, paddings, dilations, groups, algorithm, layout):
    """Output of a convolution by whatever is fastest."""
    last = layout in CHANNELS_LAST
    if last:
        x = channels_second(x)
    rank = len(strides)
    if algorithm != "EXPLICIT" or len(paddings) != rank:
        pairs, dilations = resolve(algorithm, paddings, x.shape[2:], w.shape[2:], strides, dilations)
        if all(a == b for a, b in pairs):
            paddings = [a for a, _ in pairs]
        else:
            x, paddings = pad_input(x, pairs), _ZEROS[rank]
    half = x.dtype is torch.float16 and slow_half(x)
    if half:
        x, w, bias = x.float(), w.float(), None if bias is None else bias.float()
    if w.dtype is not x.dtype and torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)  # torch.convolution itself is not one of autocast's
        x, w, bias = x.to(kind), w.to(kind), None if bias is None else bias.to(kind)
    x = nearby_channels(x)
    form = (x, w, bias, strides, paddings, dilations, groups)
    if (out := _other_forward(*form)) is None:
        out = _convolution(x, w.to(x.dtype), *form[2:-1], False, _ZEROS[rank], groups)
    if half:
        out = out.half()
    return channels_back(out) if last else out


def _other_forward(x, w, bias, strides, paddings, dilations, groups):
    """Output where something is faster than torch's convolution, else None."""
    if _conv_rows.is_pointwise(x, w, strides, paddings, groups):
        return _conv_rows.pointwise(x, w, bias, strides)
    form = (strides, paddings, dilations, groups)
    if (out := _first(_OUTPUTS, (x, w, bias, *form))) is not None:
        return out
    return _conv_rows.depthwise(x, w, *form) if bias is None else None


def _first(functions, form):
    """What the first function that applies gives, or None."""
    return next((found for function in functions if (found := function(*form)) is not None), None)


def _other_backward(x, w, dout, want, strides, paddings, dilations, groups):
    """(dInput, dFilter, dBias) where something is faster than torch's convolution_backward, else None."""
    if _conv_rows.is_pointwise(x, w, strides, paddings, groups):
        return _conv_rows.pointwise_backward(x, w, dout, strides, want)
    form = (x, w, dout, strides, paddings, dilations, groups)
    dx = dw = None
    if want[0]:
        dx = _first(_INPUT_GRADIENTS, form)
    if want[1]:
        dw = _first(_FILTER_GRADIENTS, form)
    if dx is None and dw is None:
        return None
    rest, db = [want[0] and dx is None, want[1] and dw is None, want[2]], None
    if any(rest):
        sizes = [w.shape[0]] if want[2] else None
        parts = _backward(
            dout, x, w.to(x.dtype), sizes, strides, paddings, dilations, False, [0] * len(strides), groups, rest
        )
        dx, dw, db = (kept if kept is not None else part for kept, part in zip((dx, dw, None), parts))
    return dx, dw, db


def _slow_in_bfloat16(x, strides, groups):
    """Depthwise with a stride: gradients take 7 to 20 times as long in bfloat16 (64 channels of 8x112x112: 62 and 9 ms)."""
    return x.dtype is torch.bfloat16 and groups == x.shape[1] > 1 and max(strides) > 1 and x.is_cpu


def conv_backward(x, w, bias, dout, want, strides, paddings, dilations, groups, algorithm, layout):
    """(dInput, dFilter, dBias), None where `want` has False."""
    last = layout in CHANNELS_LAST
    if last:
        x, dout = channels_second(x), channels_second(dout)
    rank = len(strides)
    pairs = None
    if algorithm != "EXPLICIT" or len(paddings) != rank:
        pairs, dilations = resolve(algorithm, paddings, x.shape[2:], w.shape[2:], strides, dilations)
        if all(a == b for a, b in pairs):
            paddings, pairs = [a for a, _ in pairs], None
        else:
            x, paddings = pad_input(x, pairs), _ZEROS[rank]
    sizes = None if bias is None else [w.shape[0]]
    kind, single = x.dtype, slow_half(x) or _slow_in_bfloat16(x, strides, groups)
    if single:
        dout, x, w = dout.float(), x.float(), w.float()
    x = nearby_channels(x)
    found = _other_backward(x, w, dout, want, strides, paddings, dilations, groups)
    dx, dw, db = found or _backward(
        dout, x, w.to(x.dtype), sizes, strides, paddings, dilations, False, _ZEROS[rank], groups, want
    )
    if single:
        dx, dw, db = (None if t is None else t.to(kind) for t in (dx, dw, db))
    if dw is not None:
        dw = dw.contiguous()  # as the parameter is: updates go through both side by side
    if dx is not None:
        if pairs is not None:
            dx = unpad(dx, pairs)
        if last:
            dx = channels_back(dx)
    return dx, dw, (db.reshape(bias.shape) if db is not None else None)


def _conv2d(
    x,
    w,
    bias,
    residual,
    *,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    padding_algorithm: str = "EXPLICIT",
    groups: int = 1,
    dilations: list[int] = [1, 1],
    data_format: str = "NCHW",
    fuse_relu: bool = False,
    fuse_brelu: bool = False,
    fuse_brelu_threshold: float = 6.0,
    fuse_activation: str = "",
    fuse_alpha: float = 0.0,
    fuse_beta: float = 0.0,
    fuse_residual_connection: bool = False,
    use_mkldnn: bool = False,
):
    """Out[n, o] = sum over c of Input[n, c] ⋆ Filter[o, c]: cross-correlation with strides, paddings, dilations, groups.

    Input [N, C, H, W] (or NHWC by `data_format`), Filter [O, C/groups, kh, kw]; paddings are (h, w) or
    (top, bottom, left, right). Bias [O] and the fuse_* attributes come from inference passes, which set use_mkldnn:
    out + bias (+ ResidualData), then the activation. As in 1.8.5 nothing looks at them without use_mkldnn.
    """
    bias = bias.reshape(-1) if bias is not None and use_mkldnn else None
    out = conv_forward(x, w, bias, strides, paddings, dilations, groups, padding_algorithm, data_format)
    if not use_mkldnn:
        return out
    if residual is not None and fuse_residual_connection:
        out = out + residual
    if fuse_relu:
        return torch.relu(out)
    if fuse_brelu:
        return out.clamp(0, fuse_brelu_threshold)
    return _activate(out, fuse_activation, fuse_alpha, fuse_beta) if fuse_activation else out


def _conv2d_grad(
    x,
    w,
    bias,
    dout,
    *,
    want,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    padding_algorithm: str = "EXPLICIT",
    groups: int = 1,
    dilations: list[int] = [1, 1],
    data_format: str = "NCHW",
    use_mkldnn: bool = False,
):
    added = bias if use_mkldnn else None
    wanted = (*want[:2], want[2] and use_mkldnn)
    dx, dw, db = conv_backward(
        x, w, added, dout, wanted, strides, paddings, dilations, groups, padding_algorithm, data_format
    )
    return dx, dw, torch.zeros_like(bias) if want[2] and not use_mkldnn else db


_CONV2D = "Input, Filter, Bias?, ResidualData? -> Output"
_CONV2D_GRAD = "Input, Filter, Bias?, Output@GRAD -> Input@GRAD, Filter@GRAD, Bias@GRAD"
for _name in ("conv2d", "depthwise_conv2d"):
    _tag: dict[str, Any] = {"flops": _flops.convolution}
    # 1.8.5 lowers the first of them alone
    _tag["amp" if _name == "conv2d" else "amp_bfloat16"] = "white"
    op(_name, slots=_CONV2D, infer=infer_conv, lod="Input", nodiff="ResidualData", **_tag)(_conv2d)
    op(_name + "_grad", slots=_CONV2D_GRAD)(_conv2d_grad)


@op(
    "conv3d", slots="Input, Filter, ResidualData? -> Output", infer=infer_conv, lod="Input", nodiff="ResidualData",
    flops=_flops.convolution,
)  # fmt: skip
def conv3d(
    x,
    w,
    residual,
    *,
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    padding_algorithm: str = "EXPLICIT",
    groups: int = 1,
    dilations: list[int] = [1, 1, 1],
    data_format: str = "NCDHW",
    fuse_relu: bool = False,
    fuse_residual_connection: bool = False,
    use_mkldnn: bool = False,
):
    """conv2d with one more spatial dimension: Input [N, C, D, H, W] (or NDHWC), Filter [O, C/groups, kd, kh, kw]."""
    out = conv_forward(x, w, None, strides, paddings, dilations, groups, padding_algorithm, data_format)
    if not use_mkldnn:
        return out
    if residual is not None and fuse_residual_connection:
        out = out + residual
    return torch.relu(out) if fuse_relu else out


@op("conv3d_grad", slots="Input, Filter, ResidualData?, Output@GRAD -> Input@GRAD, Filter@GRAD")
def conv3d_grad(
    x,
    w,
    residual,
    dout,
    *,
    want,
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    padding_algorithm: str = "EXPLICIT",
    groups: int = 1,
    dilations: list[int] = [1, 1, 1],
    data_format: str = "NCDHW",
):
    want = (*want, False)
    return conv_backward(x, w, None, dout, want, strides, paddings, dilations, groups, padding_algorithm, data_format)[:2]


# ---- transposed convolution ------------------------------------------------------------------------
def _infer_transpose(
    x: Spec, w: Spec, *_: Any, strides, paddings, dilations, groups, padding_algorithm, data_format, output_size, **__
) -> Spec:
    rank = len(x.shape) - 2
    if rank not in (2, 3) or len(w.shape) != rank + 2:
        raise ShapeError(
            "Input and Filter must both have 4 (2-D) or 5 (3-D) dimensions, "
            f"received Input {list(x.shape)} and Filter {list(w.shape)}"
        )
    positive("strides", strides, rank)
    positive("dilations", dilations, rank)
    n, c, sizes = split_layout(x, data_format)
    if c >= 0 and c != w.shape[0]:
        raise ShapeError(f"Input has {c} channels, but Filter {list(w.shape)} takes {w.shape[0]} (layout {data_format})")
    if output_size and len(output_size) != rank:
        raise ShapeError(f"output_size must have {rank} numbers, received {output_size}")
    pairs, dilations = resolve(padding_algorithm, paddings, sizes, w.shape[2:], strides, dilations)
    out = []
    for i, (size, k, pair, s, d) in enumerate(zip(sizes, w.shape[2:], pairs, strides, dilations)):
        least = (size - 1) * s - pair[0] - pair[1] + d * (k - 1) + 1
        if output_size:
            if min(size, k) >= 0 and not least <= output_size[i] < least + s:
                raise ShapeError(f"output_size[{i}] must be in [{least}, {least + s}), received {output_size[i]}")
            out.append(output_size[i])
        else:
            out.append(least if size >= 0 else -1)
    return Spec(join_layout(n, w.shape[1] * groups, out, data_format), x.dtype)


def _transpose_plan(x, w, strides, paddings, dilations, algorithm, output_size):
    """(padding, output_padding, dilations, what is then cut off before and after; None: nothing)."""
    rank = len(strides)
    if not output_size and algorithm == "EXPLICIT" and len(paddings) == rank:
        return paddings, _ZEROS[rank], dilations, None
    pairs, dilations = resolve(algorithm, paddings, x.shape[2:], w.shape[2:], strides, dilations)
    both, extra, cuts = [], [], []
    for i in range(rank):
        before, after = pairs[i]
        if output_size:  # negative: the output reaches beyond the last value, into zeros
            full = (x.shape[2 + i] - 1) * strides[i] + dilations[i] * (w.shape[2 + i] - 1) + 1
            after = full - before - output_size[i]
        more = before - after
        if more < max(strides[i], dilations[i]):
            both.append(before)
            extra.append(max(more, 0))
            cuts.append((0, max(-more, 0)))
        else:
            both.append(max(after, 0))
            extra.append(0)
            cuts.append((before - both[i], after - both[i]))
    return both, extra, dilations, cuts if any(a or b for a, b in cuts) else None


def _cut(out: torch.Tensor, cuts: Any, sign: int = -1) -> torch.Tensor:
    """`out` without what `cuts` names at the two ends of each dimension (sign 1: with zeros there again)."""
    return out if cuts is None else F.pad(out, [sign * n for pair in reversed(cuts) for n in pair])


def _transpose_forward(x, w, bias, strides, paddings, dilations, groups, algorithm, layout, output_size):
    last = layout in CHANNELS_LAST
    if last:
        x = channels_second(x)
    pads, extra, dilations, cuts = _transpose_plan(x, w, strides, paddings, dilations, algorithm, output_size)
    x = nearby_channels(x)
    out = _cut(_convolution(x, w, None, strides, pads, dilations, True, extra, groups), cuts)
    if bias is not None:
        out = out + bias.reshape(-1, *[1] * len(strides))
    return channels_back(out) if last else out


def _transpose_backward(x, w, dout, want, strides, paddings, dilations, groups, algorithm, layout, output_size):
    last = layout in CHANNELS_LAST
    if last:
        x, dout = channels_second(x), channels_second(dout)
    pads, extra, dilations, cuts = _transpose_plan(x, w, strides, paddings, dilations, algorithm, output_size)
    dout = _cut(dout, cuts, 1)
    x = nearby_channels(x)
    dx, dw, _ = _backward(dout, x, w, None, strides, pads, dilations, True, extra, groups, (want[0], want[1], False))
    return (channels_back(dx) if last and dx is not None else dx), (None if dw is None else dw.contiguous())


def _conv2d_transpose(
    x,
    w,
    bias,
    *,
    output_size: list[int] = [],
    groups: int = 1,
    dilations: list[int] = [1, 1],
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
    fuse_relu: bool = False,
    fuse_activation: str = "",
    fuse_alpha: float = 0.0,
    fuse_beta: float = 0.0,
    use_mkldnn: bool = False,
):
    """The adjoint of conv2d with respect to its input: Input [N, C, H, W], Filter [C, O/groups, kh, kw].

    Out size is (in - 1) * stride - paddings + dilation * (k - 1) + 1, or `output_size`, which may exceed it by less
    than the stride. Bias and the fuse_* attributes as in conv2d.
    """
    bias = bias if use_mkldnn else None
    out = _transpose_forward(x, w, bias, strides, paddings, dilations, groups, padding_algorithm, data_format, output_size)
    if not use_mkldnn:
        return out
    if fuse_relu:
        return torch.relu(out)
    return _activate(out, fuse_activation, fuse_alpha, fuse_beta) if fuse_activation else out


def _conv2d_transpose_grad(
    x,
    w,
    bias,
    dout,
    *,
    want,
    output_size: list[int] = [],
    groups: int = 1,
    dilations: list[int] = [1, 1],
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
    use_mkldnn: bool = False,
):
    dx, dw = _transpose_backward(
        x, w, dout, want, strides, paddings, dilations, groups, padding_algorithm, data_format, output_size
    )
    db = None
    if want[2]:
        channel = dout.dim() - 1 if data_format in CHANNELS_LAST else 1
        used = dout if use_mkldnn else dout * 0
        db = used.sum([d for d in range(dout.dim()) if d != channel]).reshape(bias.shape)
    return dx, dw, db


for _name in ("conv2d_transpose", "depthwise_conv2d_transpose"):
    _declare = op(_name, slots="Input, Filter, Bias? -> Output", infer=_infer_transpose, flops=_flops.transposed_convolution)
    _declare(_conv2d_transpose)
    op(_name + "_grad", slots=_CONV2D_GRAD)(_conv2d_transpose_grad)


@op("conv3d_transpose", slots="Input, Filter -> Output", infer=_infer_transpose, flops=_flops.transposed_convolution)
def conv3d_transpose(
    x,
    w,
    *,
    output_size: list[int] = [],
    groups: int = 1,
    dilations: list[int] = [1, 1, 1],
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
):
    """conv2d_transpose with one more spatial dimension: Input [N, C, D, H, W], Filter [C, O/groups, kd, kh, kw]."""
    return _transpose_forward(x, w, None, strides, paddings, dilations, groups, padding_algorithm, data_format, output_size)


@op("conv3d_transpose_grad", slots="Input, Filter, Output@GRAD -> Input@GRAD, Filter@GRAD")
def conv3d_transpose_grad(
    x,
    w,
    dout,
    *,
    want,
    output_size: list[int] = [],
    groups: int = 1,
    dilations: list[int] = [1, 1, 1],
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
):
    return _transpose_backward(
        x, w, dout, want, strides, paddings, dilations, groups, padding_algorithm, data_format, output_size
    )
