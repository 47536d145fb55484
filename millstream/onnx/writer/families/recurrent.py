"""Recurrent networks over sequences: ONNX LSTM and GRU with repacked weights, Scan where these can't say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.activation import activate
from millstream.onnx.writer.families.labels import viterbi
from millstream.onnx.writer.families.sequence import segments
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import Segments, scan

_ONNX_NAMES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "identity": "Affine"}


class Projection(NamedTuple):
    """The gates' pre-activations as X W + bias, where what made them is known (else W is the identity)."""

    x: Value
    weight: Value
    bias: Value | None


def columns(g: Graph, w: Value, order: Sequence[int], d: int, negate: Sequence[int] = ()) -> Value:
    """Blocks of `d` columns in another order, those in `negate` (by their old place) times -1."""
    parts = [g.slice(w, -1, k * d, (k + 1) * d) for k in range(max(order) + 1)]
    return g.concat([-parts[k] if k in negate else parts[k] for k in order], -1)


def projected(e: Emission, slot: str, width: int) -> Projection:
    """What `slot` is a product of: one product less when ONNX's own weight takes it."""
    g, x = e.g, e.x(slot)
    found = e.walker.linear.get(x.name) if e.walker is not None else None
    if found is not None:
        return Projection(*found)
    return Projection(x, g.const(np.eye(width, dtype=x.dtype)), None)


def weight_rows(g: Graph, w: Value, order: Sequence[int], d: int, negate: Sequence[int] = ()) -> Value:
    """[in, blocks * d] as ONNX keeps it: [1, blocks * d, in]."""
    return g.unsqueeze(g.transpose(columns(g, w, order, d, negate), [1, 0]), 0)


def _activations(names: Sequence[str]) -> dict[str, Any]:
    attrs: dict[str, Any] = {"activations": [_ONNX_NAMES[n] for n in names]}
    if "identity" in names:
        attrs["activation_alpha"] = [1.0 for n in names if n == "identity"]
        attrs["activation_beta"] = [0.0 for n in names if n == "identity"]
    return attrs


def _state(e: Emission, slot: str) -> Value | None:
    return e.g.unsqueeze(e.x(slot), 0) if slot in e.definition.in_slots and e.has(slot) else None


def _initial(e: Emission, seg: Segments, slot: str, d: int, dtype: Any) -> Value:
    """The first state, [sequences, d]."""
    if slot in e.definition.in_slots and e.has(slot):
        return e.x(slot)
    return e.g.full(e.g.ints(seg.count, d), 0, dtype)


# ---- gru -----------------------------------------------------------------------------------------------
_GRU_ORDER = (0, 1, 2)  # update, reset, candidate: ONNX's z, r, h


def split_gru_weight(g: Graph, w: Value, d: int) -> tuple[Value, Value]:
    """([D, 2D] for update and reset, [D, D] for the candidate) out of a weight's flat memory."""
    flat = g.reshape(w, -1)
    return g.reshape(g.slice(flat, 0, 0, 2 * d * d), d, 2 * d), g.reshape(g.slice(flat, 0, 2 * d * d, 3 * d * d), d, d)


def _gru(
    e: Emission, seg: Segments, proj: Projection, wh: Value, bias: Value | None, d: int, names: tuple[str, str],
    origin: bool, reverse: bool,
) -> Value:  # fmt: skip
    """Hidden of each row. h = (1 - u) h_prev + u c is ONNX's (1 - z) c + z h_prev with z = 1 - u: u's part is negated."""
    g = e.g
    gate, act = names
    if not origin and gate != "sigmoid":
        return _gru_scan(e, seg, proj, wh, bias, d, names, origin, reverse)
    negate = () if origin else (0,)
    w = weight_rows(g, proj.weight, _GRU_ORDER, d, negate)
    ur, c = split_gru_weight(g, wh, d)
    r = weight_rows(g, g.concat([ur, c], 1), _GRU_ORDER, d, negate)
    whole = _sum_biases(g, proj.bias, bias)
    b = None
    if whole is not None:
        zeros = g.const(np.zeros((1, 3 * d), wh.dtype))
        b = g.concat([columns(g, whole, _GRU_ORDER, d, negate), zeros], 1)
    y = g.ops(
        "GRU", 2, seg.pad(proj.x, reverse), w, r, b, g.cast(seg.lengths, np.int32), _state(e, "H0"),
        dtypes=[wh.dtype, wh.dtype], hidden_size=d, linear_before_reset=0, **_activations([gate, act]),
    )[0]  # fmt: skip
    return seg.unpad(g.squeeze(y, 1), reverse)


