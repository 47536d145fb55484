"""What normalisations know of each channel: their lines, their statistics, and the gradients of their parameters.

A few hundred numbers, which as numpy's and torch's operators cost more calls than the maps of small pictures take time.
Sums come as the kernels over maps leave them: float64 [parts, group * channels], `group` pixels of a row side by side.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True, error_model="numpy")
def lay_line(scale, bias, mean, inverse, bend, out):
    """out [5, channels]: a, b, mean, and slope and most of `bend` (batch_norm.py); a * x + b is the normalised x."""
    for j in range(len(scale)):
        a = scale[j] * inverse[j]
        out[0, j], out[1, j], out[2, j], out[3, j], out[4, j] = a, bias[j] - mean[j] * a, mean[j], bend[0], bend[1]


@njit(cache=True, nogil=True, error_model="numpy")
def measure(shift, total, square, counts, rate, epsilon, mean, variance, mean_out, variance_out, saved_mean, saved_inverse):
    """The running statistics, of which a share `rate` is kept, and what a step saves, of a batch whose parts were summed up:
    `counts` rows each, of numbers less `shift`, and their squares.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    c = len(mean)
    group = shift.shape[1] // c
    center, spread, weight = np.zeros(c), np.zeros(c), 0.0
    for p in range(len(counts)):
        weight += counts[p] * group
        for k in range(0, group * c, c):
            for j in range(c):
                center[j] += counts[p] * np.float64(shift[p, k + j]) + total[p, k + j]
    for j in range(c):
        center[j] /= weight
    for p in range(len(counts)):
        n = np.float64(counts[p])
        for k in range(0, group * c, c):
            for j in range(c):
                moved = total[p, k + j] / n
                away = shift[p, k + j] + moved - center[j]
                spread[j] += square[p, k + j] - total[p, k + j] * moved + n * away * away
    for j in range(c):
        variation = spread[j] / weight
        variation = 0.0 if variation < 0 else variation  # NaN stays
        mean_out[j] = center[j] + (mean[j] - center[j]) * rate
        variance_out[j] = variation + (variance[j] - variation) * rate
        saved_mean[j] = center[j]
        saved_inverse[j] = 1.0 / np.sqrt(variation + epsilon)


@njit(cache=True, nogil=True, error_model="numpy")
def _folded(sums, c):
    """Sums by channel."""
    out = np.zeros(c)
    for p in range(sums.shape[0]):
        for k in range(0, sums.shape[1], c):
            for j in range(c):
                out[j] += sums[p, k + j]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def give_back(scale, mean, inverse, total, dot, each, dscale, dbias, line):
    """Gradients of scale and bias, and line [3, channels] = p, q, r: the gradient of x is p * dz + q * x + r.

    total, dot: sums of dz and of dz * (x - mean) over `each` numbers a channel.
    """
    sums, dots = _folded(total, len(scale)), _folded(dot, len(scale))
    for j in range(len(scale)):
        s = np.float64(inverse[j])
        p = scale[j] * s
        q = -p * s * s * dots[j] / each
        dscale[j], dbias[j] = dots[j] * s, sums[j]
        line[0, j], line[1, j], line[2, j] = p, q, -p * sums[j] / each - q * mean[j]


@njit(cache=True, nogil=True, error_model="numpy")
def take_off(a, inverse, total, dot, each, dscale, dbias, off):
    """As :func:`give_back`, off [2, group * channels] = k, l: the gradient of x is a * dz - k - l * (x - mean)."""
    c = len(a)
    sums, dots = _folded(total, c), _folded(dot, c)
    for j in range(c):
        s, factor = np.float64(inverse[j]), np.float64(a[j]) / each
        dscale[j], dbias[j] = dots[j] * s, sums[j]
        for k in range(j, off.shape[1], c):
            off[0, k], off[1, k] = factor * sums[j], factor * s * s * dots[j]


@njit(cache=True, nogil=True, error_model="numpy")
def join(shares, tails, first, last, out):
    """Rows first .. last of `out` [rows, columns]: the sum of `shares` [parts, rows, whole vectors of columns] and, where
    there are more columns, of `tails` [parts, rows, LANES], which have the last ones."""
    whole, columns = shares.shape[2], out.shape[1]
    to = columns - tails.shape[2]
    for i in range(first, last):
        line = out[i]
        for j in range(whole):
            line[j] = shares[0, i, j]
        for p in range(1, shares.shape[0]):
            for j in range(whole):
                line[j] += shares[p, i, j]
        for j in range(whole, columns):
            value = tails[0, i, j - to]
            for p in range(1, shares.shape[0]):
                value += tails[p, i, j - to]
            line[j] = value
