"""LSTM over ragged sequences: all time steps of a batch that shrinks as its sequences end, without padding.

Rows of x, gates, cell, … stand in the order of the input. `starts` and `lengths` describe the sequences, the longest first;
states stand in that order. Gates: candidate, input, forget, output, each of width D. `peep` holds the peephole weights of
input, forget and output gates, or has length 0. Matrices come as panels, and what they are multiplied into has padded rows
(panels.py). A batch may be cut into several calls: sequences share nothing but what is read.
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, add_three, through
from millstream.kernels.panels import rows_product


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def row(g, c, cell, cell_act, h, peep, clip, codes):
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


@njit(cache=True, nogil=True, error_model="numpy")
def running(lengths, t, n):
    """How many of the first n sequences have a step t."""
    while n > 0 and lengths[n - 1] <= t:
        n -= 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def place(start, length, t, reverse):
    """The row of a sequence's step t."""
    return start + length - 1 - t if reverse else start + t


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(x, bias, w, starts, lengths, reverse, gates, cell, cell_act, hidden, h_now, c_now, product, peep, clip, codes):
    """All steps; w: panels of [D, 4D]; h_now, c_now: initial states, overwritten; product: room for a step's
    products and a line of zeros, [sequences + 1, padded 4D]."""
    d = hidden.shape[1]
    line = product[len(starts)]
    for j in range(len(line)):
        line[j] = 0
    m, t = running(lengths, 0, len(starts)), 0
    while m:
        rows_product(h_now, m, w, line, 0, product)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            g, h, now = gates[i], hidden[i], h_now[r]
            add_three(product[r, : 4 * d], x[i], bias, g)
            row(g, c_now[r], cell[i], cell_act[i], h, peep, clip, codes)
            for j in range(d):
                now[j] = h[j]
        t += 1
        m = running(lengths, t, m)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def row_back(dh_here, dh_late, g, c, before, ca, dc, dg, dx, peep, dpeep, clip, lanes, codes):
    """One row backwards.

    Args:
        dh_here, dh_late: gradients of h, of the output and from the step after.
        dc: the cell's gradient from the step after; becomes that for the step before.
        before: the cell of the step before.
        clip: cells at +-clip get no gradient when it is positive.
        lanes: the first of so many cells decides that for all of them.
        dg, dx: receive the gradients of the pre-activations.
    """
    d = len(c)
    candidate, gi, gf, go = g[:d], g[d : 2 * d], g[2 * d : 3 * d], g[3 * d :]
    dcandidate, di, df, do = dg[:d], dg[d : 2 * d], dg[2 * d : 3 * d], dg[3 * d : 4 * d]
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
            dc[j] = dc[j] if -clip < c[j - j % lanes] < clip else dc[j] * 0
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
    for j in range(len(dx)):
        dx[j] = dg[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def row_back_output(dh_here, dh_late, go, c, ca, do, dx, peep, dpeep, codes):
    """One row backwards where the gradient reaches the output gate only: `do` and `dx` (width D) receive it."""
    d = len(c)
    for j in range(d):
        do[j] = (dh_here[j] + dh_late[j]) * ca[j]
    through(do[:d], go, codes[0])
    if len(peep):
        dwo = dpeep[2 * d :]
        for j in range(d):
            dwo[j] += do[j] * c[j]
    for j in range(d):
        dx[j] = do[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(
    dhidden, w, starts, lengths, reverse, gates, cell, cell_act, c_first, dh_now, dc_now, dgates, dx, peep, dpeep, clip,
    codes, to_first, whole,
):  # fmt: skip
    """All steps backwards.

    Args:
        w: panels of the transposed recurrent matrix, [4D, D]; without `whole` of its output gate's part, [D, D].
        dh_now: [sequences + 1, padded D], zeros; dc_now: [sequences, D], zeros; what is left when it ends are the gradients
            of the initial states (of the hidden ones only with `to_first`).
        dgates: room for a step's gradients, [sequences, padded 4D or D].
        dx: receives the gradients of the pre-activations in the input's row order; zeros come in where not `whole`.
    """
    d = cell.shape[1]
    back = 1 if reverse else -1
    line = dh_now[len(starts)]
    n = running(lengths, 0, len(starts))
    for t in range((lengths[0] if n else 0) - 1, -1, -1):
        m = running(lengths, t, n)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            if whole:
                before = cell[i + back] if t else c_first[r]
                row_back(
                    dhidden[i], dh_now[r], gates[i], cell[i], before, cell_act[i], dc_now[r], dgates[r], dx[i], peep, dpeep,
                    clip, 1, codes,
                )  # fmt: skip
            else:
                go, dxo = gates[i, 3 * d :], dx[i, 3 * d :]
                row_back_output(dhidden[i], dh_now[r], go, cell[i], cell_act[i], dgates[r], dxo, peep, dpeep, codes)
        if t or to_first:
            rows_product(dgates, m, w, line, 0, dh_now)
