"""Products with matrices of few columns (a classifier's last layer) and their gradients.

float32, C-contiguous. The narrow matrix is turned first, so that loops run along the rows of the wide one.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.dense_back import sum_rows_at
from millstream.kernels.gates import FAST, through
from millstream.kernels.tiles import STRIP, strip_at, turned_at


@njit(cache=True, nogil=True, error_model="numpy")
def _turned(w, first, last):
    out = np.empty((w.shape[1], last - first), np.float32)
    for k in range(first, last):
        for j in range(w.shape[1]):
            out[j, k - first] = w[k, j]
    return out


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _dot(a, b):
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def product(x, w, bias, out, first, last):
    """Rows first .. last of out = x @ w + bias; bias empty: none."""
    turned = _turned(w, 0, w.shape[0])
    for i in range(first, last):
        line = x[i]
        for j in range(w.shape[1]):
            out[i, j] = _dot(line, turned[j]) + (bias[j] if len(bias) else np.float32(0))


@njit(cache=True, nogil=True, error_model="numpy")
def gradients(x, w, d, dx, dw, sums, zeros, code, first, last):
    """Columns first .. last of dx = d @ w.T, rows of these numbers of dw = x.T @ d; sums: of d's columns.

    Arrays of no elements are not wanted. zeros: as many as there are columns; code: of the activation whose result x is, or
    0. A share has LANES columns at least; the sums come with the first one.
    """
    m, n = d.shape
    k, width = x.shape[1], last - first
    if dx.size:
        turned = _turned(w, first, last)
        for begin in range(0, m, STRIP):
            rows, at = min(STRIP, m - begin), dx.ctypes.data + (begin * k + first) * 4
            strip_at(d.ctypes.data + begin * n * 4, n, turned.ctypes.data, width, zeros, 0, at, k, rows, n, width)
            for i in range(begin, begin + rows):
                if code:
                    through(dx[i, first:last], x[i, first:last], code)
        turned[0, 0] = 0  # used by name here: it must stand until now
    if dw.size:
        whole = np.empty((n, width), np.float32)
        turned_at(d.ctypes.data, n, x.ctypes.data + first * 4, k, zeros, 0, whole.ctypes.data, m, n, width)
        for i in range(width):
            for j in range(n):
                dw[first + i, j] = whole[j, i]
    if sums.size and not first:
        sum_rows_at(d.ctypes.data, n, m, n, sums.ctypes.data)
