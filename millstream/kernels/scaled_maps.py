"""Maps whose channels are scaled, picture by picture, with a sum and a relu behind them or none, and their gradients.

Maps are float32 [pictures, pixels, channels], C-contiguous, scales [pictures, channels]. A part works on rows first .. last
of all pictures' pixels. Sums run over blocks of rows in float32 and over blocks in float64.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit

_BLOCK = 32


@njit(cache=True, nogil=True, error_model="numpy")
def line(x, scale, shift, first, last, out):
    """out = x * scale + shift."""
    pixels = x.shape[1]
    for row in range(first, last):
        n, i = divmod(row, pixels)
        for j in range(x.shape[2]):
            out[n, i, j] = x[n, i, j] * scale[n, j] + shift[n, j]


@njit(cache=True, nogil=True, error_model="numpy")
def relu_of_sum(x, scale, shift, other, first, last, out):
    """out = relu(x * scale + shift + other); NaN stays."""
    pixels, zero = x.shape[1], np.float32(0)
    for row in range(first, last):
        n, i = divmod(row, pixels)
        for j in range(x.shape[2]):
            v = x[n, i, j] * scale[n, j] + shift[n, j] + other[n, i, j]
            out[n, i, j] = zero if v < zero else v


@njit(cache=True, nogil=True, error_model="numpy")
def offsets(x, mean, first, last, total):
    """total += sum over pixels of x - mean, which has one number a channel."""
    pixels, width = x.shape[1:]
    s = np.zeros(width, np.float32)
    row = first
    while row < last:
        n, begin = divmod(row, pixels)
        end = min(begin + _BLOCK, pixels, begin + last - row)
        s[:] = 0
        for i in range(begin, end):
            for j in range(width):
                s[j] += x[n, i, j] - mean[j]
        for j in range(width):
            total[n, j] += s[j]
        row += end - begin


@njit(cache=True, nogil=True, error_model="numpy")
def sums(x, mean, dy, first, last, total, dot):
    """total += sum over pixels of dy, dot += that of dy * (x - mean)."""
    pixels, width = x.shape[1:]
    s, q = np.zeros(width, np.float32), np.zeros(width, np.float32)
    row = first
    while row < last:
        n, begin = divmod(row, pixels)
        end = min(begin + _BLOCK, pixels, begin + last - row)
        s[:] = 0
        q[:] = 0
        for i in range(begin, end):
            for j in range(width):
                d = dy[n, i, j]
                s[j] += d
                q[j] += d * (x[n, i, j] - mean[j])
        for j in range(width):
            total[n, j] += s[j]
            dot[n, j] += q[j]
        row += end - begin


@njit(cache=True, nogil=True, error_model="numpy")
def sums_of_sum(x, mean, y, dy, first, last, dz, total, dot):
    """:func:`sums` of dz, the gradient of what was added: dy where y > 0, dy * 0 elsewhere."""
    pixels, width = x.shape[1:]
    s, q, zero = np.zeros(width, np.float32), np.zeros(width, np.float32), np.float32(0)
    row = first
    while row < last:
        n, begin = divmod(row, pixels)
        end = min(begin + _BLOCK, pixels, begin + last - row)
        s[:] = 0
        q[:] = 0
        for i in range(begin, end):
            for j in range(width):
                d = dy[n, i, j]
                none = d * zero
                d = d if y[n, i, j] > zero else none
                dz[n, i, j] = d
                s[j] += d
                q[j] += d * (x[n, i, j] - mean[j])
        for j in range(width):
            total[n, j] += s[j]
            dot[n, j] += q[j]
        row += end - begin


@njit(cache=True, nogil=True, error_model="numpy")
def back(x, scale, dy, first, last, dx, dscale):
    """dx = dy * scale; dscale += sum over pixels of dy * x."""
    pixels, width = x.shape[1:]
    s = np.zeros(width, np.float32)
    row = first
    while row < last:
        n, begin = divmod(row, pixels)
        end = min(begin + _BLOCK, pixels, begin + last - row)
        s[:] = 0
        for i in range(begin, end):
            for j in range(width):
                d = dy[n, i, j]
                dx[n, i, j] = d * scale[n, j]
                s[j] += d * x[n, i, j]
        for j in range(width):
            dscale[n, j] += s[j]
        row += end - begin


@njit(cache=True, nogil=True, error_model="numpy")
def back_of_sum(x, scale, y, dy, first, last, dz, dx, dscale):
    """:func:`back` of dz, the gradient of what was added: dy where y > 0, dy * 0 elsewhere."""
    pixels, width = x.shape[1:]
    s, zero = np.zeros(width, np.float32), np.float32(0)
    row = first
    while row < last:
        n, begin = divmod(row, pixels)
        end = min(begin + _BLOCK, pixels, begin + last - row)
        s[:] = 0
        for i in range(begin, end):
            for j in range(width):
                d = dy[n, i, j]
                none = d * zero
                d = d if y[n, i, j] > zero else none
                dz[n, i, j] = d
                dx[n, i, j] = d * scale[n, j]
                s[j] += d * x[n, i, j]
        for j in range(width):
            dscale[n, j] += s[j]
        row += end - begin
