"""Layer normalisation of bfloat16 row by row (arXiv:1607.06450), with sums in float32.

Arrays: x, y, dy, dx [rows, columns], bits of bfloat16 (brain.py); scale, bias [columns]; mean, variance [rows]. torch's own
gradient sums up those of scale and bias in bfloat16: over 384 rows of random numbers they are off by 2, ours by 1e-5. One
thread, us, torch -> so, [384, 512]: 97 -> 75, the gradient 177 -> 117; float32 gains less, and nothing with two threads.
"""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.brain import put, wide
from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST

_BLOCK = 32


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(x, scale, bias, epsilon, first, last, y, mean, variance):
    """Rows first .. last of y = scale * (x - mean) / sqrt(variance + epsilon) + bias, and their statistics."""
    n = x.shape[1]
    row, count = np.empty(n, np.float32), np.float32(n)
    for i in range(first, last):
        total, square = np.float32(0), np.float32(0)
        for j in range(n):
            v = wide(x[i, j])
            row[j] = v
            total += v
        center = total / count
        for j in range(n):
            d = row[j] - center
            row[j] = d
            square += d * d
        mean[i], variance[i] = center, square / count
        inverse = np.float32(1) / np.float32(math.sqrt(variance[i] + epsilon))
        for j in range(n):
            put(y, i, j, row[j] * inverse * scale[j] + bias[j])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(x, dy, scale, mean, variance, epsilon, first, last, dx, dscale, dbias):
    """Rows first .. last of dx; dscale, dbias: float64, what is added to by blocks of rows."""
    n = x.shape[1]
    row, slope, count = np.empty(n, np.float32), np.empty(n, np.float32), np.float32(n)
    scales, biases = np.empty(n, np.float32), np.empty(n, np.float32)
    for start in range(first, last, _BLOCK):
        scales[:] = 0
        biases[:] = 0
        for i in range(start, min(start + _BLOCK, last)):
            center, inverse = mean[i], np.float32(1) / np.float32(math.sqrt(variance[i] + epsilon))
            total, dot = np.float32(0), np.float32(0)
            for j in range(n):
                normal, d = (wide(x[i, j]) - center) * inverse, wide(dy[i, j])
                scales[j] += d * normal
                biases[j] += d
                g = d * scale[j]
                row[j], slope[j] = normal, g
                total += g
                dot += g * normal
            total /= count
            dot /= count
            for j in range(n):
                put(dx, i, j, inverse * (slope[j] - total - row[j] * dot))
        for j in range(n):
            dscale[j] += scales[j]
            dbias[j] += biases[j]
