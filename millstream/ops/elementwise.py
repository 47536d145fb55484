"""Elementwise arithmetic of two tensors with Fluid's broadcast (see ops/_broadcast.py).

Out has the LoD of X. Gradients are summed over the dims along which an input was repeated.
"""

from __future__ import annotations

import torch

from millstream.ops import _scaled_maps
from millstream.ops._broadcast import align, broadcast_spec, reduce_like
from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows

_IN = "X, Y -> Out"
_GRAD = "X, Y, Out@GRAD -> X@GRAD, Y@GRAD"


@op("elementwise_add", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", traceable=True, amp="gray")
def elementwise_add(x, y, *, axis: int = -1):
    """X + Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x + y


@op("elementwise_add_grad", slots=_GRAD)
def elementwise_add_grad(x, y, dout, *, axis: int = -1, want):
    """dX = dOut, dY = dOut."""
    return (reduce_like(dout, x, axis) if want[0] else None, reduce_like(dout, y, axis) if want[1] else None)


@op("elementwise_sub", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", traceable=True, amp="gray")
def elementwise_sub(x, y, *, axis: int = -1):
    """X - Y."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x - y


@op("elementwise_sub_grad", slots=_GRAD)
def elementwise_sub_grad(x, y, dout, *, axis: int = -1, want):
    """dX = dOut, dY = -dOut."""
    return (reduce_like(dout, x, axis) if want[0] else None, -reduce_like(dout, y, axis) if want[1] else None)


@op("elementwise_mul", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", traceable=True, amp="gray")
def elementwise_mul(x, y, *, axis: int = -1):
    """X * Y. X may be SelectedRows when Y has one element: the rows are scaled."""
    if type(x) is SelectedRows:
        return SelectedRows(x.rows, x.values * y.reshape(()), x.height)
    if axis != -1:
        x, y = align(x, y, axis)
    return x * y


@op("elementwise_mul_grad", slots=_GRAD)
def elementwise_mul_grad(x, y, dout, *, axis: int = -1, want):
    """dX = dOut * Y, dY = dOut * X."""
    xa, ya = (x, y) if axis == -1 else align(x, y, axis)
    if want[0] and want[1] and (found := _scaled_maps.back(xa, ya, dout)) is not None:
        return found[0], found[1].reshape(y.shape)
    return (
        reduce_like(dout * ya, x, axis) if want[0] else None,
        reduce_like(dout * xa, y, axis) if want[1] else None,
    )


@op("elementwise_div", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", traceable=True, amp="gray")
def elementwise_div(x, y, *, axis: int = -1):
    """X / Y; integers truncate toward zero."""
    if axis != -1:
        x, y = align(x, y, axis)
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@op("elementwise_div_grad", slots="X, Y, Out, Out@GRAD -> X@GRAD, Y@GRAD")
def elementwise_div_grad(x, y, out, dout, *, axis: int = -1, want):
    """dX = dOut / Y, dY = -dOut * Out / Y."""
    ya = y if axis == -1 else align(x, y, axis)[1]
    dx = dout / ya
    return (reduce_like(dx, x, axis) if want[0] else None, -reduce_like(dx * out, y, axis) if want[1] else None)


@op("elementwise_max", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", traceable=True, amp="gray")
def elementwise_max(x, y, *, axis: int = -1):
    """max(X, Y)."""
    if axis != -1:
        x, y = align(x, y, axis)
    return torch.maximum(x, y)


@op("elementwise_max_grad", slots=_GRAD)
def elementwise_max_grad(x, y, dout, *, axis: int = -1, want):
    """dOut goes to the larger one, on ties to Y."""
    xa, ya = align(x, y, axis)
    return _route(xa > ya, x, y, dout, axis, want)


@op("elementwise_min", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", amp="gray")
def elementwise_min(x, y, *, axis: int = -1):
    """min(X, Y)."""
    if axis != -1:
        x, y = align(x, y, axis)
    return torch.minimum(x, y)


@op("elementwise_min_grad", slots=_GRAD)
def elementwise_min_grad(x, y, dout, *, axis: int = -1, want):
    """dOut goes to the smaller one, on ties to Y."""
    xa, ya = align(x, y, axis)
    return _route(xa < ya, x, y, dout, axis, want)


def _route(to_x, x, y, dout, axis, want):
    return (
        reduce_like(dout * to_x, x, axis) if want[0] else None,
        reduce_like(dout * ~to_x, y, axis) if want[1] else None,
    )


def _larger_first(x: torch.Tensor, y: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The operands of pow, mod and floordiv, which Fluid swaps when Y has more dims."""
    a, b = align(x, y, axis)
    return (b, a) if x.dim() < y.dim() else (a, b)


@op("elementwise_pow", slots=_IN, infer=broadcast_spec, lod="X", grad_lod="X=Out@GRAD, Y", amp="gray")
def elementwise_pow(x, y, *, axis: int = -1):
    """X ** Y; with rank(X) < rank(Y), Y ** X. Integers go through float64 and are cut."""
    xa, ya = _larger_first(x, y, axis)
    if xa.is_floating_point():
        return torch.pow(xa, ya)
    return torch.pow(xa.double(), ya.double()).to(xa.dtype)


@op("elementwise_pow_grad", slots=_GRAD)
def elementwise_pow_grad(x, y, dout, *, axis: int = -1, want):
    """dX = dOut * Y * X ** (Y - 1), dY = dOut * log(X) * X ** Y."""
    xa, ya = align(x, y, axis)
    return (
        reduce_like(dout * ya * torch.pow(xa, ya - 1), x, axis) if want[0] else None,
        reduce_like(dout * torch.log(xa) * torch.pow(xa, ya), y, axis) if want[1] else None,
    )


@op("elementwise_mod", slots=_IN, infer=broadcast_spec, lod="X", grad=False, amp="gray")
def elementwise_mod(x, y, *, axis: int = -1):
    """Remainder of X / Y (with rank(X) < rank(Y), of Y / X): integers take the dividend's sign, floats the divisor's."""
    x, y = _larger_first(x, y, axis)
    return torch.remainder(x, y) if x.is_floating_point() else torch.fmod(x, y)


@op("elementwise_floordiv", slots=_IN, infer=broadcast_spec, lod="X", grad=False, amp="gray")
def elementwise_floordiv(x, y, *, axis: int = -1):
    """Quotient X / Y of integers (with rank(X) < rank(Y), Y / X), truncated toward zero."""
    x, y = _larger_first(x, y, axis)
    return torch.div(x, y, rounding_mode="trunc")


@op("minus", slots=_IN, infer="X", lod="X", grad_lod="X=Out@GRAD, Y=Out@GRAD")
def minus(x, y):
    """X - Y for tensors of equal shapes."""
    return x - y


@op("minus_grad", slots="Out@GRAD -> X@GRAD, Y@GRAD")
def minus_grad(dout):
    """dX = dOut, dY = -dOut."""
    return dout, -dout
