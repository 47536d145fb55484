"""softmax of short rows and its gradient, a vector of 16 float32 at a time; weights are bfloat16 as bits.

Loops over a few dozen numbers are not left to the compiler: it makes vectors of several, and does what is left number by
number. All arguments but numbers called so are addresses; what lanes sum up stands in memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.brain import wide
from millstream.kernels.compiled import njit
from millstream.kernels.pairs import LANES, load_halves, rounded, store_halves, widened
from millstream.kernels.softmax_loss import CUT
from millstream.kernels.vectors import BYTES, VECTOR, fma, load, spread, store

_INFINITE = np.float32(np.inf)
# exp as in gates.py: ln 2 in two parts, the first exact times a whole number; 1/k! on |r| <= ln(2)/2
_LOG2E, _LN2 = 1.4426950408889634, (0.693359375, -2.12194440e-4)
_POWERS = [1 / math.factorial(k) for k in range(7, -1, -1)]


# ---- vectors -------------------------------------------------------------------------------------
def _all(builder: ir.IRBuilder, number: ir.Value | float) -> ir.Value:
    """A vector of one number."""
    if isinstance(number, ir.Value):
        return spread(builder, number)
    return ir.Constant(VECTOR, [float(np.float32(number))] * LANES)


def _power(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(x), -87 < x < 88; NaN stays."""
    words = ir.VectorType(ir.IntType(32), LANES)
    near = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.nearbyint.v{LANES}f32"
    )  # fmt: skip
    n = builder.call(near, [builder.fmul(x, _all(builder, _LOG2E))])
    r = fma(builder, n, _all(builder, -_LN2[0]), x)
    r = fma(builder, n, _all(builder, -_LN2[1]), r)
    p = _all(builder, _POWERS[0])
    for c in _POWERS[1:]:
        p = fma(builder, p, r, _all(builder, c))
    whole = builder.add(builder.fptosi(n, words), ir.Constant(words, [127] * LANES))
    return builder.fmul(p, builder.bitcast(builder.shl(whole, ir.Constant(words, [23] * LANES)), VECTOR))


def _by_halves(builder: ir.IRBuilder, value: ir.Value, join: Any) -> ir.Value:
    """One number of all lanes."""
    width = LANES
    while width > 1:
        width //= 2
        order = [ir.Constant(ir.VectorType(ir.IntType(32), width), [*range(at, at + width)]) for at in (0, width)]
        value = join(*(builder.shuffle_vector(value, value, o) for o in order))
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


def _greater(builder: ir.IRBuilder) -> Any:
    return lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def _sum_of_lanes(typing_context, sums):
    del typing_context

    def emit(context, builder, signature, args):
        return _by_halves(builder, load(builder, args[0]), builder.fadd)

    return types.float32(types.intp), emit


@intrinsic
def _greatest_of_lanes(typing_context, most):
    del typing_context

    def emit(context, builder, signature, args):
        return _by_halves(builder, load(builder, args[0]), _greater(builder))

    return types.float32(types.intp), emit


# ---- a vector of a row -------------------------------------------------------------------------------
@intrinsic
def _scaled(typing_context, line, alpha, most):
    """line *= the number alpha; most = the greater of both."""
    del typing_context

    def emit(context, builder, signature, args):
        line, alpha, most = args
        value = builder.fmul(load(builder, line), _all(builder, alpha))
        store(builder, value, line)
        store(builder, _greater(builder)(value, load(builder, most)), most)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), emit


@intrinsic
def _masked(typing_context, line, alpha, mask, most):
    """line = line * the number alpha + mask, of bfloat16; most = the greater of both."""
    del typing_context

    def emit(context, builder, signature, args):
        line, alpha, mask, most = args
        value = fma(builder, load(builder, line), _all(builder, alpha), widened(builder, load_halves(builder, mask)))
        store(builder, value, line)
        store(builder, _greater(builder)(value, load(builder, most)), most)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp, types.intp), emit


