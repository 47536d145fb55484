"""GRU over ragged sequences: the two halves of one time step of a shrinking batch, and whole sequences.

Rows stand in the order of the input; `rows` lists them step after step, longest sequence first. Gates: update u,
reset r, candidate c, each of width D; h = (1 - u) h_prev + u c, or u h_prev + (1 - u) c in `origin` mode.
"""

from __future__ import annotations

from numba import njit

from millstream.kernels.gates import FAST, activate, add_product, through


@njit(cache=True, nogil=True, fastmath=FAST)
def _mix(g, before, h, origin):
    d = len(h)
    if origin:
        for j in range(d):
            h[j] = g[2 * d + j] + g[j] * (before[j] - g[2 * d + j])
    else:
        for j in range(d):
            h[j] = before[j] + g[j] * (g[2 * d + j] - before[j])


@njit(cache=True, nogil=True, fastmath=FAST)
def step_gates(product, x, bias, rows, s, n, gates, reset, reset_now, h_now, code):
    """u and r of one step, and r * h_prev; product = h_prev @ W[:, :2D]."""
    d = h_now.shape[1]
    for k in range(n):
        i = rows[s + k]
        g = gates[i]
        for j in range(2 * d):
            g[j] = product[k, j] + x[i, j] + bias[j]
        activate(g, 0, 2 * d, code)
        for j in range(d):
            v = g[d + j] * h_now[k, j]
            reset[i, j] = v
            reset_now[k, j] = v


@njit(cache=True, nogil=True, fastmath=FAST)
def step_hidden(product, x, bias, rows, s, n, gates, hidden, h_now, code, origin):
    """The candidate and h of one step; product = (r * h_prev) @ Wc; h_now is updated."""
    d = h_now.shape[1]
    for k in range(n):
        i = rows[s + k]
        g = gates[i]
        for j in range(d):
            g[2 * d + j] = product[k, j] + x[i, 2 * d + j] + bias[2 * d + j]
        activate(g, 2 * d, 3 * d, code)
        _mix(g, h_now[k], hidden[i], origin)
        for j in range(d):
            h_now[k, j] = hidden[i, j]


@njit(cache=True, nogil=True, fastmath=FAST)
def sequences(x, bias, w, wc, offsets, reverse, gates, reset, hidden, first_h, code_gate, code, origin):
    """All sequences, one after another; w: [D, 2D], wc: [D, D], first_h: initial states by sequence."""
    d = hidden.shape[1]
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        h = first_h[q]
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            g = gates[i]
            for j in range(3 * d):
                g[j] = x[i, j] + bias[j]
            add_product(h, w, g, 2 * d)
            activate(g, 0, 2 * d, code_gate)
            for j in range(d):
                reset[i, j] = g[d + j] * h[j]
            add_product(reset[i], wc, g[2 * d :], d)
            activate(g, 2 * d, 3 * d, code)
            _mix(g, h, hidden[i], origin)
            h = hidden[i]


@njit(cache=True, nogil=True, fastmath=FAST)
def step_back_hidden(dhidden, rows, s, n, back, gates, hidden, h_first, dh_now, dgates, dcandidate, code_gate, code, origin):
    """First half of one step backwards: gradients of u and of the candidate; dh_now becomes its direct part."""
    d = hidden.shape[1]
    for k in range(n):
        i = rows[s + k]
        g, du, dc, dh = gates[i], dgates[k], dcandidate[k], dh_now[k]
        before = h_first[k] if back == 0 else hidden[i + back]
        for j in range(d):
            v = dhidden[i, j] + dh[j]
            u = g[j]
            if origin:
                dc[j] = v * (1 - u)
                du[j] = v * (before[j] - g[2 * d + j])
                dh[j] = v * u
            else:
                dc[j] = v * u
                du[j] = v * (g[2 * d + j] - before[j])
                dh[j] = v * (1 - u)
        through(dc, g, 2 * d, d, code)
        through(du, g, 0, d, code_gate)


@njit(cache=True, nogil=True, fastmath=FAST)
def step_back_gates(dreset, rows, s, n, back, gates, hidden, h_first, dh_now, dgates, dcandidate, dx, code_gate):
    """Second half: the gradient of r from that of r * h_prev; writes the step's rows of dx."""
    d = hidden.shape[1]
    for k in range(n):
        i = rows[s + k]
        g, dr, dh = gates[i], dgates[k, d:], dh_now[k]
        before = h_first[k] if back == 0 else hidden[i + back]
        for j in range(d):
            dr[j] = dreset[k, j] * before[j]
            dh[j] += dreset[k, j] * g[d + j]
        through(dr, g, d, d, code_gate)
        for j in range(2 * d):
            dx[i, j] = dgates[k, j]
        for j in range(d):
            dx[i, 2 * d + j] = dcandidate[k, j]
