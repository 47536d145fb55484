"""sequence_pool and sequence_softmax: a number of rows a sequence becomes one, or a distribution."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError
from millstream.ir.types import VarType
from millstream.kernels.arrays import array, exact, tensor
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import check_rows, dense, index, need_rank, offsets_of, segment, unknown_rows

POOL_TYPES = ("AVERAGE", "SUM", "SQRT", "MAX", "LAST", "FIRST")


def _pool_spec(x, *, is_test, pooltype, pad_value):
    need_rank(x, "X", 2)
    if pooltype not in POOL_TYPES:
        raise AttributeTypeError(f"pooltype must be one of {', '.join(POOL_TYPES)}, received {pooltype!r}")
    out = unknown_rows(x, max(x.lod_level - 1, 0))
    return out, out.like(dtype=VarType.INT32) if pooltype == "MAX" else None  # 1.8.5 leaves it as declared otherwise


@op("sequence_pool", slots="X# -> Out#, MaxIndex~", infer=_pool_spec)
def sequence_pool(x, *, is_test: bool = False, pooltype: str = "AVERAGE", pad_value: float = 0.0):
    """One row for each sequence of the last LoD level, which is dropped.

    SUM, AVERAGE (sum / n), SQRT (sum / sqrt n), MAX (with the row numbers in MaxIndex), LAST, FIRST; an empty
    sequence gives `pad_value`. X: [rows, …] with LoD; Out: [sequences, …].
    """
    offsets = offsets_of(x, "X")
    check_rows(x, "X")
    values = x.values
    n = len(offsets) - 1
    empty = offsets[1:] == offsets[:-1]
    where = None
    if pooltype in ("LAST", "FIRST"):
        rows = offsets[1:] - 1 if pooltype == "LAST" else offsets[:-1]
        if empty.any():
            rows = np.where(empty, 0, rows)
        out = values[index(rows, values)] if values.shape[0] else values.new_zeros((n, *values.shape[1:]))
    else:
        source = array(dense(exact(values)))
        found = np.empty((n, source.shape[1]), source.dtype)
        if pooltype == "MAX":
            where_array = np.empty(found.shape, np.int32)
            segment().pool_max(source, offsets, found, where_array)
            where = tensor(where_array, values).reshape(n, *values.shape[1:])
        else:
            segment().pool_sum(source, offsets, found)
        out = tensor(found, values).to(values.dtype).reshape(n, *values.shape[1:])
        scale = _scale(pooltype, offsets)
        if scale is not None:
            out *= _column(scale, out)
    if empty.any():
        out[torch.from_numpy(empty)] = pad_value
    return Ragged(out, x.lod[:-1]), values.new_empty(0, dtype=torch.int32) if where is None else where


def _scale(pooltype: str, offsets: np.ndarray) -> np.ndarray | None:
    if pooltype not in ("AVERAGE", "SQRT"):
        return None
    n = np.maximum(offsets[1:] - offsets[:-1], 1).astype(np.float64)
    return 1.0 / n if pooltype == "AVERAGE" else 1.0 / np.sqrt(n)


def _column(factors: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    t = torch.from_numpy(factors).to(dtype=like.dtype, device=like.device)
    return t.reshape(-1, *[1] * (like.dim() - 1))


@op("sequence_pool_grad", slots="X#, MaxIndex?, Out@GRAD -> X@GRAD", nodiff="MaxIndex")
def sequence_pool_grad(x, where, dout, *, pooltype: str = "AVERAGE"):
    values, offsets = x.values, x.lod[-1]
    dout = dout.reshape(len(offsets) - 1, *values.shape[1:])
    sizes = offsets[1:] - offsets[:-1]
    if pooltype in ("SUM", "AVERAGE", "SQRT"):
        scale = _scale(pooltype, offsets)
        if scale is not None:
            dout = dout * _column(scale, dout)
        return torch.repeat_interleave(dout, index(sizes, dout), 0, output_size=values.shape[0])
    dx = torch.zeros_like(values, memory_format=torch.contiguous_format)
    if pooltype == "MAX":
        if dx.dtype not in (torch.float32, torch.float64):
            dx = dx.float()
        segment().pool_max_back(array(dense(dout.to(dx.dtype))), array(dense(where)), array(dense(dx)))
        return dx.to(values.dtype)
    rows = offsets[1:] - 1 if pooltype == "LAST" else offsets[:-1]
    full = np.flatnonzero(sizes)
    dx[index(rows[full], values)] = dout[index(full, values)]
    return dx


def _softmax_spec(x, **attrs):
    need_rank(x, "X", 1)
    return x


def _softmax_again(x):
    offsets, flat = offsets_of(x, "X"), x.values.reshape(-1)
    of = torch.repeat_interleave(torch.from_numpy(np.diff(offsets))).to(flat.device)
    most = flat.detach().new_zeros(len(offsets) - 1).scatter_reduce(0, of, flat.detach(), "amax", include_self=False)
    e = torch.exp(flat - most[of])
    return (e / e.new_zeros(len(offsets) - 1).index_add(0, of, e)[of]).reshape(x.values.shape)


@op("sequence_softmax", slots="X# -> Out#", infer=_softmax_spec, again=_softmax_again)
def sequence_softmax(x):
    """Softmax over the rows of each sequence of the last LoD level. X: [rows] or [rows, 1]; Out: like X."""
    offsets = offsets_of(x, "X")
    check_rows(x, "X")
    source = array(exact(x.values).reshape(-1))
    out = np.empty_like(source)
    segment().softmax(source, offsets, out)
    return Ragged(tensor(out, x.values).to(x.values.dtype).reshape(x.values.shape), x.lod)


@op("sequence_softmax_grad", slots="Out#, Out@GRAD -> X@GRAD")
def sequence_softmax_grad(y, dy):
    flat = array(exact(y.values).reshape(-1))
    dx = np.empty_like(flat)
    segment().softmax_back(flat, array(dy.reshape(-1).to(exact(y.values).dtype)), y.lod[-1], dx)
    return tensor(dx, y.values).to(y.values.dtype).reshape(y.values.shape)
