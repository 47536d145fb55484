"""Depthwise convolutions (3x3, stride 1 or 2, or dilated) between two batch normalisations, and their gradients.

What normed_rows.py is for 1x1 filters: pixels are normalised as they are filtered in registers (depthwise_sweeps.py),
a vector of channels at a time (the last one with channels that another has, where they fill no vectors), and summed up for
the next normalisation. Maps are float32 [N * height, width, channels]; `line` [5, channels] and `mode` say what is read of
`x`. A part works on rows first .. last of the output's pixels, counted over all pictures.

There are as many zeros around a picture as `dilation` says, 1 where filters have no holes. With holes, columns that are as
many apart make a row of their own, and rows likewise a picture of their own: sweeps step from one to the next. `taps` and
`line` have `dilation` * channels columns then, of which the first are used: a sweep has one distance for all.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.batch_norm import count
from millstream.kernels.compiled import njit
from millstream.kernels.depthwise_sweeps import back_1, back_2, filtered_1, filtered_2
from millstream.kernels.normed_rows import give, room
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import copy_line

_SLOTS = 4  # rows at hand, in the places of their numbers modulo this
_PIXELS = 24  # filtered of all channels before the next ones: a long row stands on more pages than are quick to reach
_TAPS = 9


@njit(cache=True, nogil=True, error_model="numpy")
def _share(pixels):
    """How many pixels of a row are filtered at a time."""
    return -(-pixels // -(-pixels // _PIXELS))


@njit(cache=True, nogil=True, error_model="numpy")
def _apart(number, dilation, phase):
    """How many of `number` pixels, or rows, are `dilation` apart from each other and begin with the one at `phase`."""
    return (number - phase + dilation - 1) // dilation


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(turn, tall, dilation):
    """The row of a picture that is taken in a turn: those that are `dilation` apart follow each other."""
    phase = 0
    while turn >= _apart(tall, dilation, phase):
        turn -= _apart(tall, dilation, phase)
        phase += 1
    return phase + turn * dilation


@njit(cache=True, nogil=True, error_model="numpy")
def _filter_row(
    stride, dilation, rows, taps, line, mode, out, shift, sums, far, channels, width, coming, coming_out
):  # fmt: skip
    """A row of the output; rows, taps: the addresses of three rows and of their filters; width: the input's pixels."""
    step = channels * dilation
    for phase in range(min(dilation, width)):
        whole = _apart(width, dilation, phase)
        pixels = (whole - 1) // stride + 1
        share = _share(pixels)
        for j in range(0, pixels, share):
            size = min(share, pixels - j)
            before, after = int(j > 0), int((j + size) * stride - stride + 1 < whole)
            for start in range(0, channels, LANES * 4):
                a = min(start, channels - LANES * 4)
                n, m = phase * channels + j * stride * step + a, phase * channels + j * step + a
                given = (rows[0] + n, rows[1] + n, rows[2] + n, taps[0] + a, taps[1] + a, taps[2] + a, line + a, mode,
                         out + m, shift + a, sums + start, far, step, size, before, after)
                if stride == 1:
                    filtered_1((*given, coming + n, coming_out + m))
                else:
                    filtered_2((*given, coming + n, coming + width * step + n, coming_out + m))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_row(sums, row, to):
    """to [c] += a row of sums of whole vectors, of which the last vector has the last channels."""
    c, wide = len(to), sums.shape[1]
    whole = c - c % LANES
    for j in range(whole):
        to[j] += sums[row, j]
    for j in range(whole, c):
        to[j] += sums[row, j + wide - c]


@njit(cache=True, nogil=True, error_model="numpy")
def _whole(channels):
    return (channels + LANES - 1) // LANES * LANES


