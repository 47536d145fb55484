"""Batch normalisation by the kernels over rows of channels, where the memory of a map is such rows.

All functions return None where it is not, or where the map is small: torch's own kernels then do the work.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.ops.nn._bend import NONE, Bend
from millstream.ops.nn._norm_channels import Measured, Running, line_of, measured
from millstream.ops.nn._window import CHANNELS_LAST

# Elements of a sample, or of the whole map, from which the kernels are worth it: they cost some 60 us a call, and the first
# one some 40 MiB and half a second (numba). LeNet, batch 64, two threads: 13.4 -> 11.1 ms a step, peak 310 -> 348 MiB.
_WORTH, _WORTH_WHOLE = 1 << 14, 1 << 17
_TYPES = torch.float32, torch.float64, torch.bfloat16


@cache
def _kernels() -> ModuleType:
    """numba is slow to import, and not every Program needs it."""
    from millstream.kernels import batch_norm as module

    return module


@cache
def _brain() -> ModuleType:
    from millstream.kernels import brain as module

    return module


class Norm(NamedTuple):
    """Parameters of a normalisation: by channel, and what it is told."""

    scale: torch.Tensor
    bias: torch.Tensor
    epsilon: float
    layout: str
    bend: Bend = NONE


def _rows(x: torch.Tensor, layout: str) -> Any:
    """`x` as [rows, channels] without a copy, or None: also for tensors that only stand for values (compiled steps)."""
    if type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return None
    v = x
    if layout not in CHANNELS_LAST and x.dim() > 2:
        v = x.permute(0, 2, 3, 1) if x.dim() == 4 else x.movedim(1, -1)
    if not v.is_contiguous() or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
        return None
    return (array(v) if v.dtype is not torch.bfloat16 else _brain().numbers(v)).reshape(-1, v.shape[-1])


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
        and x.dtype in _TYPES and norm.scale.dtype is _worked(x)
    )  # fmt: skip


def statistics(x: torch.Tensor, running: Running) -> Measured | None:
    """(MeanOut, VarianceOut, SavedMean, SavedVariance) of `x` [N, C, ...]."""
    if x.numel() == 0 or x.dtype not in _TYPES or running.mean.dtype is not _worked(x):
        return None
    rows = _rows(x, "NCHW")
    return None if rows is None else _measured(rows, running)


def _measured(rows: np.ndarray, running: Running) -> Measured:
    return measured(_kernels().sums(rows, array(running.mean).dtype), running)


def forward(
    x: torch.Tensor, norm: Norm, mean: torch.Tensor, variance: torch.Tensor, momentum: float,
    residual: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...] | None:  # fmt: skip
    """(Y, MeanOut, VarianceOut, SavedMean, SavedVariance) of a training step."""
    if not _fits(x, norm) or mean.dtype is not _worked(x) or (rows := _rows(x, norm.layout)) is None:
        return None
    found = _measured(rows, Running(mean, variance, momentum, norm.epsilon))
    return _applied(x, rows, norm, found[2], found[3], residual), *found


def _applied(
    x: torch.Tensor, rows: np.ndarray, norm: Norm, mean: torch.Tensor, inverse: torch.Tensor, residual: torch.Tensor | None
) -> torch.Tensor:
    y = torch.empty_like(x)
    other = None if residual is None else _same_rows(residual, x, norm.layout)
    a, b = line_of(norm.scale, norm.bias, mean, inverse, norm.bend)[:2]
    _kernels().forward(rows, a, b, norm.bend.numbers(), other, _rows(y, norm.layout))
    return y


def apply(
    x: torch.Tensor, norm: Norm, mean: torch.Tensor, inverse: torch.Tensor, residual: torch.Tensor | None
) -> torch.Tensor | None:
    """Y of a training step whose statistics are known."""
    if not _fits(x, norm) or (rows := _rows(x, norm.layout)) is None:
        return None
    return _applied(x, rows, norm, mean, inverse, residual)


def back_sums(
    x: torch.Tensor, norm: Norm, saved_mean: torch.Tensor, saved_inv: torch.Tensor, dy: torch.Tensor, y: torch.Tensor | None
) -> tuple[Any, ...] | None:
    """(sums of dz, of dz * (x - mean), as _norm_channels.give_back takes them; dz where `y` is given, a relu of a sum)."""
    if not _fits(x, norm) or (dy.requires_grad and torch.is_grad_enabled()) or (rows := _rows(x, norm.layout)) is None:
        return None
    dz = None if y is None else torch.empty_like(x)
    a, b, mean = line_of(norm.scale, norm.bias, saved_mean, saved_inv, norm.bend)[:3]
    found = _kernels().back_sums(
        rows, _same_rows(dy, x, norm.layout), a, b, norm.bend.numbers(), mean,
        None if y is None else _same_rows(y, x, norm.layout), None if dz is None else _rows(dz, norm.layout),
    )  # fmt: skip
    return *found, dz


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
    dx, dz = torch.empty_like(x), None if y is None else torch.empty_like(x)
    dscale, dbias = torch.empty_like(norm.scale), torch.empty_like(norm.scale)
    line = line_of(norm.scale, norm.bias, saved_mean, saved_inv, norm.bend)
    _kernels().backward(
        rows, _same_rows(dy, x, norm.layout), line, norm.bend.numbers(), array(saved_inv), _rows(dx, norm.layout),
        (dscale.numpy(), dbias.numpy()), None if y is None else _same_rows(y, x, norm.layout),
        None if dz is None else _rows(dz, norm.layout),
    )  # fmt: skip
    return dx, dscale, dbias, dz
