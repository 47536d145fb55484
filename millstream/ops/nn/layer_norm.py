"""Normalisation within one sample: layer_norm, group_norm, instance_norm."""

from __future__ import annotations

import math
from typing import Any

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ir.types import VarType
from millstream.ops._again import refusal
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn import _layer_norm_rows
from millstream.ops.nn._window import check_per_channel

_native = torch.ops.aten.native_layer_norm.default
_native_backward = torch.ops.aten.native_layer_norm_backward.default


# ---- layer_norm ------------------------------------------------------------------------------------
def _infer_layer_norm(x: Spec, scale: Spec | None, bias: Spec | None, *, begin_norm_axis, **_: Any) -> tuple[Spec, ...]:
    if not 0 < begin_norm_axis < len(x.shape):
        raise ShapeError(
            f"begin_norm_axis must be in [1, {len(x.shape) - 1}] for X {list(x.shape)}, received {begin_norm_axis}"
        )
    left, right = x.shape[:begin_norm_axis], x.shape[begin_norm_axis:]
    cols = -1 if any(d < 0 for d in right) else math.prod(right)
    for name, s in (("Scale", scale), ("Bias", bias)):
        if s is not None and (len(s.shape) != 1 or (cols >= 0 and s.shape[0] not in (cols, -1))):
            raise ShapeError(
                f"{name} must have shape [{cols}] (X {list(x.shape)} from axis {begin_norm_axis}), received {list(s.shape)}"
            )
    half = x.dtype in (VarType.FP16, VarType.BF16)
    stat = Spec((math.prod(left),), VarType.FP32 if half else x.dtype)  # of unknown dims too: Fluid multiplies the -1
    return x, stat, stat


@op(
    "layer_norm", slots="X, Scale?, Bias? -> Y, Mean~, Variance~", infer=_infer_layer_norm, lod="Y=X", amp_bfloat16="gray",
    amp_slots=("X", "Y"),
)  # fmt: skip
def layer_norm(x, scale, bias, *, want, epsilon: float = 1e-5, begin_norm_axis: int = 1):
    """Y = Scale * (X - mean) / sqrt(var + epsilon) + Bias over dimensions from `begin_norm_axis` (arXiv:1607.06450).

    X is seen as [rows, cols]; Scale, Bias [cols]; Mean, Variance [rows].
    """
    shape = x.shape
    cols = math.prod(shape[begin_norm_axis:])
    found = _layer_norm_rows.forward(x, cols, scale, bias, epsilon)
    if found is not None:
        return found
    flat = x if begin_norm_axis == x.dim() - 1 else x.reshape(-1, cols)
    y, mean, inv = _native(flat, (cols,), scale, bias, epsilon)
    if not (want[1] or want[2]):
        return y.view(shape), None, None
    return y.view(shape), mean.view(-1), inv.view(-1).pow(-2).sub_(epsilon)


