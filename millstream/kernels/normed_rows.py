"""Convolutions with 1x1 filters between two batch normalisations, over rows of channels, and their gradients.

A batch normalisation reads and writes maps that do not fit the caches, several times, and computes little. Here it has no
passes of its own. A kernel takes some rows of the map before the normalisation, normalises them in the cache, multiplies,
and sums up what the next normalisation needs to know while the results are in the cache. Normalised maps are never written;
gradients recompute them. The gradient of a normalisation, a * dz + q * x + r with two sums over the whole map in q and r,
is applied likewise by whoever reads it (`back`), while the sums are made by whoever makes dz.

Arrays are float32 and row-major; rows of few channels are taken `group` at a time by loops over columns, so that those are
long: [rows, channels] then stands as [rows / group, group * channels]. A part works on rows first .. last, whole groups.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.batch_norm import apply_line, count
from millstream.kernels.brain import put, wide
from millstream.kernels.compiled import njit
from millstream.kernels.curves import bent_slope
from millstream.kernels.laid import product_laid_at
from millstream.kernels.tiles import LANES, VECTORS, fetch_line, make_fetching_tile, tile_rows, turned_at
from millstream.kernels.vectors import copy
from millstream.kernels.winograd_tiles import turn

ROWS = 240  # that are in the cache at a time
_SHARE = 120  # rows that are multiplied with all panels, while tiles fetch what as many of the next ones need
_LINE, _FLOATS = 64, 16  # of the cache: bytes, numbers
_BLOCK = 32
_wide, _one = make_fetching_tile(VECTORS, 8), make_fetching_tile(1, 8)


@njit(cache=True, nogil=True, error_model="numpy")
def back(x, dz, p, q, r, begin, end, g):
    """g = p * dz + q * x + r over rows begin .. end, from g's first row on."""
    for i in range(begin, end):
        for j in range(x.shape[1]):
            put(g, i - begin, j, p[j] * wide(dz[i, j]) + q[j] * wide(x[i, j]) + r[j])


@njit(cache=True, nogil=True, error_model="numpy")
def _back_through(x, dy, a, b, bend, p, q, r, begin, end, g):
    """:func:`back` with dz: dy, times slope where x * a + b is not above 0, 0 where it is not below most (`bend`), or times
    a curve's slope."""
    slope, most = bend
    for i in range(begin, end):
        for j in range(x.shape[1]):
            v, d = wide(x[i, j]), wide(dy[i, j])
            y = v * a[j] + b[j]
            z = bent_slope(d, y, slope, most)
            put(g, i - begin, j, p[j] * z + q[j] * v + r[j])


@njit(cache=True, nogil=True, error_model="numpy")
def give(x, dz, line, bend, begin, end, g):
    """The gradient of x by a line [p, q, r], or [p, q, r, a, b]: then dz is what it is behind the activation."""
    if line.shape[0] == 5:
        _back_through(x, dz, line[3], line[4], bend, line[0], line[1], line[2], begin, end, g)
    else:
        back(x, dz, line[0], line[1], line[2], begin, end, g)


@njit(cache=True, nogil=True, error_model="numpy")
def give_pictures(x, dz, lines, each, bend, begin, end, g):
    """:func:`give` of pictures of `each` rows, with a line for each."""
    at = begin
    while at < end:
        n = at // each
        stop = min(end, (n + 1) * each)
        give(x, dz, lines[n], bend, at, stop, g[at - begin :])
        at = stop


@njit(cache=True, nogil=True, error_model="numpy")
def relu_back(x, dy, a, b, bend, mean, begin, end, dz, total, dot):
    """Rows begin .. end of dz, from the first rows of dy, as in :func:`_back_through`.

    total += sum of dz, dot += sum of dz * (x - mean). dz must not be dy, which would keep the loop from being vectorised.
    """
    width = x.shape[1]
    slope, most = bend
    s, q = np.zeros(width, mean.dtype), np.zeros(width, mean.dtype)
    for start in range(begin, end, _BLOCK):
        s[:] = 0
        q[:] = 0
        for i in range(start, min(start + _BLOCK, end)):
            for j in range(width):
                v, d = wide(x[i, j]), wide(dy[i - begin, j])
                y = v * a[j] + b[j]
                z = bent_slope(d, y, slope, most)
                put(dz, i, j, z)
                s[j] += z
                q[j] += z * (v - mean[j])
        for j in range(width):
            total[j] += s[j]
            dot[j] += q[j]


