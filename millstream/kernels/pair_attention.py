"""Attention over heads of bfloat16 in register tiles of pairs (pair_tiles.py), head by head: scores stay in the cache.

The rows of a layer (queries, keys, values) are given as (address, steps from batch to batch, from head to head, from row to
row); steps are numbers of bfloat16, and the numbers of a row lie side by side. `sizes` is (heads, queries, keys, width of
queries and keys, width of values); widths are multiples of 2 * LANES. Weights, bfloat16 as bits (brain.py), are
[batch * heads, queries, padded(keys)]. `room`, of :func:`room_for` numbers of 16 bits, and `scores`, float32
[queries, padded(keys)], are a thread's own; `zeros` is the address of as many zeros, float32, as the widest row has numbers.
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.pair_softmax import weigh, weigh_back
from millstream.kernels.pair_tiles import PANEL, lay_out, over_rows_at, panels_product_at, room_over_rows
from millstream.kernels.pairs import LANES
from millstream.kernels.vectors import copy


@njit(cache=True, nogil=True, error_model="numpy")
def padded(keys):
    """Numbers in a row of weights: whole vectors, and whole panels where more than one vector is left for the last one."""
    pad = (keys + LANES - 1) // LANES * LANES
    return pad if pad % PANEL <= LANES else (pad + PANEL - 1) // PANEL * PANEL


@njit(cache=True, nogil=True, error_model="numpy")
def room_for(sizes):
    """Numbers of 16 bits: keys or values made up, panels, gradients of scores, of keys or values, products over rows."""
    _, queries, keys, width, values = sizes
    pad, widest = padded(keys), max(width, values)
    return 3 * pad * widest + queries * pad + room_over_rows(queries, pad, widest) // 2 + 64


@njit(cache=True, nogil=True, error_model="numpy")
def _first_row(rows, n, heads):
    """The address of what head n of batch * heads begins with."""
    return rows[0] + (n // heads * rows[1] + n % heads * rows[2]) * 2


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(rows, n, heads, count, width, pad, out, zeros):
    """A head's rows side by side, and rows of zeros up to `pad`."""
    at = _first_row(rows, n, heads)
    for i in range(pad):
        for j in range(0, width, 2 * LANES):
            copy(at + (i * rows[3] + j) * 2 if i < count else zeros, out + (i * width + j) * 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter(found, count, width, rows, n, heads):
    """The first rows of what was found for a head to where they belong."""
    at = _first_row(rows, n, heads)
    for i in range(count):
        for j in range(0, width, 2 * LANES):
            copy(found + (i * width + j) * 2, at + (i * rows[3] + j) * 2)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(q, k, v, mask, steps, out, weights, sizes, alpha, room, scores, zeros, first, last):
    """weights = softmax(alpha * q k^T + mask), out = weights v, of heads first .. last of all batches.

    mask: bfloat16 as bits, empty for none, with `steps` from batch to batch, head to head and row to row.
    """
    heads, queries, keys, width, values = sizes
    pad = padded(keys)
    rows, given = room.ctypes.data, scores.ctypes.data
    panels = rows + pad * max(width, values) * 2
    for n in range(first, last):
        _gather(k, n, heads, keys, width, pad, rows, zeros)
        lay_out(rows, width, True, width, pad, panels, False)
        panels_product_at(_first_row(q, n, heads), q[3], queries, panels, width, pad, zeros, given, pad, False)
        weigh(scores, keys, alpha, mask, n // heads * steps[0] + n % heads * steps[1], steps[2], weights[n])
        _gather(v, n, heads, keys, values, pad, rows, zeros)
        lay_out(rows, values, False, pad, values, panels, False)
        product = weights[n].ctypes.data, pad, queries, panels, pad, values, zeros, _first_row(out, n, heads), out[3], True
        panels_product_at(*product)


@njit(cache=True, nogil=True, error_model="numpy")
def backward(q, k, v, weights, dout, dq, dk, dv, sizes, alpha, room, scores, zeros, first, last):
    """Gradients of q, k and v of heads first .. last of all batches."""
    heads, queries, keys, width, values = sizes
    pad, widest = padded(keys), max(width, values)
    rows, given = room.ctypes.data, scores.ctypes.data
    panels, found = rows + pad * widest * 2, rows + 2 * pad * widest * 2
    slopes = room[3 * pad * widest : 3 * pad * widest + queries * pad].reshape(queries, pad)
    at = slopes.ctypes.data
    over = (at + queries * pad * 2 + 63) // 64 * 64
    for n in range(first, last):
        q0, d0, w0 = _first_row(q, n, heads), _first_row(dout, n, heads), weights[n].ctypes.data
        over_rows_at(w0, pad, d0, dout[3], queries, pad, values, found, values, over, zeros)
        _scatter(found, keys, values, dv, n, heads)
        _gather(v, n, heads, keys, values, pad, rows, zeros)
        lay_out(rows, values, True, values, pad, panels, False)
        panels_product_at(d0, dout[3], queries, panels, values, pad, zeros, given, pad, False)
        weigh_back(scores, alpha, weights[n], slopes)
        _gather(k, n, heads, keys, width, pad, rows, zeros)
        lay_out(rows, width, False, pad, width, panels, False)
        panels_product_at(at, pad, queries, panels, pad, width, zeros, _first_row(dq, n, heads), dq[3], True)
        over_rows_at(at, pad, q0, q[3], queries, pad, width, found, width, over, zeros)
        _scatter(found, keys, width, dk, n, heads)
