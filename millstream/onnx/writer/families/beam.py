"""Beam search over ragged prefixes: one step, and the way back through all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.ranks import inverse, longest
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import Segments, from_lengths


def _ordered(g: Graph, keys: Value, largest: bool = False) -> Value:
    """The places of `keys` (a vector) in order; equal ones stay as they stand."""
    return g.ops("TopK", 2, keys, g.dim(keys, 0), dtypes=[keys.dtype, np.int64], axis=0, largest=int(largest))[1]


def _histogram(g: Graph, ids: Value, count: Value) -> Value:
    """How often each number below `count` stands in `ids`."""
    ones = g.full(g.shape(ids), 1, np.int64)
    return g.op("ScatterElements", g.full(count, 0, np.int64), ids, ones, axis=0, reduction="add")


def _flags(g: Graph, mask: Value) -> Value:
    """The places where a vector of bool is true."""
    return g.reshape(g.op("NonZero", mask), -1)


class _Candidates(NamedTuple):
    """Everything that a step of the search chooses from, by source: [sources, wide].

    Attributes:
        row, column: the prefix and the column of each; there: whether it exists.
        rank: its score, with the lowest number of the type for minus infinity and minus infinity for what is not there.
    """

    row: Value
    column: Value
    there: Value
    rank: Value


def _candidates(g: Graph, prefixes: Segments, points: Value, ended: Value, most: int) -> _Candidates:
    """Places stand so that among equal scores the later prefix and then the earlier column comes first."""
    width = g.dim(points, 1)
    widest = longest(g, prefixes.lengths)
    wide = g.op("Max", widest * width, g.const([most], np.int64))
    place = g.unsqueeze(g.arange(wide), 0)
    back, column = place / width, g.op("Mod", place, width)
    row = g.unsqueeze(prefixes.ends, 1) - 1 - back
    there = row >= g.unsqueeze(prefixes.starts, 1)
    row = g.op("Max", row, g.const(0, np.int64))
    column = g.op("Expand", column, g.shape(row))
    at = g.concat([g.unsqueeze(row, -1), g.unsqueeze(column, -1)], -1)
    # a prefix that ended competes once, with its own score
    there = there & (~g.gather(ended, row) | g.op("Equal", column, g.const(0, np.int64)))
    least = g.const(np.finfo(points.dtype).min, points.dtype)
    ranked = g.where(there, g.op("Max", g.op("GatherND", points, at), least), g.const(-np.inf, points.dtype))
    return _Candidates(row, column, there, ranked)


@emits("beam_search")
def beam_search(e: Emission) -> None:
    g, most, lod, level = e.g, int(e["beam_size"]), e.lod("scores"), int(e["level"])
    if not -len(lod) <= level < len(lod):
        e.refuse(f"scores ({e.name('scores')!r}) must have LoD level {level} (prefixes by source), it has {len(lod)} levels")
    level %= len(lod)
    sources = lod[level]
    for finer in lod[level + 1 :]:
        sources = g.gather(finer, sources)
    prefixes = Segments(g, sources)
    points, before = e.x("scores"), g.reshape(e.x("pre_scores"), -1, 1)
    last = g.reshape(e.x("pre_ids"), -1)
    if not e["is_accumulated"]:
        points = before + g.op("Log", points)
    ended = g.op("Equal", last, g.const(int(e["end_id"]), last.dtype))
    points = g.where(g.unsqueeze(ended, 1), before, points)
    # one row more: when all sources are done there is none to read where nothing stands
    points = g.op("Pad", points, g.ints(0, 0, 1, 0))
    ended = g.concat([ended, g.const([False])], 0)
    all_ = _candidates(g, prefixes, points, ended, most)

    _, chosen = g.ops("TopK", 2, all_.rank, g.const([most], np.int64), dtypes=[points.dtype, np.int64], axis=1)
    row, column, there = (g.op("GatherElements", v, chosen, axis=1) for v in (all_.row, all_.column, all_.there))
    over = g.gather(ended, row)
    going = g.reduce("ReduceMax", g.cast(there & ~over, np.int32), [1], True) > 0  # a source that is done is dropped
    kept = _flags(g, g.reshape(there & going, -1))
    row, column, over = (g.gather(g.reshape(v, -1), kept) for v in (row, column, over))
    # by prefix, best first within one
    order = _ordered(g, row * g.op("Max", g.dim(row, 0), g.const([1], np.int64)) + g.arange(g.dim(row, 0)))
    row, column, over = (g.gather(v, order) for v in (row, column, over))
    at = g.concat([g.unsqueeze(row, 1), g.unsqueeze(column, 1)], 1)
    ids = g.op("GatherND", e.x("ids"), at) if e.has("ids") else column
    ids = g.where(over, g.const(int(e["end_id"]), ids.dtype), ids)
    offsets = [sources, from_lengths(g, _histogram(g, row, g.shape(last)))]
    e.set("selected_ids", g.reshape(g.cast(ids, last.dtype), -1, 1), offsets)
    e.set("selected_scores", g.reshape(g.cast(g.op("GatherND", points, at), before.dtype), -1, 1), offsets)
    e.set("parent_idx", g.cast(row, np.int32), ())


class _Trail:
    """What the way back carries: hypotheses (source, item, last score), their words so far, the first ones at the front."""

    KINDS = ("found", "source", "at", "score", "owner", "words", "marks")

    def __init__(self, values: list[Value]) -> None:
        self.found, self.source, self.at, self.score, self.owner, self.words, self.marks = values

    def values(self) -> list[Value]:
        return [self.found, self.source, self.at, self.score, self.owner, self.words, self.marks]


def _step_back(g: Graph, trail: _Trail, words: Value, marks: Value, levels: list[Value], end: int) -> None:
    """One step: hypotheses under way take their token; sources without any begin with what they have here."""
    words, marks = g.reshape(words, -1), g.reshape(marks, -1)
    prefixes, items = (Segments(g, level) for level in levels)
    mine = g.gather(words, trail.at)
    go_on = _flags(g, ~g.op("Equal", mine, g.const(end, words.dtype)))
    source = g.gather(prefixes.ids, items.ids)
    new = _flags(g, ~g.gather(trail.found, source))
    fresh = g.arange(g.dim(new, 0)) + g.dim(trail.at, 0)
    trail.owner = g.concat([go_on, fresh, trail.owner], 0)
    trail.words = g.concat([g.gather(mine, go_on), g.gather(words, new), trail.words], 0)
    trail.marks = g.concat([g.gather(g.gather(marks, trail.at), go_on), g.gather(marks, new), trail.marks], 0)
    trail.at = g.concat([g.gather(items.ids, trail.at), g.gather(items.ids, new)], 0)
    trail.score = g.concat([trail.score, g.gather(marks, new)], 0)
    trail.source = g.concat([trail.source, g.gather(source, new)], 0)
    reached = _histogram(g, source, g.shape(trail.found)) > 0
    trail.found = trail.found | reached


@emits("beam_search_decode")
def beam_search_decode(e: Emission) -> None:
    g, end = e.g, int(e["end_id"])
    ids, scores = e.xs("Ids")[0], e.xs("Scores")[0]
    levels = e.env.lod(e.name("Ids") or "")
    if ids.sort != "sequence" or scores.sort != "sequence" or len(levels) != 2:
        e.refuse("each step of Ids must have 2 LoD levels: prefixes by source, kept by prefix")
    steps = g.ops("SequenceLength", 1, ids, dtypes=[np.int64])[0]
    zero = g.const(0, np.int64)
    sources = g.dim(g.ops("SequenceAt", 1, levels[0], zero, dtypes=[np.int64])[0], 0) - 1
    none = [g.full(sources, False, np.bool_)]
    none += [g.const(np.zeros(0, kind)) for kind in (np.int64, np.int64, scores.dtype, np.int64, ids.dtype, scores.dtype)]
    with g.child() as body:
        body.hint = g.hint
        count, going = body.input(g.hint + ".count", np.int64, []), body.input(g.hint + ".going", np.bool_, [])
        entering = [body.input(f"{g.hint}.{what}", v.dtype, [-1]) for what, v in zip(_Trail.KINDS, none)]
        trail, at = _Trail(entering), steps - 1 - count
        words, marks, *lods = (
            body.ops("SequenceAt", 1, array, at, dtypes=[array.dtype])[0] for array in (ids, scores, *levels)
        )
        _step_back(body, trail, words, marks, lods, end)
        results = [body.identity(going), *(body.identity(v) for v in trail.values())]
        infos = [body.info(count, []), body.info(going, []), *(body.info(v, [None]) for v in entering)]
        leaving = [body.info(results[0], []), *(body.info(v, [None]) for v in results[1:])]
        proto = body.proto(g.hint + ".body", infos, leaving)
    trail = _Trail(g.ops("Loop", len(none), steps, None, *none, dtypes=[v.dtype for v in none], body=proto))
    for value in trail.values():
        value.shape = (-1,)

    # best first for each source, words in their order
    hypotheses = g.dim(trail.source, 0)
    best = _ordered(g, trail.score, largest=True)
    by_source = _ordered(g, g.gather(trail.source, best) * hypotheses + g.arange(hypotheses))
    place = g.gather(inverse(g, g.gather(best, by_source)), trail.owner)
    total = g.dim(trail.words, 0)
    order = _ordered(g, place * total + g.arange(total))
    offsets = [from_lengths(g, _histogram(g, trail.source, sources)), from_lengths(g, _histogram(g, place, hypotheses))]
    for slot, kept in (("SentenceIds", trail.words), ("SentenceScores", trail.marks)):
        made = g.gather(kept, order)
        made.shape = (-1,)
        e.set(slot, made, offsets)
