"""attention_lstm: an LSTM whose input at each step is an attention-weighted mean of the sequence."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.threads import run_parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.recurrent._steps import batches, check_state, code, codes, fits, need, panel_kernels, sequence_offsets


@cache
def _kernels() -> ModuleType:
    """The numba steps; imported at first use because numba takes long to load."""
    from millstream.kernels import attention_lstm as module

    return module


def _spec(
    x, c0, h0, aw, ab, scalar, scalar_bias, lw, lb, *, gate_activation, cell_activation, candidate_activation
):
    code(gate_activation), code(cell_activation), code(candidate_activation)
    need(len(x.shape) == 2 and len(c0.shape) == 2, "X must be [rows, M] and C0 [sequences, D]", x, c0)
    m, d = x.shape[1], c0.shape[1]
    need(h0 is None or fits(h0.shape, -1, d), f"H0 must be [sequences, {d}]", h0)
    need(fits(aw.shape, m + d if min(m, d) >= 0 else -1, 1), f"AttentionWeight must be [M + D, 1] = [{m + d}, 1]", aw)
    need(fits(lw.shape, d + m if min(m, d) >= 0 else -1, 4 * d), f"LSTMWeight must be [D + M, 4D] = [{d + m}, {4 * d}]", lw)
    need(fits(lb.shape, 1, 4 * d), f"LSTMBias must be [1, {4 * d}]", lb)
    for one in (ab, scalar, scalar_bias):
        need(one is None or fits(one.shape, 1, 1), "attention biases and scalars must be [1, 1]", one)
    out = x.like(shape=(x.shape[0], d))
    plain = x.like(lod_level=0)
    return out, out, plain.like(shape=(x.shape[0], 1)), None, plain.like(shape=(1, m)), plain.like(shape=(1, 4 * d))


class _Attention(NamedTuple):
    """scores: [rows], the part that no step changes; w_cell: [D]; second: factor and bias of a second layer, if `scaled`."""

    scores: torch.Tensor
    w_cell: torch.Tensor
    second: torch.Tensor
    scaled: bool


def _run(values, offsets, attention, h0, c0, lw, lb, acts):
    """Hidden, Cell [rows, D]; of the last step of all: weights [length, 1], mean [1, M], gates [1, 4D]."""
    (total, m), d = values.shape, c0.shape[1]
    hidden, cell = values.new_empty((total, d)), values.new_empty((total, d))
    shares, mean, gates = values.new_empty((total, 1)), values.new_empty((1, m)), values.new_empty((1, 4 * d))
    if not total:
        return hidden, cell, shares, mean, gates
    k, rows = panel_kernels(), array(values)
    weight, bias = k.panels(array(lw)), np.zeros(k.padded(4 * d), rows.dtype)
    bias[: 4 * d] = array(lb).reshape(-1)
    given = array(attention.scores), array(attention.w_cell), array(attention.second), attention.scaled, weight, bias
    out = shares.numpy().reshape(-1), hidden.numpy(), cell.numpy()
    shares_of, calls = batches(offsets, 4 * d * (d + m)), []
    for share in shares_of:
        joint = np.empty((share.size, d + m), rows.dtype)
        joint[:, :d] = share.state(h0, d, values)
        room = np.empty((share.size, len(bias)), rows.dtype)
        calls.append((rows, *given, share.starts, share.lengths, joint, share.state(c0, d, values), room, *out, acts))
    run_parts(_kernels().forward, calls)
    last = int(np.flatnonzero(np.diff(offsets))[-1])
    for share, (*_, joint, _, room, _, _, _, _) in zip(shares_of, calls):
        for r in np.flatnonzero(share.order == last):
            mean, gates = (torch.from_numpy(a) for a in (joint[r : r + 1, d:].copy(), room[r : r + 1, : 4 * d].copy()))
    return hidden, cell, shares[int(offsets[last]) : int(offsets[last + 1])], mean, gates


@op(
    "attention_lstm",
    slots="X#, C0, H0?, AttentionWeight, AttentionBias?, AttentionScalar?, AttentionScalarBias?, LSTMWeight, LSTMBias"
    " -> Hidden#, Cell#, AttentionedX~, AttentionFCOut~, LSTMX~, LSTMOUT~",
    infer=_spec, grad=False, flops=_flops.attended_recurrence,
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
    d, n = c0.shape[1], len(offsets) - 1
    check_state(h0, n, d, "H0")
    check_state(c0, n, d, "C0")
    m = x.values.shape[1]
    scores = (x.values @ aw[:m]).reshape(-1)
    if ab is not None:
        scores = scores + ab.reshape(())
    acts = codes(gate_activation, cell_activation, candidate_activation)
    second = torch.stack([scores.new_zeros(()) if t is None else t.reshape(()) for t in (scalar, scalar_bias)])
    attention = _Attention(scores, aw[m:].reshape(-1), second, scalar is not None)
    hidden, cell, shares, mean, gates = _run(x.values, offsets, attention, h0, c0, lw, lb, acts)
    return Ragged(hidden, x.lod), Ragged(cell, x.lod), scores.reshape(-1, 1), shares, mean, gates
