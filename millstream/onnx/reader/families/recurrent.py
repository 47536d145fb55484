"""LSTM, GRU and plain RNN: weights repacked for Fluid's operators over sequences of lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from millstream.ir.types import VarType, to_var_type
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant

Step = Callable[[Tensor, Tensor], Tensor]
_ACTIVATIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "affine": "identity"}


class Side(NamedTuple):
    """One direction's constants: [blocks * d, in], [blocks * d, d], [2, blocks * d]; and its activations."""

    w: np.ndarray[Any, Any]
    r: np.ndarray[Any, Any]
    b: np.ndarray[Any, Any]
    names: list[str]
    reverse: bool
    peepholes: np.ndarray[Any, Any] | None


def _sides(n: Node, blocks: int, defaults: list[str]) -> list[Side]:
    direction = n.attr("direction", "forward")
    reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if reverse is None:
        n.fail(f"direction {direction!r}")
    for name in ("clip", "input_forget", "layout"):
        if n.attr(name, 0):
            n.fail(f"attribute {name}")
    w, r = n.const(1, "W"), n.const(2, "R")
    d = r.shape[-1]
    b = n.const(3, "B") if n.has(3) else np.zeros((len(reverse), 2 * blocks * d), w.dtype)
    if w.shape[:2] != (len(reverse), blocks * d) or r.shape != (len(reverse), blocks * d, d) or b.shape != (
        len(reverse),
        2 * blocks * d,
    ):
        n.fail(f"W {w.shape}, R {r.shape} and B {b.shape} do not fit each other")
    given = [a.lower() for a in n.attr("activations", defaults * len(reverse))]
    if len(given) != len(defaults) * len(reverse) or any(a not in _ACTIVATIONS for a in given):
        n.fail(f"activations {given}")
    alpha, beta = n.attr("activation_alpha", []), n.attr("activation_beta", [])
    if any(a != 1.0 for a in alpha) or any(v != 0.0 for v in beta):
        n.fail("activations with other parameters than those of the identity")
    names = [_ACTIVATIONS[a] for a in given]
    p = n.const(7, "P") if n.type == "LSTM" and n.has(7) else None
    k = len(defaults)
    return [
        Side(w[i], r[i], b[i].reshape(2, -1), names[i * k : (i + 1) * k], back, None if p is None else p[i])
        for i, back in enumerate(reverse)
    ]


def _blocks(array: np.ndarray[Any, Any], order: list[int]) -> np.ndarray[Any, Any]:
    """Blocks of the first dim in another order."""
    parts = np.split(array, len(order))
    return np.concatenate([parts[k] for k in order])


class Sequences(NamedTuple):
    """X as rows with LoD, the lengths, and the number of steps."""

    rows: Tensor
    lengths: Tensor
    steps: Tensor
    batch: Tensor


def _sequences(n: Node) -> Sequences:
    """[steps, batch, width] as sequences one after another."""
    x, b = n.x(0), n.b
    if x.rank != 3:
        n.fail(f"an input of {x.rank} dims")
    steps, batch = b.dim(x, 0), b.dim(x, 1)
    if n.has(4):
        lengths = b.cast(n.x(4), np.int64)
    else:
        shape = {"ShapeTensor": b.cast(batch, np.int32)} if batch.const is None else {}
        known = [int(batch.const[0])] if batch.const is not None else []
        attrs = {"shape": known, "dtype": int(VarType.INT64), "value": 0.0}
        zeros = b.op("fill_constant", shape, attrs)
        zeros.shape = (x.shape[1],)
        lengths = b.binary("elementwise_add", zeros, steps)
    rows = b.op("sequence_unpad", {"X": b.transpose(x, [1, 0, 2]), "Length": lengths})
    return Sequences(rows, lengths, steps, batch)


def _padded(n: Node, hidden: Tensor, seq: Sequences) -> Tensor:
    """Rows as [steps, batch, d]; zeros after the end of a sequence."""
    b = n.b
    zero = constant(np.zeros(1, hidden.dtype))
    padded = b.ops("sequence_pad", {"X": hidden, "PadValue": zero}, {"padded_length": -1}, ["Out", "Length"])[0]
    d = hidden.shape[-1]
    if n.has(4):  # the longest sequence may be shorter than the input
        dims = [b.cast(t, np.int32) for t in (seq.batch, seq.steps, constant(np.array([d], np.int64)))]
        attrs = {"shape": [], "dtype": int(to_var_type(hidden.dtype.name)), "value": 0.0}
        whole = b.op("fill_constant", {"ShapeTensorList": dims}, attrs)
        padded = b.op("pad_constant_like", {"X": whole, "Y": padded}, {"pad_value": 0.0})
    made = b.transpose(padded, [1, 0, 2])
    made.shape = (n.x(0).shape[0], n.x(0).shape[1], d)
    if made.name is not None:
        b.block.vars[made.name].shape = made.shape
    return made