def _flat(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.contiguous()


@op(
    "layer_norm_grad", slots="X, Scale?, Bias?, Mean, Variance, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD",
    nodiff="Mean, Variance",  # torch differentiates its kernel again as a function of X, statistics and all
)
def layer_norm_grad(x, scale, bias, mean, variance, dy, *, want, epsilon: float = 1e-5, begin_norm_axis: int = 1):
    """The derivative where Scale's gradient is wanted too; dX alone is that of a layer without Scale, as in 1.8.5."""
    cols = math.prod(x.shape[begin_norm_axis:])
    # The native kernels read flat memory, whatever the strides say.
    flat, dflat = x.reshape(-1, cols).contiguous(), dy.reshape(-1, cols).contiguous()
    found = _layer_norm_rows.backward(flat, scale if want[1] else None, mean, variance, dflat, epsilon, want)
    if found is not None:
        return None if found[0] is None else found[0].view(x.shape), *found[1:]
    inv = torch.rsqrt(variance + epsilon).reshape(-1, 1).contiguous()
    dx, dscale, dbias = _native_backward(
        dflat, flat, (cols,), mean.reshape(-1, 1).contiguous(), inv, _flat(scale) if want[1] else None, _flat(bias), want
    )
    return (dx.view(x.shape) if dx is not None else None), dscale, dbias


# ---- group_norm ------------------------------------------------------------------------------------
def _infer_group_norm(x: Spec, scale: Spec | None, bias: Spec | None, *, groups, data_layout, **_: Any) -> tuple[Spec, ...]:
    if len(x.shape) < 2:
        raise ShapeError(f"X must have 2 dimensions or more, received {list(x.shape)}")
    if data_layout not in ("NCHW", "NHWC"):
        raise AttributeTypeError(f"data_layout must be NCHW or NHWC, received {data_layout!r}")
    c = x.shape[1] if data_layout == "NCHW" else x.shape[-1]
    if groups <= 0 or 0 <= c < groups:
        raise ShapeError(f"groups must be in [1, {c}] for the channels of X {list(x.shape)}, received {groups}")
    check_per_channel(x, c, (("Scale", scale), ("Bias", bias)))
    stat = Spec((x.shape[0], groups), x.dtype)
    return x, stat, stat


def _grouped(x: torch.Tensor, groups: int, last: bool) -> torch.Tensor:
    """[N, groups, channels per group, positions] as a view (NCHW) or a copy (NHWC)."""
    n = x.shape[0]
    if last:
        c = x.shape[-1]
        return x.reshape(n, -1, c).transpose(1, 2).reshape(n, groups, c // groups, -1)
    return x.reshape(n, groups, x.shape[1] // groups, -1)


def _ungrouped(g: torch.Tensor, like: torch.Tensor, last: bool) -> torch.Tensor:
    if last:
        return g.reshape(like.shape[0], like.shape[-1], -1).transpose(1, 2).reshape(like.shape)
    return g.reshape(like.shape)


def _uneven(channels: int, groups: int) -> list[tuple[int, int, int]]:
    """(first channel, channels, groups) of the parts of even groups: all groups but the last have ceil(C / groups)."""
    per = -(-channels // groups)
    whole = channels // per
    parts = [(0, whole * per, whole), (whole * per, channels - whole * per, 1)]
    return [part for part in parts if part[1]]


def _cut(t: torch.Tensor | None, axis: int, start: int, size: int) -> torch.Tensor | None:
    return None if t is None else t.narrow(axis, start, size)


def _group_norm_again(x, scale, bias, *, groups, epsilon, data_layout):
    last = data_layout == "NHWC"
    if scale is None or x.shape[-1 if last else 1] % groups:  # the gradient is not a derivative, or of two parts
        raise refusal("group_norm", "only with Scale and groups of one size")
    g = _grouped(x, groups, last)
    centred = g - g.mean((2, 3), keepdim=True)
    hat = centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + epsilon)
    shape = (1, groups, g.shape[2], 1)
    y = hat * scale.view(shape)
    return _ungrouped(y if bias is None else y + bias.view(shape), x, last), None, None


@op(
    "group_norm", slots="X, Scale?, Bias? -> Y, Mean~, Variance~", infer=_infer_group_norm, lod="Y=X",
    again=_group_norm_again,
)  # fmt: skip
def group_norm(x, scale, bias, *, groups: int, epsilon: float = 1e-5, data_layout: str = "NCHW"):
    """Y = Scale * (X - mean) / sqrt(var + epsilon) + Bias over each group of channels (arXiv:1803.08494).

    X [N, C, …] (or [N, …, C]); Scale, Bias [C]; Mean, Variance [N, groups]. Groups that do not divide the channels have
    ceil(C / groups) of them, the last one the rest; statistics of groups without channels are 0.
    """
    last = data_layout == "NHWC"
    at = x.dim() - 1 if last else 1
    if x.shape[at] % groups:
        found = [
            group_norm(
                x.narrow(at, start, size),
                _cut(scale, 0, start, size),
                _cut(bias, 0, start, size),
                groups=k,
                epsilon=epsilon,
                data_layout=data_layout,
            )
            for start, size, k in _uneven(x.shape[at], groups)
        ]
        empty = x.new_zeros((x.shape[0], groups - sum(f[1].shape[1] for f in found)))
        outs, means, variances = zip(*found)
        return torch.cat(outs, at), torch.cat([*means, empty], 1), torch.cat([*variances, empty], 1)
    g = _grouped(x, groups, last)
    n, _, per, positions = g.shape
    y, mean, inv = torch.native_group_norm(
        g.reshape(n, groups * per, positions).contiguous(),
        _flat(scale),
        _flat(bias),
        n,
        groups * per,
        positions,
        groups,
        epsilon,
    )
    return _ungrouped(y, x, last), mean.view(n, groups), inv.view(n, groups).pow(-2).sub_(epsilon)


@op("group_norm_grad", slots="Y, Scale?, Bias?, Variance, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD")
def group_norm_grad(y, scale, bias, variance, dy, *, want, groups: int, epsilon: float = 1e-5, data_layout: str = "NCHW"):
    """With Scale: the derivative, X's normalised value recovered from Y. Without it Fluid drops the mean term."""
    last = data_layout == "NHWC"
    at = y.dim() - 1 if last else 1
    if y.shape[at] % groups:
        found, before = [], 0
        for start, size, k in _uneven(y.shape[at], groups):
            cut = (y.narrow(at, start, size), _cut(scale, 0, start, size), _cut(bias, 0, start, size))
            stats, grad = variance.narrow(1, before, k), dy.narrow(at, start, size)
            attrs = {"groups": k, "epsilon": epsilon, "data_layout": data_layout}
            found.append(group_norm_grad(*cut, stats, grad, want=want, **attrs))
            before += k
        return tuple(None if g[0] is None else torch.cat(g, at if i == 0 else 0) for i, g in enumerate(zip(*found)))
    gy, gdy = _grouped(y, groups, last), _grouped(dy, groups, last)
    n, _, per, _ = gy.shape
    shape = (1, groups, per, 1)
    inv = torch.rsqrt(variance + epsilon).view(n, groups, 1, 1)
    hat = gy if bias is None else gy - bias.view(shape)
    if scale is not None:
        weight = scale.view(shape)
        hat = hat / torch.where(weight == 0, torch.ones_like(weight), weight)
    dscale = (gdy * hat).sum((0, 3)).view(-1) if want[1] else None
    dbias = gdy.sum((0, 3)).view(-1) if want[2] else None
    if not want[0]:
        return None, dscale, dbias
    dhat = gdy if scale is None else gdy * weight
    part = hat * (dhat * hat).mean((2, 3), keepdim=True)
    if scale is not None:
        part = part + dhat.mean((2, 3), keepdim=True)
    return _ungrouped((dhat - part) * inv, y, last), dscale, dbias


# ---- instance_norm -----------------------------------------------------------------------------------
def _infer_instance_norm(x: Spec, scale: Spec | None, bias: Spec | None, **_: Any) -> tuple[Spec, ...]:
    if not 2 <= len(x.shape) <= 5:
        raise ShapeError(f"X must have 2 to 5 dimensions, received {list(x.shape)}")
    n, c = x.shape[:2]
    check_per_channel(x, c, (("Scale", scale), ("Bias", bias)))
    stat = Spec((n * c,), x.dtype)
    return x, stat, stat


@op("instance_norm", slots="X, Scale?, Bias? -> Y, SavedMean~, SavedVariance~", infer=_infer_instance_norm, lod="Y=X")
def instance_norm(x, scale, bias, *, epsilon: float = 1e-5):
    """Y = Scale * (X - mean) / sqrt(var + epsilon) + Bias over the positions of each channel (arXiv:1607.08022).

    X [N, C, …]; Scale, Bias [C]; SavedMean [N*C], SavedVariance [N*C] is 1 / sqrt(var + epsilon).
    """
    n, c = x.shape[:2]
    y, mean, inv = torch.native_group_norm(
        x.reshape(n, c, -1).contiguous(), _flat(scale), _flat(bias), n, c, x[0, 0].numel(), c, epsilon
    )
    return y.reshape(x.shape), mean.reshape(-1), inv.reshape(-1)


@op(
    "instance_norm_grad",
    slots="X, Scale?, SavedMean, SavedVariance, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD",
    nodiff="SavedMean, SavedVariance",
)
def instance_norm_grad(x, scale, saved_mean, saved_inv, dy, *, want, epsilon: float = 1e-5):
    n, c = x.shape[:2]
    if torch.is_grad_enabled():
        return _instance_norm_grad_again(x, scale, dy, want, epsilon)
    mask = (want[0], want[1] or want[2], want[1] or want[2])
    dx, dscale, dbias = torch.ops.aten.native_group_norm_backward(
        dy.reshape(n, c, -1).contiguous(),  # the kernel reads flat memory: a slice of a concat's gradient is not flat
        x.reshape(n, c, -1).contiguous(),
        saved_mean.reshape(n, c).contiguous(),
        saved_inv.reshape(n, c).contiguous(),
        _flat(scale),
        n,
        c,
        x[0, 0].numel(),
        c,
        mask,
    )
    return (dx.reshape(x.shape) if dx is not None else None), dscale, dbias


def _instance_norm_grad_again(x, scale, dy, want, epsilon):
    """The same of operators that autograd can differentiate, X's statistics too: torch's kernel has no derivative."""
    shape = (*x.shape[:2], -1)
    rows, drows = x.reshape(shape), dy.reshape(shape)
    centred = rows - rows.mean(-1, keepdim=True)
    inv = torch.rsqrt(centred.square().mean(-1, keepdim=True) + epsilon)
    hat = centred * inv
    dhat = drows if scale is None else drows * scale.view(1, -1, 1)
    dx = (dhat - dhat.mean(-1, keepdim=True) - hat * (dhat * hat).mean(-1, keepdim=True)) * inv
    dscale = (drows * hat).sum((0, 2)) if want[1] else None
    return dx.reshape(x.shape) if want[0] else None, dscale, drows.sum((0, 2)) if want[2] else None
