"""Bias, relu and the maximum of windows of 2 x 2 behind a convolution, and their gradients, in one pass over a map each way.

Channels stand side by side in memory: x [n, h, w, c], out [n, h // 2, w // 2, c], float32.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True, error_model="numpy")
def forward(x, bias, out, first, last):
    """Pictures [first, last) of out = relu(max of a window of x + bias); a NaN goes through both."""
    rows, columns, c = out.shape[1:]
    for picture in range(first, last):
        for i in range(rows):
            for j in range(columns):
                above, below = x[picture, 2 * i, 2 * j : 2 * j + 2], x[picture, 2 * i + 1, 2 * j : 2 * j + 2]
                a, b, d, e, line = above[0], above[1], below[0], below[1], out[picture, i, j]
                for k in range(c):
                    m = a[k]
                    m = b[k] if b[k] > m or b[k] != b[k] else m
                    m = d[k] if d[k] > m or d[k] != d[k] else m
                    m = e[k] if e[k] > m or e[k] != e[k] else m
                    m += bias[k]
                    line[k] = np.float32(0) if m <= 0 else m


@njit(cache=True, nogil=True, error_model="numpy")
def backward(x, bias, out, dout, dx, sums, first, last):
    """Pictures [first, last) of dx: dout at the first of a window's greatest numbers, or its last NaN, where out > 0.

    Numbers are compared with the bias added, as the greatest would be looked for behind it. sums: of dx by channel.
    """
    rows, columns, c = out.shape[1:]
    sums[:] = 0
    share = np.empty(c, np.float32)
    for picture in range(first, last):
        share[:] = 0
        for i in range(rows):
            for j in range(columns):
                above, below = x[picture, 2 * i, 2 * j : 2 * j + 2], x[picture, 2 * i + 1, 2 * j : 2 * j + 2]
                to, under = dx[picture, 2 * i, 2 * j : 2 * j + 2], dx[picture, 2 * i + 1, 2 * j : 2 * j + 2]
                a, b, d, e, line, given = above[0], above[1], below[0], below[1], out[picture, i, j], dout[picture, i, j]
                for k in range(c):
                    zero, shift = np.float32(0), bias[k]
                    g = given[k] if line[k] > 0 else given[k] * zero
                    m, v = a[k] + shift, b[k] + shift
                    second = (v > m) | (v != v)
                    m, v = v if second else m, d[k] + shift
                    third = (v > m) | (v != v)
                    m, v = v if third else m, e[k] + shift
                    fourth = (v > m) | (v != v)
                    to[0, k] = zero if second | third | fourth else g
                    to[1, k] = g if second & ~third & ~fourth else zero
                    under[0, k] = g if third & ~fourth else zero
                    under[1, k] = g if fourth else zero
                    share[k] += g
            dx[picture, 2 * i : 2 * i + 2, 2 * columns :] = 0
        dx[picture, 2 * rows :] = 0
        for k in range(c):
            sums[k] += share[k]
