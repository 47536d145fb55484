"""The gradients of a dense layer, out = activation(x @ w + bias), float32, a share of each to every thread."""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.dense import CODES
from millstream.kernels.gru import pointer
from millstream.kernels.laid import product_laid_at
from millstream.kernels.tiles import LANES, turned_at

__all__ = ["CODES", "back_at", "step_at"]


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
        product_laid_at(
            pd + rows[0] * sd * 4, sd, pw + columns[0] * sw * 4, sw, 1, zeros, 0, pdx + at, k, rows[1] - rows[0], n,
            columns[1] - columns[0], px + at, code,
        )  # fmt: skip
    if pdw:
        first, last = share
        turned_at(px + first * 4, k, pd, sd, zeros, 0, pdw + first * n * 4, m, last - first, n)
    if pdb:
        first, last = sums
        sum_rows_at(pd + first * 4, sd, m, last - first, pdb + first * 4)


# Rows and columns of a weight whose gradient stays in the second-level cache until it is taken off.
_ROWS, _COLUMNS = 128, 256
_LINE = 16  # numbers of a line of the cache


@njit(cache=True, nogil=True, error_model="numpy")
def step_at(px, pd, sd, pw, sw, m, k, n, zeros, pdx, share, code, pdb, sums, rate):
    """As :func:`back_at`, but rows `share` of w move by -rate times their gradient, which exists in pieces only.

    dx of the columns `share`: a thread reads the rows of w that it moves, and no others. Rows of a share, and n, are LANES
    or more.
    """
    place = np.empty((_ROWS + LANES) * (_COLUMNS + LANES) + _LINE, np.float32)
    room = (place.ctypes.data + 4 * _LINE - 1) // (4 * _LINE) * (4 * _LINE)
    i = share[0]
    while i < share[1]:
        rows = share[1] - i if share[1] - i < _ROWS + LANES else _ROWS
        if pdx:
            product_laid_at(
                pd, sd, pw + i * sw * 4, sw, 1, zeros, 0, pdx + i * 4, k, m, n, rows, px + i * 4, code,
            )  # fmt: skip
        j = 0
        while j < n:
            width = n - j if n - j < _COLUMNS + LANES else _COLUMNS
            turned_at(px + i * 4, k, pd + j * 4, sd, zeros, 0, room, m, rows, width)
            for r in range(rows):
                line = carray(pointer(pw + ((i + r) * sw + j) * 4), width)
                step = carray(pointer(room + r * width * 4), width)
                for c in range(width):
                    line[c] -= rate * step[c]
            j += width
        i += rows
    place[0] = 0  # used by name here: it must stand until now
    if pdb:
        first, last = sums
        sum_rows_at(pd + first * 4, sd, m, last - first, pdb + first * 4)
