"""GRU over ragged sequences: all time steps of a batch that shrinks as its sequences end (see lstm.py for the form).

Gates: update u, reset r, candidate c, each of width D; h = (1 - u) h_prev + u c, or u h_prev + (1 - u) c in `origin` mode.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, add_three, through
from millstream.kernels.lstm import place, running
from millstream.kernels.panels import rows_product
from millstream.kernels.tiles import fetch_row, few_rows_at, one_row_at


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def mix(u, c, before, h, origin):
    if origin:
        for j in range(len(h)):
            h[j] = c[j] + u[j] * (before[j] - c[j])
    else:
        for j in range(len(h)):
            h[j] = before[j] + u[j] * (c[j] - before[j])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(
    x, bias, w, wc, starts, lengths, reverse, gates, reset, hidden, h_now, product, product_c, code_gate, code, origin
):
    """All steps; w: panels of [D, 2D], wc: of [D, D]; h_now: initial states, overwritten, [sequences, D].

    product, product_c: room for a step's products and a line of zeros, [sequences + 1, padded 2D and D].
    """
    d = hidden.shape[1]
    zeros, zeros_c = product[len(starts)], product_c[len(starts)]
    for j in range(len(zeros)):
        zeros[j] = 0
    for j in range(len(zeros_c)):
        zeros_c[j] = 0
    reset_now = np.empty_like(h_now)
    coming = -1 if reverse else 1
    m, t = running(lengths, 0, len(starts)), 0
    while m:
        rows_product(h_now, m, w, zeros, 0, product)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            # rows of the next step: what a step works on lies all over the batch, and only then in the cache
            fetch_row(x, i + coming)
            fetch_row(gates, i + coming)
            fetch_row(reset, i + coming)
            fetch_row(hidden, i + coming)
            g = gates[i, : 2 * d]
            add_three(product[r, : 2 * d], x[i, : 2 * d], bias[: 2 * d], g)
            activate(g, code_gate)
            gate, h, out, now = g[d:], h_now[r], reset[i], reset_now[r]
            for j in range(d):
                v = gate[j] * h[j]
                out[j] = v
                now[j] = v
        rows_product(reset_now, m, wc, zeros_c, 0, product_c)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            c, h, now = gates[i, 2 * d :], hidden[i], h_now[r]
            add_three(product_c[r, :d], x[i, 2 * d :], bias[2 * d :], c)
            activate(c, code)
            mix(gates[i, :d], c, now, h, origin)
            for j in range(d):
                now[j] = h[j]
        t += 1
        m = running(lengths, t, m)


@intrinsic
def pointer(typing_context, address):
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
    z = carray(pointer(scratch), (total + 1, width))
    h = carray(pointer(hidden), (total, d))
    sums = z[total]
    sums[:] = 0
    if bias_x != 0:
        sums += carray(pointer(bias_x), width)
    if bias != 0:
        sums += carray(pointer(bias), width)
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
            h_before = carray(pointer(before), d)
            r = g[d : 2 * d]
            for j in range(d):
                rh[j] = r[j] * h_before[j]
            one_row_at(at_rh, weight + 2 * d * d * 4, at_z + 2 * d * 4, at_z + 2 * d * 4, d, d)
            c = g[2 * d :]
            activate(c, code)
            mix(g[:d], c, h_before, h[i], origin)
            before = hidden + i * d * 4


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _back_hidden(dh_here, dh, u, c, before, du, dc, code_gate, code, origin):
    """First half of one row backwards: gradients of u and of the candidate; dh becomes its direct part."""
    d = len(c)
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
def _back_gates(drh, r, before, dg, dc, dh, dx, code_gate):
    """Second half: the gradient of r from that of r * h_prev; writes the row of dx."""
    d = len(r)
    dr, dxg, dxc = dg[d:], dx[: 2 * d], dx[2 * d :]
    for j in range(d):
        dr[j] = drh[j] * before[j]
        dh[j] += drh[j] * r[j]
    through(dr, r, code_gate)
    for j in range(len(dg)):
        dxg[j] = dg[j]
    for j in range(d):
        dxc[j] = dc[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(
    dhidden, w, wc, starts, lengths, reverse, gates, hidden, h_first, dh_now, dreset, dx, code_gate, code, origin
):
    """All steps backwards; w, wc: panels of the transposed matrices, [2D, D] and [D, D].

    dh_now: [sequences + 1, padded D], zeros; the gradient of the initial states when it ends. dreset: room of that shape.
    """
    n, d = running(lengths, 0, len(starts)), hidden.shape[1]
    back = 1 if reverse else -1
    dgates, dcandidate = np.empty((n, 2 * d), dh_now.dtype), np.empty((n, d), dh_now.dtype)
    zeros = dh_now[len(starts)]
    for t in range((lengths[0] if n else 0) - 1, -1, -1):
        m = running(lengths, t, n)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            before = hidden[i + back] if t else h_first[r]
            fetch_row(gates, i + back)
            fetch_row(dx, i + back)
            fetch_row(dhidden, i + back)
            fetch_row(hidden, i + 2 * back)
            _back_hidden(
                dhidden[i], dh_now[r], gates[i, :d], gates[i, 2 * d :], before, dgates[r, :d], dcandidate[r], code_gate,
                code, origin,
            )  # fmt: skip
        rows_product(dcandidate, m, wc, zeros, 0, dreset)
        for r in range(m):
            i = place(starts[r], lengths[r], t, reverse)
            before = hidden[i + back] if t else h_first[r]
            _back_gates(dreset[r], gates[i, d : 2 * d], before, dgates[r], dcandidate[r], dh_now[r], dx[i], code_gate)
        rows_product(dgates, m, w, dh_now, dh_now.shape[1], dh_now)
