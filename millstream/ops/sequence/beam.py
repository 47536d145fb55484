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
from millstream.ops.sequence._lod import blocks, from_lengths


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
    for step in ids:
        if step is None or len(step.lod) != 2:
            raise EnforceNotMet("each step of Ids must have 2 LoD levels: prefixes by source, kept by prefix")
    words, marks, used, owner = _trace(ids, scores, end_id)
    # the last step's scores say which hypothesis of a source is the best
    last = marks[used.argmax(0), np.arange(len(owner))] if len(owner) else np.zeros(0)
    order = np.lexsort((-last, owner))
    hypotheses = np.bincount(owner, minlength=len(ids[0].lod[0]) - 1)
    lengths = used.sum(0)[order]
    # columns run backwards in time
    words, marks, used = (m[::-1].T[order] for m in (words, marks, used))
    lod = (from_lengths(hypotheses), from_lengths(lengths))
    like = ids[0].values
    return (
        Ragged(torch.from_numpy(words[used]).to(like.dtype).to(like.device), lod),
        Ragged(torch.from_numpy(marks[used]).to(scores[0].values.dtype).to(like.device), lod),
    )


def _trace(ids: TensorArray, scores: TensorArray, end_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, scores, whether they belong to it) as [steps, hypotheses], last step first; the source of each hypothesis.

    Hypotheses of all sources are followed together; those of a source begin at the last step that has any of it.
    """
    owner, items = np.zeros(0, np.int64), np.zeros(0, np.int64)
    opened = np.zeros(len(ids[0].lod[0]) - 1, bool)
    steps = []
    for step, points in zip(reversed(ids), reversed(scores)):
        prefixes, kept = step.lod
        tokens, marks = array(step.values.reshape(-1)), array(exact(points.values).reshape(-1))
        used = tokens[items] != end_id
        if not opened.all():
            bounds = kept[prefixes]
            sizes = np.where(opened, 0, np.diff(bounds))
            owner = np.concatenate((owner, np.repeat(np.arange(len(sizes)), sizes)))
            items = np.concatenate((items, blocks(bounds[:-1], sizes)))
            opened |= sizes > 0
        steps.append((tokens[items], marks[items], used))
        items = np.searchsorted(kept, items, side="right") - 1
    shape = (len(ids), len(owner))
    words, found, belongs = np.zeros(shape, np.int64), np.zeros(shape, steps[0][1].dtype), np.zeros(shape, bool)
    for k, (tokens, marks, used) in enumerate(steps):
        words[k, : len(tokens)], found[k, : len(tokens)] = tokens, marks
        belongs[k, : len(tokens)] = True  # the token at the end of a hypothesis stands there even if it is `end_id`
        belongs[k, : len(used)] = used
    return words, found, belongs, owner
