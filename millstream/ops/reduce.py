"""Reductions over chosen dims (reduce_*), mean, and cumsum. Norms are in norm_reduce.py.

`dim` names the dims (negative ones count from the end); `reduce_all`, or naming every dim, reduces the whole tensor
to shape [1] ([1, …, 1] with keep_dim). Out keeps the LoD of X unless dim 0 is reduced.
"""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import to_var_type
from millstream.ops._opdef import DType, op
from millstream.ops._values import Spec, torch_dtype

_DIM0 = [0]


def reduced_dims(rank: int, dim: list[int], reduce_all: bool) -> list[int]:
    """The dims to reduce, non-negative; all of them for a full reduction."""
    if reduce_all:
        return list(range(rank))
    for d in dim:
        if not -rank <= d < rank:
            raise ShapeError(f"dim must be in [{-rank}, {rank - 1}] for a tensor of {rank} dims, received {dim}")
    if not dim:
        raise ShapeError("dim must name at least one dim (or set reduce_all), received []")
    return sorted({d % rank for d in dim})


def reduced_shape(shape: tuple[int, ...], dim: list[int], keep_dim: bool, reduce_all: bool) -> tuple[int, ...]:
    """Shape after a reduction."""
    dims = reduced_dims(len(shape), dim, reduce_all)
    if keep_dim:
        return tuple(1 if i in dims else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in dims) or (1,)


def _keeps_lod(rank: int, dim: list[int], reduce_all: bool) -> bool:
    return 0 not in reduced_dims(rank, dim, reduce_all)


def reduce_spec(x: Spec, *, dim, keep_dim, reduce_all, out_dtype=-1, **rest) -> Spec:
    """Inference of reduce_*."""
    shape = reduced_shape(tuple(x.shape), dim, keep_dim, reduce_all)
    level = x.lod_level if _keeps_lod(len(x.shape), dim, reduce_all) else 0
    return Spec(shape, x.dtype if out_dtype < 0 else to_var_type(out_dtype), level)


def reduce_lod(lods, attrs, ins):
    """Out keeps X's LoD unless dim 0 is reduced."""
    return {"Out": lods["X"]} if _keeps_lod(ins["X"].dim(), attrs["dim"], attrs["reduce_all"]) else {}


def spread(d: torch.Tensor, x: torch.Tensor, dim: list[int], reduce_all: bool) -> torch.Tensor:
    """A value of the reduced shape with its dims put back as 1s, so that it broadcasts against X."""
    if d.numel() == 1 and d.dim() == 1:
        return d
    if d.dim() == x.dim():
        return d
    if len(dim) == 1 and not reduce_all:
        return d.unsqueeze(dim[0])
    dims = reduced_dims(x.dim(), dim, reduce_all)
    return d.reshape([1 if i in dims else s for i, s in enumerate(x.shape)])


def _cast(out: torch.Tensor, out_dtype: int) -> torch.Tensor:
    return out if out_dtype < 0 else out.to(torch_dtype(out_dtype))


def _is_full(x: torch.Tensor, dim: list[int], reduce_all: bool) -> bool:
    rank = x.dim()
    return reduce_all or (len(dim) >= rank and len({d % rank for d in dim}) == rank)


def distinct(x: torch.Tensor, dim: list[int]) -> list[int]:
    """`dim` without repeats, which torch refuses."""
    return dim if len(dim) == 1 else reduced_dims(x.dim(), dim, False)


def _full(out: torch.Tensor, x: torch.Tensor, keep_dim: bool) -> torch.Tensor:
    return out.reshape([1] * x.dim() if keep_dim else 1)


_SLOTS = "X -> Out"