@njit(cache=True, nogil=True, error_model="numpy")
def add_before_sum(y, more, summed, center, begin, end, dx, total, dot):
    """Rows of `more` are added to those of dx, which then are 0 where y, the relu of a sum, is not above 0.

    total += sum of dx, dot += sum of dx * (summed - center).
    """
    width, zero = dx.shape[1], np.float32(0)
    s, q = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for start in range(begin, end, _BLOCK):
        s[:] = 0
        q[:] = 0
        for i in range(start, min(start + _BLOCK, end)):
            for j in range(width):
                put(dx, i, j, wide(dx[i, j]) + wide(more[i, j]))  # rounded as by an operator of its own
                g = wide(dx[i, j]) if wide(y[i, j]) > zero else zero
                put(dx, i, j, g)
                s[j] += g
                q[j] += g * (wide(summed[i, j]) - center[j])
        for j in range(width):
            total[j] += s[j]
            dot[j] += q[j]


@njit(cache=True, nogil=True, error_model="numpy")
def lay_out(pw, rows, columns, turned, first, last, panels):
    """Columns first .. last of a matrix, at the address pw, as panels.py has them.

    The matrix is [rows, columns], at least LANES of each, or stands in memory `turned`, as [columns, rows]. The last panel
    has the last LANES columns, also those that another one has; first and `last` are multiples of a panel, but for the end.
    """
    j = first
    while j < last:
        width = LANES * VECTORS if columns - j >= LANES * VECTORS else LANES
        at = panels + j * rows * 4
        for k in range(0, rows, LANES):
            i = min(k, rows - LANES)
            for a in range(0, width, LANES):
                column = min(j + a, columns - LANES)
                if turned:
                    turn(pw + (column * rows + i) * 4, rows * 4, at + (i * width + a) * 4, width * 4)
                else:
                    for b in range(LANES):
                        copy(pw + ((i + b) * columns + column) * 4, at + ((i + b) * width + a) * 4)
        j += width


