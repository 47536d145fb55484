"""The gradients of a dense layer, out = activation(x @ w + bias), float32, a share of each to every thread."""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.dense import CODES
from millstream.kernels.gru import pointer
from millstream.kernels.laid import product_laid_at
from millstream.kernels.tiles import turned_at

__all__ = ["CODES", "back_at"]


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
