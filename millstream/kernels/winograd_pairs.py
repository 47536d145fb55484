"""winograd.py for bfloat16: maps and combinations are bfloat16, products of pairs have float32 sums (pair_tiles.py).

Combinations of pixels and of filters are rounded to bfloat16 as they are made. Direct sums, whose products are exact, have
the error of rounding the result alone; root mean square error in that, against float64, 256 channels: m = 2 2.3 (gradient of
the input 2.6), m = 4 5.8 (7.0). What pixels and filters lost when they became bfloat16 themselves is 1.4. Arguments are
those of winograd.py.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.pair_tiles import PANEL, pair_rows, panels_product_at, slab_over_rows, slab_product, width_of
from millstream.kernels.pairs import LANES, interleave_rounded
from millstream.kernels.winograd import APART, BACK, RESULTS, addresses, combined, taps_gradient_of
from millstream.kernels.winograd_tiles import make_apart, make_together_rounded

_spread = make_apart(APART, brain=True)
_gather = make_together_rounded(RESULTS)
_PAIRS = 8  # pairs of squares that are put together at a time
_CHANNELS = 32  # whose filters are combined at a time


@njit(cache=True, nogil=True, error_model="numpy")
def _distance(channels):
    """Between rows of combinations: lines a power of two apart would share few sets of a cache."""
    return channels + 32 if channels % 256 == 0 else channels


@njit(cache=True, nogil=True, error_model="numpy")
def _planes(block, c, k):
    """Bytes of a plane of combinations of pixels, and of one of products."""
    return block * _distance(c) * 2 + 64, block * _distance(k) * 4 + 64


@njit(cache=True, nogil=True, error_model="numpy")
def room_of(m, block, c, k):
    """Bytes that a thread needs for `block` squares at a time."""
    pixels, products = _planes(block, c, k)
    return (m + 2) ** 2 * (pixels + products) + 2 * k


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _combine(which, m, px, shape, channels, pads, squares, t, rows, out, distance, plane, zeros):
    """Combinations of the first `channels` of pixels (`which` < BACK) or gradients of squares t .. t + rows.

    They go to `out` [planes][rows][distance].
    """
    down, across = squares
    top, left = pads
    size = m + 2 if which < BACK else m
    table = np.empty(36, np.int64)
    at = table.ctypes.data
    for r in range(rows):
        n, rest = divmod(t + r, down * across)
        i, j = divmod(rest, across)
        addresses(table, size, px, shape, (n, i * m - top, j * m - left), zeros, 2)
        _spread(which, at, out + r * distance * 2, plane, channels)


@njit(cache=True, nogil=True, error_model="numpy")
def _results(m, first, distance, plane, po, shape, squares, t, rows, nobody):
    """The output's squares t .. t + rows from products, float32 [planes][rows][distance]."""
    down, across = squares
    table = np.empty(16, np.int64)
    at = table.ctypes.data
    for r in range(rows):
        n, rest = divmod(t + r, down * across)
        i, j = divmod(rest, across)
        addresses(table, m, po, shape, (n, i * m, j * m), nobody, 2)
        _gather(m // 4, first + r * distance * 4, plane, at, shape[2])


@njit(cache=True, nogil=True, error_model="numpy")
def forward(m, px, shape, pads, pu, po, sizes, share, block, room, zeros):
    """Squares share[0] .. share[1] of the output of a convolution; pu: what :func:`filters` made."""
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    plane, plane_out = _planes(block, c, k)
    combinations = (m + 2) ** 2
    products = room + combinations * plane
    nobody = products + combinations * plane_out
    t, last = share
    while t < last:
        rows = min(block, last - t)
        _combine(m // 4, m, px, shape, c, pads, squares, t, rows, room, _distance(c), plane, zeros)
        for p in range(combinations):
            out = products + p * plane_out
            panels_product_at(
                room + p * plane, _distance(c), rows, pu + p * c * k * 2, c, k, zeros, out, _distance(k), False
            )  # fmt: skip
        _results(m, products, _distance(k), plane_out, po, sizes, squares, t, rows, nobody)
        t += rows


@njit(cache=True, nogil=True, error_model="numpy")
def room_of_filters(m):
    """Bytes that a thread of :func:`filters` needs."""
    return (m + 2) ** 2 * (_CHANNELS * PANEL * 4 + 64)


@njit(cache=True, nogil=True, error_model="numpy")
def filters(m, pw, turned, pu, c, k, share, room):
    """Combinations of float32 filters as panels of pairs, `pu` [(m + 2)^2][c * k], for outputs share[0] .. share[1]."""
    plane = _CHANNELS * PANEL * 4 + 64
    j = share[0]
    while j < share[1]:
        width = width_of(j, k)
        for d in range(0, c, _CHANNELS):
            count = min(_CHANNELS, c - d)
            combined(m, pw, turned, room, plane, c, k, j, width, d, d + count)
            for p in range((m + 2) ** 2):
                given, out = room + p * plane, pu + ((p * k + j) * c + d * width) * 2
                for at in range(0, count * width * 4, width * 8):
                    for n in range(0, width * 4, LANES * 4):
                        interleave_rounded(given + at + n, given + at + width * 4 + n, out + at // 2 + n)
        j += width


@njit(cache=True, nogil=True, error_model="numpy")
def room_of_gradient(m, block, c, k):
    """Bytes that a thread of :func:`filter_gradient` needs."""
    pairs = (block + 1) // 2
    return (m + 2) ** 2 * 2 * (block * (_distance(c) + _distance(k)) + 64) + pairs * 4 * (c + PANEL)


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient(m, px, shape, pads, pdy, sizes, share, block, room, pdu, zeros):
    """The share of squares share[0] .. share[1] in the gradient of combinations of filters, float32 [planes][c][k]."""
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    plane, plane_out = block * _distance(c) * 2 + 64, block * _distance(k) * 2 + 64
    combinations = (m + 2) ** 2
    gradients = room + combinations * plane
    left = gradients + combinations * plane_out
    panel = left + (block + 1) // 2 * c * 4
    t, last = share
    while t < last:
        rows = min(block, last - t)
        _combine(m // 4, m, px, shape, c, pads, squares, t, rows, room, _distance(c), plane, zeros)
        _combine(BACK + m // 4, m, pdy, sizes, k, (0, 0), squares, t, rows, gradients, _distance(k), plane_out, zeros)
        for p in range(combinations):
            slab_over_rows(
                room + p * plane, _distance(c), gradients + p * plane_out, _distance(k), rows, c, k, left, panel,
                pdu + p * c * k * 4, 0, 0, t == share[0], False, zeros,
            )  # fmt: skip
        t += rows


@njit(cache=True, nogil=True, error_model="numpy")
def pixels_in_pairs(m, px, shape, pads, sizes, share, count, room, pv, zeros):
    """Combinations of pixels of pairs share[0] .. share[1] of `count` squares: [planes][c / LANES][pairs][LANES][2]."""
    c, pairs = shape[2], (count + 1) // 2
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    plane = 2 * _PAIRS * _distance(c) * 2 + 64
    t = share[0]
    while t < share[1]:
        some = min(_PAIRS, share[1] - t)
        rows = min(2 * some, count - 2 * t)
        _combine(m // 4, m, px, shape, c, pads, squares, 2 * t, rows, room, _distance(c), plane, zeros)
        for p in range((m + 2) ** 2):
            for i in range(0, c, LANES):
                out = pv + (((p * c + i) * pairs) + t * LANES) * 4
                pair_rows(room + p * plane + i * 2, _distance(c), rows, LANES, out, zeros)
        t += some


@njit(cache=True, nogil=True, error_model="numpy")
def room_of_pixels(m, c):
    """Bytes that a thread of :func:`pixels_in_pairs` needs."""
    return (m + 2) ** 2 * (2 * _PAIRS * _distance(c) * 2 + 64)


@njit(cache=True, nogil=True, error_model="numpy")
def room_of_panels(m, count, c):
    """Bytes that a thread of :func:`filter_gradient_by_panels` needs."""
    return (m + 2) ** 2 * (count * PANEL * 2 + 64 + c * PANEL * 4 + 64) + (count + 1) // 2 * PANEL * 4


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient_by_panels(m, pv, c, pdy, sizes, count, share, room, pdw, zeros):
    """The gradient of filters, float32 `pdw` [k][c][9], to outputs share[0] .. share[1]; pv: of :func:`pixels_in_pairs`."""
    k, pairs = sizes[2], (count + 1) // 2
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    plane, plane_u = count * PANEL * 2 + 64, c * PANEL * 4 + 64
    gradients = room + (m + 2) ** 2 * plane
    panel = gradients + (m + 2) ** 2 * plane_u
    j = share[0]
    while j < share[1]:
        width = width_of(j, k)
        _combine(BACK + m // 4, m, pdy + j * 2, sizes, width, (0, 0), squares, 0, count, room, PANEL, plane, zeros)
        for p in range((m + 2) ** 2):
            pair_rows(room + p * plane, PANEL, count, width, panel, zeros)
            slab_product(
                pv + p * c * pairs * 4, c, panel, width, pairs, gradients + p * plane_u, width, 0, 0, True, False, zeros
            )  # fmt: skip
        taps_gradient_of(m, gradients, plane_u, width, pdw, c, j, width, zeros)
        j += width
