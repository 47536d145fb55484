"""LSTM with a recurrent projection over ragged sequences; the form is that of lstm.py, P the projection's width."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, add_three, through
from millstream.kernels.lstm import place, row, row_back, row_back_output, running
from millstream.kernels.panels import rows_product


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(
    x, bias, w, proj, starts, lengths, reverse, gates, cell, cell_act, hidden, projection, r_now, c_now, product, product_p,
    peep, clip, proj_clip, codes,
):  # fmt: skip
    """All steps; w: panels of [P, 4D], proj: of [D, P]; r_now, c_now: initial states, overwritten.

    product, product_p: room for a step's products and a line of zeros, [sequences + 1, padded 4D and P];
    codes: of the gate, cell, candidate and projection activations.
    """
    d, p = hidden.shape[1], projection.shape[1]
    zeros, zeros_p = product[len(starts)], product_p[len(starts)]
    for j in range(len(zeros)):
        zeros[j] = 0
    for j in range(len(zeros_p)):
        zeros_p[j] = 0
    h_now = np.empty((len(starts), d), x.dtype)
    m, t = running(lengths, 0, len(starts)), 0
    while m:
        rows_product(r_now, m, w, zeros, 0, product)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            h, now = hidden[i], h_now[r]
            add_three(product[r, : 4 * d], x[i], bias, gates[i])
            row(gates[i], c_now[r], cell[i], cell_act[i], h, peep, clip, codes)
            for j in range(d):
                now[j] = h[j]
        rows_product(h_now, m, proj, zeros_p, 0, product_p)
        for r in range(m):
            state, out = product_p[r, :p], projection[place(starts[r], lengths[r], t, reverse)]
            activate(state, codes[3])
            now = r_now[r]
            for j in range(p):
                v = state[j]
                if proj_clip > 0:
                    v = proj_clip if v > proj_clip else v
                    v = -proj_clip if v < -proj_clip else v
                now[j] = v
                out[j] = v
        t += 1
        m = running(lengths, t, m)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _linear_back(d_here, d_late, y, clip, code, kept, out):
    """The gradient before the projection's activation and clipping, to `kept` and `out`."""
    for j in range(len(y)):
        out[j] = d_here[j] + d_late[j]
    through(out, y, code)
    for j in range(len(y)):
        v = out[j]
        if clip > 0:
            v = v if -clip < y[j] < clip else v * 0
        out[j] = v
        kept[j] = v


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(
    dprojection, w, proj, starts, lengths, reverse, gates, cell, cell_act, projection, c_first, dr_now, dc_now, dh_now,
    dgates, dlinear, dx, peep, dpeep, clip, lanes, proj_clip, codes, whole,
):  # fmt: skip
    """All steps backwards.

    Args:
        w: panels of the transposed recurrent matrix, [4D, P], or [D, P] without `whole` (see lstm.backward).
        proj: panels of the transposed projection, [P, D].
        dr_now: [sequences + 1, padded P], zeros; dc_now: [sequences, D], zeros; become the initial states' gradients.
        dh_now: [sequences + 1, padded D], zeros.
        lanes: see lstm.row_back.
        dgates: room, [sequences, padded 4D or D]; dlinear: receives the projection's pre-activation gradients, [rows, P].
    """
    d, p = cell.shape[1], projection.shape[1]
    back = 1 if reverse else -1
    zeros, zeros_p = dh_now[len(starts)], dr_now[len(starts)]
    n = running(lengths, 0, len(starts))
    linear = np.empty((n, p), dr_now.dtype)
    for t in range((lengths[0] if n else 0) - 1, -1, -1):
        m = running(lengths, t, n)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            _linear_back(dprojection[i], dr_now[r], projection[i], proj_clip, codes[3], dlinear[i], linear[r])
        rows_product(linear, m, proj, zeros, 0, dh_now)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            if whole:
                before = cell[i + back] if t else c_first[r]
                row_back(
                    zeros, dh_now[r], gates[i], cell[i], before, cell_act[i], dc_now[r], dgates[r], dx[i], peep, dpeep, clip,
                    lanes, codes,
                )  # fmt: skip
            else:
                go, dxo = gates[i, 3 * d :], dx[i, 3 * d :]
                row_back_output(zeros, dh_now[r], go, cell[i], cell_act[i], dgates[r], dxo, peep, dpeep, codes)
        rows_product(dgates, m, w, zeros_p, 0, dr_now)
