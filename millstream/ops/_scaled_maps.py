"""Maps whose channels are scaled, picture by picture, by kernels/scaled_maps.py where a pixel's channels are neighbours.

One thread, processor ms, torch -> so, maps of 4x256x56x56 and 4x512x28x28: the gradient of a product 5.4 -> 2.6, 2.4 -> 1.4;
product, sum and relu 5.3 -> 2.4, 2.5 -> 1.4; their gradient 19.6 -> 5.1, 3.4 -> 1.8.

Functions return None where the kernels do not apply.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.threads import cuts, run_parts

_LEAST = 1 << 17  # numbers of a map below which the kernels are not worth loading
_NARROW = 32  # channels whose loops are too short


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import scaled_maps as module

    return module


def _is_map(t: torch.Tensor) -> bool:
    return type(t) is torch.Tensor and t.dtype is torch.float32 and t.is_cpu and t.dim() == 4


def applies(x: torch.Tensor, scale: torch.Tensor, *others: torch.Tensor) -> bool:
    """Whether the kernels take `x` [N, C, H, W], `scale` [N, C, 1, 1] and maps of x's shape."""
    return (
        _is_map(x) and _is_map(scale) and x.shape[1] >= _NARROW and x.numel() >= _LEAST
        and scale.shape == (*x.shape[:2], 1, 1) and not torch.is_grad_enabled()
        and x.is_contiguous(memory_format=torch.channels_last) and x.shape[2] * x.shape[3] > 1
        and all(_is_map(t) and t.shape == x.shape for t in others)
    )  # fmt: skip


def _pixels(x: torch.Tensor) -> Any:
    """[N, C, H, W] as [N, H * W, C]."""
    rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return array(rows.reshape(x.shape[0], -1, x.shape[1]))


def _line(scale: torch.Tensor) -> Any:
    return array(scale.reshape(scale.shape[:2]))


def _shares(x: torch.Tensor) -> list[tuple[int, int]]:
    return cuts(8 * x.numel(), x.numel() // x.shape[1])  # memory takes as long as some eight multiplications a number would


def relu_of_sum(
    x: torch.Tensor, scale: torch.Tensor, other: torch.Tensor | None, shift: torch.Tensor | None = None
) -> torch.Tensor | None:
    """relu(x * scale + shift + other), or x * scale + shift where nothing is added."""
    if not applies(x, scale, *(() if other is None else (other,))):
        return None
    out, scale = torch.empty_like(x), _line(scale)
    given = _pixels(x), scale, np.zeros_like(scale) if shift is None else _line(shift)
    if other is None:
        run_parts(_kernels().line, [(*given, *share, _pixels(out)) for share in _shares(x)])
    else:
        added = _pixels(other)
        run_parts(_kernels().relu_of_sum, [(*given, added, *share, _pixels(out)) for share in _shares(x)])
    return out


def offsets(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor | None:
    """The mean over pixels of x - mean [C], [N, C]."""
    if not applies(x, x[:, :, :1, :1]) or mean.dtype is not torch.float32:
        return None
    shares = _shares(x)
    total = np.zeros((len(shares), *x.shape[:2]))
    given = _pixels(x), array(mean)
    run_parts(_kernels().offsets, [(*given, *share, total[k]) for k, share in enumerate(shares)])
    return torch.from_numpy((total.sum(0) / (x.shape[2] * x.shape[3])).astype(np.float32))


def sums(
    x: torch.Tensor, mean: torch.Tensor, y: torch.Tensor | None, dy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None:
    """Sums over pixels of dz and of dz * (x - mean), [N, C], and dz: dy, or dy where y is above 0, if y is given.

    dz is None without y.
    """
    if not applies(x, x[:, :, :1, :1], dy, *(() if y is None else (y,))) or mean.dtype is not torch.float32:
        return None
    shares, dz = _shares(x), None
    total, dot = (np.zeros((len(shares), *x.shape[:2])) for _ in range(2))
    given, read = (_pixels(x), array(mean)), _pixels(dy)
    if y is None:
        run_parts(_kernels().sums, [(*given, read, *share, total[k], dot[k]) for k, share in enumerate(shares)])
    else:
        dz, behind = torch.empty_like(x), _pixels(y)
        made = _pixels(dz)
        run_parts(_kernels().sums_of_sum, [
            (*given, behind, read, *share, made, total[k], dot[k]) for k, share in enumerate(shares)
        ])  # fmt: skip
    found, dots = (torch.from_numpy(s.sum(0).astype(np.float32)) for s in (total, dot))
    return found, dots, dz


def back(x: torch.Tensor, scale: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(gradient of x, that of scale) of x * scale."""
    if not applies(x, scale, dy):
        return None
    dx, shares = torch.empty_like(x), _shares(x)
    sums = np.zeros((len(shares), *x.shape[:2]))
    given = _pixels(x), _line(scale), _pixels(dy)
    run_parts(_kernels().back, [(*given, *share, _pixels(dx), sums[k]) for k, share in enumerate(shares)])
    return dx, _total(sums, scale)


def back_of_sum(
    x: torch.Tensor, scale: torch.Tensor, y: torch.Tensor, dy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """(gradient of x, that of scale, that of what was added) of :func:`relu_of_sum`, whose result is y."""
    if not applies(x, scale, y, dy):
        return None
    dx, dz, shares = torch.empty_like(x), torch.empty_like(x), _shares(x)
    sums = np.zeros((len(shares), *x.shape[:2]))
    given = _pixels(x), _line(scale), _pixels(y), _pixels(dy)
    run_parts(_kernels().back_of_sum, [
        (*given, *share, _pixels(dz), _pixels(dx), sums[k]) for k, share in enumerate(shares)
    ])  # fmt: skip
    return dx, _total(sums, scale), dz


def _total(sums: np.ndarray, scale: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(sums.sum(0).astype(np.float32)).view(scale.shape)
