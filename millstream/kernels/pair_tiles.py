"""Products of bfloat16 matrices in register tiles (tiles.py), with float32 sums, where pairs.available().

The right matrix is laid out in panels of pairs: [depth / 2][64 columns][2]; a left matrix whose rows follow the depth is
pairs as it stands. Addresses; distances between rows in numbers of the matrix. Everything but numbers of rows is a multiple
of LANES, the depth of products that turn the right matrix one of 2 * LANES. `single`: the right matrix is float32 and
rounded as it is laid out: parameters need no copy in bfloat16.
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.pairs import LANES, interleave, interleave_rounded
from millstream.kernels.tiles import VECTORS, fetch_line, make_tile, tile_rows
from millstream.kernels.winograd_tiles import turn, turn_rounded

PANEL = LANES * VECTORS
_AHEAD = 8
_wide, _one = make_tile(VECTORS, _AHEAD, brain=True), make_tile(1, _AHEAD, brain=True)
_wide_rounded, _one_rounded = (make_tile(v, _AHEAD, brain=True, rounded=True) for v in (VECTORS, 1))
_turned_wide, _turned_one = (make_tile(v, _AHEAD, turned=True, brain=True) for v in (VECTORS, 1))
_turned_wide_rounded, _turned_one_rounded = (
    make_tile(v, _AHEAD, turned=True, brain=True, rounded=True) for v in (VECTORS, 1)
)

_LEFT = 400 << 10  # bytes of the left matrix that are multiplied by all panels before the next ones
_ROWS = 240
_SLAB, _COLUMNS = 512, 512  # products over rows: rows, and columns of the right matrix, that are taken at a time


@njit(cache=True, nogil=True, error_model="numpy")
def width_of(j, n):
    """Of the panel that begins with column j of n."""
    return PANEL if n - j >= PANEL else LANES


@njit(cache=True, nogil=True, error_model="numpy")
def pair_rows(pb, sb, depth, width, out, zeros):
    """Pairs of rows side by side: [depth, width] -> [depth / 2][width][2]; an odd last row is paired with zeros."""
    for k in range(0, depth, 2):
        first = pb + k * sb * 2
        second = first + sb * 2 if k + 1 < depth else zeros
        for j in range(0, width, LANES):
            interleave(first + j * 2, second + j * 2, out + (k // 2 * width + j) * 4)


@njit(cache=True, nogil=True, error_model="numpy")
def _pair_columns(pb, sb, depth, width, out):
    """The same of a matrix that stands the other way round, [width, depth]."""
    for j in range(0, width, LANES):
        for k in range(0, depth, 2 * LANES):
            turn(pb + (j * sb + k) * 2, sb * 2, out + (k // 2 * width + j) * 4, width * 4)


@njit(cache=True, nogil=True, error_model="numpy")
def lay_out(pb, sb, turned, depth, n, room, single):
    """Panels of the right matrix, [depth, n] or turned [n, depth], in `room` of depth * n numbers; depth even."""
    if single:
        _lay_out_single(pb, sb, turned, depth, n, room)
        return
    j = 0
    while j < n:
        width = width_of(j, n)
        if turned:
            _pair_columns(pb + j * sb * 2, sb, depth, width, room + j * depth * 2)
        else:
            pair_rows(pb + j * 2, sb, depth, width, room + j * depth * 2, 0)
        j += width


@njit(cache=True, nogil=True, error_model="numpy")
def _lay_out_single(pb, sb, turned, depth, n, room):
    """The same of float32 numbers, which come from memory: in its order, and what comes next is fetched on the way.

    One thread, [512, 512], us, panel by panel -> so: 98 -> 62, turned 86 -> 69; a cast and bfloat16's panels 129 and 132.
    """
    if turned:
        for j in range(0, n, LANES):
            panel = j // PANEL * PANEL
            width = width_of(panel, n)
            if width == LANES:
                panel = j
            for k in range(0, depth, 2 * LANES):
                given, out = pb + (j * sb + k) * 4, room + (panel * depth + k * width + (j - panel) * 2) * 2
                for i in range(LANES):
                    fetch_line(given + i * sb * 4 + 128)
                    fetch_line(given + i * sb * 4 + 192)
                turn_rounded(given, sb * 4, out, width * 4)
        return
    for k in range(0, depth, 2):
        first, second = pb + k * sb * 4, pb + (k + 1) * sb * 4
        for j in range(0, n, LANES):
            panel = j // PANEL * PANEL
            width = width_of(panel, n)
            if width == LANES:
                panel = j
            fetch_line(first + (2 * sb + j) * 4)
            fetch_line(second + (2 * sb + j) * 4)
            interleave_rounded(first + j * 4, second + j * 4, room + (panel * depth + k * width + (j - panel) * 2) * 2)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def panels_product_at(pa, sa, m, panels, depth, n, pf, po, so, rounded):
    """out = a @ b + first: bfloat16 [m, depth], panels of [depth, n], float32 [n], [m, n] rounded to bfloat16 or not."""
    pairs, size = depth // 2, 2 if rounded else 4
    strip = max(4, min(_ROWS, _LEFT // (depth * 2)) // 6 * 6)
    start = 0
    while start < m:
        end = min(start + strip, m)
        j = 0
        while j < n:
            width = width_of(j, n)
            panel = panels + j * depth * 2
            i = start
            while i < end:
                rows = tile_rows(end - i)
                at, out = pa + i * sa * 2, po + (i * so + j) * size
                if width == LANES:
                    if rounded:
                        _one_rounded(rows, at, sa // 2, panel, width, pf + j * 4, 0, out, so, pairs)
                    else:
                        _one(rows, at, sa // 2, panel, width, pf + j * 4, 0, out, so, pairs)
                elif rounded:
                    _wide_rounded(rows, at, sa // 2, panel, width, pf + j * 4, 0, out, so, pairs)
                else:
                    _wide(rows, at, sa // 2, panel, width, pf + j * 4, 0, out, so, pairs)
                i += rows
            j += width
        start = end


@njit(cache=True, nogil=True, error_model="numpy")
def product_at(pa, sa, m, pb, sb, turned, single, depth, n, pf, po, so, room):
    """out = a @ b + first, rounded: lay_out, then panels_product_at."""
    lay_out(pb, sb, turned, depth, n, room, single)
    panels_product_at(pa, sa, m, room, depth, n, pf, po, so, True)


@njit(cache=True, nogil=True, error_model="numpy")
def _block_of(m):
    """Columns of the left matrix that are taken at a time."""
    return _LEFT // (2 * min(m, _SLAB)) // LANES * LANES


@njit(cache=True, nogil=True, error_model="numpy")
def room_over_rows(m, k, n):
    """Bytes that :func:`over_rows_at` needs."""
    slab = (min(m, _SLAB) + 1) // 2 * 4
    block = min(k, _block_of(m))
    return slab * (block + PANEL) + (0 if m <= _SLAB else block * min(n, _COLUMNS) * 4)


@njit(cache=True, nogil=True, error_model="numpy")
def over_rows_at(pa, sa, pb, sb, m, k, n, po, so, room, zeros):
    """out = a.T @ b, rounded: bfloat16 [m, k], [m, n], [k, n]. zeros: bytes that are 0, for max(k, n) numbers of float32."""
    for j in range(0, n, _COLUMNS):
        columns = min(n - j, _COLUMNS)
        for i in range(0, k, _block_of(m)):
            block, out = min(k - i, _block_of(m)), po + (i * so + j) * 2
            _block_over_rows(pa + i * 2, sa, pb + j * 2, sb, m, block, columns, out, so, room, zeros)


@njit(cache=True, nogil=True, error_model="numpy")
def _block_over_rows(pa, sa, pb, sb, m, k, n, po, so, room, zeros):
    slab = min(m, _SLAB)
    panel = room + (slab + 1) // 2 * k * 4
    sums = panel + (slab + 1) // 2 * PANEL * 4
    start = 0
    while start < m:
        rows = min(slab, m - start)
        slab_over_rows(
            pa + start * sa * 2, sa, pb + start * sb * 2, sb, rows, k, n, room, panel, sums, po, so, start == 0,
            start + rows == m, zeros,
        )  # fmt: skip
        start += rows


@njit(cache=True, nogil=True, error_model="numpy")
def slab_over_rows(pa, sa, pb, sb, m, k, n, left, panel, sums, po, so, begins, ends, zeros):
    """a.T @ b of few rows: into `sums`, float32 [k, n], unless it `begins` added to what stands there; where it `ends` the
    result is rounded into the output instead. left, panel: room for pairs of rows of a, and of a panel of b."""
    pairs = (m + 1) // 2
    for i in range(0, k, LANES):
        pair_rows(pa + i * 2, sa, m, LANES, left + i * pairs * 4, zeros)
    j = 0
    while j < n:
        width = width_of(j, n)
        pair_rows(pb + j * 2, sb, m, width, panel, zeros)
        slab_product(left, k, panel, width, pairs, sums + j * 4, n, po + j * 2, so, begins, ends, zeros)
        j += width


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def slab_product(left, k, panel, width, pairs, sums, n, po, so, begins, ends, zeros):
    """Columns of a product over a slab of rows: to `sums` [k, n], or rounded to the output where it ends."""
    for i in range(0, k, LANES):
        r = 0
        while r < LANES:
            rows = tile_rows(LANES - r)
            at, total = left + (i * pairs + r) * 4, sums + (i + r) * n * 4
            first, step = (zeros, 0) if begins else (total, n)
            out = po + (i + r) * so * 2
            if width == LANES:
                if ends:
                    _turned_one_rounded(rows, at, LANES, panel, width, first, step, out, so, pairs)
                else:
                    _turned_one(rows, at, LANES, panel, width, first, step, total, n, pairs)
            elif ends:
                _turned_wide_rounded(rows, at, LANES, panel, width, first, step, out, so, pairs)
            else:
                _turned_wide(rows, at, LANES, panel, width, first, step, total, n, pairs)
            r += rows
