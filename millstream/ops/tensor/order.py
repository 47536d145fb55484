"""Sorting, maxima and distinct values."""

from __future__ import annotations

import math
from functools import cache

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, Long, op
from millstream.ops._values import Spec, torch_dtype
from millstream.ops.tensor._dims import axis_of

_SORTED = (torch.float32, torch.float64, torch.int32, torch.int64)


@cache
def _top_rows():
    from millstream.kernels.partial_sort import top_rows  # numba is imported when the first top_k runs

    return top_rows


@cache
def _order_rows():
    from millstream.kernels.full_sort import order_rows

    return order_rows


# ---- top_k -------------------------------------------------------------------------------------
def _top_k_spec(x, k_tensor, *, k):
    if not x.shape:
        raise ShapeError("top_k needs X of rank 1 or more")
    if k < 1 and k_tensor is None:
        raise ShapeError(f"top_k: k must be at least 1, received {k}")
    if k_tensor is None and 0 <= x.shape[-1] < k:
        raise ShapeError(f"top_k: k is {k}, but the last dimension of X {list(x.shape)} is {x.shape[-1]}")
    shape = (*x.shape[:-1], k)
    return x.like(shape=shape), Spec(shape, VarType.INT64, x.lod_level)


@op("top_k", slots="X, K? -> Out, Indices", infer=_top_k_spec, lod="X", nodiff="K", amp="gray")
def top_k(x, k_tensor, *, k: int = 1):
    """The k largest of the last dim, largest first, and their positions (int64); K goes before the attribute.

    Equal numbers come in the order of a heap-based partial sort (kernels/partial_sort.py).
    """
    if k_tensor is not None:
        k = int(k_tensor.reshape(-1)[0])
    if k > x.shape[-1]:
        raise ShapeError(f"top_k: k is {k}, but the last dimension of X {list(x.shape)} is {x.shape[-1]}")
    if x.device.type != "cpu" or x.dtype not in _SORTED:
        return torch.topk(x, k)
    shape = (*x.shape[:-1], k)
    out, index = torch.empty(shape, dtype=x.dtype), torch.empty(shape, dtype=torch.int64)
    if out.numel():
        flat = x.detach().contiguous().numpy().reshape(-1, x.shape[-1])
        _top_rows()(flat, out.numpy().reshape(-1, k), index.numpy().reshape(-1, k))
    return out, index


@op("top_k_grad", slots="X, Indices, Out@GRAD -> X@GRAD", nodiff="Indices", infer="X@GRAD=X")
def top_k_grad(x, index, dout):
    return torch.zeros(x.shape, dtype=dout.dtype, device=dout.device).scatter_(-1, index, dout)


# ---- argsort -----------------------------------------------------------------------------------
def _argsort_spec(x, *, axis, descending):
    axis_of(axis, len(x.shape))
    return x, x.like(dtype=VarType.INT64)


@op("argsort", slots="X -> Out, Indices", infer=_argsort_spec, lod="X", grad_lod="X")
def argsort(x, *, axis: int = -1, descending: bool = False):
    """X sorted along `axis`, and the positions (int64) its numbers had.

    Equal numbers and NaN come as an introspective sort leaves them (kernels/full_sort.py): up to 16 keep their order.
    """
    if x.device.type != "cpu" or x.dtype not in _SORTED or x.dim() == 0:
        return torch.sort(x, dim=axis, descending=descending, stable=True)
    # the kernel sorts downwards, so that it is given the numbers turned around
    keys = x if descending else ~x if x.dtype in (torch.int32, torch.int64) else -x
    keys = keys.detach().movedim(axis, -1).clone(memory_format=torch.contiguous_format)
    index = torch.empty(keys.shape, dtype=torch.int64)
    if keys.numel():
        rows = (-1, keys.shape[-1])
        _order_rows()(keys.numpy().reshape(rows), index.numpy().reshape(rows))
    index = index.movedim(-1, axis).contiguous()
    return torch.gather(x, axis, index), index


@op("argsort_grad", slots="Indices, X, Out@GRAD -> X@GRAD", nodiff="Indices", infer="X@GRAD=X")
def argsort_grad(index, x, dout, *, axis: int = -1):
    return torch.zeros(x.shape, dtype=dout.dtype, device=dout.device).scatter_(axis, index, dout)


# ---- arg_max, arg_min ----------------------------------------------------------------------------
def _arg_spec(x, *, axis, keepdims, dtype):
    k = axis_of(axis, len(x.shape))
    rest = (*x.shape[:k], *([1] if keepdims else []), *x.shape[k + 1 :])
    return Spec(rest, VarType.INT64 if dtype < 0 else to_var_type(dtype))


def _arg(find, x, axis, keepdims, dtype):
    if x.is_floating_point():  # NaN is never found, and what is not beyond the search's start counts as it
        start = -math.inf if find is torch.argmax else math.inf
        x = torch.nan_to_num(x, start, math.inf, -math.inf)
    out = find(x, axis, keepdim=keepdims)
    return out if dtype < 0 else out.to(torch_dtype(dtype))


@op("arg_max", slots="X -> Out", infer=_arg_spec, grad=False)
def arg_max(x, *, axis: Long, keepdims: bool = False, dtype: DType = -1):
    """Position of the largest number along `axis`, the first of equal ones; int64 unless `dtype` says int32."""
    return _arg(torch.argmax, x, axis, keepdims, dtype)


@op("arg_min", slots="X -> Out", infer=_arg_spec, grad=False)
def arg_min(x, *, axis: Long, keepdims: bool = False, dtype: DType = -1):
    """Position of the smallest number along `axis`, the first of equal ones; int64 unless `dtype` says int32."""
    return _arg(torch.argmin, x, axis, keepdims, dtype)


# ---- unique --------------------------------------------------------------------------------------
def _distinct(x):
    """Distinct values in the order of their first appearance, each element's place among them, and counts."""
    values, inverse, counts = torch.unique(x.reshape(-1), return_inverse=True, return_counts=True)
    n = inverse.numel()
    first = torch.full((values.numel(),), n, dtype=torch.int64, device=x.device)
    first.scatter_reduce_(0, inverse, torch.arange(n, device=x.device), "amin")
    order = torch.argsort(first)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=x.device)
    return values[order], place[inverse], counts[order]


def _check_vector(x):
    if len(x.shape) != 1:
        raise ShapeError(f"X must be a vector, received shape {list(x.shape)}")


def _unique_spec(x, *, dtype):
    _check_vector(x)
    return Spec((-1,), x.dtype), Spec(x.shape, to_var_type(dtype))


@op("unique", slots="X -> Out, Index", infer=_unique_spec, grad=False)
def unique(x, *, dtype: DType):
    """Distinct numbers of a vector by first appearance, and for every element its place among them (`dtype`)."""
    values, index, _ = _distinct(x)
    return values, index.to(torch_dtype(dtype))


def _unique_counts_spec(x, *, dtype):
    _check_vector(x)
    return Spec((-1,), x.dtype), Spec(x.shape, to_var_type(dtype)), Spec((-1,), to_var_type(dtype))


@op("unique_with_counts", slots="X -> Out, Index, Count", infer=_unique_counts_spec, grad=False)
def unique_with_counts(x, *, dtype: DType):
    """Like unique, with how often each number appears (`dtype`)."""
    values, index, counts = _distinct(x)
    kind = torch_dtype(dtype)
    return values, index.to(kind), counts.to(kind)
