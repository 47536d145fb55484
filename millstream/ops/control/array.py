"""LoDTensorArrays: reading, writing, and the way between sequences and time steps."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import InvalidProgramError
from millstream.ir.names import grad_name
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, RankTable, Spec, TensorArray


def _index(i: torch.Tensor) -> int:
    if i.numel() != 1:
        raise InvalidProgramError(f"array index must have one element, received shape {list(i.shape)}")
    return int(i)




# ---- read and write ------------------------------------------------------------------------------
def _write_grad(operator, out_grads, wanted):
    x, out = operator.input("X")[0], operator.output("Out")[0]
    if not wanted(x):
        return []
    inputs = {"X": [out_grads[out]], "I": operator.input("I"), "X_W": [x]}
    return [("read_from_array", inputs, {"Out": [grad_name(x)]}, {})]


def _write_spec(x, i):
    return x.like(type=VarType.LOD_TENSOR_ARRAY)


@op("write_to_array", slots="X#, I -> Out!", shares=True, infer=_write_spec, grad=_write_grad, nodiff="I")
def write_to_array(x, i, array):
    """Array with element I set to X (the array grows as needed)."""
    k = _index(i)
    new = TensorArray(array) if array is not None else TensorArray()
    while len(new) <= k:
        new.append(None)
    new[k] = x
    return new


def _read_grad(operator, out_grads, wanted):
    x, out = operator.input("X")[0], operator.output("Out")[0]
    if not wanted(x):
        return []
    return [("write_to_array", {"X": [out_grads[out]], "I": operator.input("I")}, {"Out": [grad_name(x)]}, {})]


def _read_spec(x, i, x_w):
    return x.like(type=VarType.LOD_TENSOR)


@op("read_from_array", slots="X, I, X_W? -> Out#", shares=True, infer=_read_spec, grad=_read_grad, nodiff="I, X_W")
def read_from_array(array, i, x_w):
    """Element I of an array; zeros like X_W where a gradient array has none."""
    k = _index(i)
    if array is None or k >= len(array) or array[k] is None:
        if x_w is not None:
            return Ragged(torch.zeros_like(x_w), ())
        raise InvalidProgramError(f"array_read: index {k} of an array with {0 if array is None else len(array)} elements")
    return array[k]


def _int64_spec(*_):
    return Spec((1,), VarType.INT64)


@op("lod_array_length", slots="X -> Out", infer=_int64_spec, grad=False)
def lod_array_length(array):
    """Number of elements, int64 [1]."""
    return torch.tensor([0 if array is None else len(array)], dtype=torch.int64)


def _to_tensor_spec(x, *, axis, use_stack):
    shape = list(x.shape)
    axis %= len(shape) + (1 if use_stack else 0)
    if use_stack:
        shape.insert(axis, -1)
    else:
        shape[axis] = -1
    return Spec(tuple(shape), x.dtype), Spec((), VarType.INT32)


@op("tensor_array_to_tensor", slots="X -> Out, OutIndex", shares=True, infer=_to_tensor_spec)
def tensor_array_to_tensor(array, *, axis: int = 0, use_stack: bool = False):
    """Concatenate (or stack) the elements along `axis`; OutIndex holds each one's size there."""
    values = [v.values for v in array if v is not None]
    if not values:
        raise InvalidProgramError("tensor_array_to_tensor: the array is empty")
    sizes = torch.tensor([v.shape[axis] if v.dim() > axis else 1 for v in values], dtype=torch.int32)
    return (torch.stack(values, axis) if use_stack else torch.cat(values, axis)), sizes


# ---- sequences to time steps and back ------------------------------------------------------------
def _table_spec(x, *, level):
    return Spec((), VarType.FP32, 0, VarType.LOD_RANK_TABLE)


@op("lod_rank_table", slots="X# -> Out", infer=_table_spec, grad=False)
def lod_rank_table(x, *, level: int = 0):
    """Sequences of LoD level `level`, longest first (stable)."""
    if level >= len(x.lod):
        raise InvalidProgramError(f"lod_rank_table: level {level} of a tensor with {len(x.lod)} LoD levels")
    lengths = np.diff(x.lod[level])
    order = np.argsort(-lengths, kind="stable")
    return RankTable(order, lengths[order], x.lod[:level])


@op("max_sequence_len", slots="RankTable -> Out", infer=_int64_spec, grad=False)
def max_sequence_len(table):
    """Length of the longest sequence, int64 [1]."""
    return torch.tensor([int(table.lengths[0]) if table.lengths.size else 0], dtype=torch.int64)


def active_counts(lengths: np.ndarray) -> np.ndarray:
    """How many of the (decreasing) lengths reach beyond step t, for every t."""
    steps = np.arange(int(lengths[0]) if lengths.size else 0)
    return np.searchsorted(-lengths, -steps, side="left")