def _sum_biases(g: Graph, *biases: Value | None) -> Value | None:
    """The sum of biases as [1, width]."""
    total: Value | None = None
    for b in biases:
        if b is not None:
            row = g.reshape(b, 1, -1)
            total = row if total is None else total + row
    return total


def gru_step(
    g: Graph, x: Value, h: Value, ur: Value, c: Value, d: int, names: tuple[str, str], origin: bool
) -> tuple[Value, Value, Value]:
    """(hidden, activated u r c, r * h_prev) of one step over [batch, 3D]."""
    gates = activate(g, g.slice(x, 1, 0, 2 * d) + g.op("MatMul", h, ur), names[0])
    u, r = g.slice(gates, 1, 0, d), g.slice(gates, 1, d, 2 * d)
    reset = r * h
    candidate = activate(g, g.slice(x, 1, 2 * d, 3 * d) + g.op("MatMul", reset, c), names[1])
    hidden = candidate + u * (h - candidate) if origin else h + u * (candidate - h)
    return hidden, g.concat([gates, candidate], 1), reset


def _gru_scan(
    e: Emission, seg: Segments, proj: Projection, wh: Value, bias: Value | None, d: int, names: tuple[str, str],
    origin: bool, reverse: bool,
) -> Value:  # fmt: skip
    g = e.g
    ur, c = split_gru_weight(g, wh, d)
    x = _with_bias(g, proj, bias)

    def step(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        hidden, _, _ = gru_step(body, now[0], states[0], ur, c, d, names, origin)
        return [hidden], [hidden]

    return recur(e, seg, [_initial(e, seg, "H0", d, wh.dtype)], x, step, reverse)[0]


def _with_bias(g: Graph, proj: Projection, bias: Value | None) -> Value:
    x = g.op("MatMul", proj.x, proj.weight)
    whole = _sum_biases(g, proj.bias, bias)
    return x if whole is None else x + whole


def recur(
    e: Emission,
    seg: Segments,
    states: list[Value],
    x: Value,
    step: Callable[[Graph, list[Value], list[Value]], tuple[list[Value], list[Value]]],
    reverse: bool,
) -> list[Value]:
    """A step over padded sequences by Scan; the outputs' rows. A state runs on past its sequence's end, where none looks."""
    found = scan(e.g, states, [seg.pad(x, reverse)], step, [2])
    return [seg.unpad(y, reverse) for y in found[len(states) :]]


@emits("gru")
def gru(e: Emission) -> None:
    d = e.shape("Weight")[0]
    names = (e["gate_activation"], e["activation"])
    hidden = _gru(e, segments(e, "Input"), projected(e, "Input", 3 * d), e.x("Weight"), e.maybe("Bias"), d, names,
                  e["origin_mode"], e["is_reverse"])  # fmt: skip
    e.set("Hidden", hidden, e.lod("Input"))


@emits("fusion_gru", "projected_gru")
def fusion_gru(e: Emission) -> None:
    g, d = e.g, e.shape("WeightH")[0]
    names = (e["gate_activation"], e["activation"])
    origin = e.op.type == "projected_gru" and e["origin_mode"]
    x = e.x("X")
    if e.rank("X") > 2:
        x = g.op("Flatten", x, axis=1)
    bias = _sum_biases(g, e.maybe("Bias"), e.maybe("BiasX") if e.op.type == "projected_gru" else None)
    proj = Projection(x, e.x("WeightX"), bias)
    hidden = _gru(e, segments(e, "X"), proj, e.x("WeightH"), None, d, names, origin, e["is_reverse"])
    if e.op.type == "fusion_gru" and e.wants("XX"):
        e.set("XX", _with_bias(g, proj, None), e.lod("X"))
    e.set("Hidden", hidden, e.lod("X"))


def _looked_up(e: Emission, d: int) -> list[Projection]:
    """The projections of both directions: rows of Table. The lookup stands inside: ONNX's weight is the identity."""
    g = e.g
    rows = g.gather(e.x("Table"), g.reshape(e.x("Ids"), -1))
    eye = g.const(np.eye(3 * d, dtype=rows.dtype))
    return [Projection(g.slice(rows, 1, k * 3 * d, (k + 1) * 3 * d), eye, None) for k in (0, 1)]


def _both_ways(
    e: Emission, seg: Segments, sides: Sequence[Projection], weights: Sequence[Value], biases: Sequence[Value | None],
    d: int, reverse: bool,
) -> Value:  # fmt: skip
    names = (e["gate_activation"], e["activation"])
    ways = zip(sides, weights, biases, (reverse, not reverse))
    return e.g.concat([_gru(e, seg, proj, w, bias, d, names, e["origin_mode"], way) for proj, w, bias, way in ways], 1)


@emits("projected_bigru", "embedded_bigru")
def bigru(e: Emission) -> None:
    """Both directions, from rows or from ids; their results side by side."""
    g, d = e.g, e.shape("WeightH")[0]
    source = e.definition.inputs[0].name
    if e.op.type == "embedded_bigru":
        sides = _looked_up(e, d)
    else:
        x = e.x("X") if e.rank("X") == 2 else g.op("Flatten", e.x("X"), axis=1)
        sides = [Projection(x, e.x("WeightX" + k), e.maybe("BiasX" + k)) for k in ("", "2")]
    weights, biases = [e.x("WeightH" + k) for k in ("", "2")], [e.maybe("Bias" + k) for k in ("", "2")]
    e.set("Hidden", _both_ways(e, segments(e, source), sides, weights, biases, d, bool(e["is_reverse"])), e.lod(source))


@emits("bigru_tagger")
def bigru_tagger(e: Emission) -> None:
    """The layers, the product and the best path one after another."""
    g, d, seg = e.g, e.shape("W")[0] // 2, segments(e, "Ids")
    weights, biases, rows, rows_bias = (e.xs(slot) for slot in ("WeightH", "Bias", "WeightX", "BiasX"))
    x = _both_ways(e, seg, _looked_up(e, d), weights[:2], biases[:2], d, bool(e["is_reverse"][0]))
    for k in range(0, len(rows), 2):
        sides = [Projection(x, w, bias) for w, bias in zip(rows[k : k + 2], rows_bias[k : k + 2])]
        own = slice(k + 2, k + 4)
        x = _both_ways(e, seg, sides, weights[own], biases[own], d, bool(e["is_reverse"][k // 2 + 1]))
    scores = g.op("MatMul", x, e.x("W"))
    if e.has("BiasW"):
        scores = scores + g.reshape(e.x("BiasW"), 1, -1)
    path = seg.unpad(viterbi(g, seg.pad(scores), e.x("Transition"), seg.mask))
    e.set("ViterbiPath", g.unsqueeze(path, 1), e.lod("Ids"))


_NUMBERED = {0: "identity", 1: "sigmoid", 2: "tanh", 3: "relu"}


@emits("gru_unit")
def gru_unit(e: Emission) -> None:
    g, d = e.g, e.shape("Weight")[0]
    ur, c = split_gru_weight(g, e.x("Weight"), d)
    x = e.x("Input")
    if e.has("Bias"):
        x = x + g.reshape(e.x("Bias"), 1, -1)
    names = (_NUMBERED[e["gate_activation"]], _NUMBERED[e["activation"]])
    hidden, gates, reset = gru_step(g, x, e.x("HiddenPrev"), ur, c, d, names, e["origin_mode"])
    e.set("Gate", gates, ())
    e.set("ResetHiddenPrev", reset, ())
    e.set("Hidden", hidden)


# ---- lstm ------------------------------------------------------------------------------------------------
_LSTM_ORDER = (1, 3, 2, 0)  # candidate, input, forget, output as ONNX's i, o, f, c


def _lstm(e: Emission, seg: Segments, proj: Projection, wh: Value, bias: Value, d: int, gate_bias: bool = True) -> None:
    """Hidden (and Cell, where something reads it: ONNX's LSTM does not give cells, so that becomes a Scan)."""
    g = e.g
    names = (e["gate_activation"], e["candidate_activation"], e["cell_activation"])
    flat = g.reshape(bias, 1, -1)
    own = g.slice(flat, 1, 0, 4 * d) if gate_bias else None
    peepholes = g.slice(flat, 1, 4 * d, 7 * d) if e["use_peepholes"] else None
    source = e.definition.inputs[0].name
    if e.walker is None or e.walker.used(e.op.output("Cell")):
        hidden, cell = _lstm_scan(e, seg, proj, wh, own, peepholes, d, names)
        e.set("Cell", cell, e.lod(source))
        e.set("Hidden", hidden, e.lod(source))
        return
    whole = _sum_biases(g, proj.bias, own)
    b = None
    if whole is not None:
        zeros = g.const(np.zeros((1, 4 * d), wh.dtype))
        b = g.concat([columns(g, whole, _LSTM_ORDER, d), zeros], 1)
    p = None if peepholes is None else columns(g, peepholes, (0, 2, 1), d)
    # sequences are turned around by the padding: not every engine's reverse direction looks at the lengths
    reverse = bool(e["is_reverse"])
    y = g.ops(
        "LSTM", 3, seg.pad(proj.x, reverse), weight_rows(g, proj.weight, _LSTM_ORDER, d),
        weight_rows(g, wh, _LSTM_ORDER, d), b,
        g.cast(seg.lengths, np.int32), _state(e, "H0"), _state(e, "C0"), p, dtypes=[wh.dtype] * 3, hidden_size=d,
        **_activations(names),
    )[0]  # fmt: skip
    e.set("Hidden", seg.unpad(g.squeeze(y, 1), reverse), e.lod(source))


def lstm_step(
    g: Graph, z: Value, c: Value, peepholes: Value | None, d: int, names: tuple[str, str, str], clip: float = 0.0
) -> tuple[Value, Value]:
    """(hidden, cell) from the gates' pre-activations [batch, 4D] in the order candidate, input, forget, output."""
    candidate, i, f, o = (g.slice(z, 1, k * d, (k + 1) * d) for k in range(4))
    if peepholes is not None:
        pi, pf, po = (g.slice(peepholes, 1, k * d, (k + 1) * d) for k in range(3))
        i, f = i + c * pi, f + c * pf
    gate, cand, act = names
    cell = activate(g, f, gate) * c + activate(g, i, gate) * activate(g, candidate, cand)
    if clip > 0:
        cell = g.op("Clip", cell, g.const(-clip, cell.dtype), g.const(clip, cell.dtype))
    if peepholes is not None:
        o = o + cell * po
    return activate(g, o, gate) * activate(g, cell, act), cell


def _lstm_scan(
    e: Emission, seg: Segments, proj: Projection, wh: Value, bias: Value | None, peepholes: Value | None, d: int,
    names: tuple[str, str, str],
) -> tuple[Value, Value]:  # fmt: skip
    first = [_initial(e, seg, s, d, wh.dtype) for s in ("H0", "C0")]

    def step(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        z = now[0] + body.op("MatMul", states[0], wh)
        hidden, cell = lstm_step(body, z, states[1], peepholes, d, names)
        return [hidden, cell], [hidden, cell]

    hidden, cell = recur(e, seg, first, _with_bias(e.g, proj, bias), step, e["is_reverse"])
    return hidden, cell


@emits("lstm")
def lstm(e: Emission) -> None:
    d = e.shape("Weight")[0]
    _lstm(e, segments(e, "Input"), projected(e, "Input", 4 * d), e.x("Weight"), e.x("Bias"), d)


@emits("fusion_lstm")
def fusion_lstm(e: Emission) -> None:
    d = e.shape("WeightH")[0]
    proj = Projection(e.x("X"), e.x("WeightX"), None)
    _lstm(e, segments(e, "X"), proj, e.x("WeightH"), e.x("Bias"), d)
    if e.wants("XX"):
        e.set("XX", e.g.op("MatMul", proj.x, proj.weight), e.lod("X"))


@emits("fused_embedding_fc_lstm")
def fused_embedding_fc_lstm(e: Emission) -> None:
    g, d = e.g, e.shape("WeightH")[0]
    rows = g.gather(e.x("Embeddings"), g.reshape(e.x("Ids"), -1))
    proj = Projection(rows, g.const(np.eye(4 * d, dtype=rows.dtype)), None)
    _lstm(e, segments(e, "Ids"), proj, e.x("WeightH"), e.x("Bias"), d, gate_bias=False)
    if e.wants("XX"):
        e.set("XX", rows, e.lod("Ids"))


@emits("lstmp")
def lstmp(e: Emission) -> None:
    g, seg, d = e.g, segments(e, "Input"), e.shape("ProjWeight")[0]
    p = e.shape("ProjWeight")[1]
    proj, wh = e.x("ProjWeight"), e.x("Weight")
    names = (e["gate_activation"], e["candidate_activation"], e["cell_activation"])
    flat = g.reshape(e.x("Bias"), 1, -1)
    peepholes = g.slice(flat, 1, 4 * d, 7 * d) if e["use_peepholes"] else None
    limit = float(e["proj_clip"])

    def step(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        z = now[0] + body.op("MatMul", states[0], wh)
        hidden, cell = lstm_step(body, z, states[1], peepholes, d, names, float(e["cell_clip"]))
        # like Fluid, any proj_activation other than identity applies cell_activation
        act = "identity" if e["proj_activation"] == "identity" else e["cell_activation"]
        out = activate(body, body.op("MatMul", hidden, proj), act)
        if limit > 0:
            out = body.op("Clip", out, body.const(-limit, out.dtype), body.const(limit, out.dtype))
        return [out, cell], [out, cell]

    first = [_initial(e, seg, "H0", p, wh.dtype), _initial(e, seg, "C0", d, wh.dtype)]
    out, cell = recur(e, seg, first, e.x("Input") + g.slice(flat, 1, 0, 4 * d), step, e["is_reverse"])
    e.set("Projection", out, e.lod("Input"))
    e.set("Cell", cell, e.lod("Input"))


@emits("lstm_unit")
def lstm_unit(e: Emission) -> None:
    g, x, c = e.g, e.x("X"), e.x("C_prev")
    d = e.shape("C_prev")[1]
    if d < 0:
        e.refuse("the width of C_prev must be known")
    i, f, o, j = (g.slice(x, 1, k * d, (k + 1) * d) for k in range(4))
    keep = g.op("Sigmoid", f + e["forget_bias"] if e["forget_bias"] else f)
    cell = keep * c + g.op("Sigmoid", i) * g.op("Tanh", j)
    e.set("C", cell)
    e.set("H", g.op("Sigmoid", o) * g.op("Tanh", cell))


@emits("cudnn_lstm")
def cudnn_lstm(e: Emission) -> None:
    """Layers of ONNX LSTM; gates input, forget, candidate, output; two biases each."""
    g, x = e.g, e.x("Input")
    if not e["is_test"] and e["dropout_prob"] > 0:
        e.refuse("dropout between the layers; set is_test")
    d, layers = int(e["hidden_size"]), int(e["num_layers"])
    sides = 2 if e["is_bidirec"] else 1
    width, flat = e.shape("Input")[-1], g.reshape(e.x("W"), -1)
    if width < 0:
        e.refuse("the width of Input must be known")
    widths = [n for layer in range(layers) for n in [width if layer == 0 else d * sides] * sides]
    at = 0
    matrices = []
    for wide in widths:
        pair = []
        for inner in (wide, d):
            pair.append(g.reshape(g.slice(flat, 0, at, at + 4 * d * inner), 4, d, inner))
            at += 4 * d * inner
        matrices.append(pair)
    biases = g.reshape(g.slice(flat, 0, at, at + 8 * d * layers * sides), layers * sides, 2, 4, d)
    order = np.array([0, 3, 1, 2], np.int64)  # as ONNX's i, o, f, c
    lasts: list[list[Value]] = [[], []]
    for layer in range(layers):
        here = range(layer * sides, (layer + 1) * sides)
        w, r = (
            g.concat([g.reshape(g.gather(matrices[k][which], order), 1, 4 * d, -1) for k in here], 0) for which in (0, 1)
        )
        b = g.reshape(g.gather(g.slice(biases, 0, here[0], here[-1] + 1), order, 2), sides, 8 * d)
        h0, c0 = (g.slice(e.x(s), 0, here[0], here[-1] + 1) for s in ("InitH", "InitC"))
        y, h, c = g.ops("LSTM", 3, x, w, r, b, None, h0, c0, dtypes=[x.dtype] * 3, hidden_size=d,
                        direction="bidirectional" if sides == 2 else "forward")  # fmt: skip
        x = g.reshape(g.transpose(y, [0, 2, 1, 3]), 0, 0, sides * d)
        lasts[0].append(h)
        lasts[1].append(c)
    e.set("Out", x)
    e.set("last_h", g.concat(lasts[0], 0))
    e.set("last_c", g.concat(lasts[1], 0))


@emits("attention_lstm")
def attention_lstm(e: Emission) -> None:
    """At each step a softmax over the whole sequence, which the step reads from outside the Scan."""
    g, x, seg = e.g, e.x("X"), segments(e, "X")
    m, d = e.shape("X")[1], e.shape("C0")[1]
    aw, lw, lb = e.x("AttentionWeight"), e.x("LSTMWeight"), g.reshape(e.x("LSTMBias"), 1, -1)
    scores = g.op("MatMul", x, g.slice(aw, 0, 0, m))
    if e.has("AttentionBias"):
        scores = scores + g.reshape(e.x("AttentionBias"), 1, 1)
    w_cell = g.slice(aw, 0, m, m + d)
    w_hidden, w_input = g.slice(lw, 0, 0, d), g.slice(lw, 0, d, d + m)
    rows = g.transpose(seg.pad(x), [1, 0, 2])  # [sequences, longest, m]
    padded = g.transpose(g.squeeze(seg.pad(scores), 2), [1, 0])
    mask = g.transpose(seg.mask, [1, 0])
    scalar, shift = e.maybe("AttentionScalar"), e.maybe("AttentionScalarBias")
    gate, cand, act = e["gate_activation"], e["candidate_activation"], e["cell_activation"]

    def step(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        h, c = states
        s = body.op("Relu", padded + body.op("MatMul", c, w_cell))
        if scalar is not None:
            s = s * body.reshape(scalar, 1, 1)
            s = body.op("Relu", s if shift is None else s + body.reshape(shift, 1, 1))
        share = body.op("Softmax", body.where(mask, s, body.const(np.finfo(x.dtype).min, x.dtype)), axis=1)
        mean = body.squeeze(body.op("MatMul", body.unsqueeze(share, 1), rows), 1)
        z = body.op("MatMul", mean, w_input) + body.op("MatMul", h, w_hidden) + lb
        f, i, o, j = (body.slice(z, 1, k * d, (k + 1) * d) for k in range(4))
        cell = activate(body, f, gate) * c + activate(body, i, gate) * activate(body, j, cand)
        hidden = activate(body, o, gate) * activate(body, cell, act)
        return [hidden, cell], [hidden, cell]

    first = [_initial(e, seg, "H0", d, x.dtype), e.x("C0")]
    found = scan(g, first, [g.arange(seg.longest)], step, [0])
    e.set("Hidden", seg.unpad(found[2]), e.lod("X"))
    e.set("Cell", seg.unpad(found[3]), e.lod("X"))
