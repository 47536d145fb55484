"""Batch normalisation by the kernels over rows of channels, where the memory of a map is such rows.

Both functions return None where it is not, or where the map is small: torch's own kernels then do the work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.ops.nn._window import CHANNELS_LAST

# Elements of a sample, or of the whole map, from which the kernels are worth it: they cost some 60 us a call, and the first
# one some 40 MiB and half a second (numba). LeNet, batch 64, two threads: 13.4 -> 11.1 ms a step, peak 310 -> 348 MiB.
_WORTH, _WORTH_WHOLE = 1 << 14, 1 << 17
_NONE, RELU = 1.0, 0.0


class Norm(NamedTuple):
    """Parameters of a normalisation: by channel, and what it is told."""

    scale: torch.Tensor
    bias: torch.Tensor
    epsilon: float
    layout: str
    slope: float = _NONE  # what is below 0 is multiplied by it; RELU: nothing is


def _rows(x: torch.Tensor, layout: str) -> Any:
    """`x` as [rows, channels] without a copy, or None: also for tensors that only stand for values (compiled steps)."""
    if type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return None
    v = x.movedim(1, -1) if layout not in CHANNELS_LAST and x.dim() > 2 else x
    if not v.is_contiguous() or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
        return None
    v = v.reshape(-1, v.shape[-1])
    if v.dtype is not torch.bfloat16:
        return array(v)
    from millstream.kernels.brain import numbers

    return numbers(v)


def _same_rows(x: torch.Tensor, like: torch.Tensor, layout: str) -> Any:
    """The rows of `x` in the memory order of `like`."""
    found = _rows(x, layout)
    return _rows(torch.empty_like(like).copy_(x), layout) if found is None else found


def _worked(x: torch.Tensor) -> torch.dtype:
    """The type in which `x` is worked on, and that of its statistics."""
    return torch.float32 if x.dtype is torch.bfloat16 else x.dtype


def _fits(x: torch.Tensor, norm: Norm) -> bool:
    return (
        x.numel() >= _WORTH and (x.numel() >= _WORTH * x.shape[0] or x.numel() >= _WORTH_WHOLE)
        and x.numel() > norm.scale.numel() and norm.bias is not None
        and x.dtype in (torch.float32, torch.float64, torch.bfloat16) and norm.scale.dtype is _worked(x)
    )  # fmt: skip


def _line(norm: Norm, mean: torch.Tensor, inverse: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) with a normalised x = x * a + b: forward and backward must round alike, as both decide where relu is 0."""
    a = array(norm.scale) * array(inverse)
    return a, array(norm.bias) - array(mean) * a


def moments(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, variance) of each channel of `x` [N, C, ...], float64."""
    if x.numel() == 0 or x.dtype not in (torch.float32, torch.float64) or (rows := _rows(x, "NCHW")) is None:
        return None
    from millstream.kernels import batch_norm as kernels

    return kernels.statistics(rows)


def forward(
    x: torch.Tensor, norm: Norm, mean: torch.Tensor, variance: torch.Tensor, momentum: float,
    residual: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...] | None:  # fmt: skip
    """(Y, MeanOut, VarianceOut, SavedMean, SavedVariance) of a training step."""
    if not _fits(x, norm) or mean.dtype is not _worked(x) or (rows := _rows(x, norm.layout)) is None:
        return None
    from millstream.kernels import batch_norm as kernels  # numba is slow to import, and not every Program needs it

    center, spread = kernels.statistics(rows)
    saved = tuple(torch.from_numpy(v).to(_worked(x)) for v in (center, 1.0 / np.sqrt(spread + norm.epsilon)))
    y = torch.empty_like(x)
    other = None if residual is None else _same_rows(residual, x, norm.layout)
    kernels.forward(rows, *_line(norm, *saved), norm.slope, other, _rows(y, norm.layout))
    mean_out = torch.lerp(saved[0], mean, momentum)
    return y, mean_out, torch.lerp(torch.from_numpy(spread).to(variance.dtype), variance, momentum), *saved


def apply(
    x: torch.Tensor, norm: Norm, mean: torch.Tensor, inverse: torch.Tensor, residual: torch.Tensor | None
) -> torch.Tensor | None:
    """Y of a training step whose statistics are known."""
    if not _fits(x, norm) or (rows := _rows(x, norm.layout)) is None:
        return None
    from millstream.kernels import batch_norm as kernels

    y = torch.empty_like(x)
    other = None if residual is None else _same_rows(residual, x, norm.layout)
    kernels.forward(rows, *_line(norm, mean, inverse), norm.slope, other, _rows(y, norm.layout))
    return y


def back_sums(
    x: torch.Tensor, norm: Norm, saved_mean: torch.Tensor, saved_inv: torch.Tensor, dy: torch.Tensor, y: torch.Tensor | None
) -> tuple[Any, ...] | None:
    """(sum of dz, sum of dz * (x - mean), float64 [1, C] each; dz where `y` is given, the relu of a sum)."""
    if not _fits(x, norm) or (dy.requires_grad and torch.is_grad_enabled()) or (rows := _rows(x, norm.layout)) is None:
        return None
    from millstream.kernels import batch_norm as kernels

    dz = None if y is None else torch.empty_like(x)
    found = kernels.back_sums(
        rows, _same_rows(dy, x, norm.layout), *_line(norm, saved_mean, saved_inv), norm.slope, array(saved_mean),
        None if y is None else _same_rows(y, x, norm.layout), None if dz is None else _rows(dz, norm.layout),
    )  # fmt: skip
    return *(v[None] for v in found), dz


def backward(
    x: torch.Tensor, norm: Norm, saved_mean: torch.Tensor, saved_inv: torch.Tensor, dy: torch.Tensor,
    y: torch.Tensor | None = None,
) -> tuple[Any, ...] | None:  # fmt: skip
    """(dX, dScale, dBias, dResidual or None); `y` is relu's output where a residual was added and its gradient is wanted."""
    if not _fits(x, norm) or (dy.requires_grad and torch.is_grad_enabled()):
        return None
    rows = _rows(x, norm.layout)
    if rows is None:
        return None
    from millstream.kernels import batch_norm as kernels

    dx, dz = torch.empty_like(x), None if y is None else torch.empty_like(x)
    found = kernels.backward(
        rows, _same_rows(dy, x, norm.layout), *_line(norm, saved_mean, saved_inv), norm.slope, array(saved_mean),
        array(saved_inv), _rows(dx, norm.layout), None if y is None else _same_rows(y, x, norm.layout),
        None if dz is None else _rows(dz, norm.layout),
    )  # fmt: skip
    dscale = torch.from_numpy(found.dot * array(saved_inv)).to(_worked(x))
    return dx, dscale, torch.from_numpy(found.total).to(_worked(x)), dz
