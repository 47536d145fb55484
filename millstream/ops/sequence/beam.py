"""beam_search, beam_search_decode."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.kernels.arrays import array, exact, tensor
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec, TensorArray
from millstream.ops.sequence._lod import from_lengths


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import beam as module

    return module


def _search_spec(pre_ids, pre_scores, ids, scores, *, level, beam_size, end_id, is_accumulated):
    if beam_size < 1:
        raise ShapeError(f"beam_size must be positive, received {beam_size}")
    if len(scores.shape) != 2:
        raise ShapeError(f"scores must be [prefixes, candidates], received {list(scores.shape)}")
    if ids is not None and tuple(ids.shape) != tuple(scores.shape) and not any(d < 0 for d in (*ids.shape, *scores.shape)):
        raise ShapeError(f"ids and scores must have one shape, received {list(ids.shape)} and {list(scores.shape)}")
    return Spec((-1, 1), pre_ids.dtype), Spec((-1, 1), pre_scores.dtype), Spec((-1,), VarType.INT32)


@op(
    "beam_search", slots="pre_ids#, pre_scores#, ids#?, scores# -> selected_ids#, selected_scores#, parent_idx?",
    infer=_search_spec, grad=False,
)
def beam_search(pre_ids, pre_scores, ids, scores, *, level: int, beam_size: int, end_id: int, is_accumulated: bool = True):
    """The `beam_size` best continuations of each source's prefixes.

    A prefix that ended (its pre_id is `end_id`) competes with its own score; a source whose winners have all ended is
    dropped. Without ids the column is the id; unless `is_accumulated` scores are probabilities, whose logs are added
    to pre_scores. pre_ids, pre_scores: [prefixes, 1]; ids, scores: [prefixes, candidates] with LoD level `level` giving
    the prefixes of each source. selected_ids, selected_scores: [kept, 1] with LoD (prefixes by source, kept by prefix),
    best first within a prefix; parent_idx: row of the prefix.
    """
    n = scores.values.shape[0]
    if not -len(scores.lod) <= level < len(scores.lod):
        raise EnforceNotMet(f"scores must have LoD level {level} (prefixes by source), received {len(scores.lod)} levels")
    sources = scores.lod[level]
    for finer in scores.lod[level + 1 :]:
        sources = finer[sources]
    if int(sources[-1]) != n or pre_ids.values.shape[0] != n or pre_scores.values.numel() != n:
        raise EnforceNotMet(
            f"pre_ids, pre_scores and scores must have one row for each of {int(sources[-1])} prefixes, received "
            f"{pre_ids.values.shape[0]}, {pre_scores.values.shape[0]} and {n}"
        )
    last = array(pre_ids.values.reshape(-1)).astype(np.int64)
    points, before = array(exact(scores.values)), array(exact(pre_scores.values).reshape(-1))
    choice = np.empty((0, 0), np.int64) if ids is None else array(ids.values).astype(np.int64, copy=False)
    room = (len(sources) - 1) * beam_size
    found, best, parent = np.empty(room, np.int64), np.empty(room, points.dtype), np.empty(room, np.int64)
    counts = np.zeros(n, np.int64)
    kept = _kernels().select(
        last, before.astype(points.dtype, copy=False), choice, points, np.ascontiguousarray(sources), beam_size, end_id,
        is_accumulated, found, best, parent, counts,
    )
    lod = (sources, from_lengths(counts))
    like = scores.values
    return (
        Ragged(tensor(found[:kept], like).to(pre_ids.values.dtype).reshape(-1, 1), lod),
        Ragged(tensor(best[:kept], like).to(pre_scores.values.dtype).reshape(-1, 1), lod),
        tensor(parent[:kept], like).int(),
    )


@op("beam_search_decode", slots="Ids, Scores -> SentenceIds#, SentenceScores#", infer=False, grad=False)
def beam_search_decode(ids: TensorArray, scores: TensorArray, *, beam_size: int, end_id: int):
    """The hypotheses that a beam search left, traced back through its steps, best first for each source.

    Ids, Scores: the selected_ids and selected_scores of each step. SentenceIds, SentenceScores: one-dimensional, with
    LoD (hypotheses by source, tokens by hypothesis); an `end_id` stands at most once, at the end.
    """
    if not ids or len(ids) != len(scores):
        raise EnforceNotMet(f"Ids and Scores must be arrays of one length above 0, received {len(ids)} and {len(scores)}")
    steps = []
    for step, points in zip(ids, scores):
        if step is None or len(step.lod) != 2:
            raise EnforceNotMet("each step of Ids must have 2 LoD levels: prefixes by source, kept by prefix")
        steps.append((step.lod, array(step.values.reshape(-1)).tolist(), array(points.values.reshape(-1)).tolist()))
    words: list[int] = []
    marks: list[float] = []
    hypotheses, lengths = [], []
    for source in range(len(steps[0][0][0]) - 1):
        found = _trace(steps, source, end_id)
        found.sort(key=lambda h: -h[1][0])
        hypotheses.append(len(found))
        for tokens, points in found:
            lengths.append(len(tokens))
            words.extend(reversed(tokens))
            marks.extend(reversed(points))
    like = ids[0].values
    lod = (from_lengths(np.array(hypotheses, np.int64)), from_lengths(np.array(lengths, np.int64)))
    return (
        Ragged(torch.tensor(words, dtype=like.dtype, device=like.device), lod),
        Ragged(torch.tensor(marks, dtype=scores[0].values.dtype, device=like.device), lod),
    )


def _trace(steps, source: int, end_id: int) -> list[tuple[list[int], list[float]]]:
    """The hypotheses of one source as (tokens, scores), last token first."""
    found: list[tuple[list[int], list[float]]] = []
    at: list[int] = []
    for (prefixes, kept), tokens, points in reversed(steps):
        if not found:
            for prefix in range(int(prefixes[source]), int(prefixes[source + 1])):
                for item in range(int(kept[prefix]), int(kept[prefix + 1])):
                    found.append(([tokens[item]], [points[item]]))
                    at.append(prefix)
            continue
        for k, item in enumerate(at):
            if tokens[item] != end_id:
                found[k][0].append(tokens[item])
                found[k][1].append(points[item])
        at = (np.searchsorted(kept, at, side="right") - 1).tolist()
    return found
