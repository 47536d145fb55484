"""LSTM over ragged sequences: one time step of a shrinking batch, and whole sequences one at a time.

Rows of x, gates, cell, … stand in the order of the input; `rows` lists them step after step, longest sequence
first. Gates: candidate, input, forget, output, each of width D. `peep` holds the peephole weights of input, forget
and output gates, or has length 0.
"""

from __future__ import annotations

from numba import njit

from millstream.kernels.gates import FAST, activate, add_product, through


@njit(cache=True, nogil=True, fastmath=FAST)
def _row(g, c, cell_act, h, peep, clip, codes):
    """One row: `g` (pre-activations) becomes gates, `c` the new cell, cell_act and h its outputs."""
    d = len(c)
    if len(peep):
        for j in range(d):
            g[d + j] += c[j] * peep[j]
            g[2 * d + j] += c[j] * peep[d + j]
    activate(g, 0, d, codes[2])
    activate(g, d, 3 * d, codes[0])
    for j in range(d):
        c[j] = g[j] * g[d + j] + c[j] * g[2 * d + j]
    if clip > 0:
        for j in range(d):
            v = c[j]
            v = clip if v > clip else v
            c[j] = -clip if v < -clip else v
    if len(peep):
        for j in range(d):
            g[3 * d + j] += c[j] * peep[2 * d + j]
    activate(g, 3 * d, 4 * d, codes[0])
    for j in range(d):
        cell_act[j] = c[j]
    activate(cell_act, 0, d, codes[1])
    for j in range(d):
        h[j] = g[3 * d + j] * cell_act[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def step(product, x, bias, rows, s, n, gates, cell, cell_act, hidden, h_now, c_now, peep, clip, codes):
    """One step: rows[s:s+n]; product = h_prev @ W; h_now, c_now: the running state, longest sequence first."""
    d = hidden.shape[1]
    for r in range(n):
        i = rows[s + r]
        g = gates[i]
        for j in range(4 * d):
            g[j] = product[r, j] + x[i, j] + bias[j]
        _row(g, c_now[r], cell_act[i], hidden[i], peep, clip, codes)
        for j in range(d):
            cell[i, j] = c_now[r, j]
            h_now[r, j] = hidden[i, j]


@njit(cache=True, nogil=True, fastmath=FAST)
def sequences(x, bias, w, offsets, reverse, gates, cell, cell_act, hidden, h_now, c_now, peep, clip, codes):
    """All sequences, one after another; h_now, c_now: initial states by sequence, overwritten."""
    d = hidden.shape[1]
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        h, c = h_now[q], c_now[q]
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            g = gates[i]
            for j in range(4 * d):
                g[j] = x[i, j] + bias[j]
            add_product(h, w, g, 4 * d)
            _row(g, c, cell_act[i], hidden[i], peep, clip, codes)
            for j in range(d):
                cell[i, j] = c[j]
            h = hidden[i]


@njit(cache=True, nogil=True, fastmath=FAST)
def step_back(
    dhidden, rows, s, n, back, gates, cell, cell_act, c_first, dh_now, dc_now, dgates, dx, peep, dpeep, codes,
):
    """One step backwards.

    Args:
        back: distance to the row of the step before, 0 in the first step (c_first holds the cells before it).
        dh_now, dc_now: gradients that flow back from the step after; dc_now is updated.
        dgates: the step's pre-activation gradients, contiguous; dx: the same in the input's row order.
    """
    d = cell.shape[1]
    for r in range(n):
        i = rows[s + r]
        g, ca, dg, dc = gates[i], cell_act[i], dgates[r], dc_now[r]
        before = c_first[r] if back == 0 else cell[i + back]
        for j in range(d):
            dh = dhidden[i, j] + dh_now[r, j]
            dg[3 * d + j] = dh * ca[j]
            dg[j] = dh * g[3 * d + j]
        through(dg[3 * d :], g, 3 * d, d, codes[0])
        through(dg, ca, 0, d, codes[1])
        if len(peep):
            for j in range(d):
                dc[j] += dg[j] + dg[3 * d + j] * peep[2 * d + j]
                dpeep[2 * d + j] += dg[3 * d + j] * cell[i, j]
        else:
            for j in range(d):
                dc[j] += dg[j]
        for j in range(d):
            v = dc[j]
            dg[j] = v * g[d + j]
            dg[d + j] = v * g[j]
            dg[2 * d + j] = v * before[j]
            dc[j] = v * g[2 * d + j]
        through(dg, g, 0, d, codes[2])
        through(dg[d:], g, d, 2 * d, codes[0])
        if len(peep):
            for j in range(d):
                dc[j] += dg[d + j] * peep[j] + dg[2 * d + j] * peep[d + j]
                dpeep[j] += dg[d + j] * before[j]
                dpeep[d + j] += dg[2 * d + j] * before[j]
        for j in range(4 * d):
            dx[i, j] = dg[j]
