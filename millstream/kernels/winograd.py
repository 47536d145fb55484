"""3x3 convolutions of stride 1 over channels-last maps in fewer multiplications: Winograd's minimal filtering.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): of every square of pixels, every filter and every
square of the output (m x m, m = 2 or 4) there are (m + 2)^2 combinations, for which the convolution is a product over
channels: 4 or 2.25 multiplications an output instead of 9. Squares go in blocks through the second-level cache:
combinations of pixels, products in register tiles (tiles.py), combinations of those, with bias, sum and activation while
they are at hand.

m = 4 uses the points 0, +-5/8, +-3/2 and infinity. Root mean square error against float64, in that of direct sums, with
256 channels: 0.53 for m = 2; 1.3 for m = 4, where the usual 0, +-1, +-2 have 3.5 (Barabasz and others, "Error analysis and
improving the accuracy of Winograd convolution", 2020, on the choice of points). Errors are of the size of a square's
largest number: one that is infinite makes its whole square no number.

All functions take addresses; maps are [N, height, width, channels] without gaps, numbers of channels multiples of LANES.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.panels import product_at
from millstream.kernels.tiles import LANES, VECTORS, fetch_line, turned_at
from millstream.kernels.winograd_tiles import Matrix, apart_taps, make_apart, make_together, turn

_PIXELS_2: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_TAPS_2: Matrix = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))
_RESULT_2: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))


def _toom_cook(a: float, b: float) -> tuple[Matrix, Matrix, Matrix]:
    """Matrices of pixels, taps and results for m = 4 with the points 0, +-a, +-b and infinity."""
    both, product = a * a + b * b, (a * b) ** 2
    pixels: list[tuple[float, ...]] = [(product, 0, -both, 0, 1, 0)]
    pixels += [(0, sign * -p * q * q, -q * q, sign * p, 1, 0) for p, q in ((a, b), (b, a)) for sign in (1, -1)]
    pixels += [(0, product, 0, -both, 0, 1)]
    points = (a, -a, b, -b)
    scale = [1 / (2 * p * p * (p * p - q * q)) for p, q in ((a, b), (a, b), (b, a), (b, a))]
    taps = [(1 / product, 0, 0), *((s, p * s, p * p * s) for p, s in zip(points, scale)), (0, 0, 1)]
    result = [(float(k == 0), *(p**k for p in points), float(k == 3)) for k in range(4)]
    return pixels, taps, result


_PIXELS_4, _TAPS_4, _RESULT_4 = _toom_cook(5 / 8, 3 / 2)


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix))


APART = _PIXELS_2, _PIXELS_4, _turned(_RESULT_2), _turned(_RESULT_4)
_spread = make_apart((*APART, _TAPS_2, _TAPS_4))
BACK, _FILTERS = 2, 4  # from which on the matrices are those of a gradient, of filters
_gather = make_together((_RESULT_2, _RESULT_4, _turned(_TAPS_2), _turned(_TAPS_4)), False)
RESULTS = _RESULT_2, _RESULT_4
_gather_sum = make_together(RESULTS, True)
_GRADIENT = 2
PANEL = LANES * VECTORS
_ONE, _NO_LIMIT = np.float32(1), np.float32(np.inf)
_AHEAD = 2  # inputs ahead whose filters are fetched


@njit(cache=True, nogil=True, error_model="numpy")
def _distance(channels):
    """Between rows of combinations: lines a power of two apart would share few sets of a cache."""
    return channels + 16 if channels % 256 == 0 else channels


@njit(cache=True, nogil=True, error_model="numpy")
def room_of(m, block, c, k):
    """Bytes that a thread needs for `block` squares at a time."""
    return (m + 2) ** 2 * 4 * (block * (_distance(c) + _distance(k)) + 32) + 4 * max(c, k)


@njit(cache=True, nogil=True, error_model="numpy")
def addresses(table, size, start, shape, corner, outside, wide=4):
    """Fill in the addresses of a square: `corner` is (picture, row, column) of its first pixel, perhaps outside.

    wide: bytes of a number.
    """
    height, width, channels = shape
    n, top, left = corner
    step = channels * wide
    if top >= 0 and left >= 0 and top + size <= height and left + size <= width:
        for a in range(size):
            row = start + ((n * height + top + a) * width + left) * step
            for b in range(size):
                table[a * size + b] = row + b * step
        return
    for a in range(size):
        y = top + a
        for b in range(size):
            x = left + b
            inside = y >= 0 and x >= 0 and y < height and x < width
            table[a * size + b] = start + ((n * height + y) * width + x) * step if inside else outside


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _combine(which, m, px, shape, channels, pads, squares, t, rows, out, distance, plane, zeros):
    """Combinations of the first `channels` of pixels (`which` < BACK) or gradients of squares t .. t + rows.

    They go to `out` [(m + 2)^2 planes][rows][distance].
    """
    down, across = squares
    top, left = pads
    size = m + 2 if which < BACK else m
    table = np.empty(36, np.int64)
    at = table.ctypes.data
    for r in range(rows):
        n, rest = divmod(t + r, down * across)
        i, j = divmod(rest, across)
        addresses(table, size, px, shape, (n, i * m - top, j * m - left), zeros)
        _spread(which, at, out + r * distance * 4, plane, channels)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _results(m, first, distance, plane, po, shape, channels, squares, t, rows, beside, bias, slope, most, nobody):
    """The first `channels` of the output's squares t .. t + rows from products, [planes][rows][distance]."""
    down, across = squares
    table, others = np.empty(16, np.int64), np.empty(16, np.int64)
    at, at_others = table.ctypes.data, others.ctypes.data
    which = m // 4
    for r in range(rows):
        n, rest = divmod(t + r, down * across)
        i, j = divmod(rest, across)
        corner = (n, i * m, j * m)
        addresses(table, m, po, shape, corner, nobody)
        if beside:
            addresses(others, m, beside, shape, corner, nobody)
            _gather_sum(which, first + r * distance * 4, plane, at, at_others, bias, slope, most, channels)
        else:
            _gather(which, first + r * distance * 4, plane, at, at, bias, slope, most, channels)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(m, px, shape, pads, pu, po, sizes, share, block, room, bias, beside, slope, most, zeros):
    """Squares share[0] .. share[1] of the output of a convolution.

    px, shape: the input, its (height, width, channels); pads: (above, left). pu: what :func:`filters` made. po, sizes: the
    output. block: squares at a time, for which `room` has :func:`room_of` bytes. bias: a number a channel; beside: a map to
    add, or 0; slope, most: see `make_together`. zeros: as many as there are channels.
    """
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    near, far = _distance(c), _distance(k)
    plane, plane_out = block * near * 4 + 64, block * far * 4 + 64
    combinations = (m + 2) ** 2
    products = room + combinations * plane
    nobody = products + combinations * plane_out
    t, last = share
    while t < last:
        rows = min(block, last - t)
        _combine(m // 4, m, px, shape, c, pads, squares, t, rows, room, near, plane, zeros)
        for p in range(combinations):
            product_at(room + p * plane, near, rows, pu + p * c * k * 4, c, k, zeros, 0, products + p * plane_out, far)
        _results(m, products, far, plane_out, po, sizes, k, squares, t, rows, beside, bias, slope, most, nobody)
        t += rows


@njit(cache=True, nogil=True, error_model="numpy")
def _width(j, k):
    """Of the panel that begins with column j of k."""
    return PANEL if k - j >= PANEL else LANES


@njit(cache=True, nogil=True, error_model="numpy")
def _fetch(at):
    """Have LANES filters brought to the second-level cache."""
    for line in range(at, at + LANES * 36, 64):
        fetch_line(line)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def combined(m, pw, turned, out, plane, c, k, j, width, first, last):
    """Combinations of filters from inputs first .. last of c to outputs j .. j + width of k.

    They go to `out` [(m + 2)^2 planes][last - first][width].

    pw: all filters, [k][c][9]; turned: [c][k][9], of which the last tap counts as the first.
    """
    taps, table = np.empty(9 * LANES * LANES, np.float32), np.empty(9, np.int64)
    at, at_table, line, which = taps.ctypes.data, table.ctypes.data, LANES * 4, _FILTERS + m // 4
    if turned:
        for i in range(9):
            table[8 - i] = at + i * line
        for d in range(first, last):
            for n in range(0, width, LANES):
                _fetch(pw + ((d + _AHEAD) * k + j + n) * 36)
                apart_taps(pw + (d * k + j + n) * 36, at)
                _spread(which, at_table, out + ((d - first) * width + n) * 4, plane, LANES)
        taps[0], table[0] = 0, 0  # numba frees an array after its last use, and addresses are none
        return
    for n in range(0, width, LANES):
        for d in range(first, last, LANES):
            for i in range(9):
                turn(pw + ((j + n) * c + d) * 36 + i * line, c * 36, at + i * LANES * line, line)
            for r in range(LANES):
                _fetch(pw + ((j + n + r) * c + d + LANES) * 36)
                for i in range(9):
                    table[i] = at + (r * 9 + i) * line
                _spread(which, at_table, out + ((d - first + r) * width + n) * 4, plane, LANES)
    taps[0] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def filters(m, pw, turned, pu, c, k, share):
    """Combinations of filters as panels (panels.py), `pu` [(m + 2)^2][c * k], for outputs share[0] .. share[1].

    The share begins where a panel does; pw, turned: see combined.
    """
    j = share[0]
    while j < share[1]:
        width = _width(j, k)
        combined(m, pw, turned, pu + j * c * 4, c * k * 4, c, k, j, width, 0, c)
        j += width


@njit(cache=True, nogil=True, error_model="numpy")
def taps_gradient_of(m, pdu, plane, line, pdw, c, j, width, zeros):
    """The gradient of the filters [k][c][9] to outputs j .. j + width from that of their combinations, [planes][c][line]."""
    taps, table = np.empty(9 * LANES * LANES, np.float32), np.empty(9, np.int64)
    at, at_table, row, which = taps.ctypes.data, table.ctypes.data, LANES * 4, _GRADIENT + m // 4
    for n in range(0, width, LANES):
        for d in range(0, c, LANES):
            for r in range(LANES):
                for i in range(9):
                    table[i] = at + (r * 9 + i) * row
                given = pdu + ((d + r) * line + n) * 4
                _gather(which, given, plane, at_table, at_table, zeros, _ONE, _NO_LIMIT, LANES)
            for i in range(9):
                turn(at + i * LANES * row, row, pdw + ((j + n) * c + d) * 36 + i * row, c * 36)
    taps[0] = 0  # see combined


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient(m, px, shape, pads, pdy, sizes, share, block, room, pdu, zeros):
    """The share of squares share[0] .. share[1] in the gradient of the filters' combinations, `pdu` [(m + 2)^2][c][k]."""
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    near, far = _distance(c), _distance(k)
    plane, plane_out = block * near * 4 + 64, block * far * 4 + 64
    combinations = (m + 2) ** 2
    gradients = room + combinations * plane
    t, last = share
    while t < last:
        rows = min(block, last - t)
        _combine(m // 4, m, px, shape, c, pads, squares, t, rows, room, near, plane, zeros)
        _combine(BACK + m // 4, m, pdy, sizes, k, (0, 0), squares, t, rows, gradients, far, plane_out, zeros)
        for p in range(combinations):
            out = pdu + p * c * k * 4
            begin, step = (zeros, 0) if t == share[0] else (out, k)
            turned_at(room + p * plane, near, gradients + p * plane_out, far, begin, step, out, rows, c, k)
        t += rows


@njit(cache=True, nogil=True, error_model="numpy")
def taps_gradient(m, pdu, pdw, c, k, zeros, share):
    """The gradient of the filters [k][c][9] to outputs share[0] .. share[1] from what :func:`filter_gradient` sums up."""
    first, last = share
    taps_gradient_of(m, pdu + first * 4, c * k * 4, k, pdw, c, first, last - first, zeros)


@njit(cache=True, nogil=True, error_model="numpy")
def room_of_panels(m, squares, c):
    """Bytes that a thread of :func:`forward_by_panels` or :func:`filter_gradient_by_panels` needs."""
    return (m + 2) ** 2 * 4 * (squares * (_distance(c) + PANEL) + c * PANEL + 48) + 4 * PANEL


@njit(cache=True, nogil=True, error_model="numpy")
def forward_by_panels(
    m, px, shape, pads, pw, turned, pu, po, sizes, count, share, room, bias, beside, slope, most, zeros
):  # fmt: skip
    """:func:`forward` where squares are few: all `count` squares, outputs share[0] .. share[1].

    pu: what :func:`filters` made; or 0, and panels of filters are combined, and used while the caches hold them. pw, turned:
    see combined.
    """
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    combinations, near = (m + 2) ** 2, _distance(c)
    plane, plane_out = count * near * 4 + 64, count * PANEL * 4 + 64
    plane_u = c * k * 4 if pu else c * PANEL * 4 + 64
    products = room + combinations * plane
    nobody = products + combinations * plane_out
    own = nobody + PANEL * 4
    _combine(m // 4, m, px, shape, c, pads, squares, 0, count, room, near, plane, zeros)
    j = share[0]
    while j < share[1]:
        width = _width(j, k)
        panel = pu + j * c * 4 if pu else own
        if not pu:
            combined(m, pw, turned, panel, plane_u, c, k, j, width, 0, c)
        for p in range(combinations):
            product_at(
                room + p * plane, near, count, panel + p * plane_u, c, width, zeros, 0, products + p * plane_out, PANEL
            )  # fmt: skip
        added = beside + j * 4 if beside else 0
        _results(
            m, products, PANEL, plane_out, po + j * 4, sizes, width, squares, 0, count, added, bias + j * 4, slope, most,
            nobody,
        )  # fmt: skip
        j += width


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient_by_panels(m, px, shape, pads, pdy, sizes, count, share, room, pdw, zeros):
    """The gradient of filters, `pdw`, where they are many and squares few; arguments as above."""
    c, k = shape[2], sizes[2]
    squares = (sizes[0] + m - 1) // m, (sizes[1] + m - 1) // m
    combinations, near = (m + 2) ** 2, _distance(c)
    plane, plane_out, plane_u = count * near * 4 + 64, count * PANEL * 4 + 64, c * PANEL * 4 + 64
    gradients = room + combinations * plane
    panel = gradients + combinations * plane_out
    _combine(m // 4, m, px, shape, c, pads, squares, 0, count, room, near, plane, zeros)
    j = share[0]
    while j < share[1]:
        width = _width(j, k)
        _combine(
            BACK + m // 4, m, pdy + j * 4, sizes, width, (0, 0), squares, 0, count, gradients, PANEL, plane_out, zeros
        )  # fmt: skip
        for p in range(combinations):
            turned_at(
                room + p * plane, near, gradients + p * plane_out, PANEL, zeros, 0, panel + p * plane_u, count, c, width
            )  # fmt: skip
        taps_gradient_of(m, panel, plane_u, width, pdw, c, j, width, zeros)
        j += width
