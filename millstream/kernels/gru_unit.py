"""One step of a GRU over rows, forward and backward each in one call (gru.py has all steps of sequences).

Arrays come as addresses, 0 for one that there is not; float32, C-contiguous: x, gates and dx [m, 3D], h, reset, hidden and
their gradients [m, D], weight in gru's layout, [D, 2D] then [D, D]. D is at least LANES.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, through
from millstream.kernels.gru import mix, pointer
from millstream.kernels.laid import product_laid_at
from millstream.kernels.tiles import strip_at, turned_at

_LINE = 64  # bytes of a line of the cache


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(x, h, weight, bias, gates, reset, hidden, m, d, code_gate, code, origin):
    """Fill gates (activated u, r, c), reset (r * h) and hidden."""
    width = 3 * d
    strip_at(h, d, weight, 2 * d, x, width, gates, width, m, d, 2 * d)
    g, hs = carray(pointer(gates), (m, width)), carray(pointer(h), (m, d))
    rs, out = carray(pointer(reset), (m, d)), carray(pointer(hidden), (m, d))
    for i in range(m):
        ur = g[i, : 2 * d]
        if bias != 0:
            b = carray(pointer(bias), 2 * d)
            for j in range(2 * d):
                ur[j] += b[j]
        activate(ur, code_gate)
        r, before, rh = ur[d:], hs[i], rs[i]
        for j in range(d):
            rh[j] = r[j] * before[j]
    strip_at(reset, d, weight + 2 * d * d * 4, d, x + 2 * d * 4, width, gates + 2 * d * 4, width, m, d, d)
    for i in range(m):
        c = g[i, 2 * d :]
        if bias != 0:
            b = carray(pointer(bias + 2 * d * 4), d)
            for j in range(d):
                c[j] += b[j]
        activate(c, code)
        mix(g[i, :d], c, hs[i], out[i], origin)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(dhidden, h, weight, gates, reset, dx, dh, dweight, dbias, zeros, m, d, code_gate, code, origin):
    """Fill dx and dh, and dweight and dbias where they are wanted; zeros: a line of 2D zeros."""
    width = 3 * d
    g, hs = carray(pointer(gates), (m, width)), carray(pointer(h), (m, d))
    ds, back = carray(pointer(dx), (m, width)), carray(pointer(dh), (m, d))
    do = carray(pointer(dhidden), (m, d))
    room = np.empty(m * d + _LINE // 4, np.float32)
    at = (room.ctypes.data + _LINE - 1) // _LINE * _LINE
    dr = carray(pointer(at), (m, d))
    for i in range(m):
        u, c, before, v = g[i, :d], g[i, 2 * d :], hs[i], do[i]
        du, dc, b = ds[i, :d], ds[i, 2 * d :], back[i]
        if origin:
            for j in range(d):
                dc[j] = v[j] * (1 - u[j])
                du[j] = v[j] * (before[j] - c[j])
                b[j] = v[j] * u[j]
        else:
            for j in range(d):
                dc[j] = v[j] * u[j]
                du[j] = v[j] * (c[j] - before[j])
                b[j] = v[j] * (1 - u[j])
        through(dc, c, code)
        through(du, u, code_gate)
    product_laid_at(dx + 2 * d * 4, width, weight + 2 * d * d * 4, d, 1, zeros, 0, at, d, m, d, d, 0, 0)
    for i in range(m):
        r, before, b, q, t = g[i, d : 2 * d], hs[i], back[i], dr[i], ds[i, d : 2 * d]
        for j in range(d):
            t[j] = q[j] * before[j]
            b[j] += q[j] * r[j]
        through(t, r, code_gate)
    # into the room, as `first` must not be the output
    product_laid_at(dx, width, weight, 2 * d, 1, dh, d, at, d, m, 2 * d, d, 0, 0)
    for i in range(m):
        b, q = back[i], dr[i]
        for j in range(d):
            b[j] = q[j]
    if dweight != 0:
        turned_at(h, d, dx, width, zeros, 0, dweight, m, d, 2 * d)
        turned_at(reset, d, dx + 2 * d * 4, width, zeros, 0, dweight + 2 * d * d * 4, m, d, d)
    if dbias != 0:
        s = carray(pointer(dbias), width)
        for j in range(width):
            s[j] = 0
        for i in range(m):
            line = ds[i]
            for j in range(width):
                s[j] += line[j]
    room[0] = 0  # used by name here: it must stand until now
