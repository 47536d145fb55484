"""Attention and layer normalisation with what surrounds them: operators that passes make."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.graph import Value


@emits("fused_attention")
def fused_attention(e: Emission) -> None:
    g, heads = e.g, int(e["heads"])
    q, k, v = (e.x(s) for s in ("Q", "K", "V"))
    rank = e.rank("Q")
    if heads:
        width = e.shape("Q")[-1]
        q, k, v = (g.transpose(g.reshape(t, 0, 0, heads, -1), [0, 2, 1, 3]) for t in (q, k, v))
        rank = 4
        if width < 0:
            e.refuse("the width of Q must be known")
    scores = g.op("MatMul", q, g.transpose(k, [*range(rank - 2), rank - 1, rank - 2]))
    if e["scale"] != 1.0:
        scores = scores * float(e["scale"])
    if e.has("Mask"):
        scores = scores + e.x("Mask")
    out = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    if heads:
        out = g.reshape(g.transpose(out, [0, 2, 1, 3]), 0, 0, -1)
    e.set("Out", out)


def _normalised(e: Emission, x: Value, width: int) -> Value:
    """layer_norm over the last dim."""
    g = e.g
    scale = e.maybe("Scale")
    if scale is None:
        if width < 0:
            e.refuse("the normalised size must be known where there is no Scale")
        scale = g.const(np.ones(width, x.dtype))
    return g.op("LayerNormalization", x, scale, e.maybe("Bias"), axis=-1, epsilon=float(e["epsilon"]))


@emits("fused_add_layer_norm")
def fused_add_layer_norm(e: Emission) -> None:
    g, axis, rank = e.g, int(e["begin_norm_axis"]), e.rank("X")
    total = e.x("X") + e.x("Y")
    shape = e.shape("X")[axis:]
    width = int(np.prod(shape)) if min(shape) > 0 else -1
    if axis == rank - 1:
        e.set("Out", _normalised(e, total, width))
        return
    flat = g.reshape(total, *[g.dim(total, i) for i in range(axis)], -1)
    e.set("Out", g.op("Reshape", _normalised(e, flat, width), g.shape(total)))


@emits("fused_embedding_layer_norm")
def fused_embedding_layer_norm(e: Emission) -> None:
    g, padding = e.g, list(e["padding_idx"])
    total: Value | None = None
    for i, (ids, table) in enumerate(zip(e.xs("Ids"), e.xs("Tables"))):
        ids = g.squeeze(ids, -1) if e["squeeze"] else ids
        rows = g.gather(table, ids)
        if i < len(padding) and padding[i] != -1:
            pad = g.unsqueeze(g.op("Equal", ids, g.const(int(padding[i]), ids.dtype)), -1)
            rows = g.where(pad, g.const(0, rows.dtype), rows)
        total = rows if total is None else total + rows
    assert total is not None
    e.set("Out", _normalised(e, total, e.shape("Tables")[-1]), e.lod("Ids"))
