"""Elementwise arithmetic of two tensors with Fluid's broadcast."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op


def align(x: torch.Tensor, y: torch.Tensor, axis: int) -> torch.Tensor:
    """`y` shaped so that torch's broadcast against `x` is Fluid's: Y's dims align at `axis`, its trailing 1s drop."""
    if x.dim() == y.dim() or axis == -1 or y.dim() == 0:
        return y
    shape = list(y.shape)
    while len(shape) > 1 and shape[-1] == 1 and axis + len(shape) > x.dim():
        shape.pop()
    tail = x.dim() - axis - len(shape)
    return y.reshape(shape + [1] * tail) if tail > 0 else y.reshape(shape)


@op("elementwise_mul", slots="X, Y -> Out", lod="X")
def elementwise_mul(x, y, *, axis: int = -1):
    """X * Y."""
    return x * align(x, y, axis)
