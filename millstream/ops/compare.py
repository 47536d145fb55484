"""Comparison of two tensors with Fluid's broadcast; Out is bool and has the LoD of X."""

from __future__ import annotations

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
    full = broadcast_shape(tuple(x.shape), tuple(y.shape), axis)
    shape = tuple(f if d == 1 and f > 1 else d for d, f in zip(x.shape, full))  # unknown dims of X stay unknown
    return Spec(shape, VarType.BOOL, x.lod_level)


@op("equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def equal(x, y, *, axis: int = -1):
    """X == Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x == y


@op("not_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def not_equal(x, y, *, axis: int = -1):
    """X != Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x != y


@op("less_than", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def less_than(x, y, *, axis: int = -1):
    """X < Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x < y


@op("less_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def less_equal(x, y, *, axis: int = -1):
    """X <= Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x <= y


@op("greater_than", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def greater_than(x, y, *, axis: int = -1):
    """X > Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x > y


@op("greater_equal", slots=_SLOTS, infer=_spec, lod="X", grad=False)
def greater_equal(x, y, *, axis: int = -1):
    """X >= Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x >= y


def _reduce_spec(x: Spec, y: Spec, *, axis: int) -> Spec:
    _spec(x, y, axis=axis)
    return Spec((1,), VarType.BOOL)


@op("equal_reduce", slots=_SLOTS, infer=_reduce_spec, grad=False)
def equal_reduce(x, y, *, axis: int = -1):
    """Whether X and Y (broadcast) are equal everywhere: bool [1]."""
    if axis != -1:
        x, y = align(x, y, axis)
    return (x == y).all().reshape(1)