def _last(n: Node, hidden: Tensor, back: bool) -> Tensor:
    """The state after the last step of each sequence, [1, batch, d]."""
    kind = "FIRST" if back else "LAST"
    made = n.b.op("sequence_pool", {"X": hidden}, {"pooltype": kind, "is_test": True})
    return n.b.op("unsqueeze2", {"X": made}, {"axes": [0]})


def _state(n: Node, i: int, side: int, sides: int) -> Tensor | None:
    if not n.has(i):
        return None
    x = n.x(i)
    if x.const is not None and not x.const.any():
        return None
    if sides > 1:
        x = n.b.op("slice", {"Input": x}, {"axes": [0], "starts": [side], "ends": [side + 1]})
    made = n.b.op("squeeze2", {"X": x}, {"axes": [0]})
    return made


def _projection(n: Node, seq: Sequences, w: np.ndarray[Any, Any]) -> Tensor:
    return n.b.op("mul", {"X": seq.rows, "Y": _weight(n, w, "w")}, {"x_num_col_dims": 1, "y_num_col_dims": 1})


def _weight(n: Node, array: np.ndarray[Any, Any], what: str) -> Tensor:
    name = n.b.parameter(np.ascontiguousarray(array), f"{n.hint}.{what}")
    return Tensor(name, array.dtype, array.shape)


