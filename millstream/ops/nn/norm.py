"""Other normalisations: lrn, data_norm, affine_channel, spectral_norm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn._window import check_per_channel


# ---- local response normalisation ------------------------------------------------------------------
def _infer_lrn(x: Spec, *, n, **_: Any) -> tuple[Spec, Spec]:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    if n <= 0 or n % 2 == 0:
        raise AttributeTypeError(f"n must be an odd number above 0, received {n}")
    return x, x.like(lod_level=0)


def _over_channels(x: torch.Tensor, n: int, axis: int) -> torch.Tensor:
    """Sum over a window of n channels centred on each one."""
    half = (n - 1) // 2
    flat = x.movedim(axis, -1)
    total = F.pad(flat, (half + 1, half)).cumsum(-1, dtype=torch.float64)
    return (total[..., n:] - total[..., :-n]).to(x.dtype).movedim(-1, axis)


@op("lrn", slots="X -> Out, MidOut~", infer=_infer_lrn, lod="Out=X", again=True)
def lrn(x, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, data_format: str = "NCHW"):
    """Out = X / MidOut^beta, MidOut = k + alpha * sum of X^2 over n neighbouring channels (Krizhevsky et al. 2012).

    X [N, C, H, W] (or NHWC).
    """
    mid = k + alpha * _over_channels(x * x, n, _channel_axis(data_format))
    return x * mid.pow(-beta), mid


@op("lrn_grad", slots="X, Out, MidOut, Out@GRAD -> X@GRAD")
def lrn_grad(x, out, mid, dout, *, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, data_format: str = "NCHW"):
    ratio = _over_channels(dout * out / mid, n, _channel_axis(data_format))
    return dout * mid.pow(-beta) - 2 * alpha * beta * x * ratio


def _channel_axis(layout: str) -> int:
    if layout in ("NCHW", "AnyLayout", "NCDHW"):
        return 1
    if layout in ("NHWC", "NDHWC"):
        return -1
    raise AttributeTypeError(f"data_format must be NCHW or NHWC, received {layout!r}")


# ---- affine_channel ----------------------------------------------------------------------------------
def _scaled_axis(layout: str) -> int:
    """Here the default, AnyLayout, has the channels last, as in 1.8.5."""
    return -1 if layout == "AnyLayout" else _channel_axis(layout)


def _infer_affine_channel(x: Spec, scale: Spec, bias: Spec, *, data_layout) -> Spec:
    c = x.shape[_scaled_axis(data_layout)] if len(x.shape) > 1 else -1
    check_per_channel(x, c, (("Scale", scale), ("Bias", bias)))
    return x


def _channel_shape(x: torch.Tensor, layout: str) -> tuple[int, ...]:
    return (-1,) if _scaled_axis(layout) == -1 else (-1, *[1] * (x.dim() - 2))


@op("affine_channel", slots="X, Scale, Bias -> Out", infer=_infer_affine_channel, lod="X")
def affine_channel(x, scale, bias, *, data_layout: str = "AnyLayout"):
    """Out = Scale * X + Bias per channel. X [N, C, …] (or [N, …, C]); Scale, Bias [C]."""
    shape = _channel_shape(x, data_layout)
    return torch.addcmul(bias.view(shape), x, scale.view(shape))


@op("affine_channel_grad", slots="X, Scale, Out@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD")
def affine_channel_grad(x, scale, dout, *, want, data_layout: str = "AnyLayout"):
    axis = _scaled_axis(data_layout) % x.dim()
    others = [d for d in range(x.dim()) if d != axis]
    dx = dout * scale.view(_channel_shape(x, data_layout)) if want[0] else None
    return dx, (dout * x).sum(others) if want[1] else None, dout.sum(others) if want[2] else None


# ---- data_norm -----------------------------------------------------------------------------------------
def _infer_data_norm(
    scale_w: Spec | None, bias: Spec | None, x: Spec, size: Spec, total: Spec, square: Spec, *, data_layout, **_: Any
) -> tuple[Spec, Spec, Spec]:
    if not 2 <= len(x.shape) <= 5:
        raise ShapeError(f"X must have 2 to 5 dimensions, received {list(x.shape)}")
    c = x.shape[_channel_axis(data_layout)]
    given = [("BatchSize", size), ("BatchSum", total), ("BatchSquareSum", square), ("scale_w", scale_w), ("bias", bias)]
    check_per_channel(x, c, given)
    stat = Spec((c,), x.dtype)
    return x, stat, stat


_DATA_NORM = "scale_w?, bias?, X, BatchSize, BatchSum, BatchSquareSum -> Y, Means~, Scales~"


@op("data_norm", slots=_DATA_NORM, infer=_infer_data_norm, lod="Y=X")
def data_norm(
    scale_w,
    bias,
    x,
    size,
    total,
    square,
    *,
    epsilon: float = 1e-4,
    slot_dim: int = -1,
    summary_decay_rate: float = 0.9999999,
    enable_scale_and_shift: bool = False,
    data_layout: str = "NCHW",
    sync_stats: bool = False,
):
    """Y = (X - Means) * Scales, with Means = BatchSum / BatchSize and Scales = sqrt(BatchSize / BatchSquareSum).

    X [N, C]; the rest [C]. With `slot_dim` > 0 each run of slot_dim columns is one slot, whose first column is a
    show count: rows where it is 0 give 0. With `enable_scale_and_shift`, Y = Y * scale_w + bias.
    """
    means, scales = total / size, torch.sqrt(size / square)
    y = (x - means) * scales
    if enable_scale_and_shift:
        return y * scale_w + bias, means, scales
    if slot_dim > 0:
        y = y * _shown(x, slot_dim)
    return y, means, scales


def _shown(x: torch.Tensor, slot_dim: int) -> torch.Tensor:
    """1 where the first column of a slot is not 0."""
    first = x[:, ::slot_dim].abs() >= 1e-7
    return first.repeat_interleave(slot_dim, 1)[:, : x.shape[1]].to(x.dtype)


_DATA_NORM_GRAD = (
    "scale_w?, bias?, X, BatchSize?, BatchSum?, BatchSquareSum?, Means, Scales, Y@GRAD"
    " -> BatchSize@GRAD, BatchSum@GRAD, BatchSquareSum@GRAD, X@GRAD, scale_w@GRAD, bias@GRAD"
)


@op("data_norm_grad", slots=_DATA_NORM_GRAD)
def data_norm_grad(
    scale_w,
    bias,
    x,
    size,
    total,
    square,
    means,
    scales,
    dy,
    *,
    want,
    epsilon: float = 1e-4,
    slot_dim: int = -1,
    enable_scale_and_shift: bool = False,
):
    """X's derivative; the "gradients" of the three statistics are the batch's own counts, which an optimizer adds up."""
    n = x.shape[0]
    dscale = dbias = None
    if enable_scale_and_shift:
        dscale = (dy * (x - means) * scales).sum(0)
        dbias = dy.sum(0)
        dx = dy * scale_w * scales
    else:
        dx = dy * scales
    count = torch.full_like(means, n)
    batch_sum = x.sum(0)
    batch_square = ((x - means) ** 2).sum(0) + n * epsilon
    if slot_dim > 0:
        shown = _shown(x, slot_dim)
        seen = shown.sum(0)
        some = seen.clamp(min=1)
        has = seen >= 1
        count = torch.where(has, torch.ones_like(seen), torch.zeros_like(seen))
        batch_sum = torch.where(has, (x * shown).sum(0) / some, torch.zeros_like(seen))
        batch_square = torch.where(has, ((x - means) ** 2 * shown).sum(0) / some + epsilon * seen, torch.zeros_like(seen))
    return count, batch_sum, batch_square, dx, dscale, dbias


# ---- spectral_norm -------------------------------------------------------------------------------------
def _infer_spectral(weight: Spec, u: Spec, v: Spec, *, dim, power_iters, **_: Any) -> Spec:
    if not 2 <= len(weight.shape) <= 5:
        raise ShapeError(f"Weight must have 2 to 5 dimensions, received {list(weight.shape)}")
    if dim not in (0, 1):
        raise AttributeTypeError(f"dim must be 0 or 1, received {dim}")
    if power_iters < 0:
        raise AttributeTypeError(f"power_iters must be 0 or more, received {power_iters}")
    if all(d > 0 for d in weight.shape):
        h = weight.shape[dim]
        w = 1
        for i, d in enumerate(weight.shape):
            w *= 1 if i == dim else d
        if len(u.shape) != 1 or len(v.shape) != 1 or u.shape[0] not in (h, -1) or v.shape[0] not in (w, -1):
            raise ShapeError(
                f"U and V must have shapes [{h}] and [{w}] for Weight {list(weight.shape)}, dim {dim}, "
                f"received {list(u.shape)}, {list(v.shape)}"
            )
    return weight


def _power_iterate(weight, u, v, dim, power_iters, eps):
    """(matrix [h, w], u, v after the iterations, sigma)."""
    matrix = weight.movedim(dim, 0).reshape(weight.shape[dim], -1)
    u, v = u.reshape(-1), v.reshape(-1)
    for _ in range(power_iters):
        v = matrix.t() @ u
        v = v / (v.norm() + eps)
        u = matrix @ v
        u = u / (u.norm() + eps)
    return matrix, u, v, u @ (matrix @ v)


@op("spectral_norm", slots="Weight, U, V -> Out", infer=_infer_spectral, lod="Weight", nodiff="U, V")
def spectral_norm(weight, u, v, *, dim: int = 0, power_iters: int = 1, eps: float = 1e-12):
    """Weight / sigma, sigma its largest singular value by power iteration from U, V (Miyato et al. 2018, arXiv:1802.05957).

    Weight seen as [h, w] with dimension `dim` first; U [h], V [w].
    """
    return weight / _power_iterate(weight, u, v, dim, power_iters, eps)[3]


@op("spectral_norm_grad", slots="Weight, U, V, Out@GRAD -> Weight@GRAD")
def spectral_norm_grad(weight, u, v, dout, *, dim: int = 0, power_iters: int = 1, eps: float = 1e-12):
    """Fluid's: dOut / sigma - sum(W) / sigma^2 * dOut * (u v^T), elementwise; u, v after the iterations."""
    matrix, u, v, sigma = _power_iterate(weight, u, v, dim, power_iters, eps)
    d = dout.movedim(dim, 0).reshape(matrix.shape)
    dw = d / sigma - matrix.sum() / (sigma * sigma) * d * torch.outer(u, v)
    rest = [s for i, s in enumerate(weight.shape) if i != dim]
    return dw.reshape(weight.shape[dim], *rest).movedim(0, dim)
