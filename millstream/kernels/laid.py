"""Products with a large matrix that is used once: laid out in panels on the way, each multiplied with all rows.

A panel is made in the second-level cache, in the order in which register tiles read it. Laid out beforehand the matrix would
be written to memory and read again: a convolution of 196 rows with 1,024 x 2,048 filters takes a tenth longer so, its
gradients a fifth.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.gates import through
from millstream.kernels.gru import pointer
from millstream.kernels.tiles import LANES, VECTORS, make_tile, tile_rows
from millstream.kernels.vectors import copy
from millstream.kernels.winograd_tiles import turn

PANEL = LANES * VECTORS
_AHEAD, _DEPTH = 8, 512
_LINE = 64  # bytes of a line of the cache
_wide, _one = make_tile(VECTORS, _AHEAD), make_tile(1, _AHEAD)


@njit(cache=True, nogil=True, error_model="numpy")
def _lay_out(pb, sb, turned, depth, width, room):
    """A part [depth, width] of a matrix at pb, which may stand `turned`, as [width, depth]; depth >= LANES."""
    for a in range(0, width, LANES):
        for k in range(0, depth, LANES):
            i = min(k, depth - LANES)
            if turned:
                turn(pb + (a * sb + i) * 4, sb * 4, room + (i * width + a) * 4, width * 4)
            else:
                for b in range(i, i + LANES):
                    copy(pb + (b * sb + a) * 4, room + (b * width + a) * 4)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def product_laid_at(pa, sa, pb, sb, turned, pf, step, po, so, m, depth, n, px, code):
    """out = a @ b + first, times the activation's derivative from its result at px if `code` is not 0; by addresses.

    float32 [m, depth], [depth, n], or [n, depth] where b stands `turned` (1, else 0), [m or 1, n], [m, n]; sa, sb, step, so:
    distances between rows, in numbers (step: 0 for one row for all); x [m, n] lies as `out` does. depth and n are at least
    LANES; `first` is not the output.
    """
    place = np.empty(max(min(depth, 2 * _DEPTH) * PANEL, depth * LANES) + LANES, np.float32)
    room = (place.ctypes.data + _LINE - 1) // _LINE * _LINE
    j = 0
    while j < n:
        wide = n - j >= PANEL
        width, to = (PANEL if wide else LANES), min(j, n - LANES)
        k = 0
        while k < depth:
            deep = depth - k if not wide or depth - k < 2 * _DEPTH else _DEPTH
            _lay_out(pb + ((to * sb + k) if turned else (k * sb + to)) * 4, sb, turned, deep, width, room)
            i = 0
            while i < m:
                rows = tile_rows(m - i)
                at_a, at_out = pa + (i * sa + k) * 4, po + (i * so + to) * 4
                first, far = (at_out, so) if k else (pf + (i * step + to) * 4, step)
                if wide:
                    _wide(rows, at_a, sa, room, PANEL, first, far, at_out, so, deep)
                else:
                    _one(rows, at_a, sa, room, LANES, first, far, at_out, so, deep)
                i += rows
            k += deep
        if code:
            for i in range(m):
                at = (i * so + to) * 4
                through(carray(pointer(po + at), width), carray(pointer(px + at), width), code)
        j += width
    place[0] = 0  # used by name here: it must stand until now
