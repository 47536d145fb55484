"""Batch normalisation: batch_norm, sync_batch_norm, inplace_abn."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError, InvalidProgramError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn import _norm_rows
from millstream.ops.nn._window import check_per_channel

_native = torch.ops.aten.native_batch_norm.default
_native_backward = torch.ops.aten.native_batch_norm_backward.default


def infer_batch_norm(
    x: Spec, scale: Spec, bias: Spec, mean: Spec, variance: Spec, momentum_tensor: Spec | None, *, data_layout, **_: Any
) -> tuple[Spec | None, ...]:
    if not 2 <= len(x.shape) <= 5:
        raise ShapeError(f"X must have 2 to 5 dimensions, received {list(x.shape)}")
    c = _channels(x, data_layout)
    check_per_channel(x, c, (("Scale", scale), ("Bias", bias), ("Mean", mean), ("Variance", variance)))
    stat = Spec((c,), mean.dtype)
    return x, stat, stat, stat, stat, None


def _channels(x: Spec, data_layout: str) -> int:
    if data_layout in ("NCHW", "NCDHW", "AnyLayout"):
        return x.shape[1]
    if data_layout in ("NHWC", "NDHWC"):
        return x.shape[-1]
    raise AttributeTypeError(f"data_layout must be NCHW or NHWC, received {data_layout!r}")


def _view(x: torch.Tensor, last: bool) -> torch.Tensor:
    """`x` with channels at dimension 1, in strides that torch has a fast loop for."""
    if last and x.dim() > 2:
        if x.dim() == 4:
            return x.permute(0, 3, 1, 2)
        return x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    return x


def _unview(y: torch.Tensor, x: torch.Tensor, last: bool) -> torch.Tensor:
    if last and x.dim() > 2:
        y = y.permute(0, 2, 3, 1)
        return y if x.dim() == 4 else y.reshape(x.shape)
    return y


def normalize(
    x, scale, bias, mean, variance, momentum_tensor, is_test, momentum, epsilon, last, use_global, trainable, want
):
    """(Y, MeanOut, VarianceOut, SavedMean, SavedVariance)."""
    if use_global or (is_test and not trainable):
        y = _native(_view(x, last), scale, bias, mean, variance, False, 0.0, epsilon)[0]
        inv = torch.rsqrt(variance + epsilon) if want[4] else None
        return _unview(y, x, last), mean, variance, mean, inv
    if x.numel() == mean.numel():  # one element a channel has no variance: Fluid passes it on and keeps the statistics
        return x, mean, variance, torch.zeros_like(mean), torch.zeros_like(mean)
    y, saved_mean, saved_inv = _native(_view(x, last), scale, bias, None, None, True, 0.0, epsilon)
    if momentum_tensor is not None:
        momentum = float(momentum_tensor)
    # running = running * momentum + batch * (1 - momentum), with the variance over N, not N - 1
    batch_var = saved_inv.pow(-2).sub_(epsilon)
    mean_out = torch.lerp(saved_mean, mean, momentum)
    var_out = torch.lerp(batch_var, variance, momentum)
    return _unview(y, x, last), mean_out, var_out, saved_mean, saved_inv


def denormalize(x, scale, saved_mean, saved_inv, dy, test, epsilon, last, want):
    """(dX, dScale, dBias)."""
    if not test and x.numel() == scale.numel():
        return dy, torch.zeros_like(scale), torch.zeros_like(scale)
    variance = saved_inv.pow(-2).sub_(epsilon) if test else None
    xv, dyv = _view(x, last), _view(dy, last)
    if xv.stride() != dyv.stride() and not dyv.is_contiguous():
        dyv = dyv.contiguous(memory_format=torch.channels_last if last and xv.dim() == 4 else torch.contiguous_format)
    dx, dscale, dbias = _native_backward(
        dyv, xv, scale, saved_mean if test else None, variance, saved_mean, saved_inv, not test, epsilon, want
    )
    return (_unview(dx, x, last) if dx is not None else None), dscale, dbias


def _batch_norm(
    x,
    scale,
    bias,
    mean,
    variance,
    momentum_tensor,
    *,
    want,
    is_test: bool = False,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    fuse_with_relu: bool = False,
    use_mkldnn: bool = False,
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
):
    """Y = Scale * (X - mean) / sqrt(var + epsilon) + Bias per channel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    X [N, C, …] (or [N, …, C] for NHWC); Scale, Bias, Mean, Variance [C]. Training uses the batch's mean and (biased)
    variance, and MeanOut = Mean * momentum + batch mean * (1 - momentum), VarianceOut alike; `is_test` or
    `use_global_stats` uses Mean and Variance. As in 1.8.5 `fuse_with_relu` counts with
    `use_mkldnn` and `is_test` only. SavedMean is the mean used, SavedVariance 1 / sqrt(var + epsilon).
    """
    last = data_layout in ("NHWC", "NDHWC")
    found = None
    if not use_global_stats and not (is_test and not trainable_statistics):
        rate = momentum if momentum_tensor is None else float(momentum_tensor)
        found = _norm_rows.forward(x, _norm_rows.Norm(scale, bias, epsilon, data_layout), mean, variance, rate)
    y, *stats = found or normalize(
        x,
        scale,
        bias,
        mean,
        variance,
        momentum_tensor,
        is_test,
        momentum,
        epsilon,
        last,
        use_global_stats,
        trainable_statistics,
        want,
    )
    if fuse_with_relu and use_mkldnn and is_test:
        y = torch.relu(y)
    return (y, *stats, None)


def _batch_norm_grad(
    x,
    scale,
    bias,
    saved_mean,
    saved_inv,
    reserve,
    dy,
    *,
    want,
    is_test: bool = False,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
):
    if is_test:
        raise InvalidProgramError(
            "batch_norm_grad: `is_test = True` CANNOT be used in train program: build the layer with is_test=False, and "
            "with use_global_stats=True to train with the global statistics"
        )
    test = use_global_stats
    if not test and bias is not None and (x.dtype is saved_mean.dtype or x.dtype is torch.bfloat16):
        found = _norm_rows.backward(x, _norm_rows.Norm(scale, bias, epsilon, data_layout), saved_mean, saved_inv, dy)
        if found is not None:
            return found[:3]
    last = data_layout in ("NHWC", "NDHWC")
    return denormalize(x, scale, saved_mean, saved_inv, dy, test, epsilon, last, want)


_SLOTS = (
    "X, Scale, Bias, Mean, Variance, MomentumTensor? -> Y, MeanOut, VarianceOut, SavedMean~, SavedVariance~, ReserveSpace?~"
)
# torch differentiates its kernel again as a function of X, statistics and all
_GRAD_SLOTS = "X, Scale, Bias?, SavedMean, SavedVariance, ReserveSpace?, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD"
for _name in ("batch_norm", "sync_batch_norm"):
    _tag: dict[str, Any] = {"amp": "gray", "amp_slots": ("X", "Y")} if _name == "batch_norm" else {}
    op(_name, slots=_SLOTS, infer=infer_batch_norm, lod="Y=X", nodiff="Mean, Variance, MomentumTensor", **_tag)(_batch_norm)
    op(_name + "_grad", slots=_GRAD_SLOTS, nodiff="SavedMean, SavedVariance")(_batch_norm_grad)


@op("inplace_abn", slots=_SLOTS, infer=infer_batch_norm, lod="Y=X", nodiff="Mean, Variance, MomentumTensor")
def inplace_abn(
    x,
    scale,
    bias,
    mean,
    variance,
    momentum_tensor,
    *,
    want,
    is_test: bool = False,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
    activation: str = "",
    alpha: float = 0.1,
):
    """batch_norm followed by an invertible activation (Rota Bulò et al. 2018, arXiv:1712.02616).

    `activation`: identity, leaky_relu (slope `alpha`) or elu (`alpha`). The gradient recovers X from Y.
    """
    last = data_layout in ("NHWC", "NDHWC")
    y, *stats = normalize(
        x,
        scale,
        bias,
        mean,
        variance,
        momentum_tensor,
        is_test,
        momentum,
        epsilon,
        last,
        use_global_stats,
        trainable_statistics,
        want,
    )
    return (_abn_activation(activation)[0](y, alpha), *stats, None)


@op(
    "inplace_abn_grad",
    slots="Y, Scale, Bias, SavedMean, SavedVariance, ReserveSpace?, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD",
)
def inplace_abn_grad(
    y,
    scale,
    bias,
    saved_mean,
    saved_inv,
    reserve,
    dy,
    *,
    want,
    is_test: bool = False,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
    activation: str = "",
    alpha: float = 0.1,
):
    test = use_global_stats or (is_test and not trainable_statistics)
    last = data_layout in ("NHWC", "NDHWC")
    shape = (-1,) if last else (-1, *[1] * (y.dim() - 2))
    z, dz = _abn_activation(activation)[1](y, dy, alpha)
    x = (z - bias.view(shape)) / (scale * saved_inv).view(shape) + saved_mean.view(shape)
    return denormalize(x, scale, saved_mean, saved_inv, dz, test, epsilon, last, want)


def _abn_activation(name: str) -> tuple[Any, Any]:
    """(forward(z, alpha), backward(y, dy, alpha) -> (z, dz))."""
    if name in ("", "identity"):
        return (lambda z, a: z), (lambda y, dy, a: (y, dy))
    if name in ("leaky_relu", "leakyrelu"):
        return (
            lambda z, a: F.leaky_relu(z, a),
            lambda y, dy, a: (torch.where(y < 0, y / a, y), torch.where(y < 0, dy * a, dy)),
        )
    if name == "elu":
        return (
            lambda z, a: torch.where(z < 0, a * torch.expm1(z), z),
            lambda y, dy, a: (torch.where(y < 0, torch.log1p(y / a), y), torch.where(y < 0, dy * (y + a), dy)),
        )
    raise AttributeTypeError(f"activation of inplace_abn must be identity, leaky_relu or elu, received {name!r}")
