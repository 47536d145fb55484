"""3x3 convolutions of channels-last float32 maps in groups of channels, stride 1 or 2, and both gradients.

Some rows of a map are laid out in the cache, a vector of channels after the other, with zeros where filters reach beyond
them, and go through the register tiles of grouped_tiles.py. Channels go in chunks whose filters stay in the cache as well.
A `share` is a range of (chunk, picture, block of rows), counted with the rows fastest.

All pointers are addresses. `size`: (height, width, channels); `cut`: (channels of a chunk, rows of a block, group).
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.grouped_tiles import DEPTH, make_row, make_sums
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, copy

_BY_3, _BY_3_2, _BY_2, _BY_1 = (make_row(t, s, False) for t, s in ((3, 1), (3, 2), (2, 1), (1, 1)))
_BY_3_SHUFFLED, _BY_3_2_SHUFFLED, _BY_2_SHUFFLED, _BY_1_SHUFFLED = (
    make_row(t, s, True) for t, s in ((3, 1), (3, 2), (2, 1), (1, 1))
)
_SUMS, _SUMS_2 = make_sums(1, False), make_sums(2, False)
_SUMS_SHUFFLED, _SUMS_2_SHUFFLED = make_sums(1, True), make_sums(2, True)
_SUMS_OF_2, _SUMS_2_OF_2 = make_sums(1, True, 2), make_sums(2, True, 2)


@njit(cache=True, nogil=True, error_model="numpy")
def lay_out_filters(w, group, back, lines, share, out):
    """Filters [C * group * 3 * 3] of output channels in `share`, or with `back` from there to the input, as tiles read them.

    lines: for each tap of a row (number of `out` where its part begins, taps in this part, its place among them). A part is
    [C / LANES, 3, group / LANES or 1, depth, taps, LANES], with depth = min(group, LANES).
    """
    depth, blocks = min(group, LANES), max(group // LANES, 1)
    for o in range(share[0], share[1]):
        for j in range(group):
            channel, other = (o // group * group + j, o % group) if back else (o, j)
            line, lane = channel // LANES * 3 * blocks * depth, channel % LANES
            for tap in range(3):
                at = line + tap * blocks * depth + other
                for t in range(3):
                    begin, taps, place = lines[t]
                    out[begin + (at * taps + place) * LANES + lane] = w[((o * group + j) * 3 + tap) * 3 + t]


@njit(cache=True, nogil=True, error_model="numpy")
def collect_filters(sums, group, share, w):
    """The sum of all lines of `sums`, laid out as for a forward convolution, as filters."""
    depth, blocks = min(group, LANES), max(group // LANES, 1)
    for o in range(share[0], share[1]):
        line, lane = o // LANES * 3 * blocks * depth, o % LANES
        for j in range(group):
            for tap in range(3):
                at = ((line + tap * blocks * depth + j) * 3) * LANES + lane
                for t in range(3):
                    total = sums[0, at + t * LANES]
                    for k in range(1, sums.shape[0]):
                        total += sums[k, at + t * LANES]
                    w[((o * group + j) * 3 + tap) * 3 + t] = total


@njit(cache=True, nogil=True, error_model="numpy")
def plane_bytes(rows, width):
    """Bytes between vectors of channels of `rows` rows laid out: an odd number of lines, lest they share cache sets."""
    return ((rows * width) | 1) * BYTES


@njit(cache=True, nogil=True, error_model="numpy")
def _lay_out(px, size, n, top, rows, left, width, first, chunk, room, zeros):
    """Rows top .. and columns left .. of picture n, channels first .. first + chunk: [vectors of channels, rows, width]."""
    height, whole, c = size
    plane = plane_bytes(rows, width)
    for i in range(rows):
        if not 0 <= top + i < height:
            continue  # nobody reads them
        for j in range(width):
            inside = 0 <= left + j < whole
            at = px + (((n * height + top + i) * whole + left + j) * c + first) * 4
            to = room + (i * width + j) * BYTES
            for v in range(chunk // LANES):
                copy(at + v * BYTES if inside else zeros, to + v * plane)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _tile(taps, step, shuffled, given):
    if shuffled:
        if taps == 2:
            _BY_2_SHUFFLED(given)
        elif taps == 1:
            _BY_1_SHUFFLED(given)
        elif step == 1:
            _BY_3_SHUFFLED(given)
        else:
            _BY_3_2_SHUFFLED(given)
    elif taps == 2:
        _BY_2(given)
    elif taps == 1:
        _BY_1(given)
    elif step == 1:
        _BY_3(given)
    else:
        _BY_3_2(given)


@njit(cache=True, nogil=True, error_model="numpy")
def _source(row, tap, stride, pad, back):
    """The row of the input that the output's `row` sees through a tap; -1: none."""
    if not back:
        return row * stride + tap - pad
    found = row + pad - tap
    return found // stride if found >= 0 and found % stride == 0 else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _span(first, last, stride, pad, back):
    """(first, number) of the rows of the input that rows first .. last of the output see."""
    if not back:
        return first * stride - pad, (last - 1 - first) * stride + 3
    low = (first + pad - 2) // stride
    return low, (last - 1 + pad) // stride - low + 1