@njit(cache=True, nogil=True, error_model="numpy")
def _turns(size, depth):
    """How many tiles fetch `size` bytes, a line for each step of the depth."""
    return -(-size // (depth * _LINE))


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _share_product(pa, sa, rows, panels, depth, columns, start, step, out, so, coming):
    """:func:`panels.product_at`, whose tiles fetch `coming` meanwhile: (address, bytes) of each map, tiles apart."""
    width = LANES * VECTORS
    wanted = 1
    for _, size in coming:
        wanted += _turns(size, depth)
    each = max((rows + 5) // 6 * (columns // width + (columns % width + LANES - 1) // LANES) // wanted, 1)
    turn, place, at, left = 0, 0, coming[0][0], coming[0][1]
    j = 0
    while j < columns:
        whole = columns - j >= width
        panel, to = panels + j * depth * 4, min(j, columns - LANES)
        i = 0
        while i < rows:
            lines = tile_rows(rows - i)
            at_a, first, at_out = pa + i * sa * 4, start + (i * step + to) * 4, out + (i * so + to) * 4
            turn += 1
            line, far = panel, 0  # nothing new
            if turn % each == 0:
                while left <= 0 and place + 1 < len(coming):
                    place += 1
                    at, left = coming[place]
                if left > 0:
                    line, far = at, _LINE
                    at += depth * _LINE
                    left -= depth * _LINE
            if whole:
                _wide(lines, at_a, sa, panel, width, first, step, at_out, so, depth, line, far)
            else:
                _one(lines, at_a, sa, panel, LANES, first, step, at_out, so, depth, line, far)
            i += lines
        j += width if whole else LANES
    while place < len(coming):  # more than the tiles have steps
        for more in range(0, left, _LINE):
            fetch_line(at + more)
        place += 1
        if place < len(coming):
            at, left = coming[place]


@njit(cache=True, nogil=True, error_model="numpy")
def _product(pa, sa, rows, panels, depth, columns, start, step, out, so, coming):
    """Rows times a matrix in panels, added to rows at `start`, `step` numbers apart.

    On the way what as many of the next rows need is fetched: (address, bytes a row) of each of three maps.
    """
    for i in range(0, rows, _SHARE):
        share = min(_SHARE, rows - i)
        (p, far_p), (q, far_q), (r, far_r) = coming
        near = (p + i * far_p, share * far_p), (q + i * far_q, share * far_q), (r + i * far_r, share * far_r)
        _share_product(
            pa + i * sa * 4, sa, share, panels, depth, columns, start + i * step * 4, step, out + i * so * 4, so, near
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _apart(columns):
    """How far apart rows of room are: whole lines, and no power of two, as those would share few sets of a cache."""
    far = (columns + _FLOATS - 1) // _FLOATS * _FLOATS
    return far + _FLOATS if far % 256 == 0 else far


@njit(cache=True, nogil=True, error_model="numpy")
def room(rows, columns):
    """An array whose rows begin with a line of the cache if `columns` are whole lines: vectors across two take longer."""
    whole = np.empty(rows * columns + _FLOATS, np.float32)
    begin = -(whole.ctypes.data >> 2) % _FLOATS
    return whole[begin : begin + rows * columns].reshape(rows, columns)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(x, group, line, bend, panels, zeros, out, group_out, first, last, shift, total, square):
    """Rows of `out`: the normalised x times the filters, in panels; its sums, where `total` is not empty."""
    c, k = x.shape[1] // group, out.shape[1] // group_out
    normed = line.shape[0] > 0
    kept = room(ROWS // group if normed else 0, x.shape[1])
    pa = kept.ctypes.data
    for i in range(first, last, ROWS):
        end = min(i + ROWS, last)
        if normed:
            apply_line(x[i // group : end // group], line[0], line[1], bend, 0, (end - i) // group, kept)
        else:
            pa = x.ctypes.data + i * c * 4
        po = out.ctypes.data + i * k * 4
        coming = (x.ctypes.data + end * c * 4, c * 4), (po + (end - i) * k * 4, k * 4), (po, 0)
        _product(pa, c, end - i, panels, c, k, zeros, 0, po, k, coming)
        if total.shape[0]:
            count(out, i // group_out, end // group_out, i == first, shift, total, square)


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    x, group, line, bend, panels, zeros, out, group_out, dout, end_lines, each, end_bend, added, summed, center, first, last,
    dx, dw, tail, total, dot,
):  # fmt: skip
    """Rows of dx: dz of x's normalisation, or plain; dw: the share of these rows in the filters' gradient [k, c].

    dw has the columns that are whole vectors, and `tail` [k, LANES] the last LANES where there are more.
    line: [a, b, mean] of x's normalisation, or empty; end_lines: those of :func:`give` for `out`, each for `each` of its
    rows, or empty: then `dout` is its gradient itself. added: what is added to a plain dx, of its shape, or empty.
    """
    c, k = x.shape[1] // group, dout.shape[1] // group_out
    normed, ended = line.shape[0] > 0, end_lines.shape[0] > 0
    far_x, far_g = _apart(c) if normed and group == 1 else c, _apart(k) if ended and group_out == 1 else k
    kept = room(ROWS // group if normed else 0, far_x * group)
    given = room(ROWS // group_out if ended else 0, far_g * group_out)
    py, pg, pd, pt, whole = kept.ctypes.data, given.ctypes.data, dw.ctypes.data, tail.ctypes.data, dw.shape[1]
    for i in range(first, last, ROWS):
        end = min(i + ROWS, last)
        if ended:
            give_pictures(out, dout, end_lines, each, end_bend, i // group_out, end // group_out, given)
        else:
            pg = dout.ctypes.data + i * k * 4
        if normed:
            apply_line(x[i // group : end // group], line[0], line[1], bend, 0, (end - i) // group, kept)
        else:
            py = x.ctypes.data + i * c * 4
        fresh = i == first
        turned_at(pg, far_g, py, far_x, zeros if fresh else pd, 0 if fresh else whole, pd, end - i, k, whole)
        if whole < c:
            pe = py + (c - LANES) * 4
            turned_at(pg, far_g, pe, far_x, zeros if fresh else pt, 0 if fresh else LANES, pt, end - i, k, LANES)
        if not dx.shape[0]:
            continue
        near, far = end * c * 4, end * k * 4
        coming = (x.ctypes.data + near, c * 4), (out.ctypes.data + far, k * 4), (dout.ctypes.data + far, k * 4)
        if normed:
            _product(pg, far_g, end - i, panels, k, c, zeros, 0, py, far_x, coming)
            relu_back(x, kept, line[0], line[1], bend, line[2], i // group, end // group, dx, total, dot)
        else:
            behind = summed.shape[0] > 0
            start, step = (added.ctypes.data + i * c * 4, c) if added.shape[0] and not behind else (zeros, 0)
            _product(pg, far_g, end - i, panels, k, c, start, step, dx.ctypes.data + i * c * 4, c, coming)
            if behind:
                add_before_sum(x, added, summed, center, i // group, end // group, dx, total, dot)


@njit(cache=True, nogil=True, error_model="numpy")
def back_at(pg, py, pw, zeros, added, rows, k, c, pdx, columns, pdw, share):
    """Where rows are few: columns of dx = g @ w (+ added), rows `share` of dw = g.T @ y; addresses, 0: not wanted.

    float32 g [rows, k], y and dx [rows, c], w and dw [k, c].
    """
    if pdx:
        at = columns[0] * 4
        start, step = (added + at, c) if added else (zeros, 0)
        product_laid_at(pg, k, pw + at, c, 0, start, step, pdx + at, c, rows, k, columns[1] - columns[0], 0, 0)
    first, last = share
    turned_at(pg + first * 4, k, py, c, zeros, 0, pdw + first * c * 4, rows, last - first, c)
