"""Layer normalisation of bfloat16 by the kernels over rows (kernels/layer_norm.py); None where they do not apply."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.threads import cuts, numba_is_loaded, run_parts

_LEAST, _LONGEST = 1 << 14, 1 << 13  # numbers; those of a row, whose sum is one float32
_WORK = 32  # multiplications that would take as long as what is done to a number: [384, 512] is worth a second thread


@cache
def _line(value: float, columns: int) -> np.ndarray:
    """A scale or bias where there is none."""
    return np.full(columns, value, np.float32)


def _applies(x: torch.Tensor, columns: int, *parameters: torch.Tensor | None) -> bool:
    return (
        x.dtype is torch.bfloat16 and x.is_cpu and type(x) is torch.Tensor and numba_is_loaded()
        and x.numel() >= _LEAST and columns <= _LONGEST and not torch.is_grad_enabled()
        and all(p is None or p.dtype is torch.float32 for p in parameters)
    )  # fmt: skip


def forward(
    x: torch.Tensor, columns: int, scale: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """(y, mean, variance) of rows of `columns` numbers."""
    if not _applies(x, columns, scale, bias):
        return None
    from millstream.kernels import layer_norm as kernels
    from millstream.kernels.brain import numbers

    rows = x.numel() // columns
    y, mean, variance = torch.empty(x.shape, dtype=x.dtype), torch.empty(rows), torch.empty(rows)
    lines = _line(1.0, columns) if scale is None else array(scale), _line(0.0, columns) if bias is None else array(bias)
    given = numbers(x.reshape(rows, columns)), *lines, np.float32(epsilon)
    made = numbers(y.view(rows, columns)), mean.numpy(), variance.numpy()
    run_parts(kernels.forward, [(*given, *ends, *made) for ends in cuts(_WORK * x.numel(), rows)])
    return y, mean, variance


def backward(
    x: torch.Tensor, scale: torch.Tensor | None, mean: torch.Tensor, variance: torch.Tensor, dy: torch.Tensor,
    epsilon: float, want: Sequence[bool],
) -> tuple[torch.Tensor | None, ...] | None:  # fmt: skip
    """(dx, dscale, dbias) of rows; where one is not wanted it is None."""
    if not _applies(x, x.shape[1], scale, mean, variance) or dy.dtype is not x.dtype:
        return None
    from millstream.kernels import layer_norm as kernels
    from millstream.kernels.brain import numbers

    rows, n = x.shape
    ends = cuts(_WORK * x.numel(), rows)
    dx, sums = torch.empty(x.shape, dtype=x.dtype), np.zeros((2, len(ends), n))
    line = _line(1.0, n) if scale is None else array(scale)
    given = numbers(x), numbers(dy), line, array(mean), array(variance), np.float32(epsilon)
    made = numbers(dx)
    run_parts(kernels.backward, [(*given, *e, made, *sums[:, k]) for k, e in enumerate(ends)])
    total = torch.from_numpy(sums.sum(1).astype(np.float32))
    return tuple(found if wanted else None for found, wanted in zip((dx, total[0], total[1]), want))
