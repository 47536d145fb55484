"""GRU over ragged sequences: the two halves of one time step of a shrinking batch, and whole sequences.

Rows stand in the order of the input; `rows` lists them step after step, longest sequence first. Gates: update u,
reset r, candidate c, each of width D; h = (1 - u) h_prev + u c, or u h_prev + (1 - u) c in `origin` mode.
"""

from __future__ import annotations

from numba import njit

from millstream.kernels.gates import FAST, activate, add_product, add_three, through


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _mix(u, c, before, h, origin):
    if origin:
        for j in range(len(h)):
            h[j] = c[j] + u[j] * (before[j] - c[j])
    else:
        for j in range(len(h)):
            h[j] = before[j] + u[j] * (c[j] - before[j])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step_gates(product, x, bias, rows, s, n, gates, reset, reset_now, h_now, code):
    """u and r of one step, and r * h_prev; product = h_prev @ W[:, :2D]."""
    d = h_now.shape[1]
    for k in range(n):
        i = rows[s + k]
        g = gates[i, : 2 * d]
        add_three(product[k], x[i, : 2 * d], bias[: 2 * d], g)
        activate(g, code)
        r, h, out, now = g[d:], h_now[k], reset[i], reset_now[k]
        for j in range(d):
            v = r[j] * h[j]
            out[j] = v
            now[j] = v


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step_hidden(product, x, bias, rows, s, n, gates, hidden, h_now, code, origin):
    """The candidate and h of one step; product = (r * h_prev) @ Wc; h_now is updated."""
    d = h_now.shape[1]
    for k in range(n):
        i = rows[s + k]
        c, h, now = gates[i, 2 * d :], hidden[i], h_now[k]
        add_three(product[k], x[i, 2 * d :], bias[2 * d :], c)
        activate(c, code)
        _mix(gates[i, :d], c, now, h, origin)
        for j in range(d):
            now[j] = h[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def sequences(x, bias, w, wc, offsets, reverse, gates, reset, hidden, first_h, code_gate, code, origin):
    """All sequences, one after another; w: [D, 2D], wc: [D, D], first_h: initial states by sequence."""
    d = hidden.shape[1]
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        h = first_h[q]
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            g, z, rh = gates[i], x[i], reset[i]
            for j in range(len(g)):
                g[j] = z[j] + bias[j]
            ur, r, c = g[: 2 * d], g[d : 2 * d], g[2 * d :]
            add_product(h, w, ur)
            activate(ur, code_gate)
            for j in range(d):
                rh[j] = r[j] * h[j]
            add_product(rh, wc, c)
            activate(c, code)
            _mix(g[:d], c, h, hidden[i], origin)
            h = hidden[i]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step_back_hidden(dhidden, rows, s, n, back, gates, hidden, h_first, dh_now, dgates, dcandidate, code_gate, code, origin):
    """First half of one step backwards: gradients of u and of the candidate; dh_now becomes its direct part."""
    d = hidden.shape[1]
    for k in range(n):
        i = rows[s + k]
        u, c, du, dc, dh, dh_here = gates[i, :d], gates[i, 2 * d :], dgates[k, :d], dcandidate[k], dh_now[k], dhidden[i]
        before = h_first[k] if back == 0 else hidden[i + back]
        if origin:
            for j in range(d):
                v = dh_here[j] + dh[j]
                dc[j] = v * (1 - u[j])
                du[j] = v * (before[j] - c[j])
                dh[j] = v * u[j]
        else:
            for j in range(d):
                v = dh_here[j] + dh[j]
                dc[j] = v * u[j]
                du[j] = v * (c[j] - before[j])
                dh[j] = v * (1 - u[j])
        through(dc, c, code)
        through(du, u, code_gate)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def step_back_gates(dreset, rows, s, n, back, gates, hidden, h_first, dh_now, dgates, dcandidate, dx, code_gate):
    """Second half: the gradient of r from that of r * h_prev; writes the step's rows of dx."""
    d = hidden.shape[1]
    for k in range(n):
        i = rows[s + k]
        r, dr, dh, drh = gates[i, d : 2 * d], dgates[k, d:], dh_now[k], dreset[k]
        before = h_first[k] if back == 0 else hidden[i + back]
        for j in range(d):
            dr[j] = drh[j] * before[j]
            dh[j] += drh[j] * r[j]
        through(dr, r, code_gate)
        dg, dc, dxg, dxc = dgates[k], dcandidate[k], dx[i, : 2 * d], dx[i, 2 * d :]
        for j in range(len(dg)):
            dxg[j] = dg[j]
        for j in range(d):
            dxc[j] = dc[j]
