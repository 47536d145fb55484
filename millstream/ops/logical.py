"""Boolean arithmetic and tests of whole tensors."""

from __future__ import annotations

import math

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows, Spec


def _pair_spec(x: Spec, y: Spec) -> Spec:
    known = min((*x.shape, *y.shape), default=0) >= 0
    if known and math.prod(x.shape) != math.prod(y.shape):
        raise ShapeError(f"X and Y must have as many elements, received X {list(x.shape)} and Y {list(y.shape)}")
    return Spec(x.shape, VarType.BOOL, x.lod_level)


def _shaped(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Y in X's shape: the elements pair up in their order, [N] with [N, 1] too."""
    return y.reshape(x.shape) if y.shape != x.shape and y.numel() == x.numel() else y


@op("logical_and", slots="X, Y -> Out", infer=_pair_spec, lod="X", grad=False)
def logical_and(x, y):
    """X and Y, elementwise."""
    return torch.logical_and(x, _shaped(y, x))


@op("logical_or", slots="X, Y -> Out", infer=_pair_spec, lod="X", grad=False)
def logical_or(x, y):
    """X or Y, elementwise."""
    return torch.logical_or(x, _shaped(y, x))


@op("logical_xor", slots="X, Y -> Out", infer=_pair_spec, lod="X", grad=False)
def logical_xor(x, y):
    """Exactly one of X and Y, elementwise."""
    return torch.logical_xor(x, _shaped(y, x))


@op("logical_not", slots="X -> Out", infer="X:bool", lod="X", grad=False)
def logical_not(x):
    """Not X, elementwise."""
    return torch.logical_not(x)


def _flag_spec(x: Spec, *rest: Spec, **attrs: object) -> Spec:
    return Spec((1,), VarType.BOOL)


@op("is_empty", slots="X -> Out", infer=_flag_spec, grad=False)
def is_empty(x):
    """Whether X has no elements: bool [1]."""
    return torch.full((1,), x.numel() == 0, dtype=torch.bool, device=x.device)


def _values(x):
    return x.values if isinstance(x, SelectedRows) else x


@op("isfinite", slots="X -> Out", infer=_flag_spec, grad=False)
def isfinite(x):
    """Whether all of X is finite: bool [1]."""
    return torch.isfinite(_values(x)).all().reshape(1)


@op("isinf", slots="X -> Out", infer=_flag_spec, grad=False)
def isinf(x):
    """Whether any element of X is infinite: bool [1]."""
    return torch.isinf(_values(x)).any().reshape(1)


@op("isnan", slots="X -> Out", infer=_flag_spec, grad=False)
def isnan(x):
    """Whether any element of X is NaN: bool [1]."""
    return torch.isnan(_values(x)).any().reshape(1)


@op("allclose", slots="Input, Other -> Out", infer=_flag_spec, grad=False)
def allclose(x, y, *, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False):
    """Whether |Input - Other| <= atol + rtol * |Other| everywhere: bool [1]."""
    return torch.tensor([torch.allclose(x, y, rtol, atol, equal_nan)], device=x.device)