@njit(cache=True, nogil=True, error_model="numpy")
def room_bytes(cut, stride, width):
    """Of the room in which a block of rows is laid out; `width` as in :func:`correlate`'s layout."""
    return plane_bytes((cut[1] - 1) * stride + 3, width) * (cut[0] // LANES)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(first, pixels, to, distance):
    for p in range(pixels):
        copy(first, to + p * distance)


@njit(cache=True, nogil=True, error_model="numpy")
def correlate(px, size, pw, pf, po, out, cut, stride, pad, back, layout, phases, share, images, room, zeros, table):
    """Output [images, *out] of a convolution or, with `back`, the gradient of its input.

    px, size: the input, or the gradient of the output. pw: filters by :func:`lay_out_filters`; pf: what sums begin with [C].
    layout: (first column of the rows laid out, their number). phases, int64: of columns that are as many apart as there are
    phases, where their filters begin, taps, step of the input, the column laid out that the first one begins with, their
    number, pixels of a tile. table, int64: room for pairs.
    """
    chunk, deep, group = cut
    shuffled, depth, blocks = group < LANES, min(group, LANES), max(group // LANES, 1)
    height, width, c = out
    levels = -(-height // deep)
    for item in range(share[0], share[1]):
        n, level = divmod(item % (images * levels), levels)
        first = item // (images * levels) * chunk
        begin, end = level * deep, min(level * deep + deep, height)
        many = min(chunk, c - first)
        top, rows = _span(begin, end, stride, pad, back)
        _lay_out(px, size, n, top, rows, layout[0], layout[1], first, many, room, zeros)
        plane = plane_bytes(rows, layout[1])
        for v in range(many // LANES):
            vector, planes = first // LANES + v, room + v // blocks * blocks * plane
            for row in range(begin, end):
                to = po + ((n * height + row) * width * c + vector * LANES) * 4
                for r in range(len(phases)):
                    filters, taps, step = phases[r, 0], phases[r, 1], phases[r, 2]
                    column, outputs, pixels = phases[r, 3], phases[r, 4], phases[r, 5]
                    count = 0
                    for tap in range(3):
                        seen = _source(row, tap, stride, pad, back)
                        if not 0 <= seen < size[0]:
                            continue
                        at = planes + ((seen - top) * layout[1] + column) * BYTES
                        for b in range(blocks):
                            table[count, 0] = at + b * plane
                            line = ((vector * 3 + tap) * blocks + b) * depth * taps
                            table[count, 1] = pw + filters + line * BYTES
                            count += 1
                    distance, begins = len(phases) * c * 4, pf + vector * BYTES
                    for start in range(0, outputs, pixels):
                        u = min(start, outputs - pixels)  # some pixels twice
                        here = to + (u * len(phases) + r) * c * 4
                        if count == 0:
                            _fill(begins, pixels, here, distance)
                        else:
                            given = pixels, table.ctypes.data, count, u * step * BYTES, depth, group, begins, here, distance
                            _tile(taps, step, shuffled, given)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _sum(step, group, given):
    if group >= LANES:
        if step == 1:
            _SUMS(given)
        else:
            _SUMS_2(given)
    elif group == 2:
        if step == 1:
            _SUMS_OF_2(given)
        else:
            _SUMS_2_OF_2(given)
    elif step == 1:
        _SUMS_SHUFFLED(given)
    else:
        _SUMS_2_SHUFFLED(given)


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient(px, size, pd, out, cut, stride, pads, width, pixels, share, images, room, beside, zeros, table, sums):
    """sums += the gradient of the filters, in the order of :func:`lay_out_filters`.

    px, size: the input; pd, out: the output's gradient; width: columns laid out, from the first zero on; pixels: of the
    output, taken at a time; room, beside: for rows of both.
    """
    pad, left = pads
    chunk, deep, group = cut
    depth, blocks = min(group, LANES), max(group // LANES, 1)
    height, wide, c = out
    levels, turns = -(-height // deep), wide // pixels
    for item in range(share[0], share[1]):
        n, level = divmod(item % (images * levels), levels)
        first = item // (images * levels) * chunk
        begin, end = level * deep, min(level * deep + deep, height)
        many = min(chunk, c - first)
        top, rows = _span(begin, end, stride, pad, False)
        _lay_out(px, size, n, top, rows, -left, width, first, many, room, zeros)
        _lay_out(pd, out, n, begin, end - begin, 0, wide, first, many, beside, zeros)
        plane, under = plane_bytes(rows, width), plane_bytes(end - begin, wide)
        for v in range(many // LANES):
            vector, planes = first // LANES + v, room + v // blocks * blocks * plane
            for tap in range(3):
                for b in range(blocks):
                    count = 0
                    for row in range(begin, end):
                        seen = row * stride + tap - pad
                        if 0 <= seen < size[0]:
                            table[count, 0] = planes + b * plane + (seen - top) * width * BYTES
                            table[count, 1] = beside + v * under + (row - begin) * wide * BYTES
                            count += 1
                    if count == 0:
                        continue
                    for channel in range(0, depth, min(DEPTH, depth)):
                        to = sums + (((vector * 3 + tap) * blocks + b) * depth + channel) * 3 * BYTES
                        _sum(stride, group, (pixels, turns, 0, table.ctypes.data, count, group, channel, to))
                        if turns * pixels < wide:
                            rest = wide - turns * pixels
                            _sum(stride, group, (1, rest, turns * pixels, table.ctypes.data, count, group, channel, to))
