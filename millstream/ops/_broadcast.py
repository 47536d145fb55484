"""Fluid's broadcast of two tensors: the smaller one aligns at `axis` of the larger, its trailing 1s drop."""

from __future__ import annotations

from functools import lru_cache

import torch

from millstream.errors import ShapeError
from millstream.ir.types import FLOATING, VarType
from millstream.ops._values import Spec

Shape = tuple[int, ...]


@lru_cache(maxsize=4096)
def placed(small: Shape, rank: int, axis: int) -> Shape:
    """The shape with `rank` dims that puts `small` at `axis` (-1: at the last dims)."""
    if len(small) >= rank:
        return small
    start = rank - len(small) if axis == -1 else axis
    shape = list(small)
    while len(shape) > 1 and shape[-1] == 1 and start + len(shape) > rank:
        shape.pop()
    if axis != -1:
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
    tail = rank - start - len(shape)
    if start < 0 or tail < 0:
        raise ShapeError(
            f"broadcast: axis must be at least 0 and leave room for shape {list(small)} among {rank} dims, received {axis}"
        )
    return (1,) * start + tuple(shape) + (1,) * tail


def align(x: torch.Tensor, y: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both tensors, the one of lower rank reshaped so that torch's broadcast is Fluid's."""
    dx, dy = x.dim(), y.dim()
    if dx == dy or axis == -1:
        return x, y
    if dx > dy:
        if axis + dy == dx:  # Y is at the last dims, where torch puts it
            return x, y
        return x, y.reshape(placed(y.shape, dx, axis))
    return x.reshape(placed(x.shape, dy, axis)), y


@lru_cache(maxsize=4096)
def _summed_dims(big: Shape, small: Shape, axis: int) -> tuple[tuple[int, ...], bool]:
    full = placed(small, len(big), axis)
    dims = tuple(i for i, (b, s) in enumerate(zip(big, full)) if s == 1 and b != 1)
    left = tuple(b for i, b in enumerate(big) if i not in dims)
    return dims, left != tuple(small)


def reduce_like(d: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """The gradient `d` of a broadcast result, summed over the dims along which `like` was repeated."""
    shape = like.shape
    if d.shape == shape:
        return d
    dims, reshape = _summed_dims(d.shape, shape, axis)
    if dims:
        d = d.sum(dims)
    return d.reshape(shape) if reshape else d


def broadcast_shape(x: Shape, y: Shape, axis: int) -> Shape:
    """Shape of a broadcast; unknown (-1) against n > 1 is n, against 1 or 0 is unknown."""
    if axis < -1:
        raise ShapeError(f"axis must be at least -1, received {axis}")
    if x == y:
        return x
    rank = max(len(x), len(y))
    if not -1 <= axis < max(rank, 1):
        raise ShapeError(f"axis must be in [-1, {rank - 1}] for X {list(x)} and Y {list(y)}, received {axis}")
    out = []
    for a, b in zip(placed(x, rank, axis), placed(y, rank, axis)):
        if a != b and a > 1 and b > 1:
            raise ShapeError(
                f"X {list(x)} and Y {list(y)} do not broadcast at axis {axis}: dims must be equal or 1, "
                f"received {a} and {b}; "
                "axis says where the dims of the smaller one start (-1: at the last dims)"
            )
        out.append(max(a, b) if max(a, b) > 1 or (a == 1 and b == 1) else -1)
    return tuple(out)


_HALF = (VarType.FP16, VarType.BF16)


def check_dtypes(x: Spec, y: Spec) -> None:
    """ShapeError unless X and Y have one dtype; half precision may meet another float."""
    if x.dtype == y.dtype or (x.dtype in FLOATING and y.dtype in FLOATING and (x.dtype in _HALF or y.dtype in _HALF)):
        return
    raise ShapeError(
        f"X and Y must have the same dtype, received {x.dtype.name} and {y.dtype.name}; cast one of them (fluid.layers.cast)"
    )


def broadcast_spec(x: Spec, y: Spec, *, axis: int) -> Spec:
    """Inference of a binary operator: broadcast shape, X's dtype and LoD."""
    check_dtypes(x, y)
    return x.like(shape=broadcast_shape(tuple(x.shape), tuple(y.shape), axis))
