"""Batch normalisation of a training step with the relu (also leaky_relu, relu6) or swish (hard_swish) behind it, and with
what is added before a relu.

Plans make these operators (passes/training/fuse_batch_norm_relu.py); Programs do not have them.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops.nn import _norm_rows
from millstream.ops.nn._bend import Bend
from millstream.ops.nn._norm_rows import Norm
from millstream.ops.nn._window import CHANNELS_LAST
from millstream.ops.nn.batch_norm import denormalize, infer_batch_norm, normalize

_TRAINING = (True, True, True, True, True, False)


def _plain(
    x, scale, bias, mean, variance, momentum_tensor, residual, *, momentum: float = 0.9, epsilon: float = 1e-5,
    data_layout: str = "NCHW", slope: float = 0.0, most: float = math.inf,
):  # fmt: skip
    """The operators one after the other: for other memory orders, small maps and compiled steps."""
    y, *stats = normalize(
        x, scale, bias, mean, variance, momentum_tensor, False, momentum, epsilon, data_layout in CHANNELS_LAST, False,
        False, _TRAINING,
    )  # fmt: skip
    y = y if residual is None else y + residual
    return (Bend(slope, most).forward(y), *stats)


def _infer(x, scale, bias, mean, variance, momentum_tensor, residual, *, data_layout, **_: Any):
    return infer_batch_norm(x, scale, bias, mean, variance, momentum_tensor, data_layout=data_layout)[:5]


@op(
    "batch_norm_relu",
    slots="X, Scale, Bias, Mean, Variance, MomentumTensor?, Residual? "
    "-> Y, MeanOut, VarianceOut, SavedMean~, SavedVariance~",
    infer=_infer, lod="Y=X", nodiff="Mean, Variance, MomentumTensor",
)  # fmt: skip
def batch_norm_relu(
    x, scale, bias, mean, variance, momentum_tensor, residual, *, momentum: float = 0.9, epsilon: float = 1e-5,
    data_layout: str = "NCHW", slope: float = 0.0, most: float = math.inf,
):  # fmt: skip
    """Y = relu(batch_norm(X) [+ Residual]) with the batch's own statistics; Residual has X's shape.

    With a `slope`, of 0 to 1, it is leaky_relu(batch_norm(X)), with `most` min(relu(batch_norm(X)), most), with a slope of
    -1 swish, of -2 hard_swish: nothing is added.
    """
    check_added(x, residual)
    norm = Norm(scale, bias, epsilon, data_layout, Bend(slope, most))
    rate = momentum if momentum_tensor is None else float(momentum_tensor)
    found = _norm_rows.forward(x, norm, mean, variance, rate, residual)
    if found is not None:
        return found
    return _plain(
        x, scale, bias, mean, variance, momentum_tensor, residual, momentum=rate, epsilon=epsilon, data_layout=data_layout,
        slope=slope, most=most,
    )  # fmt: skip


def check_added(x: torch.Tensor, residual: torch.Tensor | None) -> None:
    """Raises ShapeError where what is added has another shape than the map, of which kernels know the size."""
    if residual is not None and residual.shape != x.shape:
        raise ShapeError(
            f"what is added to batch_norm's output was declared with its shape {list(x.shape)}, received "
            f"{list(residual.shape)}; take 'fuse_batch_norm_relu' out of Executor.passes to have it spread"
        )


def _by_channel(v: torch.Tensor, x: torch.Tensor, layout: str) -> torch.Tensor:
    return v if layout in CHANNELS_LAST or x.dim() == 2 else v.view(-1, *[1] * (x.dim() - 2))


def _plain_grad(
    x, scale, bias, saved_mean, saved_inv, y, dy, *, want, epsilon: float = 1e-5, data_layout: str = "NCHW",
    residual: bool = False, slope: float = 0.0, most: float = math.inf,
):  # fmt: skip
    bend = Bend(slope, most)
    if bend.curved:
        a = scale * saved_inv
        y = (_by_channel(a, x, data_layout) * x + _by_channel(bias - saved_mean * a, x, data_layout)).to(x.dtype)
    dz = bend.backward(y, dy)
    parts = denormalize(
        x, scale, saved_mean, saved_inv, dz, False, epsilon, data_layout in CHANNELS_LAST, (*want[:1], True, True)
    )
    return (*parts, dz)


@op(
    "batch_norm_relu_grad",
    slots="X, Scale, Bias, SavedMean, SavedVariance, Y, Y@GRAD -> X@GRAD, Scale@GRAD, Bias@GRAD, Residual@GRAD",
)
def batch_norm_relu_grad(
    x, scale, bias, saved_mean, saved_inv, y, dy, *, want, epsilon: float = 1e-5, data_layout: str = "NCHW",
    residual: bool = False, slope: float = 0.0, most: float = math.inf,
):  # fmt: skip
    """Gradients of batch_norm_relu: two passes over the data, the zeros of relu, or the slope, on the way.

    Residual@GRAD is Y@GRAD where Y is above 0; `residual` says that something was added.
    """
    norm = Norm(scale, bias, epsilon, data_layout, Bend(slope, most))
    found = _norm_rows.backward(x, norm, saved_mean, saved_inv, dy, y if residual else None)
    return found or _plain_grad(
        x, scale, bias, saved_mean, saved_inv, y, dy, want=want, epsilon=epsilon, data_layout=data_layout, residual=residual,
        slope=slope, most=most,
    )  # fmt: skip
