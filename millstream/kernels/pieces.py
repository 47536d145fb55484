"""Piecewise activations and their gradients over numbers in memory, each in one pass. Vectors are float32."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True, error_model="numpy")
def between(x, dout, low, high, factor, dx):
    """dx = dout * (low < x < high) * factor; a NaN of `dout` stays."""
    zero = np.float32(0)
    for i in range(len(x)):
        v, d = x[i], dout[i]
        d = d if v > low else d * zero
        d = d if v < high else d * zero
        dx[i] = d * factor


@njit(cache=True, nogil=True, error_model="numpy")
def hard_swish(x, threshold, scale, offset, out):
    """out = x * min(max(x + offset, 0), threshold) / scale."""
    zero = np.float32(0)
    for i in range(len(x)):
        v = x[i]
        shifted = v + offset
        shifted = zero if shifted < zero else shifted
        shifted = threshold if shifted > threshold else shifted
        out[i] = shifted * v / scale


@njit(cache=True, nogil=True, error_model="numpy")
def hard_swish_back(x, dout, threshold, scale, offset, dx):
    """dx = dout * (2 x + offset) / scale between the kinks, dout from x + offset >= threshold on; not for infinite x."""
    zero, one = np.float32(0), np.float32(1)
    for i in range(len(x)):
        v = x[i]
        shifted = v + offset
        inner = (v + v + offset) / scale
        inner = inner if shifted > zero else inner * zero
        dx[i] = dout[i] * (inner if shifted < threshold else inner * zero + one)
