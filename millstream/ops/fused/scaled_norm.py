"""Squeeze-and-excitation of a normalised map that is never made: its mean over pixels, and its channels scaled by picture.

Plans make these operators (passes/training/fuse_scaled_norm.py); Programs do not have them. X [N, C, H, W] is the map before
batch_norm, Factor [N, C] or [N, C, 1, 1] scales. The gradient of the normalised map is Factor * dZ + e, with e from the
mean's gradient; the sums over both that batch_norm's gradient needs are those over each picture of dZ and dZ * (X - mean).
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.ops import _scaled_maps
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn.batch_norm_relu import check_added


def _infer_average(x: Spec, *_: Any) -> Any:
    return Spec((*x.shape[:2], 1, 1), x.dtype), Spec(tuple(x.shape[:2]), x.dtype)


@op("batch_norm_average", slots="X, Scale, Bias, SavedMean, SavedVariance -> Out, Offset", infer=_infer_average, grad=False)
def batch_norm_average(x, scale, bias, mean, inverse):
    """Out [N, C, 1, 1]: batch_norm(X)'s mean over pixels, with these statistics; Offset [N, C]: that of X - SavedMean."""
    offset = _scaled_maps.offsets(x, mean)
    offset = x.mean((2, 3)) - mean if offset is None else offset
    return torch.addcmul(bias, offset, scale * inverse)[:, :, None, None], offset


@op(
    "scaled_batch_norm", slots="X, Scale, Bias, SavedMean, SavedVariance, Factor, Residual? -> Out",
    infer=lambda x, *_: x, lod="Out=X", grad=False,
)  # fmt: skip
def scaled_batch_norm(x, scale, bias, mean, inverse, factor, residual):
    """Out = Factor * batch_norm(X), or relu(Factor * batch_norm(X) + Residual); Residual has X's shape."""
    check_added(x, residual)
    a, factor = scale * inverse, factor.reshape(x.shape[:2])
    wide, shift = ((factor * v)[:, :, None, None] for v in (a, bias - mean * a))
    found = _scaled_maps.relu_of_sum(x, wide, residual, shift)
    if found is not None:
        return found
    y = x * wide + shift
    return y if residual is None else torch.relu(y + residual)


def _infer_sums(x: Spec, scale: Spec, bias: Spec, mean: Spec, inverse: Spec, factor: Spec, *_: Any) -> Any:
    return factor, Spec((2, *x.shape[:2]), x.dtype), x


@op(
    "scaled_batch_norm_sums",
    slots="X, Scale, Bias, SavedMean, SavedVariance, Factor, Out?, Out@GRAD -> Factor@GRAD, Sums, dZ?", infer=_infer_sums,
    grad=False,
)  # fmt: skip
def scaled_batch_norm_sums(x, scale, bias, mean, inverse, factor, out, dout):
    """Gradients of scaled_batch_norm: Factor's; dZ, that of Residual, where Out of the relu is given, else Out@GRAD is dZ.

    Sums [2, N, C]: of dZ and of dZ * (X - SavedMean) over pixels.
    """
    found = _scaled_maps.sums(x, mean, out, dout)
    if found is None:
        dz = dout if out is None else torch.ops.aten.leaky_relu_backward(dout, out, 0.0, True)
        found = dz.sum((2, 3)), (dz * (x - mean.view(-1, 1, 1))).sum((2, 3)), None if out is None else dz
    total, dot, dz = found
    return (dot * (scale * inverse) + total * bias).reshape(factor.shape), torch.stack([total, dot]), dz


def _infer_line(x: Spec, scale: Spec, *_: Any) -> Any:
    return scale, scale, Spec((3, *x.shape[:2]), x.dtype)


@op(
    "scaled_batch_norm_line_grad",
    slots="X, Scale, SavedMean, SavedVariance, Factor, Offset, Sums, Average@GRAD -> Scale@GRAD, Bias@GRAD, Line",
    infer=_infer_line, grad=False,
)  # fmt: skip
def scaled_batch_norm_line_grad(x, scale, mean, inverse, factor, offset, sums, daverage):
    """Gradients of batch_norm behind batch_norm_average and scaled_batch_norm.

    X's is p * dZ + q * X + r with Line [3, N, C] = p, q, r of each picture.
    """
    pixels = x.shape[2] * x.shape[3]
    factor, daverage = factor.reshape(offset.shape), daverage.reshape(offset.shape)
    total = (factor * sums[0] + daverage).sum(0)
    dot = (factor * sums[1] + daverage * offset).sum(0)
    a, each = scale * inverse, pixels * x.shape[0]
    q = -a * inverse * inverse * (dot / each)
    r = a * (daverage / pixels - total / each) - q * mean
    return dot * inverse, total, torch.stack([a * factor, q.expand_as(factor), r])
