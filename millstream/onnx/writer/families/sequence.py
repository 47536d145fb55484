"""Operators over sequences: values and offsets in, values and offsets out."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.activation import activate
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import END, Segments, from_lengths


def segments(e: Emission, slot: str, level: int = -1) -> Segments:
    """The sequences of an input; refuses one without LoD."""
    lod = e.lod(slot)
    if not lod:
        e.refuse(f"input {slot} ({e.name(slot)!r}) has no LoD (declare it with lod_level)")
    return Segments(e.g, lod[level])


def pooled(e: Emission, x: Value, seg: Segments, rank: int, kind: str, pad_value: float = 0.0) -> Value:
    """One row for each sequence."""
    g = e.g
    lengths = seg.lengths
    empty = g.op("Equal", lengths, g.const(0, np.int64))
    if kind in ("LAST", "FIRST"):
        rows = seg.ends - 1 if kind == "LAST" else seg.starts
        out = g.gather(x, g.where(empty, g.const(0, np.int64), rows))
    elif kind == "MAX":
        low = g.const(np.finfo(x.dtype).min if x.is_float else np.iinfo(x.dtype).min, x.dtype)
        mask = g.unsqueeze(seg.mask, *range(2, rank + 1)) if rank > 1 else seg.mask
        out = g.reduce("ReduceMax", g.where(mask, seg.pad(x), low), [0])
    else:
        out = seg.sum(x, rank)
        if kind != "SUM":
            n = g.cast(g.op("Max", lengths, g.const(1, np.int64)), x.dtype)
            out = out / seg.column(g.op("Sqrt", n) if kind == "SQRT" else n, rank)
    return g.where(seg.column(empty, rank), g.const(pad_value, x.dtype), out)


@emits("sequence_pool")
def sequence_pool(e: Emission) -> None:
    out = pooled(e, e.x("X"), segments(e, "X"), e.rank("X"), e["pooltype"], e["pad_value"])
    e.set("Out", out, e.lod("X")[:-1])


@emits("sequence_softmax")
def sequence_softmax(e: Emission) -> None:
    g, x, seg = e.g, e.x("X"), segments(e, "X")
    flat = g.reshape(x, -1)
    padded = g.where(seg.mask, seg.pad(flat), g.const(np.finfo(x.dtype).min, x.dtype))
    out = seg.unpad(g.op("Softmax", padded, axis=0))
    e.set("Out", g.op("Reshape", out, g.shape(x)), e.lod("X"))


@emits("sequence_expand")
def sequence_expand(e: Emission) -> None:
    g, x, lod = e.g, e.x("X"), e.lod("X")
    ref = segments(e, "Y", int(e["ref_level"]))
    if not lod:
        e.set("Out", ref.spread(x), ())
        return
    mine = Segments(g, lod[0])
    out = Segments(g, from_lengths(g, ref.spread(mine.lengths)))
    rows = out.spread(ref.spread(mine.starts)) + out.position
    e.set("Out", g.gather(x, rows), [out.offsets])


@emits("sequence_expand_as")
def sequence_expand_as(e: Emission) -> None:
    e.set("Out", segments(e, "Y", 0).spread(e.x("X")), e.lod("Y")[:1])


def context(e: Emission, x: Value, seg: Segments, start: int, length: int, padding: Value | None) -> Value:
    """The rows around each row side by side; outside its sequence zeros, or rows of `padding`."""
    g, parts = e.g, []
    lengths = seg.spread(seg.lengths)
    last = g.op("Max", seg.rows - 1, g.const([0], np.int64))
    up = max(0, -start)
    for k in range(start, start + length):
        if k == 0:
            parts.append(x)
            continue
        at = seg.position + k
        inside = (at >= 0) & (at < lengths)
        rows = g.op("Max", g.op("Min", seg.row + k, last), g.const([0], np.int64))
        outside = g.const(0, x.dtype)
        if padding is not None:
            where = g.where(at < 0, at + up, at - lengths + up)
            limit = g.dim(padding, 0) - 1
            outside = g.gather(padding, g.op("Max", g.op("Min", where, limit), g.const([0], np.int64)))
        parts.append(g.where(g.unsqueeze(inside, 1), g.gather(x, rows), outside))
    return g.concat(parts, 1)


@emits("sequence_conv", "fusion_seqconv_eltadd_relu")
def sequence_conv(e: Emission) -> None:
    g = e.g
    padding = e.x("PaddingData") if e.attrs.get("paddingTrainable") else None
    columns = context(e, e.x("X"), segments(e, "X"), int(e["contextStart"]), int(e["contextLength"]), padding)
    out = g.op("MatMul", columns, e.x("Filter"))
    if e.op.type == "fusion_seqconv_eltadd_relu":
        out = g.op("Relu", out + g.reshape(e.x("Bias"), -1))
        e.set("ColMat", columns, ())
    e.set("Out", out, e.lod("X"))


@emits("row_conv")
def row_conv(e: Emission) -> None:
    g, x, w = e.g, e.x("X"), e.x("Filter")
    future = e.shape("Filter")[0]
    if e.rank("X") == 3:
        time = g.dim(x, 1)
        padded = g.op("Pad", x, g.ints(0, 0, 0, 0, future - 1, 0))
        out = g.slice(padded, 1, 0, time) * g.gather(w, [0])
        for k in range(1, future):
            out = out + g.slice(padded, 1, k, time + k) * g.gather(w, [k])
        e.set("Out", out)
        return
    seg = segments(e, "X")
    parts = context(e, x, seg, 0, future, None)
    tall = g.reshape(parts, -1, future, e.shape("Filter")[1])
    e.set("Out", g.reduce("ReduceSum", tall * g.unsqueeze(w, 0), [1]))


@emits("sequence_pad")
def sequence_pad(e: Emission) -> None:
    g, x, rank, seg = e.g, e.x("X"), e.rank("X"), segments(e, "X")
    length = int(e["padded_length"])
    padded = g.transpose(seg.pad(x), [1, 0, *range(2, rank + 1)])
    mask = g.transpose(seg.mask, [1, 0])
    fill = g.cast(e.x("PadValue"), x.dtype)
    out = g.where(g.unsqueeze(mask, *range(2, rank + 1)), padded, fill)
    if length >= 0:
        more = g.const([length], np.int64) - seg.longest
        tail = g.expand(fill, seg.count, more, *[g.dim(x, i) for i in range(1, rank)])
        out = g.concat([out, tail], 1)
    out.shape = (-1, length if length > 0 else -1, *e.shape("X")[1:])
    e.set("Out", out, ())
    e.set("Length", seg.lengths, ())


@emits("sequence_unpad")
def sequence_unpad(e: Emission) -> None:
    g, x = e.g, e.x("X")
    seg = Segments(g, from_lengths(g, g.cast(g.reshape(e.x("Length"), -1), np.int64)))
    at = g.concat([g.unsqueeze(seg.ids, 1), g.unsqueeze(seg.position, 1)], 1)
    out = g.op("GatherND", x, at)
    e.set("Out", g.unsqueeze(out, 1) if e.rank("X") == 2 else out, [seg.offsets])


@emits("sequence_mask")
def sequence_mask(e: Emission) -> None:
    g, x, limit = e.g, g_int(e, "X"), int(e["maxlen"])
    if e.has("MaxLenTensor"):
        top = g.reshape(g.cast(e.x("MaxLenTensor"), np.int64), 1)
    elif limit < 0:
        top = g.reshape(g.reduce("ReduceMax", x, None), 1)
    else:
        top = g.const([limit], np.int64)
    e.set("Y", g.cast(g.arange(top) < g.unsqueeze(x, -1), e.dtype("out_dtype")))


def g_int(e: Emission, slot: str) -> Value:
    """An input as int64."""
    return e.g.cast(e.x(slot), np.int64)


@emits("sequence_reverse")
def sequence_reverse(e: Emission) -> None:
    seg = segments(e, "X")
    e.set("Y", e.g.gather(e.x("X"), seg.spread(seg.starts + seg.ends - 1) - seg.row), e.lod("X"))


@emits("sequence_concat")
def sequence_concat(e: Emission) -> None:
    g, xs, names = e.g, e.xs("X"), e.op.input("X")
    if not all(e.env.lod(n) for n in names):
        e.refuse("every input must have a LoD")
    parts = [Segments(g, e.env.lod(n)[-1]) for n in names]
    total = parts[0].offsets
    for seg in parts[1:]:
        total = total + seg.offsets
    start = g.slice(total, 0, 0, -1)
    places = []
    for seg in parts:
        places.append(seg.spread(start) + seg.position)
        start = start + seg.lengths
    joined = g.concat(xs, 0)
    # row i of the result is the row that has place i
    at = g.unsqueeze(g.concat(places, 0), 1)
    e.set("Out", g.op("ScatterND", joined, at, joined), [total])


@emits("sequence_slice")
def sequence_slice(e: Emission) -> None:
    g, seg = e.g, segments(e, "X")
    begin, size = (g.reshape(g_int(e, s), -1) for s in ("Offset", "Length"))
    out = Segments(g, from_lengths(g, size))
    e.set("Out", g.gather(e.x("X"), out.spread(seg.starts + begin) + out.position), [out.offsets])


@emits("sequence_reshape")
def sequence_reshape(e: Emission) -> None:
    g, width, new = e.g, e.shape("X")[1], int(e["new_dim"])
    if width < 0:
        e.refuse("the width of X must be known")
    e.set("Out", g.reshape(e.x("X"), -1, new), [segments(e, "X").offsets * width / new])


@emits("sequence_enumerate")
def sequence_enumerate(e: Emission) -> None:
    g, seg, width = e.g, segments(e, "X"), int(e["win_size"])
    ids = g.reshape(e.x("X"), -1)
    rows = g.unsqueeze(seg.row, 1) + g.const(np.arange(width), np.int64)
    found = g.gather(ids, g.op("Min", rows, seg.rows - 1))
    inside = rows < g.unsqueeze(seg.spread(seg.ends), 1)
    e.set("Out", g.where(inside, found, g.const(int(e["pad_value"]), ids.dtype)), e.lod("X"))


def kept_offsets(g: Graph, keep: Value, offsets: Value) -> Value:
    """Offsets of sequences from which the rows without `keep` (bool [rows]) are gone."""
    before = from_lengths(g, g.cast(keep, np.int64))
    return g.gather(before, offsets)


@emits("sequence_erase")
def sequence_erase(e: Emission) -> None:
    g, seg = e.g, segments(e, "X")
    ids = g.reshape(e.x("X"), -1)
    keep = g.full(g.shape(ids), True, np.bool_)
    for token in e["tokens"]:
        keep = keep & ~g.op("Equal", ids, g.const(int(token), ids.dtype))
    out = g.op("Compress", ids, keep, axis=0)
    e.set("Out", g.unsqueeze(out, 1), [*e.lod("X")[:-1], kept_offsets(g, keep, seg.offsets)])


@emits("sequence_scatter")
def sequence_scatter(e: Emission) -> None:
    g, seg = e.g, segments(e, "Ids")
    at = g.concat([g.unsqueeze(seg.ids, 1), g.reshape(g_int(e, "Ids"), -1, 1)], 1)
    e.set("Out", g.op("ScatterND", e.x("X"), at, g.reshape(e.x("Updates"), -1), reduction="add"))


@emits("lod_reset")
def lod_reset(e: Emission) -> None:
    g, x = e.g, e.x("X")
    if e.has("Y") and e.lod("Y"):
        e.set("Out", x, e.lod("Y"))
        return
    level = g.reshape(g_int(e, "Y"), -1) if e.has("Y") else g.const(list(e["target_lod"]), np.int64)
    e.set("Out", x, [*e.lod("X"), level] if e["append"] else [level])


# ---- fused with what surrounds them ------------------------------------------------------------------------
@emits("fused_embedding_seq_pool")
def fused_embedding_seq_pool(e: Emission) -> None:
    g, seg = e.g, segments(e, "Ids")
    ids = g.reshape(e.x("Ids"), -1)
    rows = g.gather(e.x("W"), ids)
    if int(e["padding_idx"]) != -1:
        pad = g.unsqueeze(g.op("Equal", ids, g.const(int(e["padding_idx"]), ids.dtype)), 1)
        rows = g.where(pad, g.const(0, rows.dtype), rows)
    e.set("Out", seg.sum(rows, 2))


@emits("fusion_seqpool_concat", "fused_seqpool_concat", "fusion_seqpool_cvm_concat")
def fusion_seqpool_concat(e: Emission) -> None:
    g, names = e.g, e.op.input("X")
    parts = []
    for name, x in zip(names, e.xs("X")):
        lod = e.env.lod(name)
        if not lod:
            e.refuse(f"input X ({name!r}) has no LoD")
        part = pooled(e, x, Segments(g, lod[-1]), 2, e["pooltype"], e.attrs.get("pad_value", 0.0))
        counts = "keep" if e.op.type == "fusion_seqpool_cvm_concat" else e.attrs.get("shows", "")
        if counts == "drop":
            part = g.slice(part, 1, 2, END)
        elif counts:
            shows, clicks = (g.op("Log", g.slice(part, 1, k, k + 1) + 1) for k in (0, 1))
            part = g.concat([shows, clicks - shows, g.slice(part, 1, 2, END)], 1)
        parts.append(part)
    out = g.concat(parts, 1)
    e.set("Out", out, () if e.op.type == "fused_seqpool_concat" else [g.arange(g.dim(parts[0], 0) + 1)])


@emits("fusion_seqexpand_concat_fc")
def fusion_seqexpand_concat_fc(e: Emission) -> None:
    g, xs, seg = e.g, e.xs("X"), segments(e, "X")
    width = e.shape("X")[1]
    if width < 0:
        e.refuse("the width of the first input must be known")
    weight = e.x("FCWeight")
    out = g.op("MatMul", xs[0], g.slice(weight, 0, 0, width))
    if len(xs) > 1:
        share = g.op("MatMul", g.concat(xs[1:], 1), g.slice(weight, 0, width, END))
        e.set("FCOut", share, ())
        out = out + seg.spread(share)
    if e.has("FCBias"):
        out = out + g.reshape(e.x("FCBias"), -1)
    e.set("Out", activate(g, out, e["fc_activation"]), e.lod("X"))


@emits("add_position_encoding")
def add_position_encoding(e: Emission) -> None:
    """alpha * X + beta * (sines in the first half of the columns, cosines in the second)."""
    g, x, width = e.g, e.x("X"), e.shape("X")[-1]
    half = width // 2
    if width < 0:
        e.refuse("the width of X must be known")
    scale = np.array([10000.0 ** (k / (half - 1)) for k in range(half)]) if half > 1 else np.array([10000.0])
    place = segments(e, "X").position if e.rank("X") == 2 else g.arange(g.dim(x, 1))
    wave = g.unsqueeze(g.cast(place, np.float32), 1) / g.const(scale.astype(np.float32))
    table = g.cast(g.concat([g.op("Sin", wave), g.op("Cos", wave)], 1), x.dtype)
    e.set("Out", x * float(e["alpha"]) + table * float(e["beta"]))
