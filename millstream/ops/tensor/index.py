"""Elements chosen by index: gather, scatter, where, and walks along parents."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType, dtype_name
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import axis_of, fit, known, product

_INTS = (VarType.INT32, VarType.INT64)


def _check_index(index, what):
    if index.dtype not in _INTS:
        raise ShapeError(f"{what} must be int32 or int64, received {dtype_name(index.dtype)}")


def _assign_rows(out, index, rows):
    """out[index[i]] = rows[i], the last of equal indices winning; in place."""
    if out.device.type == "cpu" and not rows.requires_grad:
        out.numpy()[index.numpy()] = rows.numpy()  # numpy assigns in order; torch leaves the winner open
        return out
    flat, inverse = torch.unique(index, return_inverse=True)
    order = torch.arange(index.numel(), device=index.device)
    last = torch.zeros_like(flat, dtype=torch.int64).scatter_reduce_(0, inverse, order, "amax")
    out[flat] = rows[last]
    return out


# ---- gather ------------------------------------------------------------------------------------
def _gather_spec(x, index, *, overwrite):
    _check_index(index, "Index")
    if len(index.shape) != 1 and not (len(index.shape) == 2 and index.shape[1] in (1, -1)):
        raise ShapeError(f"gather: Index must be a vector or [n, 1], received shape {list(index.shape)}")
    return Spec((index.shape[0], *x.shape[1:]), x.dtype)


@op("gather", slots="X, Index -> Out", infer=_gather_spec, grad_lod="X", nodiff="Index", amp="gray")
def gather(x, index, *, overwrite: bool = True):
    """Rows of X by Index: Out[i] = X[Index[i]].

    `overwrite` is of the gradient: the last gradient row of a repeated index wins (true) or they add up (false).
    """
    return x.index_select(0, index.reshape(-1))


@op("gather_grad", slots="X, Index, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def gather_grad(x, index, dout, *, overwrite: bool = True):
    out = torch.zeros(x.shape, dtype=dout.dtype, device=dout.device)
    index = index.reshape(-1)
    return _assign_rows(out, index, dout) if overwrite else out.index_add_(0, index, dout)


def _nd_spec(x, index):
    _check_index(index, "Index")
    if len(index.shape) < 2:
        raise ShapeError(f"gather_nd: Index must have rank 2 or more, received shape {list(index.shape)}")
    depth = index.shape[-1]
    if depth > len(x.shape):
        raise ShapeError(f"gather_nd: Index {list(index.shape)} addresses more dimensions than X {list(x.shape)} has")
    return Spec((*index.shape[:-1], *x.shape[depth:]) or (1,), x.dtype)


def _flat_index(x_shape, index):
    """Index [..., k] into the first k dims as one number an entry; IndexError when one is out of range."""
    parts = index.reshape(-1, index.shape[-1]).long().unbind(1)
    flat = None
    for i, part in enumerate(parts):
        if part.numel():
            low, high = (int(m) for m in torch.aminmax(part))
            if low < 0 or high >= x_shape[i]:
                raise IndexError(f"indices {low} to {high} are out of range for dimension {i} of shape {list(x_shape)}")
        flat = part if flat is None else torch.add(part, flat, alpha=x_shape[i])
    return flat if flat is not None else torch.zeros(product(index.shape[:-1]), dtype=torch.int64, device=index.device)


@op("gather_nd", slots="X, Index -> Out", infer=_nd_spec, lod="X", grad_lod="X", nodiff="Index")
def gather_nd(x, index):
    """Out[..., :] = X[Index[..., 0], …, Index[..., k-1], :]."""
    k = index.shape[-1]
    rows = x.reshape(product(x.shape[:k]), *x.shape[k:])
    return rows.index_select(0, _flat_index(x.shape, index)).reshape((*index.shape[:-1], *x.shape[k:]) or (1,))


@op("gather_nd_grad", slots="X, Index, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def gather_nd_grad(x, index, dout):
    k = index.shape[-1]
    rest = x.shape[k:]
    out = torch.zeros((product(x.shape[:k]), *rest), dtype=dout.dtype, device=dout.device)
    return out.index_add_(0, _flat_index(x.shape, index), dout.reshape(-1, *rest)).reshape(x.shape)


# ---- scatter -----------------------------------------------------------------------------------
def _scatter_spec(x, ids, updates, *, overwrite):
    _check_index(ids, "Ids")
    if len(updates.shape) != len(x.shape):
        raise ShapeError(f"scatter: X {list(x.shape)} and Updates {list(updates.shape)} must have the same rank")
    if not fit(updates.shape[0], ids.shape[0]):
        raise ShapeError(f"scatter: {ids.shape[0]} Ids need as many rows of Updates, received shape {list(updates.shape)}")
    return x.like(lod_level=0)


@op("scatter", slots="X, Ids, Updates -> Out", infer=_scatter_spec, nodiff="Ids")
def scatter(x, ids, updates, *, overwrite: bool = True):
    """X with row Ids[i] replaced by Updates[i]; with overwrite false those rows become the sum of their updates."""
    ids = ids.reshape(-1)
    out = x.clone()
    if overwrite:
        return _assign_rows(out, ids, updates)
    return out.index_fill_(0, ids.long(), 0).index_add_(0, ids, updates)


@op("scatter_grad", slots="Ids, Updates, Out@GRAD -> X@GRAD, Updates@GRAD", infer=None)
def scatter_grad(ids, updates, dout, *, overwrite: bool = True):
    """X gets Out's gradient unchanged, also at the replaced rows, as in Fluid; Updates its rows."""
    return dout, dout.index_select(0, ids.reshape(-1))


