"""Comparison of two tensors with Fluid's broadcast; Out is bool and has the LoD of X."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType
from millstream.ops._broadcast import align, broadcast_shape, check_dtypes
from millstream.ops._opdef import op
from millstream.ops._values import Spec

_SLOTS = "X, Y -> Out"


def _spec(x: Spec, y: Spec, *, axis: int) -> Spec:
    if len(x.shape) < len(y.shape):
        raise ShapeError(f"X must have at least as many dims as Y, received X {list(x.shape)} and Y {list(y.shape)}")
    check_dtypes(x, y)
    broadcast_shape(tuple(x.shape), tuple(y.shape), axis)  # raises where they do not fit
    return Spec(x.shape, VarType.BOOL, x.lod_level)


def _shaped_like_x(x: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    """Out has X's shape whatever Y's: where the broadcast is larger, 1.8.5 keeps its first elements."""
    if full.numel() == x.numel():
        return full.reshape(x.shape)
    return full.reshape(-1)[: x.numel()].reshape(x.shape)


@op("equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def equal(x, y, *, axis: int = -1):
    """X == Y."""
    if x.shape == y.shape:
        return x == y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a == b)


@op("not_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def not_equal(x, y, *, axis: int = -1):
    """X != Y."""
    if x.shape == y.shape:
        return x != y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a != b)


@op("less_than", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def less_than(x, y, *, axis: int = -1):
    """X < Y."""
    if x.shape == y.shape:
        return x < y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a < b)


@op("less_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def less_equal(x, y, *, axis: int = -1):
    """X <= Y."""
    if x.shape == y.shape:
        return x <= y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a <= b)


@op("greater_than", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def greater_than(x, y, *, axis: int = -1):
    """X > Y."""
    if x.shape == y.shape:
        return x > y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a > b)


@op("greater_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def greater_equal(x, y, *, axis: int = -1):
    """X >= Y."""
    if x.shape == y.shape:
        return x >= y
    a, b = align(x, y, axis)
    return _shaped_like_x(x, a >= b)


def _reduce_spec(x: Spec, y: Spec, *, axis: int) -> Spec:
    _spec(x, y, axis=axis)
    return Spec((1,), VarType.BOOL)


@op("equal_reduce", slots=_SLOTS, infer=_reduce_spec, lod="X", grad=False)
def equal_reduce(x, y, *, axis: int = -1):
    """Whether X and Y (broadcast) are equal everywhere: bool [1]."""
    if axis != -1:
        x, y = align(x, y, axis)
    return (x == y).all().reshape(1)
