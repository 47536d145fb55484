"""The gradients of a dense layer, out = activation(x @ w + bias), float32, a share of each to every thread.

The gradient of x multiplies with w turned: 64 rows of w, a slab of their columns at a time, are laid out as a panel in
the second-level cache and multiplied with all rows.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.dense import CODES
from millstream.kernels.gates import through
from millstream.kernels.gru import pointer
from millstream.kernels.tiles import LANES, VECTORS, make_tile, tile_rows, turned_at
from millstream.kernels.winograd_tiles import turn

__all__ = ["CODES", "back_at", "product_turned_at"]

PANEL = LANES * VECTORS
_AHEAD, _DEPTH = 8, 512
_wide, _one = make_tile(VECTORS, _AHEAD), make_tile(1, _AHEAD)


@njit(cache=True, nogil=True, error_model="numpy")
def _lay_out(pb, sb, depth, width, room):
    """`width` rows of a matrix at pb, the first `depth` numbers of each, as [depth, width]; depth >= LANES."""
    for a in range(0, width, LANES):
        for k in range(0, depth, LANES):
            i = min(k, depth - LANES)
            turn(pb + (a * sb + i) * 4, sb * 4, room + (i * width + a) * 4, width * 4)


@njit(cache=True, nogil=True, error_model="numpy")
def product_turned_at(pa, sa, pb, sb, po, so, m, depth, n, zeros, px, code):
    """out = a @ b.T, times the activation's derivative from its result at px if `code` is not 0; by addresses.

    float32 [m, depth], [n, depth], [m, n]; sa, sb, so: distances between rows, in numbers; x [m, n] lies as `out` does.
    depth and n are at least LANES.
    """
    place = np.empty(max(min(depth, 2 * _DEPTH) * PANEL, depth * LANES) + LANES, np.float32)
    room = (place.ctypes.data + 63) // 64 * 64
    j = 0
    while j < n:
        wide = n - j >= PANEL
        width, to = (PANEL if wide else LANES), min(j, n - LANES)
        k = 0
        while k < depth:
            deep = depth - k if not wide or depth - k < 2 * _DEPTH else _DEPTH
            _lay_out(pb + (to * sb + k) * 4, sb, deep, width, room)
            i = 0
            while i < m:
                rows = tile_rows(m - i)
                at_a, at_out = pa + (i * sa + k) * 4, po + (i * so + to) * 4
                first, step = (at_out, so) if k else (zeros, 0)
                if wide:
                    _wide(rows, at_a, sa, room, PANEL, first, step, at_out, so, deep)
                else:
                    _one(rows, at_a, sa, room, LANES, first, step, at_out, so, deep)
                i += rows
            k += deep
        if code:
            for i in range(m):
                at = (i * so + to) * 4
                through(carray(pointer(po + at), width), carray(pointer(px + at), width), code)
        j += width
    place[0] = 0  # used by name here: it must stand until now


@njit(cache=True, nogil=True, error_model="numpy")
def sum_rows_at(pd, sd, m, n, out):
    """out[:n] = the sums of the columns; `out` an address."""
    total, part = carray(pointer(out), n), np.empty(n, np.float32)
    total[:] = 0
    for begin in range(0, m, 32):
        part[:] = 0
        for i in range(begin, min(begin + 32, m)):
            line = carray(pointer(pd + i * sd * 4), n)
            for j in range(n):
                part[j] += line[j]
        for j in range(n):
            total[j] += part[j]


@njit(cache=True, nogil=True, error_model="numpy")
def back_at(px, pd, sd, pw, sw, m, k, n, zeros, pdx, rows, columns, code, pdw, share, pdb, sums):
    """Shares of the gradients: rows x columns of dx, rows `share` of dw, columns `sums` of dbias; addresses, 0: not wanted.

    float32 x [m, k], d [m, n], w [k, n]; code: of the activation whose result x is.
    """
    if pdx:
        at = (rows[0] * k + columns[0]) * 4
        product_turned_at(
            pd + rows[0] * sd * 4, sd, pw + columns[0] * sw * 4, sw, pdx + at, k, rows[1] - rows[0], n,
            columns[1] - columns[0], zeros, px + at, code,
        )  # fmt: skip
    if pdw:
        first, last = share
        turned_at(px + first * 4, k, pd, sd, zeros, 0, pdw + first * n * 4, m, last - first, n)
    if pdb:
        first, last = sums
        sum_rows_at(pd + first * 4, sd, m, last - first, pdb + first * 4)
