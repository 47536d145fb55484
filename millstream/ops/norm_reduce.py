"""Norms and distances: norm, p_norm, frobenius_norm, l1_norm, squared_l2_norm, squared_l2_distance, dist."""

from __future__ import annotations

import math

import torch

from millstream.errors import ShapeError
from millstream.ops._broadcast import broadcast_shape, reduce_like
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation_pieces import check_axis
from millstream.ops.reduce import _DIM0, _full, _is_full, distinct, reduce_lod, reduce_spec, spread


def _one(x: Spec, *rest: Spec, **attrs: object) -> Spec:
    return Spec((1,), x.dtype)


# ---- norm ------------------------------------------------------------------------------------------
def _norm_spec(x: Spec, *, axis: int, epsilon: float) -> tuple[Spec, Spec]:
    check_axis(x, axis)
    axis %= len(x.shape)
    return Spec(tuple(1 if i == axis else d for i, d in enumerate(x.shape)), x.dtype), x.like(lod_level=0)


@op("norm", slots="X -> Norm~, Out", infer=_norm_spec)
def norm(x, *, axis: int, epsilon: float = 1e-10):
    """X / Norm, Norm = sqrt(sum of X^2 along `axis` + epsilon) (dim kept)."""
    n = torch.sqrt((x * x).sum(axis, keepdim=True) + epsilon)
    return n, x / n


@op("norm_grad", slots="X, Norm, Out@GRAD -> X@GRAD", nodiff="Norm")
def norm_grad(x, n, dout, *, axis: int, epsilon: float = 1e-10):
    """(dOut - X * sum(dOut * X) / Norm^2) / Norm."""
    if torch.is_grad_enabled():  # to be differentiated again: Norm is a function of X then
        n = torch.sqrt((x * x).sum(axis, keepdim=True) + epsilon)
    return (dout - x * ((dout * x).sum(axis, keepdim=True) / (n * n))) / n


def _p_norm_spec(x: Spec, *, porder: float, axis: int, epsilon: float, keepdim: bool) -> Spec:
    check_axis(x, axis)
    if porder <= 0 or math.isinf(porder):
        raise ShapeError(f"porder must be positive and finite, received {porder}")
    axis %= len(x.shape)
    if keepdim:
        return x.like(shape=tuple(1 if i == axis else d for i, d in enumerate(x.shape)), lod_level=0)
    return x.like(shape=tuple(d for i, d in enumerate(x.shape) if i != axis) or (1,), lod_level=0)


@op("p_norm", slots="X -> Out", infer=_p_norm_spec)
def p_norm(x, *, porder: float = 2.0, axis: int = -1, epsilon: float = 1e-12, keepdim: bool = False):
    """(sum of |X|^porder along `axis`)^(1/porder)."""
    out = torch.linalg.vector_norm(x, porder, axis, keepdim=keepdim)
    return out if out.dim() else out.reshape(1)


