"""Reductions."""

from __future__ import annotations

from millstream.ops._opdef import op


@op("reduce_sum", slots="X -> Out")
def reduce_sum(x, *, dim: list[int] = [0], keep_dim: bool = False, reduce_all: bool = False):  # noqa: B006
    """Sum over `dim`."""
    if reduce_all or len(dim) == x.dim():
        return x.sum().reshape([1] * (x.dim() if keep_dim else 1))
    return x.sum(dim, keepdim=keep_dim)
