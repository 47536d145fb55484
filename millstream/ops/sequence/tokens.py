"""sequence_enumerate, sequence_erase: on sequences of ids."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import check_rows, first_level, index, need_rank, offsets_of


def _enumerate_spec(x, *, win_size, pad_value):
    need_rank(x, "X", 1)
    if win_size < 2:
        raise ShapeError(f"win_size must be at least 2, received {win_size}")
    return x.like(shape=(x.shape[0], win_size))


@op("sequence_enumerate", slots="X# -> Out#", infer=_enumerate_spec, grad=False)
def sequence_enumerate(x, *, win_size: int, pad_value: int = 0):
    """Out[r] = the ids at r, r+1, …, r+win_size-1 of r's sequence, `pad_value` after its end.

    X: ids [rows, 1]; of several LoD levels the first counts, and must count rows.
    """
    offsets = first_level(x, "X")
    ids = x.values.reshape(-1)
    ends = index(np.repeat(offsets[1:], np.diff(offsets)), ids)
    rows = torch.arange(ids.numel(), device=ids.device)[:, None] + torch.arange(win_size, device=ids.device)
    if ids.numel() == 0:
        return Ragged(ids.new_empty((0, win_size)), x.lod)
    found = ids[rows.clamp(max=ids.numel() - 1)]
    return Ragged(torch.where(rows < ends[:, None], found, torch.full_like(found, pad_value)), x.lod)


def _erase_spec(x, *, tokens):
    if len(x.shape) != 2 or (x.shape[1] not in (1, -1)):
        raise ShapeError(f"X must be ids [rows, 1], received {list(x.shape)}")
    return x.like(shape=(-1, 1))


@op("sequence_erase", slots="X# -> Out#", infer=_erase_spec, grad=False)
def sequence_erase(x, *, tokens: list[int]):
    """The ids that are not among `tokens`; sequences shrink and may become empty. X: ids [rows, 1]."""
    offsets = offsets_of(x, "X")
    check_rows(x, "X")
    ids = x.values.reshape(-1)
    keep = ~torch.isin(ids, torch.tensor(tokens, dtype=ids.dtype, device=ids.device))
    before = np.zeros(ids.numel() + 1, np.int64)
    np.cumsum(keep.cpu().numpy(), out=before[1:])
    return Ragged(ids[keep].reshape(-1, 1), (*x.lod[:-1], before[offsets]))