@intrinsic
def _powers(typing_context, line, most, cut, sums):
    """line = exp(the greater of line - most and cut), two numbers; sums += these."""
    del typing_context

    def emit(context, builder, signature, args):
        line, most, cut, sums = args
        value, low = builder.fsub(load(builder, line), _all(builder, most)), _all(builder, cut)
        value = _power(builder, builder.select(builder.fcmp_ordered("<", value, low), low, value))
        store(builder, value, line)
        store(builder, builder.fadd(load(builder, sums), value), sums)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.float32, types.intp), emit


@intrinsic
def _rounded(typing_context, line, share, out):
    """out = line * the number share, as bfloat16."""
    del typing_context

    def emit(context, builder, signature, args):
        line, share, out = args
        store_halves(builder, rounded(builder, builder.fmul(load(builder, line), _all(builder, share))), out)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), emit


@intrinsic
def _dotted(typing_context, line, weights, sums):
    """sums += line * weights."""
    del typing_context

    def emit(context, builder, signature, args):
        line, weights, sums = args
        factor = widened(builder, load_halves(builder, weights))
        store(builder, fma(builder, load(builder, line), factor, load(builder, sums)), sums)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), emit


@intrinsic
def _sloped(typing_context, line, total, weights, alpha, out):
    """out = the number alpha * weights * (line - the number total), as bfloat16."""
    del typing_context

    def emit(context, builder, signature, args):
        line, total, weights, alpha, out = args
        factor = builder.fmul(widened(builder, load_halves(builder, weights)), _all(builder, alpha))
        value = builder.fmul(builder.fsub(load(builder, line), _all(builder, total)), factor)
        store_halves(builder, rounded(builder, value), out)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp, types.float32, types.intp), emit


# ---- rows ------------------------------------------------------------------------------------------
@njit(cache=True, nogil=True, error_model="numpy")
def weigh(scores, keys, alpha, mask, at, step, weights):
    """weights = softmax(scores * alpha + mask) of a head, 0 behind `keys`.

    float32 [queries, more], bits [queries, more] in rows of whole vectors. mask: bits, empty for none, its rows are `step`
    apart from `at` on.
    """
    lanes = np.empty(2 * LANES, np.float32)
    most, sums = lanes.ctypes.data, lanes.ctypes.data + BYTES
    whole = keys // LANES * LANES
    for i in range(scores.shape[0]):
        line, first = scores[i].ctypes.data, mask.ctypes.data + (at + i * step) * 2
        lanes[:LANES], lanes[LANES:] = -_INFINITE, np.float32(0)
        for j in range(0, whole, LANES):
            if len(mask) == 0:
                _scaled(line + j * 4, alpha, most)
            else:
                _masked(line + j * 4, alpha, first + j * 2, most)
        for j in range(whole, keys):  # the mask may end there
            scores[i, j] = scores[i, j] * alpha + (wide(mask[at + i * step + j]) if len(mask) else np.float32(0))
            lanes[j - whole] = max(lanes[j - whole], scores[i, j])
        scores[i, keys:] = -_INFINITE
        greatest = _greatest_of_lanes(most)
        for j in range(0, keys, LANES):
            _powers(line + j * 4, greatest, CUT, sums)
        share = np.float32(1) / _sum_of_lanes(sums)
        for j in range(0, keys, LANES):
            _rounded(line + j * 4, share, weights[i].ctypes.data + j * 2)
        weights[i, keys:] = 0
    lanes[0] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_back(scores, alpha, weights, out):
    """out = alpha * weights * (dweights - sum of weights * dweights), as bits; dweights, float32, are in `scores`."""
    lanes = np.empty(LANES, np.float32)
    sums = lanes.ctypes.data
    for i in range(scores.shape[0]):
        line, given, found = scores[i].ctypes.data, weights[i].ctypes.data, out[i].ctypes.data
        lanes[:] = 0
        for j in range(0, scores.shape[1], LANES):
            _dotted(line + j * 4, given + j * 2, sums)
        total = _sum_of_lanes(sums)
        for j in range(0, scores.shape[1], LANES):
            _sloped(line + j * 4, total, given + j * 2, alpha, found + j * 2)
    lanes[0] = 0
