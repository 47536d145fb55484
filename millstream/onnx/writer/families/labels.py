"""Best paths and decoded labels: crf_decoding, ctc_align."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.sequence import kept_offsets, segments
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import END, Segments, scan


def viterbi(g: Graph, emission: Value, w: Value, mask: Value) -> Value:
    """Best tags of [steps, sequences, tags], int64 [steps, sequences]: scores forward, then back along what was best.

    Both scans run over all steps (the first one starts anew), so that none is over nothing.
    """
    start, stop, move = g.slice(w, 0, 0, 1), g.slice(w, 0, 1, 2), g.slice(w, 0, 2, END)
    zero = g.const(0, np.int64)
    first = g.op("Equal", g.arange(g.dim(emission, 0)), zero)
    nothing = g.squeeze(g.slice(emission, 0, 0, 1), 0) * 0

    def ahead(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        score, (e, alive, begins) = states[0], now
        every = body.unsqueeze(score, 2) + body.unsqueeze(move, 0)  # [sequences, from, to]
        came = body.op("ArgMax", every, axis=1, keepdims=0)
        new = body.where(begins, start, body.reduce("ReduceMax", every, [1])) + e
        return [body.where(body.unsqueeze(alive, 1), new, score)], [came]

    score, came = scan(g, [nothing], [emission, mask, first], ahead, [2, 1, 0])
    last = g.op("ArgMax", score + stop, axis=1, keepdims=0)

    def back(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        tag, (origin, alive) = states[0], now
        before = body.squeeze(body.op("GatherElements", origin, body.unsqueeze(tag, 1), axis=1), 1)
        return [body.where(alive, before, tag)], [tag]

    return scan(g, [last], [came, mask], back, [2, 1], ranks=[1, 1], reverse=True)[1]


@emits("crf_decoding")
def crf_decoding(e: Emission) -> None:
    g, x, w = e.g, e.x("Emission"), e.x("Transition")
    if e.has("Length"):
        lengths = g.cast(g.reshape(e.x("Length"), -1), np.int64)
        steps = g.transpose(x, [1, 0, 2])
        mask = g.unsqueeze(g.arange(g.dim(x, 1)), 1) < g.unsqueeze(lengths, 0)
        tags = g.transpose(viterbi(g, steps, w, mask), [1, 0])
        inside = g.transpose(mask, [1, 0])
        if e.has("Label"):
            label = g.op("Reshape", g.cast(e.x("Label"), np.int64), g.shape(tags))
            tags = g.cast(g.op("Equal", tags, label), np.int64)
        e.set("ViterbiPath", g.where(inside, tags, g.const(0, np.int64)), ())
        return
    seg = segments(e, "Emission")
    path = seg.unpad(viterbi(g, seg.pad(x), w, seg.mask))
    if e.has("Label"):
        path = g.cast(g.op("Equal", path, g.cast(g.reshape(e.x("Label"), -1), np.int64)), np.int64)
    e.set("ViterbiPath", g.unsqueeze(path, 1), e.lod("Emission"))


def _kept(e: Emission, x: Value, first: Value) -> Value:
    """Which ids stay: not blank, and not what stands before them where repeats are merged. x, first: [rows]."""
    g = e.g
    keep = ~g.op("Equal", x, g.const(int(e["blank"]), x.dtype))
    if not e["merge_repeated"]:
        return keep
    before = g.concat([g.slice(x, 0, 0, 1), g.slice(x, 0, 0, -1)], 0)
    return keep & (first | ~g.op("Equal", x, before))


@emits("ctc_align")
def ctc_align(e: Emission) -> None:
    g, x = e.g, e.x("Input")
    if e.has("InputLength"):
        _ctc_align_padded(e, x)
        return
    seg: Segments = segments(e, "Input")
    flat = g.reshape(x, -1)
    keep = _kept(e, flat, g.op("Equal", seg.position, g.const(0, np.int64)))
    # where nothing stays at all, Fluid leaves a single -1
    left = g.op("Compress", flat, keep, axis=0)
    none = g.cast(g.op("Equal", g.dim(left, 0), g.const([0], np.int64)), np.int64)
    padded = g.concat([left, g.const([-1], flat.dtype)], 0)
    out = g.unsqueeze(g.slice(padded, 0, 0, g.dim(left, 0) + none), 1)
    e.set("Output", out, [kept_offsets(g, keep, seg.offsets)])


def _ctc_align_padded(e: Emission, x: Value) -> None:
    """[batch, time] with lengths: what stays moves to the front by a stable sort, the rest is padding_value."""
    g = e.g
    lengths = g.cast(g.reshape(e.x("InputLength"), -1, 1), np.int64)
    time = g.dim(x, 1)
    at = g.unsqueeze(g.arange(time), 0)
    keep = (at < lengths) & ~g.op("Equal", x, g.const(int(e["blank"]), x.dtype))
    if e["merge_repeated"]:
        before = g.concat([g.slice(x, 1, 0, 1), g.slice(x, 1, 0, -1)], 1)
        keep = keep & (g.op("Equal", at, g.const(0, np.int64)) | ~g.op("Equal", x, before))
    count = g.reduce("ReduceSum", g.cast(keep, np.int64), [1], True)
    place = g.where(keep, at, at + time)
    _, order = g.ops("TopK", 2, place, time, dtypes=[np.int64, np.int64], axis=1, largest=0)
    moved = g.op("GatherElements", x, order, axis=1)
    e.set("Output", g.where(at < count, moved, g.const(int(e["padding_value"]), x.dtype)), ())
    e.set("OutputLength", count, ())
