"""Tables of rows: lookups with dense or SelectedRows gradients, and what is done with SelectedRows."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType, dtype_name, to_var_type
from millstream.ops._opdef import DType, Long, Longs, op
from millstream.ops._values import SelectedRows, Spec, torch_dtype
from millstream.ops.tensor._dims import product


# ---- lookup_table ----------------------------------------------------------------------------------
def _rows_of_table(w, ids):
    """Rows of a table or of SelectedRows (by key; the first of equal keys)."""
    if not isinstance(w, SelectedRows):
        try:
            return torch.embedding(w, ids)
        except IndexError:
            wrong = ids[(ids < 0) | (ids >= w.shape[0])]
            raise IndexError(f"id out of range: must be from 0 to {w.shape[0] - 1}, received {int(wrong[0])}") from None
    flat = ids.reshape(-1)
    keys, order = torch.sort(w.rows, stable=True)
    at = torch.searchsorted(keys, flat).clamp_(max=max(len(keys) - 1, 0))
    if len(keys) == 0 or bool((keys[at] != flat).any()):
        missing = flat if len(keys) == 0 else flat[keys[at] != flat]
        raise IndexError(f"the table has no row for id {int(missing[0])}")
    return w.values[order[at]].reshape(*ids.shape, -1)


def looked_up(w, ids, padding_idx):
    out = _rows_of_table(w, ids)
    if padding_idx != -1:
        out = out.masked_fill((ids == padding_idx).unsqueeze(-1), 0)
    return out


def _table_grad(w, ids, dout, is_sparse, padding_idx):
    width = w.shape[-1]
    flat = ids.reshape(-1)
    grad = dout.reshape(-1, width)
    if is_sparse:
        return SelectedRows(flat.long(), grad, w.shape[0])
    return dense_table_grad(flat, grad, w.shape[0], padding_idx)


def dense_table_grad(flat, grad, height, padding_idx):
    """Rows of `grad` added up by the ids in `flat`, [height, width]."""
    out = torch.zeros((height, grad.shape[1]), dtype=grad.dtype, device=grad.device)
    if padding_idx != -1:
        grad = grad.masked_fill((flat == padding_idx).unsqueeze(-1), 0)
    return out.index_add_(0, flat, grad)


def _check_table(w, ids):
    if len(w.shape) != 2:
        raise ShapeError(f"the table W must be a matrix [ids, width], received shape {list(w.shape)}")
    if ids.dtype not in (VarType.INT64, VarType.INT32):
        raise ShapeError(f"Ids must be int64, received {dtype_name(ids.dtype)}")


def _lookup_spec(w, ids, **attrs):
    _check_table(w, ids)
    if not ids.shape or ids.shape[-1] not in (1, -1):
        raise ShapeError(
            f"the last dimension of Ids must be 1, received {list(ids.shape)}; lookup_table_v2 (fluid.embedding) takes any"
        )
    return Spec((*ids.shape[:-1], w.shape[1]), w.dtype, ids.lod_level)


def _table_grad_spec(w, ids, dout, *, is_sparse, **attrs):
    kind = VarType.SELECTED_ROWS if is_sparse else VarType.LOD_TENSOR
    return Spec(w.shape, w.dtype, 0, kind)


@op(
    "lookup_table", slots="W, Ids -> Out", infer=_lookup_spec, lod="Ids", nodiff="Ids", traceable=True, amp="gray",
    picks="W",
)
def lookup_table(
    w, ids, *, is_sparse: bool = False, padding_idx: Long = -1, is_distributed: bool = False, remote_prefetch: bool = False
):
    """Rows of W [V, D] by Ids [..., 1]: Out [..., D]; zeros where the id is `padding_idx` (-1: none).

    W may be SelectedRows: rows are then found by key. With `is_sparse` the gradient of W is SelectedRows.
    """
    return looked_up(w, ids.squeeze(-1), padding_idx)


@op("lookup_table_grad", slots="W, Ids, Out@GRAD -> W@GRAD", infer=_table_grad_spec)
def lookup_table_grad(w, ids, dout, *, is_sparse: bool = False, padding_idx: Long = -1):
    return _table_grad(w, ids, dout, is_sparse, padding_idx)


def _lookup_v2_spec(w, ids, **attrs):
    _check_table(w, ids)
    return Spec((*ids.shape, w.shape[1]), w.dtype, ids.lod_level)


@op("lookup_table_v2", slots="W, Ids -> Out", infer=_lookup_v2_spec, lod="Ids", nodiff="Ids", traceable=True, picks="W")
def lookup_table_v2(
    w, ids, *, is_sparse: bool = False, padding_idx: Long = -1, is_distributed: bool = False, remote_prefetch: bool = False
):
    """Rows of W [V, D] by Ids of any shape: Out [*Ids.shape, D]; else like lookup_table."""
    return looked_up(w, ids, padding_idx)


@op("lookup_table_v2_grad", slots="W, Ids, Out@GRAD -> W@GRAD", infer=_table_grad_spec)
def lookup_table_v2_grad(w, ids, dout, *, is_sparse: bool = False, padding_idx: Long = -1):
    return _table_grad(w, ids, dout, is_sparse, padding_idx)


def _sparse_table_spec(w, ids, *, padding_idx, auto_grown_table, is_test):
    return Spec((*ids.shape[:-1], *w.shape[1:]), w.dtype)


@op("lookup_sparse_table", slots="W, Ids -> Out", infer=_sparse_table_spec, grad=False)
def lookup_sparse_table(w, ids, *, padding_idx: Long = -1, auto_grown_table: bool = True, is_test: bool = False):
    """Rows of a SelectedRows table by key, Ids [..., 1]; zeros for ids it has no row for.

    The table itself only grows where it is served (`auto_grown_table`); reading it never changes it.
    """
    flat = ids.squeeze(-1)
    known = torch.isin(flat, w.rows)
    if not auto_grown_table and not bool(known.all()):
        raise IndexError(f"the table has no row for id {int(flat[~known].reshape(-1)[0])}")
    out = w.values.new_zeros((*flat.shape, *w.values.shape[1:]))
    out[known] = _rows_of_table(w, flat[known])
    return out


# ---- SelectedRows --------------------------------------------------------------------------------
@op("merge_selected_rows", slots="X -> Out", infer="X", grad=False)
def merge_selected_rows(x):
    """The same matrix with each row once: repeats are added and come out sorted, rows without repeats stay as they are."""
    return x.once()


def _values_spec(x):
    return Spec(x.shape, x.dtype)


@op("get_tensor_from_selected_rows", slots="X -> Out", shares=True, infer=_values_spec, grad=False, amp="gray")
def get_tensor_from_selected_rows(x):
    """The values of SelectedRows as they are, [number of rows, …]."""
    return x.values


def _split_rows_spec(x, *, height_sections):
    # Fluid infers only the kind: shape and dtype stay those of a fresh variable
    return [Spec((0,), VarType.BOOL, 0, VarType.SELECTED_ROWS)] * len(height_sections)


@op("split_selected_rows", slots="X -> Out*", infer=_split_rows_spec, grad=False)
def split_selected_rows(x, *, height_sections: Longs = []):
    """SelectedRows cut into blocks of `height_sections` rows; row numbers count from the start of their block."""
    out, start = [], 0
    for h in height_sections:
        inside = (x.rows >= start) & (x.rows < start + h)
        out.append(SelectedRows(x.rows[inside] - start, x.values[inside], h))
        start += h
    return out


# ---- one_hot -------------------------------------------------------------------------------------
def _hot_spec(x, depth_tensor, *, depth, dtype, allow_out_of_range):
    if not x.shape or x.shape[-1] not in (1, -1):
        raise ShapeError(f"one_hot: the last dimension of X must be 1, received shape {list(x.shape)}")
    return Spec((*x.shape[:-1], depth if depth_tensor is None else -1), to_var_type(dtype), x.lod_level)


def _hot_v2_spec(x, depth_tensor, *, depth, dtype, allow_out_of_range):
    return Spec((*x.shape, depth if depth_tensor is None else -1), to_var_type(dtype), x.lod_level)


def _one_hot(index, depth_tensor, depth, dtype, allow_out_of_range):
    if depth_tensor is not None:
        depth = int(depth_tensor.reshape(-1)[0])
    out = torch.zeros((*index.shape, depth), dtype=torch_dtype(dtype), device=index.device)
    if not product(out.shape):
        return out
    index = index.long().unsqueeze(-1)
    if allow_out_of_range:
        inside = (index >= 0) & (index < depth)
        return out.scatter_(-1, index.clamp(0, depth - 1), inside.to(out.dtype))
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= depth:
        raise IndexError(f"one_hot: ids must be in [0, {depth}), received ids from {low} to {high}")
    return out.scatter_(-1, index, 1)


@op("one_hot", slots="X, depth_tensor? -> Out", infer=_hot_spec, lod="X", grad=False)
def one_hot(x, depth_tensor, *, depth: int = -1, dtype: DType = 5, allow_out_of_range: bool = False):
    """X [..., 1] of ids as [..., depth] with a 1 at the id; ids out of range: an error, or all zeros if allowed."""
    return _one_hot(x.squeeze(-1), depth_tensor, depth, dtype, allow_out_of_range)


@op("one_hot_v2", slots="X, depth_tensor? -> Out", infer=_hot_v2_spec, lod="X", grad=False)
def one_hot_v2(x, depth_tensor, *, depth: int = -1, dtype: DType = 5, allow_out_of_range: bool = False):
    """X of ids as [*X.shape, depth]; else like one_hot."""
    return _one_hot(x, depth_tensor, depth, dtype, allow_out_of_range)


# ---- ids spread over parameter servers -----------------------------------------------------------
def _shard_spec(x, *, index_num, nshards, shard_id, ignore_value):
    if not 0 <= shard_id < nshards:
        raise ShapeError(f"shard_index: shard_id must be in [0, {nshards}), received {shard_id}")
    if not x.shape or x.shape[-1] not in (1, -1):
        raise ShapeError(f"shard_index: the last dimension of X must be 1, received shape {list(x.shape)}")
    return x


@op("shard_index", slots="X -> Out", infer=_shard_spec, lod="X", grad=False)
def shard_index(x, *, index_num: int, nshards: int, shard_id: int, ignore_value: int = -1):
    """Ids of shard `shard_id` counted from its start, `ignore_value` for the others; shards of ceil(index_num/nshards)."""
    size = -(-index_num // nshards)
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < index_num:
        raise IndexError(f"shard_index: ids must be in [0, {index_num}), received {int(x.min())} to {int(x.max())}")
    return torch.where(x // size == shard_id, x % size, ignore_value)
