"""normed_rows.py for bfloat16, where the processor has products of pairs (pair_tiles.py).

Maps stand as their bits (brain.py), lines and sums are float32 and float64. What a kernel normalises, or takes the gradient
of, is rounded to bfloat16 in the cache, as operators one by one would do to memory. Arguments are those of normed_rows.py.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.batch_norm import apply_line, count
from millstream.kernels.brain import put, wide
from millstream.kernels.compiled import njit
from millstream.kernels.normed_rows import add_before_sum, give_pictures, relu_back, room
from millstream.kernels.pair_tiles import PANEL, panels_product_at, slab_over_rows

ROWS = 480  # as many bytes as there


@njit(cache=True, nogil=True, error_model="numpy")
def _halves(rows, columns):
    """Room for bfloat16: rows, of an even number of columns, begin with a line of the cache if they are whole lines."""
    return room(rows, columns // 2).view(np.uint16)


@njit(cache=True, nogil=True, error_model="numpy")
def _add(more, begin, end, out):
    """Add rows begin .. end."""
    for i in range(begin, end):
        for j in range(out.shape[1]):
            put(out, i, j, wide(out[i, j]) + wide(more[i, j]))


@njit(cache=True, nogil=True, error_model="numpy")
def forward(x, group, line, bend, panels, zeros, out, group_out, first, last, shift, total, square):
    """Rows of `out`: the normalised x times the filters, in panels of pairs; its sums, where `total` is not empty."""
    c, k = x.shape[1] // group, out.shape[1] // group_out
    normed = line.shape[0] > 0
    kept = _halves(ROWS // group if normed else 0, x.shape[1])
    pa = kept.ctypes.data
    for i in range(first, last, ROWS):
        end = min(i + ROWS, last)
        if normed:
            apply_line(x[i // group : end // group], line[0], line[1], bend, 0, (end - i) // group, kept)
        else:
            pa = x.ctypes.data + i * c * 2
        panels_product_at(pa, c, end - i, panels, c, k, zeros, out.ctypes.data + i * k * 2, k, True)
        if total.shape[0]:
            count(out, i // group_out, end // group_out, i == first, shift, total, square)


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    x, group, line, bend, panels, zeros, out, group_out, dout, end_lines, each, end_bend, added, summed, center, first, last,
    dx, dw, total, dot,
):  # fmt: skip
    """Rows of dx: dz of x's normalisation, or plain; dw, float32 [k, c]: their share in the filters' gradient."""
    c, k = x.shape[1] // group, dout.shape[1] // group_out
    normed, ended = line.shape[0] > 0, end_lines.shape[0] > 0
    kept = _halves(ROWS // group if normed else 0, x.shape[1])
    given = _halves(ROWS // group_out if ended else 0, dout.shape[1])
    left, panel = room(ROWS // 2, k), room(ROWS // 2, PANEL)
    py, pg, pd = kept.ctypes.data, given.ctypes.data, dw.ctypes.data
    for i in range(first, last, ROWS):
        end = min(i + ROWS, last)
        if ended:
            give_pictures(out, dout, end_lines, each, end_bend, i // group_out, end // group_out, given)
        else:
            pg = dout.ctypes.data + i * k * 2
        if normed:
            apply_line(x[i // group : end // group], line[0], line[1], bend, 0, (end - i) // group, kept)
        else:
            py = x.ctypes.data + i * c * 2
        room_of_pairs = left.ctypes.data, panel.ctypes.data
        slab_over_rows(pg, k, py, c, end - i, k, c, *room_of_pairs, pd, 0, 0, i == first, False, zeros)
        if not dx.shape[0]:
            continue
        to = py if normed else dx.ctypes.data + i * c * 2
        panels_product_at(pg, k, end - i, panels, k, c, zeros, to, c, True)
        if normed:
            relu_back(x, kept, line[0], line[1], bend, line[2], i // group, end // group, dx, total, dot)
        elif summed.shape[0]:
            add_before_sum(x, added, summed, center, i // group, end // group, dx, total, dot)
        elif added.shape[0]:
            _add(added, i // group, end // group, dx)


@njit(cache=True, nogil=True, error_model="numpy")
def join(shares, first, last, out):
    """Rows first .. last of `out`, rounded: the sum of `shares`, float32 [parts, rows, columns]."""
    columns = shares.shape[2]
    row = np.empty(columns, np.float32)
    for i in range(first, last):
        for j in range(columns):
            row[j] = shares[0, i, j]
        for p in range(1, shares.shape[0]):
            for j in range(columns):
                row[j] += shares[p, i, j]
        for j in range(columns):
            put(out, i, j, row[j])
