"""Sequences step by step, the longest first: rank tables and the arrays that DynamicRNN walks through."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import Segments, from_lengths


class Ranks:
    """A rank table: `index` (which sequence is how long), `lengths` in that order; both int64 [sequences]."""

    def __init__(self, e: Emission) -> None:
        name = e.name("RankTable") or ""
        found = e.env.find(name)
        if found is None or found.sort != "table":
            e.refuse(f"RankTable ({name!r}) is not what a lod_rank_table before this operator gives")
        self.g = e.g
        self.index = found
        self.lengths, *self.coarse = e.env.lod(name)

    @property
    def counts(self) -> Value:
        """How many sequences reach beyond each step, [longest]."""
        return self.g.remember(("counts", self.lengths.name), lambda: self._active()[1])

    @property
    def mask(self) -> Value:
        """[longest, sequences], the longest sequence first: whether step t exists."""
        return self.g.remember(("active", self.lengths.name), lambda: self._active()[0])

    def _active(self) -> tuple[Value, Value]:
        g = self.g
        mask = g.unsqueeze(g.arange(longest(g, self.lengths)), 1) < g.unsqueeze(self.lengths, 0)
        return mask, g.reduce("ReduceSum", g.cast(mask, np.int64), [1])

    def alive(self, step: Value) -> Value:
        """How many sequences are longer than `step`, int64 [1]."""
        return self.g.reduce("ReduceSum", self.g.cast(self.lengths > step, np.int64), [0], True)

    @property
    def rank(self) -> Value:
        """The place of each sequence in the table, [sequences]."""
        return inverse(self.g, self.index)


def longest(g: Graph, lengths: Value) -> Value:
    """The largest of `lengths`, [1]; 0 of none."""
    return g.reduce("ReduceMax", g.concat([g.const([0], np.int64), lengths], 0), [0], True)


def inverse(g: Graph, order: Value) -> Value:
    """The permutation that undoes `order`."""
    count = g.dim(order, 0)
    return g.op("ScatterElements", order, order, g.arange(count), axis=0)


def rows_of(g: Graph, items: Value, levels: tuple[Value, ...]) -> tuple[Value, list[Value]]:
    """Rows that sequences `items` of LoD `levels` cover, in order, and the offsets of what they are then."""
    offsets = []
    for level in levels:
        starts, lengths = (g.gather(v, items) for v in (Segments(g, level).starts, Segments(g, level).lengths))
        made = Segments(g, from_lengths(g, lengths))
        offsets.append(made.offsets)
        items = made.spread(starts) + made.position
    return items, offsets


@emits("lod_rank_table")
def lod_rank_table(e: Emission) -> None:
    g, lod, level = e.g, e.lod("X"), int(e["level"])
    if level >= len(lod):
        e.refuse(f"level {level} of a tensor with {len(lod)} LoD levels")
    lengths = Segments(g, lod[level]).lengths
    # TopK takes the earlier of two that are equal, as the table does
    ordered, index = g.ops("TopK", 2, lengths, g.dim(lengths, 0), dtypes=[np.int64, np.int64], axis=0)
    index.sort = "table"
    e.env.bind(e.op.output("Out")[0], index, [ordered, *lod[:level]])


@emits("max_sequence_len")
def max_sequence_len(e: Emission) -> None:
    e.set("Out", longest(e.g, Ranks(e).lengths))


@emits("lod_tensor_to_array")
def lod_tensor_to_array(e: Emission) -> None:
    g, lod, ranks = e.g, e.lod("X"), Ranks(e)
    if len(lod) != len(ranks.coarse) + 1:
        e.refuse("steps that are sequences themselves")
    starts = g.gather(Segments(g, lod[-1]).starts, ranks.index)
    rows = g.unsqueeze(starts, 0) + g.unsqueeze(g.arange(g.dim(ranks.counts, 0)), 1)
    kept = g.op("Compress", g.reshape(rows, -1), g.reshape(ranks.mask, -1))
    made = g.op("SplitToSequence", g.gather(e.x("X"), kept), ranks.counts, axis=0)
    made.sort = "sequence"
    e.env.bind(e.op.output("Out")[0], made)


@emits("array_to_lod_tensor")
def array_to_lod_tensor(e: Emission) -> None:
    g, ranks = e.g, Ranks(e)
    name = e.name("X") or ""
    array = e.xs("X")[0]
    if array.sort != "sequence":
        e.refuse(f"input X ({name!r}) is no array of tensors")
    if e.env.lod(name):
        e.refuse("steps that are sequences themselves")
    steps = g.reshape(g.ops("SequenceLength", 1, array, dtypes=[np.int64])[0], 1)
    joined = g.ops("ConcatFromSequence", 1, array, dtypes=[array.dtype], axis=0)[0]
    rank = ranks.rank
    out = Segments(g, from_lengths(g, g.op("Min", g.gather(ranks.lengths, rank), steps)))
    before = g.op("CumSum", ranks.counts, g.const(0, np.int64), exclusive=1)
    at = g.gather(before, out.position) + g.gather(rank, out.ids)
    e.set("Out", g.gather(joined, at), [*ranks.coarse, out.offsets])


@emits("reorder_lod_tensor_by_rank")
def reorder_lod_tensor_by_rank(e: Emission) -> None:
    rows, lods = rows_of(e.g, Ranks(e).index, e.lod("X"))
    e.set("Out", e.g.gather(e.x("X"), rows), lods)


@emits("shrink_rnn_memory")
def shrink_rnn_memory(e: Emission) -> None:
    g, count, lods = e.g, Ranks(e).alive(_step(e)), []
    for level in e.lod("X"):
        lods.append(g.slice(level, 0, 0, count + 1))
        count = g.gather(level, count)
    made = g.slice(e.x("X"), 0, 0, count)
    e.set("Out", made, lods)


def _step(e: Emission) -> Value:
    """Input I as int64 [1]."""
    return e.g.cast(e.g.reshape(e.x("I"), 1), np.int64)
