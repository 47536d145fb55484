"""Products of few rows with one matrix again and again: the matrix is laid out once in the order in which it is read.

A panel holds VECTORS (the last ones: one) vectors of columns for every row of the matrix, zeros filling the last up. float32
runs in the register tiles of tiles.py, float64 in plain loops over the matrix as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, add_product
from millstream.kernels.tiles import LANES, VECTORS, make_tile, tile_rows

_AHEAD = 8
_WIDTH = LANES * VECTORS
_wide, _one = make_tile(VECTORS, _AHEAD), make_tile(1, _AHEAD)


def padded(columns: int) -> int:
    """Columns with what fills the last vector."""
    return -(-columns // LANES) * LANES


def panels(w: np.ndarray) -> np.ndarray:
    """`w`, C-contiguous float32 or float64, laid out for :func:`rows_product`."""
    depth, columns = w.shape
    if w.itemsize != 4:
        whole = np.zeros((depth, padded(columns)), w.dtype)
        whole[:, :columns] = w
        return whole
    out = np.empty((depth, padded(columns)), w.dtype)
    lay_out(w, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def lay_out(w, out):
    """float32 `w` as panels in `out`, [depth, padded(columns)]."""
    columns = w.shape[1]
    depth, whole = out.shape
    flat = out.reshape(-1)
    at, j = 0, 0
    while j < whole:
        width = _WIDTH if whole - j >= _WIDTH else LANES
        have = min(width, columns - j)
        for k in range(depth):
            line, source = flat[at : at + width], w[k, j : j + have]
            for c in range(have):
                line[c] = source[c]
            for c in range(have, width):
                line[c] = 0
            at += width
        j += width


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def product_at(pa, sa, m, pb, depth, whole, pf, step, po, so):
    """:func:`rows_product` of float32 by addresses; sa, step and so are distances between rows, in numbers.

    whole: columns, at least LANES; where they are no multiple of it, the last panel has the last LANES of them, and `first`
    must not be the output.
    """
    j = 0
    while j < whole:
        wide = whole - j >= _WIDTH
        panel, to = pb + j * depth * 4, min(j, whole - LANES)
        i = 0
        while i < m:
            rows = tile_rows(m - i)
            at_a, at_first, at_out = pa + i * sa * 4, pf + (i * step + to) * 4, po + (i * so + to) * 4
            if wide:
                _wide(rows, at_a, sa, panel, _WIDTH, at_first, step, at_out, so, depth)
            else:
                _one(rows, at_a, sa, panel, LANES, at_first, step, at_out, so, depth)
            i += rows
        j += _WIDTH if wide else LANES


@njit(cache=True, nogil=True, error_model="numpy")
def _product32(a, m, b, first, step, out):
    product_at(
        a.ctypes.data, a.shape[1], m, b.ctypes.data, b.shape[0], b.shape[1], first.ctypes.data, step, out.ctypes.data,
        out.shape[1],
    )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _product64(a, m, b, first, step, out):
    flat = first.reshape(-1)
    for r in range(m):
        begin, line = flat[r * step : r * step + b.shape[1]], out[r]
        for j in range(len(begin)):
            line[j] = begin[j]
        add_product(a[r, : b.shape[0]], b, line)


def rows_product(a: Any, m: Any, b: Any, first: Any, step: Any, out: Any) -> None:
    """out[:m] = a[:m] @ b + first, within numba code; all C-contiguous and of one dtype.

    Args:
        a: [rows, depth].
        b: :func:`panels` of a matrix [depth, columns].
        first: read from its beginning with `step` elements between rows: 0 and padded(columns) numbers for one line that
            all rows share, its width and `out` itself to add to what stands there.
        out: [rows, padded(columns)].
    """


@overload(rows_product)
def _rows_product(a, m, b, first, step, out):
    if b.dtype == types.float32:
        return lambda a, m, b, first, step, out: _product32(a, m, b, first, step, out)
    return lambda a, m, b, first, step, out: _product64(a, m, b, first, step, out)
