"""Depthwise convolutions (3x3, padding 1, stride 1 or 2) between two batch normalisations, and their gradients.

What normed_rows.py is for 1x1 filters: rows of pixels are normalised into a few rows of room, with zeros before and after,
filtered in registers (depthwise_sweeps.py), a vector of channels at a time (the last one with channels that another has,
where they fill no vectors), and summed up for the next normalisation. Maps are float32
[N * height, width / group, group * channels]: loops over columns take `group` pixels at a time. A part works on rows
first .. last of the output's pixels, counted over all pictures.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.batch_norm import apply_line
from millstream.kernels.compiled import njit
from millstream.kernels.depthwise_sweeps import back_1, back_2, filtered_1, filtered_2
from millstream.kernels.normed_rows import count, give, relu_back
from millstream.kernels.tiles import LANES

_SLOTS = 4  # rows at hand, in the places of their numbers modulo this
_PIXELS = 16  # filtered of all channels before the next ones: a long row stands on more pages than are quick to reach


@njit(cache=True, nogil=True, error_model="numpy")
def _filter_row(stride, above, middle, below, taps, out, step, pixels, coming, coming_out):
    wide = stride * step * pixels
    for j in range(0, pixels, _PIXELS):
        size, near, far = min(_PIXELS, pixels - j), j * stride * step, j * step
        for a in range(0, step, LANES * 4):
            c = min(a, step - LANES * 4)
            at = near + c
            given = (above + at, middle + at, below + at, taps + c, out + far + c, step, size)
            if stride == 1:
                filtered_1((*given, coming + at, coming_out + far + c))
            else:
                filtered_2((*given, coming + at, coming + wide + at, coming_out + far + c))


@njit(cache=True, nogil=True, error_model="numpy")
def _normed_row(x, row, line, slope, place):
    """Row `row` of the normalised x to `place`, [width / group, group * channels]."""
    if line.shape[0]:
        apply_line(x[row], line[0], line[1], slope, 0, x.shape[1], place)
    else:
        place[:] = x[row]


@njit(cache=True, nogil=True, error_model="numpy")
def _inner(room, slot, like):
    """A row of room without the zeros at its ends, as loops over columns want it: like a row of `like`."""
    beside = (room.shape[1] - like.shape[1] * like.shape[2]) // 2
    return room[slot][beside : room.shape[1] - beside].reshape(like.shape[1], like.shape[2])


@njit(cache=True, nogil=True, error_model="numpy")
def forward(x, group, line, slope, taps, out, group_out, stride, heights, first, last, shift, total, square):
    """Rows of `out`; its sums, where `total` is not empty. heights: of the input's pictures and the output's."""
    c = x.shape[2] // group
    width, wide_out = x.shape[1] * group, out.shape[1] * group_out
    tall, tall_out = heights
    room = np.zeros((_SLOTS, (width + 2) * c), np.float32)
    outside = np.zeros((width + 2) * c, np.float32)
    at = np.empty(3, np.int64)
    for i in range(first, last):
        picture, row = divmod(i, tall_out)
        for k in range(3):
            r = row * stride + k - 1
            if r < 0 or r >= tall:
                at[k] = outside.ctypes.data
                continue
            slot = r % _SLOTS
            at[k] = room[slot].ctypes.data
            if k > 2 - stride or i == first or row == 0:
                _normed_row(x, picture * tall + r, line, slope, _inner(room, slot, x))
        coming = x.ctypes.data + (picture * tall + (row + 1) * stride + 2 - stride) * width * c * 4
        po = out[i].ctypes.data
        _filter_row(stride, at[0], at[1], at[2], taps.ctypes.data, po, c * 4, wide_out, coming, po + wide_out * c * 4)
        if total.shape[0]:
            count(out[i], 0, out.shape[1], i == first, shift, total, square)


@njit(cache=True, nogil=True, error_model="numpy")
def _given_row(out, dout, end_line, end_slope, row, place):
    """Row `row` of the gradient of `out`."""
    if end_line.shape[0]:
        give(out[row], dout[row], end_line, end_slope, 0, dout.shape[1], place)
    else:
        place[:] = dout[row]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_taps(sums, dw):
    """dw [9, c] += sums [9, channels of whole vectors], of which the last vector has the last channels."""
    c, wide = dw.shape[1], sums.shape[1]
    whole = c - c % LANES
    for k in range(9):
        for j in range(whole):
            dw[k, j] += sums[k, j]
        for j in range(whole, c):
            dw[k, j] += sums[k, j + wide - c]


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    x, group, line, slope, taps, out, group_out, dout, end_line, end_slope, heights, first, last, dx, dw, total, dot,
):  # fmt: skip
    """Stride 1: rows of dx: dz of x's normalisation, or plain; dw [9, c] float64: the share of these rows. Lines as in
    normed_rows.backward."""
    c = x.shape[2] // group
    width, tall = x.shape[1] * group, heights[0]
    given = np.zeros((_SLOTS, (width + 2) * c), np.float32)
    room = np.zeros((1, (width + 2) * c), np.float32)
    outside = np.zeros((width + 2) * c, np.float32)
    made = np.empty((x.shape[1], x.shape[2]), np.float32)
    at, sums, step = np.empty(3, np.int64), np.empty((9, (c + LANES - 1) // LANES * LANES), np.float32), c * 4
    far = sums.shape[1] * 4
    for i in range(first, last):
        picture, row = divmod(i, tall)
        for k in range(3):
            r = row + k - 1
            if r < 0 or r >= tall:
                at[k] = outside.ctypes.data
                continue
            slot = r % _SLOTS
            at[k] = given[slot].ctypes.data
            if k == 2 or i == first or row == 0:
                _given_row(out, dout, end_line, end_slope, picture * tall + r, _inner(given, slot, dout))
        _normed_row(x, i, line, slope, _inner(room, 0, x))
        sums[:] = 0
        py, pd, ps, pt = room.ctypes.data, made.ctypes.data, sums.ctypes.data, taps.ctypes.data
        size = width * step
        c0, c1, c2 = x.ctypes.data + (i + 1) * size, out.ctypes.data + (i + 2) * size, dout.ctypes.data + (i + 2) * size
        c3 = dx.ctypes.data + i * size
        for j in range(0, width, _PIXELS):
            pixels = min(_PIXELS, width - j)
            for start in range(0, step, LANES * 4):
                a = min(start, step - LANES * 4)
                n = j * step + a
                back_1((at[0] + n, at[1] + n, at[2] + n, pt + a, py + n, pd + n, ps + start, far, step, pixels,
                        c0 + n, c1 + n, c2 + n, c3 + n))
        _add_taps(sums, dw)
        if line.shape[0]:
            relu_back(x[i], made, line[0], line[1], slope, line[2], 0, x.shape[1], dx[i], total, dot)
        else:
            dx[i] = made


@njit(cache=True, nogil=True, error_model="numpy")
def backward_2(
    x, group, line, slope, taps, out, group_out, dout, end_line, end_slope, heights, first, last, dx, dw, total, dot,
):  # fmt: skip
    """:func:`backward` for stride 2: rows first .. last of the output, twice as many of dx."""
    c = x.shape[2] // group
    width, wide_out = x.shape[1] * group, dout.shape[1] * group_out
    tall, tall_out = heights
    given = np.zeros((2, (wide_out + 2) * c), np.float32)
    room = np.zeros((_SLOTS, (width + 2) * c), np.float32)
    outside = np.zeros((max(width, wide_out) + 2) * c, np.float32)
    made = np.empty((2, 2 * wide_out * c), np.float32)
    at, sums, step = np.empty(5, np.int64), np.empty((9, (c + LANES - 1) // LANES * LANES), np.float32), c * 4
    far = sums.shape[1] * 4
    for i in range(first, last):
        picture, row = divmod(i, tall_out)
        for k in range(2):  # the output's rows `row` and the next
            at[k] = outside.ctypes.data
            if row + k < tall_out:
                slot = (row + k) % 2
                at[k] = given[slot].ctypes.data + step
                if k == 1 or i == first or row == 0:
                    _given_row(out, dout, end_line, end_slope, i + k, _inner(given, slot, dout))
        for k in range(3):
            r = 2 * row + k - 1
            at[2 + k] = outside.ctypes.data
            if 0 <= r < tall:
                slot = r % _SLOTS
                at[2 + k] = room[slot].ctypes.data
                if k or i == first or row == 0:
                    _normed_row(x, picture * tall + r, line, slope, _inner(room, slot, x))
        sums[:] = 0
        size, small = width * step, wide_out * step
        c0, c1 = out.ctypes.data + (i + 2) * small, dout.ctypes.data + (i + 2) * small
        c2 = x.ctypes.data + (picture * tall + 2 * row + 2) * size
        c3 = dx.ctypes.data + (picture * tall + 2 * row) * size
        ps, pt, p0, p1 = sums.ctypes.data, taps.ctypes.data, made[0].ctypes.data, made[1].ctypes.data
        for j in range(0, wide_out, _PIXELS):
            pixels = min(_PIXELS, wide_out - j)
            for start in range(0, step, LANES * 4):
                a = min(start, step - LANES * 4)
                n, m = j * step + a, 2 * j * step + a
                back_2((at[0] + n, at[1] + n, at[2] + m, at[3] + m, at[4] + m, pt + a, p0 + m, p1 + m, ps + start, far, step,
                        pixels, c0 + n, c1 + n, c2 + m, c2 + size + m, c3 + m, c3 + size + m))
        _add_taps(sums, dw)
        for k in range(2):
            if 2 * row + k < tall:
                n = picture * tall + 2 * row + k
                found = made[k][: width * c].reshape(x.shape[1], x.shape[2])
                if line.shape[0]:
                    relu_back(x[n], found, line[0], line[1], slope, line[2], 0, x.shape[1], dx[n], total, dot)
                else:
                    dx[n] = found