def _expand_items(items: np.ndarray, lower: tuple[np.ndarray, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows covered by `items` of a level whose LoD below is `lower`, and the lengths at each lower level."""
    lengths = []
    for level in lower:
        size = np.diff(level)[items]
        lengths.append(size)
        starts = level[:-1][items]
        items = _ranges(starts, size)
    return items, lengths


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The concatenation of range(start, start + size)."""
    total = int(sizes.sum())
    if not total:
        return np.zeros(0, dtype=np.int64)
    offset = np.repeat(starts - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes)
    return offset + np.arange(total)


def offsets(lengths: np.ndarray) -> np.ndarray:
    """Lengths as offsets."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _array_spec(x, table):
    return Spec((-1, *x.shape[1:]), x.dtype, max(0, x.lod_level - 1), VarType.LOD_TENSOR_ARRAY)


@op("lod_tensor_to_array", slots="X#, RankTable -> Out", shares=True, infer=_array_spec, nodiff="RankTable")
def lod_tensor_to_array(x, table):
    """One element a time step: step t of every sequence that is long enough, longest sequence first."""
    level = len(table.coarse)
    starts = x.lod[level][:-1][table.index]
    lower = x.lod[level + 1 :]
    out = TensorArray()
    counts = active_counts(table.lengths)
    if not lower:
        if not counts.size:
            return out
        rows = np.concatenate([starts[:n] + t for t, n in enumerate(counts)])
        parts = x.values.index_select(0, torch.from_numpy(rows)).split(counts.tolist())
        out.extend(Ragged(p, ()) for p in parts)
        return out
    for t, n in enumerate(counts):
        rows, lengths = _expand_items(starts[:n] + t, lower)
        out.append(Ragged(x.values.index_select(0, torch.from_numpy(rows)), tuple(offsets(s) for s in lengths)))
    return out


def _from_array_spec(x, table):
    return Spec((-1, *x.shape[1:]), x.dtype, x.lod_level + 1)


@op("array_to_lod_tensor", slots="X, RankTable -> Out#", shares=True, infer=_from_array_spec, nodiff="RankTable")
def array_to_lod_tensor(array, table):
    """The inverse of lod_tensor_to_array."""
    elements = [v for v in array if v is not None] if array is not None else []
    if not elements:
        raise InvalidProgramError("array_to_lod_tensor: the array is empty")
    counts = active_counts(table.lengths)[: len(elements)]
    n = table.index.size
    lengths = np.zeros(n, dtype=np.int64)
    for count in counts:
        lengths[table.index[:count]] += 1
    top = offsets(lengths)
    # Item (t, i) of the concatenation goes to position start(sequence) + t.
    place = np.concatenate([top[:-1][table.index[:count]] + t for t, count in enumerate(counts)])
    order = np.empty_like(place)
    order[place] = np.arange(place.size)
    values = torch.cat([e.values for e in elements])
    lower_levels = len(elements[0].lod)
    if not lower_levels:
        if values.shape[0] != place.size:
            raise InvalidProgramError(
                f"array_to_lod_tensor: the elements have {values.shape[0]} rows, the rank table says {place.size}"
            )
        return Ragged(values.index_select(0, torch.from_numpy(order)), (*table.coarse, top))
    joined = tuple(offsets(np.concatenate([np.diff(e.lod[k]) for e in elements])) for k in range(lower_levels))
    rows, sizes = _expand_items(order, joined)
    return Ragged(values.index_select(0, torch.from_numpy(rows)), (*table.coarse, top, *(offsets(s) for s in sizes)))


def _reorder_spec(x, table):
    return x


@op("reorder_lod_tensor_by_rank", slots="X#, RankTable -> Out#", shares=True, infer=_reorder_spec, nodiff="RankTable")
def reorder_lod_tensor_by_rank(x, table):
    """Sequences of X (rows, without LoD) in the order of the rank table."""
    if not x.lod:
        return Ragged(x.values.index_select(0, torch.from_numpy(table.index.astype(np.int64))), ())
    rows, lengths = _expand_items(table.index, x.lod)
    return Ragged(x.values.index_select(0, torch.from_numpy(rows)), tuple(offsets(s) for s in lengths))


def _shrink_spec(x, table, i):
    return x


@op("shrink_rnn_memory", slots="X#, RankTable, I -> Out#", shares=True, infer=_shrink_spec, nodiff="RankTable, I")
def shrink_rnn_memory(x, table, i):
    """The first rows (sequences) of X, as many as sequences of the table are still active at step I."""
    n = int(np.count_nonzero(table.lengths > _index(i)))
    if not x.lod:
        return Ragged(x.values[:n], ())
    lod = []
    for level in x.lod:
        lod.append(level[: n + 1])
        n = int(level[n])
    return Ragged(x.values[:n], tuple(lod))


@op("rnn_memory_helper", slots="X -> Out", shares=True, infer="X", lod="X")
def rnn_memory_helper(x, *, dtype: int = 5):
    """Identity: the value of a state inside a step."""
    return x


@op("rnn_memory_helper_grad", slots="Out@GRAD?, X, Out? -> X@GRAD")
def rnn_memory_helper_grad(dout, x, out, *, dtype: int = 5):
    return torch.zeros_like(x) if dout is None else dout
