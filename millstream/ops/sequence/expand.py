"""sequence_expand, sequence_expand_as: rows or sequences of X repeated as Y's LoD says."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import blocks, from_lengths, index, need_rank, offsets_of, unknown_rows


def _expand_spec(x, y, *, ref_level):
    need_rank(x, "X", 2)
    if ref_level < -1 or (y.lod_level > 0 and ref_level >= y.lod_level):
        raise AttributeTypeError(f"ref_level must be -1 or a LoD level of Y (it has {y.lod_level}), received {ref_level}")
    return unknown_rows(x, min(x.lod_level, 1))


def _expansion(x: Ragged, y: Ragged, ref_level: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(source row of each output row, lengths of the output's sequences or None)."""
    if not y.lod:
        offsets_of(y, "Y")
    if len(x.lod) > 1:
        raise EnforceNotMet(f"input X may have at most 1 LoD level, received {len(x.lod)}")
    ref = y.lod[ref_level]
    times = ref[1:] - ref[:-1]
    if x.lod:
        starts, sizes = x.lod[0][:-1], np.diff(x.lod[0])
    else:
        starts, sizes = np.arange(x.values.shape[0], dtype=np.int64), None
    if len(starts) != len(times):
        raise EnforceNotMet(
            f"X must have as many {'sequences' if x.lod else 'rows'} as level {ref_level} of Y's LoD has sequences: "
            f"expected {len(times)}, received {len(starts)}"
        )
    if sizes is None:
        return np.repeat(starts, times), None
    lengths = np.repeat(sizes, times)
    return blocks(np.repeat(starts, times), lengths), lengths


def _is_once(offsets: np.ndarray) -> bool:
    """Whether every sequence is one long."""
    return bool((offsets[1:] - offsets[:-1] == 1).all())


@op("sequence_expand", slots="X#, Y# -> Out#", infer=_expand_spec, nodiff="Y", traceable=True, shares=True)
def sequence_expand(x, y, *, ref_level: int = -1):
    """Row i of X (or its i-th sequence, when X has a LoD) as many times as the i-th sequence of Y is long.

    Y's LoD level `ref_level` gives the counts (-1: the last). Out has a LoD only if X has one.
    """
    rows, lengths = _expansion(x, y, ref_level)
    if lengths is None and len(rows) == x.values.shape[0] and _is_once(y.lod[ref_level]):
        return Ragged(x.values, ())  # a beam search whose prefixes all went on: nothing to copy
    out = x.values.index_select(0, index(rows, x.values))
    return Ragged(out, () if lengths is None else (from_lengths(lengths),))


@op("sequence_expand_grad", slots="X#, Y#, Out@GRAD -> X@GRAD")
def sequence_expand_grad(x, y, dout, *, ref_level: int = -1):
    rows, _ = _expansion(x, y, ref_level)
    return _add_rows(x.values, rows, dout)


def _add_rows(x: torch.Tensor, rows: np.ndarray, dout: torch.Tensor) -> torch.Tensor:
    dx = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return dx.index_add_(0, index(rows, x), dout.reshape(len(rows), *x.shape[1:]))


def _expand_as_spec(x, y):
    need_rank(x, "X", 2)
    return unknown_rows(x, max(y.lod_level, 1))


def _as_rows(x: Ragged, y: Ragged) -> np.ndarray:
    offsets_of(y, "Y")
    times = np.diff(y.lod[0])
    if x.values.shape[0] != len(times):
        raise EnforceNotMet(
            f"X must have one row for each sequence of Y: expected {len(times)}, received shape {tuple(x.values.shape)}"
        )
    return np.repeat(np.arange(len(times), dtype=np.int64), times)


@op("sequence_expand_as", slots="X#, Y# -> Out#", infer=_expand_as_spec, nodiff="Y", traceable=True)
def sequence_expand_as(x, y):
    """Row i of X as many times as the i-th sequence of Y (first LoD level) is long; Out takes that level as LoD."""
    rows = _as_rows(x, y)
    return Ragged(x.values.index_select(0, index(rows, x.values)), y.lod[:1])


@op("sequence_expand_as_grad", slots="X#, Y#, Out@GRAD -> X@GRAD")
def sequence_expand_as_grad(x, y, dout):
    return _add_rows(x.values, _as_rows(x, y), dout)
