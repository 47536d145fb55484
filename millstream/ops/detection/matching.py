"""Which ground truth belongs to which prior: bipartite_match, target_assign, mine_hard_examples."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


# ---- bipartite_match -----------------------------------------------------------------------------------
def _infer_match(dist: Spec, *, match_type, dist_threshold) -> tuple[Spec, Spec]:
    if len(dist.shape) != 2:
        raise ShapeError(f"DistMat must have 2 dimensions, received {list(dist.shape)}")
    if match_type not in ("bipartite", "per_prediction"):
        raise AttributeTypeError(f"match_type must be bipartite or per_prediction, received {match_type!r}")
    return Spec(dist.shape, VarType.INT32), Spec(dist.shape, dist.dtype)


def _greedy(dist: np.ndarray, index: np.ndarray, found: np.ndarray) -> None:
    """Take the largest distance whose row and column are free, again and again."""
    order = np.argsort(-dist, axis=None, kind="stable")
    free = np.ones(dist.shape[0], dtype=bool)
    left = min(dist.shape)
    for at in order:
        r, c = divmod(int(at), dist.shape[1])
        if dist[r, c] <= 0 or not left:
            break
        if free[r] and index[c] < 0:
            free[r] = False
            index[c], found[c] = r, dist[r, c]
            left -= 1


@op(
    "bipartite_match",
    slots="DistMat# -> ColToRowMatchIndices, ColToRowMatchDist",
    infer=_infer_match,
    grad=False,
)
def bipartite_match(dist, *, match_type: str = "bipartite", dist_threshold: float = 0.5):
    """Greedy matching of columns to rows, largest distance first, each row at most once (Liu et al. 2016, SSD).

    DistMat [rows, M] with one sequence an image; ColToRowMatchIndices int32 [N, M] (row within the image, -1: none),
    ColToRowMatchDist [N, M]. `per_prediction` then gives each free column its best row at `dist_threshold` or more.
    """
    values = dist.values.numpy()
    n, columns = len(dist.offsets) - 1, values.shape[1]
    index = np.full((n, columns), -1, dtype=np.int32)
    found = np.zeros((n, columns), dtype=values.dtype)
    for i in range(n):
        part = values[dist.offsets[i] : dist.offsets[i + 1]]
        if not len(part):
            continue
        _greedy(part, index[i], found[i])
        if match_type == "per_prediction":
            best, top = part.argmax(0), part.max(0)
            take = (index[i] < 0) & (top >= dist_threshold) & (top > 1e-6)
            index[i][take], found[i][take] = best[take], top[take]
    return torch.from_numpy(index), torch.from_numpy(found)


# ---- target_assign -------------------------------------------------------------------------------------
def _infer_assign(x: Spec, match: Spec, negative: Spec | None, *, mismatch_value) -> tuple[Spec, Spec]:
    if len(x.shape) != 3 or len(match.shape) != 2:
        raise ShapeError(f"X must have 3 dimensions and MatchIndices 2, received {list(x.shape)} and {list(match.shape)}")
    if negative is not None and (len(negative.shape) != 2 or negative.shape[1] != 1):
        raise ShapeError(f"NegIndices must have shape [indices, 1], received {list(negative.shape)}")
    n, m = match.shape
    return Spec((n, m, x.shape[2]), x.dtype), Spec((n, m, 1), VarType.FP32)


@op("target_assign", slots="X#, MatchIndices, NegIndices#? -> Out, OutWeight", infer=_infer_assign, grad=False)
def target_assign(x, match, negative, *, mismatch_value: int = 0):
    """Out[n, m] = X_n[MatchIndices[n, m], m mod P] with weight 1, or `mismatch_value` with weight 0 where the index is -1.

    X [entities, P, K] with one sequence an image, MatchIndices int32 [N, M]; NegIndices (LoD) get `mismatch_value` with
    weight 1. Out [N, M, K], OutWeight float32 [N, M, 1].
    """
    n, m = match.shape
    if len(x.offsets) - 1 != n:
        raise EnforceNotMet(f"target_assign: X has {len(x.offsets) - 1} sequences, MatchIndices {n} rows; expected as many")
    hit = match >= 0
    start = torch.from_numpy(np.ascontiguousarray(x.offsets[:-1])).view(-1, 1)
    row = torch.where(hit, start + match.long(), torch.zeros((), dtype=torch.int64))
    column = torch.arange(m) % x.values.shape[1]
    fill = torch.full((), mismatch_value, dtype=x.values.dtype)
    picked = x.values[row, column] if x.values.shape[0] else fill.expand(n, m, x.values.shape[2])
    out = torch.where(hit.unsqueeze(-1), picked, fill)
    weight = hit.to(torch.float32)
    if negative is not None:
        image = torch.from_numpy(np.repeat(np.arange(n), np.diff(negative.offsets)))
        at = negative.values.reshape(-1).long()
        out[image, at] = fill
        weight[image, at] = 1.0
    return out, weight.unsqueeze(-1)


# ---- mine_hard_examples --------------------------------------------------------------------------------
def _infer_mine(
    cls_loss: Spec,
    loc_loss: Spec | None,
    match: Spec,
    dist: Spec,
    *,
    neg_pos_ratio,
    neg_dist_threshold,
    sample_size,
    mining_type,
) -> tuple[Spec, Spec]:
    if not len(cls_loss.shape) == len(match.shape) == len(dist.shape) == 2:
        raise ShapeError(
            f"ClsLoss, MatchIndices and MatchDist must have 2 dimensions, received "
            f"{list(cls_loss.shape)}, {list(match.shape)} and {list(dist.shape)}"
        )
    if mining_type == "max_negative":
        if neg_pos_ratio <= 0 or neg_dist_threshold <= 0:
            raise AttributeTypeError(
                f"neg_pos_ratio and neg_dist_threshold must be above 0, received {neg_pos_ratio}, {neg_dist_threshold}"
            )
    elif mining_type == "hard_example":
        if sample_size <= 0:
            raise AttributeTypeError(f"sample_size must be above 0 for hard_example, received {sample_size}")
    else:
        raise AttributeTypeError(f"mining_type must be max_negative or hard_example, received {mining_type!r}")
    return Spec((-1, 1), VarType.INT32), match


@op(
    "mine_hard_examples",
    slots="ClsLoss, LocLoss?, MatchIndices, MatchDist -> NegIndices#, UpdatedMatchIndices",
    infer=_infer_mine,
    grad=False,
)
def mine_hard_examples(
    cls_loss,
    loc_loss,
    match,
    dist,
    *,
    neg_pos_ratio: float = 1.0,
    neg_dist_threshold: float = 0.5,
    sample_size: int = 0,
    mining_type: str = "max_negative",
):
    """Choose the priors with the largest loss as negatives (Shrivastava et al. 2016, arXiv:1604.03540).

    All inputs [N, M]. max_negative: of the unmatched priors with MatchDist below the threshold, `neg_pos_ratio` times the
    matched ones. hard_example: `sample_size` priors by class + location loss; matched ones not among them become -1.
    NegIndices int32 [negatives, 1] with LoD, ascending.
    """
    losses = cls_loss.numpy()
    if mining_type == "hard_example" and loc_loss is not None:
        losses = losses + loc_loss.numpy()
    index, dists, updated = match.numpy(), dist.numpy(), match.numpy().copy()
    negatives, ends = [], [0]
    for i in range(index.shape[0]):
        if mining_type == "max_negative":
            able = np.flatnonzero((index[i] == -1) & (dists[i] < np.float32(neg_dist_threshold)))
            count = min(int((index[i] != -1).sum() * neg_pos_ratio), len(able))
        else:
            able = np.arange(index.shape[1])
            count = min(sample_size, len(able))
        chosen = np.sort(able[np.argsort(-losses[i][able], kind="stable")[:count]])
        if mining_type == "hard_example":
            lost = (index[i] > -1) & ~np.isin(np.arange(index.shape[1]), chosen)
            updated[i][lost] = -1
            chosen = chosen[index[i][chosen] == -1]
        negatives.append(chosen)
        ends.append(ends[-1] + len(chosen))
    flat = np.concatenate(negatives).astype(np.int32).reshape(-1, 1) if negatives else np.zeros((0, 1), np.int32)
    return Ragged(torch.from_numpy(flat), (np.array(ends, dtype=np.int64),)), torch.from_numpy(updated)