def _joined(n: Node, parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else n.b.op("concat", {"X": parts}, {"axis": axis})


def _results(n: Node, hiddens: list[Tensor], sides: list[Side], seq: Sequences, cells: list[Tensor] | None) -> None:
    if n.wants(0):
        parts = [n.b.op("unsqueeze2", {"X": _padded(n, h, seq)}, {"axes": [1]}) for h in hiddens]
        n.set(_joined(n, parts, 1))
    if n.wants(1):
        n.set(_joined(n, [_last(n, h, s.reverse) for h, s in zip(hiddens, sides)], 0), 1)
    if cells is not None and n.wants(2):
        n.set(_joined(n, [_last(n, c, s.reverse) for c, s in zip(cells, sides)], 0), 2)


@reads("LSTM")
def lstm(n: Node) -> None:
    """ONNX's i, o, f, c as Fluid's candidate, input, forget, output; peepholes i, o, f as i, f, o."""
    sides, seq = _sides(n, 4, ["sigmoid", "tanh", "tanh"]), _sequences(n)
    hiddens, cells = [], []
    for k, side in enumerate(sides):
        order = [3, 0, 2, 1]
        bias = _blocks(side.b.sum(0), order)
        if side.peepholes is not None:
            bias = np.concatenate([bias, _blocks(side.peepholes, [0, 2, 1])])
        h0, c0 = _state(n, 5, k, len(sides)), _state(n, 6, k, len(sides))
        if (h0 is None) != (c0 is None):
            h0, c0 = (_zeros(n, seq, side.r.shape[1]) if s is None else s for s in (h0, c0))
        inputs = {
            "Input": _projection(n, seq, _blocks(side.w, order).T), "Weight": _weight(n, _blocks(side.r, order).T, "r"),
            "Bias": _weight(n, bias.reshape(1, -1), "b"), "H0": h0, "C0": c0,
        }  # fmt: skip
        gate, candidate, cell = side.names
        attrs = {"use_peepholes": side.peepholes is not None, "is_reverse": side.reverse, "gate_activation": gate,
                 "candidate_activation": candidate, "cell_activation": cell}  # fmt: skip
        hidden, state = n.b.ops("lstm", inputs, attrs, ["Hidden", "Cell"], n.hint)
        hiddens.append(hidden)
        cells.append(state)
    _results(n, hiddens, sides, seq, cells)


def _zeros(n: Node, seq: Sequences, d: int) -> Tensor:
    """[batch, d] of zeros."""
    dims = [n.b.cast(t, np.int32) for t in (seq.batch, constant(np.array([d], np.int64)))]
    attrs = {"shape": [], "dtype": int(VarType.FP32), "value": 0.0}
    return n.b.op("fill_constant", {"ShapeTensorList": dims}, attrs)


@reads("GRU")
def gru(n: Node) -> None:
    """ONNX's z, r, h are Fluid's update, reset, candidate with origin_mode: h = z h_prev + (1 - z) c."""
    sides, seq = _sides(n, 3, ["sigmoid", "tanh"]), _sequences(n)
    hiddens = []
    for k, side in enumerate(sides):
        d = side.r.shape[1]
        if n.attr("linear_before_reset", 0):
            hiddens.append(_stepwise(n, seq, side, k, len(sides)))
            continue
        gates, candidate = side.r[: 2 * d].T, side.r[2 * d :].T
        packed = np.concatenate([gates.reshape(-1), candidate.reshape(-1)]).reshape(d, 3 * d)
        inputs = {
            "Input": _projection(n, seq, side.w.T), "Weight": _weight(n, packed, "r"),
            "Bias": _weight(n, side.b.sum(0).reshape(1, -1), "b"), "H0": _state(n, 5, k, len(sides)),
        }  # fmt: skip
        attrs = {"is_reverse": side.reverse, "gate_activation": side.names[0], "activation": side.names[1],
                 "origin_mode": True}  # fmt: skip
        hiddens.append(n.b.op("gru", inputs, attrs, "Hidden", n.hint))
    _results(n, hiddens, sides, seq, None)


def _stepwise(n: Node, seq: Sequences, side: Side, k: int, sides: int) -> Tensor:
    """A GRU that applies the recurrent weight before the reset gate (torch's): step by step, by a recurrent operator."""
    b, d = n.b, side.r.shape[1]
    bias = np.concatenate([side.b[0] + np.concatenate([side.b[1][: 2 * d], np.zeros(d, side.b.dtype)])])
    r, rb = _weight(n, side.r.T, "r"), _weight(n, side.b[1][2 * d :], "rb")

    def step(now: Tensor, h: Tensor) -> Tensor:
        back = b.op("mul", {"X": h, "Y": r}, {"x_num_col_dims": 1, "y_num_col_dims": 1})
        parts = []
        for source in (now, back):
            parts.append(b.ops("split", {"X": source}, {"axis": 1, "sections": [d, d, d]}, {"Out": 3}))
        (xz, xr, xh), (hz, hr, hh) = parts
        z, reset = (b.op(side.names[0], {"X": b.binary("elementwise_add", p, q)}) for p, q in ((xz, hz), (xr, hr)))
        inner = b.binary("elementwise_add", hh, rb)
        c = b.op(side.names[1], {"X": b.binary("elementwise_add", xh, b.binary("elementwise_mul", reset, inner))})
        return b.binary("elementwise_add", c, b.binary("elementwise_mul", z, b.binary("elementwise_sub", h, c)))

    return _by_steps(n, seq, side, _state(n, 5, k, sides) or _zeros(n, seq, d), bias, step)


def _by_steps(n: Node, seq: Sequences, side: Side, h0: Tensor, bias: np.ndarray[Any, Any], step: Step) -> Tensor:
    """The states of a recurrence over W x + bias by a recurrent operator; what comes after a sequence's end is not kept."""
    b, x = n.b, n.x(0)
    if side.reverse:  # each sequence from its own end
        x = _padded(n, b.op("sequence_reverse", {"X": seq.rows}), seq)
    gates = b.op("mul", {"X": x, "Y": _weight(n, side.w.T, "w")}, {"x_num_col_dims": 2, "y_num_col_dims": 1})
    gates = b.op("elementwise_add", {"X": gates, "Y": _weight(n, bias, "b")}, {"axis": -1})
    hidden = n.walker.steps(n, gates, h0, step)
    rows = b.op("sequence_unpad", {"X": b.transpose(hidden, [1, 0, 2]), "Length": seq.lengths})
    return b.op("sequence_reverse", {"X": rows}) if side.reverse else rows


@reads("RNN")
def rnn(n: Node) -> None:
    """h = activation(W x + R h + b)."""
    b, sides, seq = n.b, _sides(n, 1, ["tanh"]), _sequences(n)
    hiddens = []
    for k, side in enumerate(sides):
        r = _weight(n, side.r.T, "r")

        def step(now: Tensor, h: Tensor, r: Tensor = r, kind: str = side.names[0]) -> Tensor:
            back = b.op("mul", {"X": h, "Y": r}, {"x_num_col_dims": 1, "y_num_col_dims": 1})
            made = b.binary("elementwise_add", now, back)
            return made if kind == "identity" else b.op(kind, {"X": made})

        h0 = _state(n, 5, k, len(sides)) or _zeros(n, seq, side.r.shape[1])
        hiddens.append(_by_steps(n, seq, side, h0, side.b.sum(0), step))
    _results(n, hiddens, sides, seq, None)