@njit(cache=True, nogil=True, error_model="numpy")
def forward(x, line, mode, taps, out, stride, dilation, heights, first, last, shift, total, square):
    """Rows of `out`; its sums, where `total` is not empty. heights: of the input's pictures and the output's."""
    c, width = x.shape[2], x.shape[1]
    tall, tall_out = heights
    step, wide_out = c * 4, out.shape[1]
    nothing, off, sums = np.zeros((3, c * dilation), np.float32), np.zeros(c, np.float32), room(2, _whole(c))
    rows, factors = np.empty(3, np.int64), np.empty(3, np.int64)
    for i in range(first, last):
        picture, row = divmod(i, tall_out)
        for k in range(3):
            r = row * stride + (k - 1) * dilation
            if 0 <= r < tall:
                rows[k], factors[k] = x[picture * tall + r].ctypes.data, taps[3 * k].ctypes.data
            else:  # no such row: another one, times 0
                rows[k], factors[k] = x[picture * tall + row * stride].ctypes.data, nothing.ctypes.data
        sums[:] = 0
        coming = x.ctypes.data + (picture * tall + (row + 1) * stride + 1 + dilation - stride) * width * step
        po = out[i].ctypes.data
        _filter_row(
            stride, dilation, rows, factors, line.ctypes.data, mode, po, off.ctypes.data, sums.ctypes.data,
            sums.shape[1] * 4, step, width, coming, po + wide_out * step,
        )  # fmt: skip
        if not total.shape[0]:
            continue
        if i == first:
            count(out[i], 0, wide_out, True, shift, total, square)
            off[:] = shift
        else:
            _add_row(sums, 0, total)
            _add_row(sums, 1, square)


@njit(cache=True, nogil=True, error_model="numpy")
def _given_row(out, dout, end_line, end_bend, row, place):
    """Row `row` of the gradient of `out`."""
    if end_line.shape[0]:
        give(out[row], dout[row], end_line, end_bend, 0, dout.shape[1], place)
    else:
        copy_line(dout[row].reshape(-1), place.reshape(-1))


@njit(cache=True, nogil=True, error_model="numpy")
def _edged(slots, width, edge):
    """Rows of `width` numbers with `edge` zeros before the first and after the last."""
    rows = room(slots, width + 2 * edge)
    rows[:, :edge] = 0
    rows[:, width + edge :] = 0
    return rows


@njit(cache=True, nogil=True, error_model="numpy")
def _inner(rows, slot, like, edge):
    """A row of `rows` without the zeros at its ends, as loops over columns want it: like a row of `like`."""
    return rows[slot][edge : rows.shape[1] - edge].reshape(like.shape[1], like.shape[2])


@njit(cache=True, nogil=True, error_model="numpy")
def _sweep_back(at, taps, line, mode, px, pd, sums, far, channels, dilation, width, coming):
    """A row of dx and its share of all sums; at: the addresses of three rows of the output's gradient, zeros first."""
    step = channels * dilation
    for phase in range(min(dilation, width)):
        whole = _apart(width, dilation, phase)
        share = _share(whole)
        for j in range(0, whole, share):
            pixels = min(share, whole - j)
            for start in range(0, channels, LANES * 4):
                a = min(start, channels - LANES * 4)
                n = phase * channels + j * step + a
                back_1((at[0] + n, at[1] + n, at[2] + n, taps + a, line + a, mode, px + n, pd + n, sums + start, far, step,
                        pixels, coming[0] + n, coming[1] + n, coming[2] + n, coming[3] + n))