@op("reduce_sum", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad_lod="X", traceable=True)
def reduce_sum(
    x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """Sum over `dim`; `out_dtype` (if given) is the dtype it is summed in."""
    dtype = x.dtype if out_dtype < 0 else torch_dtype(out_dtype)
    if _is_full(x, dim, reduce_all):
        return _full(x.sum(dtype=dtype), x, keep_dim)
    return x.sum(distinct(x, dim), keepdim=keep_dim, dtype=dtype)


@op("reduce_sum_grad", slots="X, Out@GRAD -> X@GRAD")
def reduce_sum_grad(
    x, dout, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, in_dtype: DType = -1
):
    """dX repeats dOut along the reduced dims; its dtype is `in_dtype` if that is given, else dOut's, as in Fluid.

    Not the derivative with `keep_dim`, `reduce_all` and one number in `dim` (what `layers.reduce_sum(x, keep_dim=True)`
    appends): 1.8.5 then repeats dOut along that dim alone, at index 0 of the others, and leaves 0 elsewhere.
    """
    if reduce_all and keep_dim and len(dim) == 1 and x.dim() > 1:
        at = [slice(0, 1)] * x.dim()
        at[dim[0]] = slice(None)
        dx = torch.zeros_like(x, dtype=dout.dtype)
        dx[tuple(at)] = dout
        return _cast(dx, in_dtype)
    return _cast(spread(dout, x, dim, reduce_all), in_dtype).expand(x.shape)


@op("reduce_mean", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad_lod="X", traceable=True)
def reduce_mean(
    x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """Mean over `dim`; integers truncate toward zero."""
    if out_dtype >= 0:
        x = x.to(torch_dtype(out_dtype))
    full = _is_full(x, dim, reduce_all)
    if x.is_floating_point():
        return _full(x.mean(), x, keep_dim) if full else x.mean(distinct(x, dim), keepdim=keep_dim)
    total = _full(x.sum(dtype=x.dtype), x, keep_dim) if full else x.sum(distinct(x, dim), keepdim=keep_dim, dtype=x.dtype)
    return torch.div(total, max(x.numel() // max(total.numel(), 1), 1), rounding_mode="trunc")


@op("reduce_mean_grad", slots="X, Out@GRAD -> X@GRAD")
def reduce_mean_grad(
    x, dout, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, in_dtype: DType = -1
):
    """dX repeats dOut / (number of averaged elements); its dtype is `in_dtype` if that is given, else dOut's."""
    n = x.numel() // max(dout.numel(), 1)
    return _cast(spread(dout, x, dim, reduce_all) / max(n, 1), in_dtype).expand(x.shape)


@op("reduce_max", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad_lod="X", traceable=True)
def reduce_max(
    x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """Greatest element over `dim`."""
    out = _full(x.amax(), x, keep_dim) if _is_full(x, dim, reduce_all) else x.amax(distinct(x, dim), keepdim=keep_dim)
    return _cast(out, out_dtype)


@op("reduce_min", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad_lod="X", traceable=True)
def reduce_min(
    x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """Least element over `dim`."""
    out = _full(x.amin(), x, keep_dim) if _is_full(x, dim, reduce_all) else x.amin(distinct(x, dim), keepdim=keep_dim)
    return _cast(out, out_dtype)


def _extreme_grad(
    x, out, dout, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """dX is dOut at every element that equals Out (ties all get it)."""
    if out_dtype >= 0:
        out, dout = out.to(x.dtype), dout.to(x.dtype)
    return spread(dout, x, dim, reduce_all) * (x == spread(out, x, dim, reduce_all))


op("reduce_max_grad", slots="X, Out, Out@GRAD -> X@GRAD")(_extreme_grad)
op("reduce_min_grad", slots="X, Out, Out@GRAD -> X@GRAD")(_extreme_grad)


@op("reduce_prod", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad_lod="X")
def reduce_prod(
    x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """Product over `dim`."""
    if out_dtype >= 0:
        x = x.to(torch_dtype(out_dtype))
    if _is_full(x, dim, reduce_all):
        return _full(x.prod(dtype=x.dtype), x, keep_dim)
    for d in reversed(reduced_dims(x.dim(), dim, False)):
        x = x.prod(d, keepdim=keep_dim, dtype=x.dtype)
    return x


@op("reduce_prod_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def reduce_prod_grad(
    x, out, dout, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False, out_dtype: DType = -1
):
    """dX = dOut * Out / X."""
    if out_dtype >= 0:
        out, dout = out.to(x.dtype), dout.to(x.dtype)
    return spread(dout * out, x, dim, reduce_all) / x


@op("reduce_all", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad=False)
def reduce_all_op(x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False):
    """Whether every element over `dim` is true."""
    if _is_full(x, dim, reduce_all):
        return _full(x.all(), x, keep_dim)
    return x.all(distinct(x, dim), keepdim=keep_dim)


@op("reduce_any", slots=_SLOTS, infer=reduce_spec, lod=reduce_lod, grad=False)
def reduce_any(x, *, dim: list[int] = _DIM0, keep_dim: bool = False, reduce_all: bool = False):
    """Whether any element over `dim` is true."""
    if _is_full(x, dim, reduce_all):
        return _full(x.any(), x, keep_dim)
    return x.any(distinct(x, dim), keepdim=keep_dim)


def _one(x: Spec, **attrs: object) -> Spec:
    return Spec((1,), x.dtype)


@op("mean", slots=_SLOTS, infer=_one, grad_lod="X", traceable=True, amp="black")
def mean(x):
    """Mean of all elements: [1]."""
    return x.mean().reshape(1)


@op("mean_grad", slots="X, Out@GRAD -> X@GRAD")
def mean_grad(x, dout):
    """dX = dOut / (number of elements)."""
    return (dout / max(x.numel(), 1)).expand(x.shape)


def _cumsum_spec(x: Spec, *, axis, **rest) -> Spec:
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise ShapeError(f"axis must be in [{-rank}, {rank - 1}] for X {list(x.shape)}, received {axis}")
    return x


@op("cumsum", slots=_SLOTS, infer=_cumsum_spec, lod="X", grad_lod="X=Out@GRAD", traceable=True)
def cumsum(x, *, axis: int = -1, exclusive: bool = False, reverse: bool = False):
    """Running sum along `axis`; from the end when `reverse`; without the element itself when `exclusive`."""
    if reverse:
        x = x.flip(axis)
    out = torch.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        out = out - x
    return out.flip(axis) if reverse else out


@op("cumsum_grad", slots="Out@GRAD -> X@GRAD")
def cumsum_grad(dout, *, axis: int = -1, exclusive: bool = False, reverse: bool = False):
    """The running sum in the other direction."""
    return cumsum(dout, axis=axis, exclusive=exclusive, reverse=not reverse)


