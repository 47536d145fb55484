"""sequence_scatter, sequence_topk_avg_pooling."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import index, need_rank, one_level


def _scatter_spec(x, ids, updates):
    need_rank(x, "X", 2)
    return x.like(lod_level=0)


def _targets(x: torch.Tensor, ids: Ragged) -> torch.Tensor:
    offsets = one_level(ids, "Ids")
    if len(offsets) - 1 != x.shape[0]:
        raise EnforceNotMet(f"Ids must have one sequence for each of X's {x.shape[0]} rows, received {len(offsets) - 1}")
    columns = ids.values.reshape(-1).long()
    if columns.numel() and (int(columns.min()) < 0 or int(columns.max()) >= x.shape[1]):
        raise EnforceNotMet(f"Ids must lie in [0, {x.shape[1]}), received {int(columns.min())} to {int(columns.max())}")
    return columns + index(np.repeat(np.arange(len(offsets) - 1) * x.shape[1], np.diff(offsets)), columns)


@op("sequence_scatter", slots="X, Ids#, Updates -> Out", infer=_scatter_spec, grad_lod="", nodiff="Ids")
def sequence_scatter(x, ids, updates):
    """Out = X, and Out[i, id] += update for the ids and updates of the i-th sequence; repeated ids add up.

    X: [sequences, width]; Ids, Updates: [rows, 1] with the same LoD.
    """
    if updates.numel() != ids.values.numel():
        raise EnforceNotMet(f"Updates must have {ids.values.numel()} rows like Ids, received {list(updates.shape)}")
    out = x.reshape(-1).clone()
    out.index_add_(0, _targets(x, ids), updates.reshape(-1).to(x.dtype))
    return out.reshape(x.shape)


@op("sequence_scatter_grad", slots="X, Ids#, Updates, Out@GRAD -> X@GRAD, Updates@GRAD")
def sequence_scatter_grad(x, ids, updates, dout, *, want):
    dupdates = dout.reshape(-1)[_targets(x, ids)].reshape(updates.shape) if want[1] else None
    return dout, dupdates


def _topk_spec(x, row, column, *, topks, channel_num):
    if not topks or min(topks) < 1:
        raise ShapeError(f"topks must be positive numbers, received {topks}")
    out = row.like(shape=(row.shape[0], channel_num * len(topks)), dtype=x.dtype)
    return out, x.like(shape=(-1,), dtype=VarType.INT32, lod_level=0)


def _images(x: Ragged, row: Ragged, column: Ragged, channels: int) -> list[tuple[int, int, int]]:
    """(first element, rows, columns) of each sample."""
    starts, rows, columns = one_level(x, "X"), np.diff(one_level(row, "ROW")), np.diff(one_level(column, "COLUMN"))
    if not len(rows) == len(columns) == len(starts) - 1:
        counts = len(starts) - 1, len(rows), len(columns)
        raise EnforceNotMet(f"X, ROW and COLUMN must have as many sequences, received {counts}")
    bad = np.flatnonzero(np.diff(starts) != channels * rows * columns)
    if len(bad):
        i = int(bad[0])
        raise EnforceNotMet(
            f"sample {i} of X must have channel_num * rows * columns = {channels} * {rows[i]} * {columns[i]} elements, "
            f"received {int(starts[i + 1] - starts[i])}"
        )
    return [(int(s), int(r), int(c)) for s, r, c in zip(starts, rows, columns)]


@op("sequence_topk_avg_pooling", slots="X#, ROW#, COLUMN# -> Out#, pos~", infer=_topk_spec, nodiff="ROW, COLUMN")
def sequence_topk_avg_pooling(x, row, column, *, topks: list[int], channel_num: int):
    """For each row of each channel, the sum of its k largest entries over k, for each k in `topks`.

    Sample i of X holds channel_num matrices [rows_i, columns_i], sizes given by the sequence lengths of ROW and COLUMN;
    Out: [all rows, channel_num * len(topks)]; pos: columns of the largest entries, -1 where there are fewer.
    """
    most = max(topks)
    flat = x.values.reshape(-1)
    outs, places = [], []
    for start, rows, columns in _images(x, row, column, channel_num):
        image = flat[start : start + channel_num * rows * columns].reshape(channel_num, rows, columns).transpose(0, 1)
        found, where = torch.sort(image, stable=True, dim=2, descending=True)
        found, where = found[..., :most], where[..., :most]
        if columns < most:
            found = torch.nn.functional.pad(found, (0, most - columns))
            where = torch.nn.functional.pad(where, (0, most - columns), value=-1)
        sums = found.cumsum(2)
        outs.append(torch.stack([sums[..., k - 1] / k for k in topks], 2).reshape(rows, channel_num * len(topks)))
        places.append(where.reshape(-1))
    width = channel_num * len(topks)
    out = torch.cat(outs) if outs else flat.new_zeros((0, width))
    return Ragged(out, row.lod), torch.cat(places).int() if places else torch.zeros(0, dtype=torch.int32)


@op("sequence_topk_avg_pooling_grad", slots="X#, ROW#, COLUMN#, pos, Out@GRAD -> X@GRAD", nodiff="pos")
def sequence_topk_avg_pooling_grad(x, row, column, pos, dout, *, topks: list[int], channel_num: int):
    most, n = max(topks), len(topks)
    # the j-th largest entry counts in every average over k > j
    share = torch.tensor([[1.0 / k if j < k else 0.0 for j in range(most)] for k in topks], dtype=torch.float64).to(dout)
    weights = dout.reshape(-1, channel_num, n) @ share
    where = pos.reshape(-1, channel_num, most).long()
    dx = torch.zeros(x.values.numel(), dtype=x.values.dtype, device=dout.device)
    first = 0
    for start, rows, columns in _images(x, row, column, channel_num):
        picked, given = where[first : first + rows], weights[first : first + rows]
        channel, line = torch.arange(channel_num, device=dx.device), torch.arange(rows, device=dx.device)
        target = start + (channel[None, :, None] * rows + line[:, None, None]) * columns + picked
        there = picked >= 0
        dx.index_add_(0, target[there], given[there])
        first += rows
    return dx.reshape(x.values.shape)