def _nd_add_spec(x, index, updates):
    _check_index(index, "Index")
    depth = index.shape[-1]
    if depth > len(x.shape):
        raise ShapeError(f"scatter_nd_add: Index {list(index.shape)} addresses more dimensions than X {list(x.shape)} has")
    expected = (*index.shape[:-1], *x.shape[depth:])
    if len(expected) != len(updates.shape) or not all(fit(a, b) for a, b in zip(expected, updates.shape)):
        raise ShapeError(f"scatter_nd_add: Updates must have shape {list(expected)}, received {list(updates.shape)}")
    return x


@op("scatter_nd_add", slots="X, Index, Updates -> Out", infer=_nd_add_spec, lod="X", nodiff="Index")
def scatter_nd_add(x, index, updates):
    """X with Updates[...] added at X[Index[..., 0], …, Index[..., k-1]]; repeats add up."""
    k = index.shape[-1]
    rest = x.shape[k:]
    rows = x.reshape(product(x.shape[:k]), *rest)
    return rows.index_add(0, _flat_index(x.shape, index), updates.reshape(-1, *rest)).reshape(x.shape)


@op("scatter_nd_add_grad", slots="Index, Updates, Out@GRAD -> X@GRAD, Updates@GRAD", infer=None)
def scatter_nd_add_grad(index, updates, dout):
    k = index.shape[-1]
    rows = dout.reshape(product(dout.shape[:k]), *dout.shape[k:])
    return dout, rows.index_select(0, _flat_index(dout.shape, index)).reshape(updates.shape)


# ---- index_select, index_sample ------------------------------------------------------------------
def _select_spec(x, index, *, dim):
    _check_index(index, "Index")
    if len(index.shape) != 1 and not (len(index.shape) == 2 and index.shape[1] == 1):
        raise ShapeError(f"index_select: Index must be a vector, received shape {list(index.shape)}")
    k = axis_of(dim, len(x.shape), "dim")
    return Spec((*x.shape[:k], index.shape[0], *x.shape[k + 1 :]), x.dtype)


@op("index_select", slots="X, Index -> Out", infer=_select_spec, lod="X", nodiff="Index", traceable=True)
def index_select(x, index, *, dim: int = 0):
    """Entries Index of X along `dim`."""
    return x.index_select(dim, index.reshape(-1))


@op("index_select_grad", slots="X, Index, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def index_select_grad(x, index, dout, *, dim: int = 0):
    return torch.zeros(x.shape, dtype=dout.dtype, device=dout.device).index_add_(dim, index.reshape(-1), dout)


def _sample_spec(x, index):
    _check_index(index, "Index")
    if len(x.shape) != 2 or len(index.shape) != 2 or not fit(x.shape[0], index.shape[0]):
        raise ShapeError(f"index_sample: X and Index must be matrices of equal rows; {list(x.shape)}, {list(index.shape)}")
    return Spec(index.shape, x.dtype)


@op("index_sample", slots="X, Index -> Out", infer=_sample_spec, lod="Index", nodiff="Index")
def index_sample(x, index):
    """Out[i, j] = X[i, Index[i, j]]."""
    return x.gather(1, index.long())


@op("index_sample_grad", slots="X, Index, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def index_sample_grad(x, index, dout):
    return torch.zeros(x.shape, dtype=dout.dtype, device=dout.device).scatter_add_(1, index.long(), dout)


# ---- where -------------------------------------------------------------------------------------
def _where_spec(condition, x, y):
    for name, s in (("X", x), ("Y", y)):
        if len(s.shape) != len(condition.shape) or not all(fit(a, b) for a, b in zip(s.shape, condition.shape)):
            raise ShapeError(f"where: {name} {list(s.shape)} must have Condition's shape {list(condition.shape)}")
    return x


@op("where", slots="Condition, X, Y -> Out", infer=_where_spec, lod="X", nodiff="Condition", traceable=True)
def where(condition, x, y):
    """X where Condition holds, else Y; all of one shape."""
    return torch.where(condition, x, y)


@op("where_grad", slots="Condition, X, Y, Out@GRAD -> X@GRAD, Y@GRAD", infer=None)
def where_grad(condition, x, y, dout, *, want):
    return torch.where(condition, dout, 0) if want[0] else None, torch.where(condition, 0, dout) if want[1] else None


def _where_index_spec(condition):
    if not condition.shape:
        raise ShapeError("where_index: Condition must have rank 1 or more")
    return Spec((-1, len(condition.shape)), VarType.INT64)


@op("where_index", slots="Condition -> Out", infer=_where_index_spec, grad=False)
def where_index(condition):
    """Positions of the nonzero elements in row-major order, int64 [count, rank]."""
    return condition.nonzero()


# ---- gather_tree ---------------------------------------------------------------------------------
def _tree_spec(ids, parents):
    if ids.shape != parents.shape and known(ids.shape) and known(parents.shape):
        raise ShapeError(f"gather_tree: Ids {list(ids.shape)} and Parents {list(parents.shape)} must have one shape")
    if len(ids.shape) != 3:
        raise ShapeError(f"gather_tree: Ids must be [time, batch, beam], received shape {list(ids.shape)}")
    return ids


@op("gather_tree", slots="Ids, Parents -> Out", infer=_tree_spec, grad=False)
def gather_tree(ids, parents):
    """Whole sequences of a beam search: from each last step back along Parents; [time, batch, beam]."""
    out = torch.empty_like(ids)
    out[-1] = ids[-1]
    beam = parents[-1].long()
    for t in range(ids.shape[0] - 2, -1, -1):
        out[t] = ids[t].gather(1, beam)
        beam = parents[t].long().gather(1, beam)
    return out
