"""Gate activations that LLVM can vectorise, and small matrix-vector products, for the recurrent kernels.

Activation codes: 0 identity, 1 sigmoid, 2 tanh, 3 relu (as in gru_unit's attributes).
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from millstream.kernels.compiled import njit

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
_FACTORIALS = tuple(1 / math.factorial(k) for k in range(13))  # of exp in float64
_THIRD, _TWO15 = np.float32(1 / 3), np.float32(2 / 15)
_SMALL = np.float32(0.05)


@intrinsic
def nearest(typing_context, x):
    """x rounded to an integer, as float32."""
    del typing_context, x

    def emit(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.nearbyint", [args[0].type])
        return builder.call(function, args)

    return types.float32(types.float32), emit


@intrinsic
def _power_of_two(typing_context, n):
    """2**n for a whole float32, by writing n into the exponent's bits."""
    del typing_context, n

    def emit(context, builder, signature, args):
        i32 = ir.IntType(32)
        exponent = builder.add(builder.fptosi(args[0], i32), ir.Constant(i32, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(i32, 23)), ir.FloatType())

    return types.float32(types.float32), emit


@register_jitable(fastmath=FAST, error_model="numpy")
def exp32(x):
    # NaN fails both comparisons and so stays
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    n = nearest(x * _LOG2E)
    r = x - n * _LN2_A - n * _LN2_B
    p = _C6 + r * _C7
    p = _C5 + r * p
    p = _C4 + r * p
    p = _C3 + r * p
    p = _HALF + r * p
    p = _ONE + r * (_ONE + r * p)
    return p * _power_of_two(n)


@intrinsic
def _nearest64(typing_context, x):
    """x rounded to an integer, as float64."""
    del typing_context, x

    def emit(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.nearbyint", [args[0].type])
        return builder.call(function, args)

    return types.float64(types.float64), emit


@intrinsic
def _power_of_two64(typing_context, n):
    """2**n for a whole float64, by writing n into the exponent's bits."""
    del typing_context, n

    def emit(context, builder, signature, args):
        i64 = ir.IntType(64)
        exponent = builder.add(builder.fptosi(args[0], i64), ir.Constant(i64, 1023))
        return builder.bitcast(builder.shl(exponent, ir.Constant(i64, 52)), ir.DoubleType())

    return types.float64(types.float64), emit


@register_jitable(fastmath=False, error_model="numpy")
def _rest64(x, n):
    # ln 2 in two parts as above; sums in another order would lose what the second part is for
    return (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10


@register_jitable(fastmath=FAST, error_model="numpy")
def exp64(x):
    """exp(x) in float64, within 2 units in the last place; 0 below -708, as large as at 709 above."""
    low = x < -708.0
    x = 709.0 if x > 709.0 else x
    x = -708.0 if low else x
    n = _nearest64(x * 1.4426950408889634)
    r = _rest64(x, n)
    p = _FACTORIALS[12]
    p = _FACTORIALS[11] + r * p
    p = _FACTORIALS[10] + r * p
    p = _FACTORIALS[9] + r * p
    p = _FACTORIALS[8] + r * p
    p = _FACTORIALS[7] + r * p
    p = _FACTORIALS[6] + r * p
    p = _FACTORIALS[5] + r * p
    p = _FACTORIALS[4] + r * p
    p = _FACTORIALS[3] + r * p
    p = 0.5 + r * p
    p = 1.0 + r * (1.0 + r * p)
    return 0.0 if low else p * _power_of_two64(n)


@register_jitable(fastmath=FAST, error_model="numpy")
def _sigmoid32(x):
    return _ONE / (_ONE + exp32(-x))


@register_jitable(fastmath=FAST, error_model="numpy")
def _tanh32(x):
    y = _TWO / (_ONE + exp32(-_TWO * x)) - _ONE
    s = x * x
    near = x * (_ONE - s * (_THIRD - s * _TWO15))  # the formula above cancels near zero
    return near if abs(x) < _SMALL else y


@register_jitable(fastmath=FAST, error_model="numpy")
def _sigmoid64(x):
    return 1.0 / (1.0 + math.exp(-x))


@register_jitable(fastmath=FAST, error_model="numpy")
def _tanh64(x):
    return math.tanh(x)


def sigmoid(x):
    """1 / (1 + exp(-x)), in x's precision."""
    return 1.0 / (1.0 + math.exp(-x))


def tanh(x):
    """Hyperbolic tangent, in x's precision."""
    return math.tanh(x)


@overload(sigmoid, jit_options={"fastmath": FAST, "error_model": "numpy"})
def _sigmoid(x):
    return (lambda x: _sigmoid32(x)) if x == types.float32 else (lambda x: _sigmoid64(x))


@overload(tanh, jit_options={"fastmath": FAST, "error_model": "numpy"})
def _tanh(x):
    return (lambda x: _tanh32(x)) if x == types.float32 else (lambda x: _tanh64(x))


# error_model="numpy": a check for division by zero in a loop costs the vectorisation, and so does an index that might be
# negative: hence slices, and loops from 0 to their length.


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def activate(a, code):
    """a = activation(a)."""
    if code == 1:
        for j in range(len(a)):
            a[j] = sigmoid(a[j])
    elif code == 2:
        for j in range(len(a)):
            a[j] = tanh(a[j])
    elif code == 3:
        for j in range(len(a)):
            v = a[j]
            a[j] = v * 0 if v < 0 else v


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def through(d, y, code):
    """d *= activation's derivative, from the activation's result y."""
    if code == 1:
        for j in range(len(d)):
            v = y[j]
            d[j] *= v - v * v
    elif code == 2:
        for j in range(len(d)):
            v = y[j]
            d[j] -= d[j] * v * v
    elif code == 3:
        for j in range(len(d)):
            d[j] = d[j] if y[j] > 0 else d[j] * 0


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def add_product(v, w, out):
    """out += v @ w for one vector and a matrix [len(v), len(out)]."""
    k = 0
    rows = w.shape[0]
    while k + 4 <= rows:
        a, b, c, d = v[k], v[k + 1], v[k + 2], v[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for j in range(len(out)):
            out[j] += (a * w0[j] + b * w1[j]) + (c * w2[j] + d * w3[j])
        k += 4
    while k < rows:
        a = v[k]
        w0 = w[k]
        for j in range(len(out)):
            out[j] += a * w0[j]
        k += 1


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def add_three(a, b, c, out):
    """out = a + b + c."""
    for j in range(len(out)):
        out[j] = a[j] + b[j] + c[j]