@op("p_norm_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def p_norm_grad(x, out, dout, *, porder: float = 2.0, axis: int = -1, epsilon: float = 1e-12, keepdim: bool = False):
    """dOut * sign(X) * |X|^(porder-1) / (Out^(porder-1) + epsilon)."""
    if out.dim() < x.dim():
        out, dout = out.unsqueeze(axis), dout.unsqueeze(axis)
    if porder == 1.0:
        return dout * torch.sign(x) / (1 + epsilon)
    power = porder - 1
    return dout * (torch.sign(x) * x.abs().pow(power)) / (out.pow(power) + epsilon)


@op("frobenius_norm", slots="X -> Out", infer=reduce_spec, lod=reduce_lod, grad_lod="X")
def frobenius_norm(x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False):
    """sqrt(sum of X^2) over `dim` (see reduce_sum)."""
    if _is_full(x, dim, reduce_all):
        return _full(torch.sqrt((x * x).sum()), x, keep_dim)
    return torch.sqrt((x * x).sum(distinct(x, dim), keepdim=keep_dim))


@op("frobenius_norm_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def frobenius_norm_grad(x, out, dout, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False):
    """dOut * X / Out."""
    return x * spread(dout / out, x, dim, reduce_all)


@op("l1_norm", slots="X -> Out", infer=_one)
def l1_norm(x):
    """Sum of |X|: [1]."""
    return x.abs().sum().reshape(1)


@op("l1_norm_grad", slots="X, Out@GRAD -> X@GRAD")
def l1_norm_grad(x, dout):
    """dOut * sign(X)."""
    return torch.sign(x) * dout


@op("squared_l2_norm", slots="X -> Out", infer=_one)
def squared_l2_norm(x):
    """Sum of X^2: [1]."""
    flat = x.reshape(-1)
    return torch.dot(flat, flat).reshape(1)


@op("squared_l2_norm_grad", slots="X, Out@GRAD -> X@GRAD")
def squared_l2_norm_grad(x, dout):
    """2 * dOut * X."""
    return x * (dout * 2)


# ---- squared_l2_distance -----------------------------------------------------------------------------
def _distance_spec(x: Spec, y: Spec) -> tuple[Spec, Spec]:
    if len(x.shape) < 2 or len(x.shape) != len(y.shape):
        raise ShapeError(
            f"X and Y must have the same number of dims, at least 2, received {list(x.shape)} and {list(y.shape)}"
        )
    width = math.prod(x.shape[1:]) if min(x.shape[1:]) >= 0 else -1
    other = math.prod(y.shape[1:]) if min(y.shape[1:]) >= 0 else -1
    if width >= 0 and other >= 0 and width != other:
        raise ShapeError(f"rows of X and Y must be of one size, received {list(x.shape)} and {list(y.shape)}")
    if y.shape[0] not in (1, -1) and x.shape[0] >= 0 and x.shape[0] != y.shape[0]:
        raise ShapeError(f"Y must have 1 row or as many as X ({x.shape[0]}), received {y.shape[0]}")
    return Spec((x.shape[0], width), x.dtype), x.like(shape=(x.shape[0], 1))


@op("squared_l2_distance", slots="X, Y -> sub_result~, Out", infer=_distance_spec, lod="Out=X", again=True)
def squared_l2_distance(x, y):
    """Sum of (X - Y)^2 of each row, [N, 1]; Y may have one row for all. sub_result is X - Y, [N, D]."""
    sub = x.reshape(x.shape[0], -1) - y.reshape(y.shape[0], -1)
    return sub, (sub * sub).sum(1, keepdim=True)


@op("squared_l2_distance_grad", slots="X, Y, sub_result, Out@GRAD -> X@GRAD, Y@GRAD")
def squared_l2_distance_grad(x, y, sub, dout, *, want):
    """dX = 2 * dOut * (X - Y), dY = -dX (summed over rows if Y has one)."""
    d = sub * (dout * 2)
    dy = None
    if want[1]:
        dy = -(d.sum(0) if y.shape[0] != x.shape[0] else d).reshape(y.shape)
    return d.reshape(x.shape) if want[0] else None, dy


# ---- dist ------------------------------------------------------------------------------------------
def _dist_spec(x: Spec, y: Spec, *, p: float) -> Spec:
    broadcast_shape(tuple(x.shape), tuple(y.shape), -1)
    return Spec((1,), x.dtype)


@op("dist", slots="X, Y -> Out", infer=_dist_spec)
def dist(x, y, *, p: float = 2.0):
    """The p-norm of X - Y (broadcast): [1]. p = 0 counts what is not 0, inf and -inf are the greatest and least |X - Y|."""
    return torch.linalg.vector_norm(x - y, p).reshape(1)


@op("dist_grad", slots="X, Y, Out, Out@GRAD -> X@GRAD, Y@GRAD")
def dist_grad(x, y, out, dout, *, p: float = 2.0, want):
    """dX = dOut * sign(Z) * |Z|^(p-1) / Out^(p-1), Z = X - Y; p = inf, -inf: dOut * sign(Z) at each |Z| = Out; p = 0: 0.

    Where Out is 0, or too large for its dtype, the gradient is 0.
    """
    z = x - y
    if p == 0:
        d = torch.zeros_like(z)
    elif math.isinf(p):
        d = torch.sign(z) * (z.abs() == out) * dout
    elif p == 1:
        d = torch.sign(z) * dout
    else:
        d = torch.sign(z) * z.abs().pow(p - 1) * (dout / out.pow(p - 1))
        d = torch.where((out == 0) | torch.isinf(out), torch.zeros_like(d), d)
    return reduce_like(d, x, -1) if want[0] else None, -reduce_like(d, y, -1) if want[1] else None