@njit(cache=True, nogil=True, error_model="numpy")
def backward(x, line, mode, taps, out, dout, end_line, end_bend, dilation, heights, first, last, dx, dw, total, dot):
    """Stride 1: rows of dx: dz of x's normalisation, or plain; dw [9, c] float64: the share of these rows.

    out, dout: [N * height, width / group, group * channels], rows in which loops are long; end_line as in
    normed_rows.backward. Rows are counted in the order of :func:`_spread`.
    """
    c, width, tall = x.shape[2], x.shape[1], heights[0]
    edge = c * dilation
    given, outside = _edged(_SLOTS, width * c, edge), np.zeros(width * c + 2 * edge, np.float32)
    at, sums, step = np.empty(3, np.int64), room(_TAPS + 2, _whole(c)), c * 4
    far, size = sums.shape[1] * 4, width * step
    for i in range(first, last):
        picture = i // tall
        row = _spread(i % tall, tall, dilation)
        for k in range(3):
            r = row + (k - 1) * dilation
            if r < 0 or r >= tall:
                at[k] = outside.ctypes.data
                continue
            slot = r // dilation % _SLOTS
            at[k] = given[slot].ctypes.data
            if k == 2 or i == first or row < dilation:
                _given_row(out, dout, end_line, end_bend, picture * tall + r, _inner(given, slot, dout, edge))
        sums[:] = 0
        here = picture * tall + row
        px, pd, ahead = x[here].ctypes.data, dx[here].ctypes.data, (here + 2 * dilation) * size
        coming = px + dilation * size, out.ctypes.data + ahead, dout.ctypes.data + ahead, pd + dilation * size
        _sweep_back(
            at, taps.ctypes.data, line.ctypes.data, mode, px, pd, sums.ctypes.data, far, step, dilation, width, coming
        )  # fmt: skip
        for k in range(_TAPS):
            _add_row(sums, k, dw[k])
        if total.shape[0]:
            _add_row(sums, _TAPS, total)
            _add_row(sums, _TAPS + 1, dot)


@njit(cache=True, nogil=True, error_model="numpy")
def backward_2(x, line, mode, taps, out, dout, end_line, end_bend, heights, first, last, dx, dw, total, dot):
    """:func:`backward` for stride 2: rows first .. last of the output, twice as many of dx."""
    c, width, wide_out = x.shape[2], x.shape[1], (x.shape[1] + 1) // 2
    tall, tall_out = heights
    given, outside = _edged(2, wide_out * c, c), np.zeros((wide_out + 2) * c, np.float32)
    beyond = np.empty(width * c, np.float32)  # for a row that the input does not have
    at, sums, step = np.empty(2, np.int64), room(_TAPS + 4, _whole(c)), c * 4
    far, size, small, share = sums.shape[1] * 4, width * step, wide_out * step, _share(wide_out)
    for i in range(first, last):
        picture, row = divmod(i, tall_out)
        for k in range(2):  # the output's rows `row` and the next
            at[k] = outside.ctypes.data
            if row + k < tall_out:
                slot = (row + k) % 2
                at[k] = given[slot].ctypes.data + step
                if k == 1 or i == first or row == 0:
                    _given_row(out, dout, end_line, end_bend, i + k, _inner(given, slot, dout, c))
        middle = picture * tall + 2 * row
        px, pd = np.int64(x[middle].ctypes.data), np.int64(dx[middle].ctypes.data)
        has_below = 2 * row + 1 < tall
        above, below = px - size if row else px, px + size if has_below else px
        pb = pd + size if has_below else np.int64(beyond.ctypes.data)
        sums[:] = 0
        c0, c1 = out.ctypes.data + (i + 2) * small, dout.ctypes.data + (i + 2) * small
        ps, pt, pl = sums.ctypes.data, taps.ctypes.data, line.ctypes.data
        for j in range(0, wide_out, share):
            pixels = min(share, wide_out - j)
            before, after = int(j > 0), int(2 * (j + pixels) - 1 < width)
            for start in range(0, step, LANES * 4):
                a = min(start, step - LANES * 4)
                n, m = j * step + a, 2 * j * step + a
                back_2((at[0] + n, at[1] + n, above + m, px + m, below + m, pt + a, pl + a, mode, pd + m, pb + m, ps + start,
                        far, step, pixels, before, after, c0 + n, c1 + n, px + 2 * size + m, px + 3 * size + m,
                        pd + 2 * size + m, pd + 3 * size + m))
        for k in range(0 if row else 3, _TAPS if has_below else 6):
            _add_row(sums, k, dw[k])
        if total.shape[0]:
            for k in range(2 if has_below else 1):
                _add_row(sums, _TAPS + 2 * k, total)
                _add_row(sums, _TAPS + 2 * k + 1, dot)
