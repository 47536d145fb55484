"""attention_lstm: an LSTM whose input at each step is an attention-weighted mean of the sequence."""

from __future__ import annotations

import numpy as np
import torch

from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.recurrent._steps import code, fits, initial, need, sequence_offsets

_ACT = {"identity": lambda t: t, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def _spec(
    x, c0, h0, aw, ab, scalar, scalar_bias, lw, lb, *, gate_activation, cell_activation, candidate_activation
):
    code(gate_activation), code(cell_activation), code(candidate_activation)
    need(len(x.shape) == 2 and len(c0.shape) == 2, "X must be [rows, M] and C0 [sequences, D]", x, c0)
    m, d = x.shape[1], c0.shape[1]
    need(h0 is None or fits(h0.shape, -1, d), f"H0 must be [sequences, {d}]", h0)
    need(fits(aw.shape, m + d, 1), f"AttentionWeight must be [M + D, 1] = [{m + d}, 1]", aw)
    need(fits(lw.shape, d + m, 4 * d), f"LSTMWeight must be [D + M, 4D] = [{d + m}, {4 * d}]", lw)
    need(fits(lb.shape, 1, 4 * d), f"LSTMBias must be [1, {4 * d}]", lb)
    for one in (ab, scalar, scalar_bias):
        need(one is None or fits(one.shape, 1, 1), "attention biases and scalars must be [1, 1]", one)
    out = x.like(shape=(x.shape[0], d))
    plain = x.like(lod_level=0)
    return out, out, plain.like(shape=(x.shape[0], 1)), None, plain.like(shape=(1, m)), plain.like(shape=(1, 4 * d))


@op(
    "attention_lstm",
    slots="X#, C0, H0?, AttentionWeight, AttentionBias?, AttentionScalar?, AttentionScalarBias?, LSTMWeight, LSTMBias"
    " -> Hidden#, Cell#, AttentionedX~, AttentionFCOut~, LSTMX~, LSTMOUT~",
    infer=_spec, grad=False,
)
def attention_lstm(
    x, c0, h0, aw, ab, scalar, scalar_bias, lw, lb, *, gate_activation: str = "sigmoid", cell_activation: str = "tanh",
    candidate_activation: str = "tanh",
):
    """At each step: e = relu([x, c_prev] w + b) for all rows of the sequence, e = relu(scalar e + b') if there is a
    scalar, a = softmax(e); the LSTM's input is sum a x. Gates: forget, input, output, candidate.

    X: [rows, M] with LoD; C0, H0: [sequences, D]; AttentionWeight: [M + D, 1]; LSTMWeight: [D + M, 4D] (hidden first);
    LSTMBias: [1, 4D]; Hidden, Cell: [rows, D]. AttentionFCOut, LSTMX, LSTMOUT: of the last step.
    """
    offsets = sequence_offsets(x, "X")
    values, (m, d) = x.values, (x.values.shape[1], c0.shape[1])
    scores = (values @ aw[:m]).reshape(-1)
    if ab is not None:
        scores = scores + ab.reshape(())
    w_cell = aw[m:].reshape(-1)
    w_hidden, w_input = lw[:d], lw[d:]
    act_gate, act_cell, act_candidate = _ACT[gate_activation], _ACT[cell_activation], _ACT[candidate_activation]
    hidden, cell = values.new_empty((values.shape[0], d)), values.new_empty((values.shape[0], d))
    h_all = initial(h0, len(offsets) - 1, d, values, "H0")
    share, mean, gates = values.new_empty(0), values.new_empty((1, m)), values.new_empty((1, 4 * d))
    for q in np.flatnonzero(np.diff(offsets)):
        first, last = int(offsets[q]), int(offsets[q + 1])
        rows, h, c = values[first:last], h_all[q], c0[q]
        for t in range(first, last):
            e = torch.relu(scores[first:last] + torch.dot(c, w_cell))
            if scalar is not None:
                e = e * scalar.reshape(())
                e = torch.relu(e if scalar_bias is None else e + scalar_bias.reshape(()))
            share = torch.softmax(e, 0)
            mean = share @ rows
            z = mean @ w_input + h @ w_hidden + lb.reshape(-1)
            f, i, o = act_gate(z[: 3 * d]).chunk(3)
            candidate = act_candidate(z[3 * d :])
            c = f * c + i * candidate
            h = o * act_cell(c)
            hidden[t], cell[t] = h, c
            gates = torch.cat((f, i, o, candidate))
    return (
        Ragged(hidden, x.lod), Ragged(cell, x.lod), scores.reshape(-1, 1), share.reshape(-1, 1), mean.reshape(1, m),
        gates.reshape(1, 4 * d),
    )
