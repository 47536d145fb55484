"""Gradients of linear interpolation by the kernel over rows, in whichever order the gradient stands in memory.

bilinear, float32, one thread, ms, torch's -> these: 256 channels of 129x129 to 33x33 25 -> 2.3, 19 of 513x513 to
129x129 42 -> 3.4.
"""

from __future__ import annotations

import numpy as np
import torch

_WORTH = 1 << 16  # elements from which numba is worth its import


def _positions(size: int, out: int, align_corners: bool, align_mode: int, kind: np.dtype) -> np.ndarray:
    """Where each of `out` elements is read on an axis of `size`, in the precision of the data."""
    if align_corners:
        return kind.type(size - 1) / kind.type(max(out - 1, 1)) * np.arange(out, dtype=kind)
    if align_mode:
        return (np.float32(size) / np.float32(out) * np.arange(out, dtype=np.float32)).astype(kind)
    half = kind.type(0.5)
    return np.maximum(kind.type(size) / kind.type(out) * (np.arange(out, dtype=kind) + half) - half, kind.type(0))


def linear_gradient(dout: torch.Tensor, sizes: list[int], align_corners: bool, align_mode: int) -> torch.Tensor | None:
    """dX [N, C, *sizes] of a linear interpolation from dout [N, C, …], or None where torch shall do it."""
    if (
        dout.numel() < _WORTH or not dout.is_cpu or type(dout) is not torch.Tensor or torch.is_grad_enabled()
        or dout.dtype not in (torch.float32, torch.float64)
    ):  # fmt: skip
        return None
    from millstream.kernels.interp import Taps, back

    last = not dout.is_contiguous() and dout.movedim(1, -1).is_contiguous()
    held = (dout.movedim(1, -1) if last else dout.contiguous()).numpy()
    for k, size in enumerate(sizes):
        axis = k + (1 if last else 2)
        at = _positions(size, held.shape[axis], align_corners, align_mode, held.dtype)
        low = np.minimum(at.astype(np.int64), size - 1)
        of_high = at - low.astype(held.dtype)
        taps = Taps(low, np.minimum(low + 1, size - 1), held.dtype.type(1) - of_high, of_high)
        shape = (*held.shape[:axis], size, *held.shape[axis + 1 :])
        dx, outer = np.empty(shape, held.dtype), int(np.prod(held.shape[:axis]))
        back(held.reshape(outer, held.shape[axis], -1), taps, dx.reshape(outer, size, -1))
        held = dx
    found = torch.from_numpy(held)
    return found.movedim(-1, 1) if last else found
