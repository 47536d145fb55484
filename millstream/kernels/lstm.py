"""LSTM over ragged sequences: one time step of a shrinking batch, and whole sequences one at a time.

Rows of x, gates, cell, … stand in the order of the input; `rows` lists them step after step, longest sequence
first. Gates: candidate, input, forget, output, each of width D. `peep` holds the peephole weights of input, forget
and output gates, or has length 0.
"""

from __future__ import annotations

from numba import njit

from millstream.kernels.gates import FAST, activate, add_product, add_three, through


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _row(g, c, cell, cell_act, h, peep, clip, codes):
    """One row: `g` (pre-activations) becomes gates, `c` the new cell (copied to `cell`), cell_act and h its outputs."""
    d = len(c)
    candidate, gi, gf, go = g[:d], g[d : 2 * d], g[2 * d : 3 * d], g[3 * d :]
    if len(peep):
        wi, wf = peep[:d], peep[d : 2 * d]
        for j in range(d):
            gi[j] += c[j] * wi[j]
            gf[j] += c[j] * wf[j]
        activate(g[d : 3 * d], codes[0])
    else:
        activate(g[d:], codes[0])
    activate(candidate, codes[2])
    for j in range(d):
        c[j] = candidate[j] * gi[j] + c[j] * gf[j]
    if clip > 0:
        for j in range(d):
            v = c[j]
            v = clip if v > clip else v
            c[j] = -clip if v < -clip else v
    if len(peep):
        wo = peep[2 * d :]
        for j in range(d):
            go[j] += c[j] * wo[j]
        activate(go, codes[0])
    for j in range(d):
        cell[j] = c[j]
        cell_act[j] = c[j]
    activate(cell_act, codes[1])
    for j in range(d):
        h[j] = go[j] * cell_act[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step(product, x, bias, rows, s, n, gates, cell, cell_act, hidden, h_now, c_now, peep, clip, codes):
    """One step: rows[s:s+n]; product = h_prev @ W; h_now, c_now: the running state, longest sequence first."""
    for r in range(n):
        i = rows[s + r]
        add_three(product[r], x[i], bias, gates[i])
        h, now = hidden[i], h_now[r]
        _row(gates[i], c_now[r], cell[i], cell_act[i], h, peep, clip, codes)
        for j in range(len(h)):
            now[j] = h[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def sequences(x, bias, w, offsets, reverse, gates, cell, cell_act, hidden, h_now, c_now, peep, clip, codes):
    """All sequences, one after another; h_now, c_now: initial states by sequence, overwritten."""
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        h, c = h_now[q], c_now[q]
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            g, z = gates[i], x[i]
            for j in range(len(g)):
                g[j] = z[j] + bias[j]
            add_product(h, w, g)
            h = hidden[i]
            _row(g, c, cell[i], cell_act[i], h, peep, clip, codes)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step_back(
    dhidden, rows, s, n, back, gates, cell, cell_act, c_first, dh_now, dc_now, dgates, dx, peep, dpeep, clip, codes,
):
    """One step backwards.

    Args:
        back: distance to the row of the step before, 0 in the first step (c_first holds the cells before it).
        dh_now, dc_now: gradients that flow back from the step after; dc_now is updated.
        clip: cells at +-clip get no gradient when it is positive.
        dgates: the step's pre-activation gradients, contiguous; dx: the same in the input's row order.
    """
    d = cell.shape[1]
    for r in range(n):
        i = rows[s + r]
        g, c, ca, dg, dc, dh_late, dh_here = gates[i], cell[i], cell_act[i], dgates[r], dc_now[r], dh_now[r], dhidden[i]
        candidate, gi, gf, go = g[:d], g[d : 2 * d], g[2 * d : 3 * d], g[3 * d :]
        dcandidate, di, df, do = dg[:d], dg[d : 2 * d], dg[2 * d : 3 * d], dg[3 * d :]
        before = c_first[r] if back == 0 else cell[i + back]
        for j in range(d):
            dh = dh_here[j] + dh_late[j]
            do[j] = dh * ca[j]
            dcandidate[j] = dh * go[j]
        through(do, go, codes[0])
        through(dcandidate, ca, codes[1])
        if len(peep):
            wo, dwo = peep[2 * d :], dpeep[2 * d :]
            for j in range(d):
                dc[j] += dcandidate[j] + do[j] * wo[j]
                dwo[j] += do[j] * c[j]
        else:
            for j in range(d):
                dc[j] += dcandidate[j]
        if clip > 0:
            for j in range(d):
                dc[j] = dc[j] if -clip < c[j] < clip else dc[j] * 0
        for j in range(d):
            v = dc[j]
            dcandidate[j] = v * gi[j]
            di[j] = v * candidate[j]
            df[j] = v * before[j]
            dc[j] = v * gf[j]
        through(dcandidate, candidate, codes[2])
        through(dg[d : 3 * d], g[d : 3 * d], codes[0])
        if len(peep):
            wi, wf, dwi, dwf = peep[:d], peep[d : 2 * d], dpeep[:d], dpeep[d : 2 * d]
            for j in range(d):
                dc[j] += di[j] * wi[j] + df[j] * wf[j]
                dwi[j] += di[j] * before[j]
                dwf[j] += df[j] * before[j]
        dx_row = dx[i]
        for j in range(len(dg)):
            dx_row[j] = dg[j]
