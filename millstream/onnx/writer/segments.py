"""Sequences by offsets: which sequence a row is in, padded copies and back, all as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from millstream.onnx.writer.graph import Graph, Value

END = 2**31


class Segments:
    """Arithmetic on the offsets (int64 [sequences + 1]) of one LoD level; each part is made once a graph."""

    def __init__(self, g: Graph, offsets: Value) -> None:
        self.g = g
        self.offsets = offsets

    def _once(self, what: str, make: Callable[[], Value]) -> Value:
        return self.g.remember((what, self.offsets.name), make)

    @property
    def starts(self) -> Value:
        return self._once("starts", lambda: self.g.slice(self.offsets, 0, 0, -1))

    @property
    def ends(self) -> Value:
        return self._once("ends", lambda: self.g.slice(self.offsets, 0, 1, END))

    @property
    def lengths(self) -> Value:
        return self._once("lengths", lambda: self.ends - self.starts)

    @property
    def count(self) -> Value:
        """The number of sequences, [1]."""
        return self._once("count", lambda: self.g.dim(self.starts, 0))

    @property
    def rows(self) -> Value:
        """The number of rows, [1]."""
        return self._once("rows", lambda: self.g.gather(self.offsets, [-1]))

    @property
    def longest(self) -> Value:
        """The longest length, [1]; 0 without sequences."""

        def make() -> Value:
            zero = self.g.const([0], np.int64)
            return self.g.reduce("ReduceMax", self.g.concat([zero, self.lengths], 0), [0], True)

        return self._once("longest", make)

    @property
    def ids(self) -> Value:
        """The sequence of each row, [rows]: a running count of the sequences that began."""

        def make() -> Value:
            g = self.g
            inner = g.slice(self.offsets, 0, 1, -1)
            zeros = g.full(self.rows + 1, 0, np.int64)
            ones = g.full(g.shape(inner), 1, np.int64)
            marks = g.op("ScatterElements", zeros, inner, ones, axis=0, reduction="add")
            return g.slice(g.op("CumSum", marks, g.const(0, np.int64)), 0, 0, -1)

        return self._once("ids", make)

    @property
    def row(self) -> Value:
        """0, 1, … below the number of rows."""
        return self._once("row", lambda: self.g.arange(self.rows))

    @property
    def position(self) -> Value:
        """Each row's place in its sequence, [rows]."""
        return self._once("position", lambda: self.row - self.g.gather(self.starts, self.ids))

    @property
    def mask(self) -> Value:
        """[longest, sequences]: whether step t of sequence n exists."""

        def make() -> Value:
            return self.g.unsqueeze(self.g.arange(self.longest), 1) < self.g.unsqueeze(self.lengths, 0)

        return self._once("mask", make)

    def _places(self, reverse: bool) -> Value:
        """Row of step t of sequence n, [longest, sequences]; some row where there is none."""

        def make() -> Value:
            g = self.g
            t = g.unsqueeze(g.arange(self.longest), 1)
            if reverse:
                at = g.unsqueeze(self.ends - 1, 0) - t
            else:
                at = g.unsqueeze(self.starts, 0) + t
            zero = g.const(0, np.int64)
            return g.op("Max", g.op("Min", at, g.squeeze(self.rows - 1, 0)), zero)

        return self._once(f"places{reverse}", make)

    def pad(self, x: Value, reverse: bool = False) -> Value:
        """[longest, sequences, …]: rows of x by step; what stands after a sequence's end means nothing."""
        made = self.g.gather(x, self._places(reverse))
        made.shape = None if x.shape is None else (-1, -1, *x.shape[1:])
        return made

    def unpad(self, padded: Value, reverse: bool = False) -> Value:
        """The rows of [longest, sequences, …] in x's order."""
        g = self.g
        step = g.gather(self.ends, self.ids) - 1 - self.row if reverse else self.position
        at = g.concat([g.unsqueeze(step, 1), g.unsqueeze(self.ids, 1)], 1)
        made = g.op("GatherND", padded, at)
        made.shape = None if padded.shape is None else (-1, *padded.shape[2:])
        return made

    def spread(self, values: Value) -> Value:
        """One row a sequence, repeated for each of its rows."""
        return self.g.gather(values, self.ids)

    def column(self, flags: Value, rank: int) -> Value:
        """A vector over rows or sequences with dims of 1 behind it."""
        return self.g.unsqueeze(flags, *range(1, rank)) if rank > 1 else flags

    def sum(self, x: Value, rank: int) -> Value:
        """The sum of each sequence's rows, [sequences, …]."""
        g = self.g
        dims = [self.count] + [g.dim(x, i) for i in range(1, rank)]
        zeros = g.full(g.ints(*dims), 0, x.dtype)
        return g.op("ScatterND", zeros, g.unsqueeze(self.ids, 1), x, reduction="add")


def from_lengths(g: Graph, lengths: Value) -> Value:
    """Offsets of sequences of these lengths."""
    running = g.op("CumSum", lengths, g.const(0, np.int64))
    return g.concat([g.const([0], np.int64), running], 0)


def scan(
    g: Graph,
    states: Sequence[Value],
    inputs: Sequence[Value],
    step: Callable[[Graph, list[Value], list[Value]], tuple[list[Value], list[Value]]],
    slice_ranks: Sequence[int],
    ranks: Sequence[int] | None = None,
    reverse: bool = False,
) -> list[Value]:
    """ONNX's Scan over dim 0 of `inputs`: step(graph, states, slices) -> (new states, outputs of the step).

    `slice_ranks` are those of the slices, `ranks` those of new states and outputs (None: 2 each): engines want to know them.

    Returns the last states and then the stacked outputs.
    """
    with g.child() as body:
        body.hint = g.hint
        known = list(ranks or [])
        state_in = [body.input(g.hint + ".state", s.dtype) for s in states]
        slice_in = [body.input(g.hint + ".step", x.dtype) for x in inputs]
        new, outs = step(body, state_in, slice_in)
        results = [body.identity(v) for v in (*new, *outs)]
        known = known or [2] * len(results)
        entering = zip([*state_in, *slice_in], [*known[: len(state_in)], *slice_ranks])
        infos = [body.info(v, [None] * rank) for v, rank in entering]
        proto = body.proto(g.hint + ".body", infos, [body.info(v, [None] * r) for v, r in zip(results, known)])
    attrs: dict[str, Any] = {"body": proto, "num_scan_inputs": len(inputs)}
    if reverse:
        attrs["scan_input_directions"] = [1] * len(inputs)
        attrs["scan_output_directions"] = [1] * len(outs)
    return g.ops("Scan", len(results), *states, *inputs, dtypes=[v.dtype for v in results], **attrs)
