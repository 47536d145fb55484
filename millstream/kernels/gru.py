"""GRU over ragged sequences: the two halves of one time step of a shrinking batch, and whole sequences.

Rows stand in the order of the input; `rows` lists them step after step, longest sequence first. Gates: update u,
reset r, candidate c, each of width D; h = (1 - u) h_prev + u c, or u h_prev + (1 - u) c in `origin` mode.
"""

from __future__ import annotations

from numba import carray, njit, types
from numba.extending import intrinsic

from millstream.kernels.gates import FAST, activate, add_product, add_three, through
from millstream.kernels.tiles import few_rows_at, one_row_at


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


@intrinsic
def _pointer(typing_context, address):
    """The float32 pointer of an address."""
    del typing_context, address

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), emit


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def projected(
    x, weight_x, bias_x, weight, bias, first_h, hidden, scratch, offsets, depth, d, reverse, code_gate, code, origin
):
    """All sequences, one after another, from the unprojected input: arrays come as addresses (0: there is none).

    float32, C-contiguous: x [rows, depth], weight_x [depth, 3D], bias_x and bias [3D], weight [D, 3D] in gru's layout,
    first_h [sequences, D], hidden [rows, D], scratch [rows + 1, 3D]. D is a multiple of
    the processor's float32 lanes.
    """
    total = offsets[len(offsets) - 1]
    width = 3 * d
    z = carray(_pointer(scratch), (total + 1, width))
    h = carray(_pointer(hidden), (total, d))
    sums = z[total]
    sums[:] = 0
    if bias_x != 0:
        sums += carray(_pointer(bias_x), width)
    if bias != 0:
        sums += carray(_pointer(bias), width)
    few_rows_at(x, weight_x, scratch + total * width * 4, scratch, total, depth, width)
    rh, zero = z[total, :d], z[total, d : 2 * d]
    at_rh, at_zero = scratch + total * width * 4, scratch + (total * width + d) * 4
    zero[:] = 0
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        before = at_zero
        if first_h != 0:
            before = first_h + q * d * 4
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            at_z = scratch + i * width * 4
            g = z[i]
            one_row_at(before, weight, at_z, at_z, d, 2 * d)
            activate(g[: 2 * d], code_gate)
            h_before = carray(_pointer(before), d)
            r = g[d : 2 * d]
            for j in range(d):
                rh[j] = r[j] * h_before[j]
            one_row_at(at_rh, weight + 2 * d * d * 4, at_z + 2 * d * 4, at_z + 2 * d * 4, d, d)
            c = g[2 * d :]
            activate(c, code)
            _mix(g[:d], c, h_before, h[i], origin)
            before = hidden + i * d * 4


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
