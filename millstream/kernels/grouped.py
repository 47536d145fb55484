"""3x3 convolutions of channels-last float32 maps in groups of channels, stride 1 or 2, and both gradients.

Some rows of a map are laid out in the cache, a vector of channels after the other, with zeros where filters reach beyond
them, and go through the register tiles of grouped_tiles.py. Channels go in chunks whose filters stay in the cache as well.
A `share` is a range of (chunk, picture, block of rows), counted with the rows fastest.

All pointers are addresses. `size`: (height, width, channels); `cut`: (channels of a chunk, rows of a block, group).
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.grouped_lines import back_row, count_row, read_pixel
from millstream.kernels.grouped_tiles import DEPTH, make_row, make_sums
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, copy

KEEP, COUNT, BACK = 0, 1, 2  # what is done to results: nothing, or one of the last rows of grouped_lines.py
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


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _lay_out(given, size, n, top, rows, left, width, first, chunk, room, zeros):
    """Rows top .. and columns left .. of picture n, channels first .. first + chunk: [vectors of channels, rows, width].

    given: (how, map, other map, line) as grouped_lines.read_pixel takes them.
    """
    height, whole, c = size
    how, x, dz, line = given
    plane, vectors = plane_bytes(rows, width), chunk // LANES
    for i in range(rows):
        if not 0 <= top + i < height:
            continue  # nobody reads them
        for j in range(width):
            to = room + (i * width + j) * BYTES
            if 0 <= left + j < whole:
                at = (((n * height + top + i) * whole + left + j) * c + first) * 4
                read_pixel((how, x + at, dz + at, line + first * 4, c * 4, vectors, to, plane))
            else:
                for v in range(vectors):
                    copy(zeros, to + v * plane)


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


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _finish(made, to, at, turns, pixels, vector, c):
    """What is done to a vector of channels of a row, pixel by pixel; made: see :func:`correlate`."""
    how, _, x, line, total, square = made
    line, total, square = line + vector * BYTES, total + 2 * vector * BYTES, square + 2 * vector * BYTES
    if how == COUNT:
        count_row((pixels, turns, to + at, c * 4, line, total, square))
    else:
        back_row((how - BACK, pixels, turns, to + at, x + at, c * 4, line, c * 4, total, square))


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _make_rows(po, out, n, begin, end, channels, laid, seen_rows, form, pw, pf, phases, made, table):
    """Rows begin .. end of the output from rows laid out, see :func:`correlate`.

    channels: (first, number, of a group); laid: (address, first row, bytes between vectors of channels, columns) of these,
    of seen_rows in a picture; form: (stride, pad, back).
    """
    first, many, group = channels
    room, top, plane, columns = laid
    shuffled, depth, blocks = group < LANES, min(group, LANES), max(group // LANES, 1)
    height, width, c = out
    for v in range(many // LANES):
        vector, planes = first // LANES + v, room + v // blocks * blocks * plane
        for row in range(begin, end):
            line = ((n * height + row) * width * c + vector * LANES) * 4
            for r in range(len(phases)):
                filters, taps, step = phases[r, 0], phases[r, 1], phases[r, 2]
                column, outputs, pixels = phases[r, 3], phases[r, 4], phases[r, 5]
                count = 0
                for tap in range(3):
                    seen = _source(row, tap, *form)
                    if not 0 <= seen < seen_rows:
                        continue
                    at = planes + ((seen - top) * columns + column) * BYTES
                    for b in range(blocks):
                        table[count, 0] = at + b * plane
                        table[count, 1] = pw + filters + (((vector * 3 + tap) * blocks + b) * depth * taps) * BYTES
                        count += 1
                distance, begins = len(phases) * c * 4, pf + vector * BYTES
                for start in range(0, outputs, pixels):
                    u = min(start, outputs - pixels)  # some pixels twice
                    here = po + line + (u * len(phases) + r) * c * 4
                    if count == 0:
                        _fill(begins, pixels, here, distance)
                    else:
                        given = pixels, table.ctypes.data, count, u * step * BYTES, depth, group, begins, here, distance
                        _tile(taps, step, shuffled, given)
            if made[0] == KEEP:
                continue
            whole = width // made[1]
            if whole:
                _finish(made, po, line, whole, made[1], vector, c)
            if width > whole * made[1]:
                _finish(made, po, line + whole * made[1] * c * 4, width - whole * made[1], 1, vector, c)


@njit(cache=True, nogil=True, error_model="numpy")
def correlate(given, size, pw, pf, po, out, cut, stride, pad, back, layout, phases, made, share, images, room, zeros, table):
    """Output [images, *out] of a convolution or, with `back`, the gradient of its input.

    given: (how, map, other map, line) as grouped_lines.read_pixel takes them: the input, or the gradient of the output, of
    `size`. pw: filters by :func:`lay_out_filters`; pf: what sums begin with [C].
    layout: (first column of the rows laid out, their number). phases, int64: of columns that are as many apart as there are
    phases, where their filters begin, taps, step of the input, the column laid out that the first one begins with, their
    number, pixels of a tile. made: (KEEP, …), (COUNT, pixels at a time, 0, shift, total, square) or (BACK and a kind of
    activation, pixels at a time, x, line, total, dot), see grouped_lines.py. table, int64: room for pairs.
    """
    chunk, deep, group = cut
    height, c = out[0], out[2]
    levels = -(-height // deep)
    for item in range(share[0], share[1]):
        n, level = divmod(item % (images * levels), levels)
        first = item // (images * levels) * chunk
        begin, end = level * deep, min(level * deep + deep, height)
        many = min(chunk, c - first)
        top, rows = _span(begin, end, stride, pad, back)
        _lay_out(given, size, n, top, rows, layout[0], layout[1], first, many, room, zeros)
        laid = room, top, plane_bytes(rows, layout[1]), layout[1]
        channels, form = (first, many, group), (stride, pad, back)
        _make_rows(po, out, n, begin, end, channels, laid, size[0], form, pw, pf, phases, made, table)


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


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def _add_products(x, d, begin, end, seen_rows, channels, form, pixels, wide, table, sums):
    """sums += gradients of filters of rows begin .. end of the output; x, d: rows laid out, as in :func:`_make_rows`."""
    first, many, group = channels
    stride, pad, _ = form
    depth, blocks, turns = min(group, LANES), max(group // LANES, 1), wide // pixels
    for v in range(many // LANES):
        vector, planes = first // LANES + v, x[0] + v // blocks * blocks * x[2]
        for tap in range(3):
            for b in range(blocks):
                count = 0
                for row in range(begin, end):
                    seen = row * stride + tap - pad
                    if 0 <= seen < seen_rows:
                        table[count, 0] = planes + b * x[2] + (seen - x[1]) * x[3] * BYTES
                        table[count, 1] = d[0] + v * d[2] + (row - d[1]) * d[3] * BYTES
                        count += 1
                if count == 0:
                    continue
                for channel in range(0, depth, min(DEPTH, depth)):
                    to = sums + (((vector * 3 + tap) * blocks + b) * depth + channel) * 3 * BYTES
                    _sum(stride, group, (pixels, turns, 0, table.ctypes.data, count, group, channel, to))
                    if turns * pixels < wide:
                        rest = wide - turns * pixels
                        _sum(stride, group, (1, rest, turns * pixels, table.ctypes.data, count, group, channel, to))


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    given, size, width, given_out, out, layout, cut, stride, pads, pixels, pw, phases, px, made, share, images, room, beside,
    zeros, table, sums,
):  # fmt: skip
    """Gradients of a convolution: sums += that of the filters, in the order of :func:`lay_out_filters`, and the input's.

    given, size: the input; width: its columns laid out, from the first zero on; given_out, out, layout: the output's
    gradient; pixels: of the output, taken at a time; px: the gradient of the input, or 0 where nobody wants it; made: of it.
    The rest is as :func:`correlate` takes it. room, beside: for rows of both.
    """
    pad, left = pads
    chunk, deep, group = cut
    height, wide, c = out
    levels = -(-height // deep)
    for item in range(share[0], share[1]):
        n, level = divmod(item % (images * levels), levels)
        first = item // (images * levels) * chunk
        begin, end = level * deep, min(level * deep + deep, height)
        many = min(chunk, c - first)
        channels = first, many, group
        top, rows = _span(begin, end, stride, pad, False)
        _lay_out(given, size, n, top, rows, -left, width, first, many, room, zeros)
        low, high = begin, end
        before, after = min(begin * stride, size[0]), min(end * stride, size[0]) if end < height else size[0]
        if px != 0 and before < after:
            seen, count = _span(before, after, stride, pad, True)
            low, high = max(min(seen, low), 0), min(max(seen + count, high), height)
        _lay_out(given_out, out, n, low, high - low, layout[0], layout[1], first, many, beside, zeros)
        x = room, top, plane_bytes(rows, width), width
        d = beside, low, plane_bytes(high - low, layout[1]), layout[1]
        inside = d[0] - layout[0] * BYTES, d[1], d[2], d[3]  # from the output's first column on
        _add_products(x, inside, begin, end, size[0], channels, (stride, pad, False), pixels, wide, table, sums)
        if px != 0:
            _make_rows(
                px, size, n, before, after, channels, d, height, (stride, pad, True), pw, zeros, phases, made, table
            )
