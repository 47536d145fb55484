"""sequence_concat, sequence_reverse, sequence_slice, sequence_reshape: the same numbers in other sequences."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.kernels.arrays import array
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import blocks, first_level, from_lengths, index, need_rank, one_level, unknown_rows


def _concat_spec(xs):
    for x in xs:
        need_rank(x, "X", 2)
        if x.shape[1:] != xs[0].shape[1:] and -1 not in (*x.shape[1:], *xs[0].shape[1:]):
            raise ShapeError(f"all inputs must have rows of one shape, received {[list(s.shape) for s in xs]}")
    return unknown_rows(xs[0])


def _concat_order(xs: list[Ragged]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of all inputs laid end to end for each output row, lengths of the output's sequences, first rows)."""
    offsets = [first_level(x, "X") for x in xs]
    n = len(offsets[0]) - 1
    if any(len(o) - 1 != n for o in offsets):
        raise EnforceNotMet(f"all inputs must have as many sequences, received {[len(o) - 1 for o in offsets]}")
    first = from_lengths(np.array([x.values.shape[0] for x in xs], dtype=np.int64))
    starts = np.stack([o[:-1] + f for o, f in zip(offsets, first)], 1).reshape(-1)
    sizes = np.stack([np.diff(o) for o in offsets], 1)
    return blocks(starts, sizes.reshape(-1)), sizes.sum(1), first


@op("sequence_concat", slots="X*# -> Out#", infer=_concat_spec, traceable=True)
def sequence_concat(xs):
    """The i-th sequences of all inputs joined into the i-th sequence. Each X: [rows, …]; of several LoD levels the
    first counts, and must count rows; Out has one."""
    rows, lengths, _ = _concat_order(xs)
    values = torch.cat([x.values for x in xs])
    return Ragged(values[index(rows, values)], (from_lengths(lengths),))


@op("sequence_concat_grad", slots="X*#, Out@GRAD -> X@GRAD*")
def sequence_concat_grad(xs, dout):
    rows, _, first = _concat_order(xs)
    joined = torch.empty((len(rows), *xs[0].values.shape[1:]), dtype=dout.dtype, device=dout.device)
    joined[index(rows, dout)] = dout.reshape(joined.shape)
    return list(torch.split(joined, np.diff(first).tolist()))


def _reversed_rows(x: Ragged) -> torch.Tensor:
    offsets = one_level(x, "X")
    rows = np.repeat(offsets[:-1] + offsets[1:] - 1, np.diff(offsets)) - np.arange(int(offsets[-1]))
    return index(rows, x.values)


@op("sequence_reverse", slots="X# -> Y#", infer="X")
def sequence_reverse(x):
    """The rows of each sequence in reverse order. X, Y: [rows, …] with one LoD level."""
    return Ragged(x.values[_reversed_rows(x)], x.lod)


@op("sequence_reverse_grad", slots="X#, Y@GRAD -> X@GRAD")
def sequence_reverse_grad(x, dy):
    return dy.reshape(x.values.shape)[_reversed_rows(x)]


def _slice_spec(x, offset, length):
    need_rank(x, "X", 1)
    return unknown_rows(x, 0)


def _slices(x: Ragged, offset: torch.Tensor, length: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    offsets = one_level(x, "X")
    begin, size = (array(t.reshape(-1)).astype(np.int64) for t in (offset, length))
    n = len(offsets) - 1
    if len(begin) != n or len(size) != n:
        raise EnforceNotMet(
            f"Offset and Length must have {n} entries, one for each sequence, received {len(begin)}, {len(size)}"
        )
    bad = (begin < 0) | (size < 0) | (begin + size > np.diff(offsets))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise EnforceNotMet(
            f"sequence {i} has {int(offsets[i + 1] - offsets[i])} rows: a slice from {int(begin[i])} of length "
            f"{int(size[i])} does not lie in it"
        )
    return blocks(offsets[:-1] + begin, size), size


@op("sequence_slice", slots="X#, Offset, Length -> Out#", infer=_slice_spec, nodiff="Offset, Length")
def sequence_slice(x, offset, length):
    """Rows Offset[i] .. Offset[i] + Length[i] - 1 of the i-th sequence. Offset, Length: int [sequences, 1]."""
    rows, sizes = _slices(x, offset, length)
    return Ragged(x.values[index(rows, x.values)], (from_lengths(sizes),))


@op("sequence_slice_grad", slots="X#, Offset, Length, Out@GRAD -> X@GRAD")
def sequence_slice_grad(x, offset, length, dout):
    rows, _ = _slices(x, offset, length)
    dx = torch.zeros_like(x.values, memory_format=torch.contiguous_format)
    dx[index(rows, dx)] = dout.reshape(len(rows), *dx.shape[1:])
    return dx


def _reshape_spec(x, *, new_dim):
    if len(x.shape) != 2:
        raise ShapeError(f"X must be [rows, width], received {list(x.shape)}")
    if new_dim < 1:
        raise ShapeError(f"new_dim must be positive, received {new_dim}")
    return x.like(shape=(-1, new_dim), lod_level=max(x.lod_level, 1))


@op("sequence_reshape", slots="X# -> Out#", shares=True, infer=_reshape_spec, traceable=True)
def sequence_reshape(x, *, new_dim: int):
    """Each sequence [n, D] as [n * D / new_dim, new_dim]; n * D must divide. X: [rows, D] with one LoD level."""
    offsets = one_level(x, "X")
    sizes = np.diff(offsets) * x.values.shape[1]
    if (sizes % new_dim).any():
        i = int(np.flatnonzero(sizes % new_dim)[0])
        raise EnforceNotMet(f"sequence {i} has {int(sizes[i])} numbers, which new_dim = {new_dim} does not divide")
    return Ragged(x.values.reshape(-1, new_dim), (offsets * x.values.shape[1] // new_dim,))


@op("sequence_reshape_grad", slots="X, Out@GRAD -> X@GRAD")
def sequence_reshape_grad(x, dout):
    return dout.reshape(x.shape)
