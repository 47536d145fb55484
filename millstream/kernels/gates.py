"""Gate activations that LLVM can vectorise, and small matrix-vector products, for the recurrent kernels.

Activation codes: 0 identity, 1 sigmoid, 2 tanh, 3 relu (as in gru_unit's attributes).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload, register_jitable

FAST = {"reassoc", "contract", "nsz", "arcp"}  # NaN and Inf keep their meaning

IDENTITY, SIGMOID, TANH, RELU = 0, 1, 2, 3

_ONE = np.float32(1)
_TWO = np.float32(2)
_HALF = np.float32(0.5)
_LOW, _HIGH = np.float32(-87.0), np.float32(88.0)
_LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first with trailing zero bits, so that n * first is exact
_LN2_A, _LN2_B = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Taylor coefficients 1/k!: on |r| <= ln(2)/2 the first one left out is below 2^-24
_C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(3, 8))
_THIRD, _TWO15 = np.float32(1 / 3), np.float32(2 / 15)
_SMALL = np.float32(0.05)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds to an integer


@register_jitable
def _exp32(x):
    # NaN fails both comparisons and so stays
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    n = np.float32(np.int32(x * _LOG2E + (_HALF if x > 0 else -_HALF)))
    r = x - n * _LN2_A - n * _LN2_B
    p = _C6 + r * _C7
    p = _C5 + r * p
    p = _C4 + r * p
    p = _C3 + r * p
    p = _HALF + r * p
    p = _ONE + r * (_ONE + r * p)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * power.view(np.float32)


@register_jitable
def _sigmoid32(x):
    return _ONE / (_ONE + _exp32(-x))


@register_jitable
def _tanh32(x):
    y = _TWO / (_ONE + _exp32(-_TWO * x)) - _ONE
    s = x * x
    near = x * (_ONE - s * (_THIRD - s * _TWO15))  # the formula above cancels near zero
    return near if abs(x) < _SMALL else y


@register_jitable
def _sigmoid64(x):
    return 1.0 / (1.0 + math.exp(-x))


@register_jitable
def _tanh64(x):
    return math.tanh(x)


def sigmoid(x):
    """1 / (1 + exp(-x)), in x's precision."""
    return 1.0 / (1.0 + math.exp(-x))


def tanh(x):
    """Hyperbolic tangent, in x's precision."""
    return math.tanh(x)


@overload(sigmoid, inline="always")
def _sigmoid(x):
    return (lambda x: _sigmoid32(x)) if x == types.float32 else (lambda x: _sigmoid64(x))


@overload(tanh, inline="always")
def _tanh(x):
    return (lambda x: _tanh32(x)) if x == types.float32 else (lambda x: _tanh64(x))


@njit(cache=True, nogil=True, fastmath=FAST)
def activate(a, lo, hi, code):
    """a[lo:hi] = activation(a[lo:hi])."""
    if code == 1:
        for j in range(lo, hi):
            a[j] = sigmoid(a[j])
    elif code == 2:
        for j in range(lo, hi):
            a[j] = tanh(a[j])
    elif code == 3:
        for j in range(lo, hi):
            v = a[j]
            a[j] = v * 0 if v < 0 else v


@njit(cache=True, nogil=True, fastmath=FAST)
def through(d, y, shift, n, code):
    """d[j] *= activation's derivative, from the activation's result y[shift + j], for j < n."""
    if code == 1:
        for j in range(n):
            v = y[shift + j]
            d[j] *= v - v * v
    elif code == 2:
        for j in range(n):
            v = y[shift + j]
            d[j] -= d[j] * v * v
    elif code == 3:
        for j in range(n):
            if y[shift + j] <= 0:
                d[j] = 0


@njit(cache=True, nogil=True, fastmath=FAST)
def add_product(v, w, out, width):
    """out[:width] += v @ w for one vector and a matrix [len(v), width]."""
    k = 0
    rows = w.shape[0]
    while k + 4 <= rows:
        a, b, c, d = v[k], v[k + 1], v[k + 2], v[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for j in range(width):
            out[j] += (a * w0[j] + b * w1[j]) + (c * w2[j] + d * w3[j])
        k += 4
    while k < rows:
        a = v[k]
        w0 = w[k]
        for j in range(width):
            out[j] += a * w0[j]
        k += 1
