"""The sums of a linear-chain CRF over probabilities instead of logarithms: products and no logarithm but one a row.

Forward variables of a row are divided by their sum, backward ones by the largest, and the divisors are kept as logarithms.
That is exact as long as nothing vanishes: each function says whether every variable has stayed above `LEAST`, so that what
was lost (below 1e-307) is nothing beside it. Where it has not (weights of -inf or -10,000 that forbid a tag, emissions that
differ by hundreds), the caller goes over the sequence again in logarithms.

Rows of float64 are as long as :func:`rows` makes them, so that no loop has a rest; what lies beyond the tags is zero.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, exp64
from millstream.kernels.vectors import Loop, copy_line, spread

LEAST = 1e-250
_STEP = 32  # numbers that LLVM's loops take at a time
_REST = 0x7FFFFFFFFFFFFFFF  # all bits of a number but its sign


@intrinsic
def _number(typing_context, bits):
    """The float64 of an integer's bits."""
    del typing_context, bits

    def emit(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), emit


@njit(cache=True, nogil=True)
def rows(count, tags):
    """Zeros for `count` rows of `tags` numbers, which begin on lines of the cache."""
    line = (tags + _STEP - 1) // _STEP * _STEP
    room = np.zeros(count * line + 8)
    begin = -(room.ctypes.data // 8) % 8
    return room[begin : begin + count * line].reshape(count, line)


@intrinsic
def _sums_at(typing_context, a, step_a, b, step_b, first, out, count):
    """out = first + the sum over k < count of a[k step_a] * b[k step_b], _STEP float64 columns of b in registers.

    By addresses; steps are bytes; count >= 1.
    """
    del typing_context, a, step_a, b, step_b, first, out, count
    columns = ir.VectorType(ir.DoubleType(), _STEP)  # LLVM makes of it as many registers as it takes

    def emit(context, builder, signature, args):
        at_a, step_a, at_b, step_b, first, out, count = args

        def here(address, kind):
            value = builder.load(builder.inttoptr(address, kind.as_pointer()))
            value.align = 8
            return value

        loop = Loop(builder, count, [here(first, columns)])
        number = here(builder.add(at_a, builder.mul(loop.k, step_a)), ir.DoubleType())
        row = here(builder.add(at_b, builder.mul(loop.k, step_b)), columns)
        product = builder.fmul(spread(builder, number, columns), row, flags=("contract",))
        total = builder.fadd(loop.held[0], product, flags=("contract",))
        loop.close([total])
        builder.store(total, builder.inttoptr(out, columns.as_pointer())).align = 8
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), emit


# What changes a row in place takes it once: LLVM's loops over rows that overlap go number by number.


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def relative(line, n):
    """line = exp(line - the largest of line[:n]), which is returned; float64. What lies beyond n becomes anything."""
    # numbers as integers of the same order: LLVM takes the largest of integers side by side, of numbers one by one
    bits = line[:n].view(np.int64)
    best = bits[0] ^ ((bits[0] >> 63) & _REST)
    for j in range(len(bits)):
        v = bits[j] ^ ((bits[j] >> 63) & _REST)
        best = v if v > best else best
    top = _number(best ^ ((best >> 63) & _REST))
    for j in range(len(line)):
        line[j] = exp64(line[j] - top)
    return top


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _range(line):
    """(least, largest) of a row of numbers that are not negative; as above."""
    bits = line.view(np.int64)
    least = top = bits[0]
    for j in range(len(bits)):
        least = bits[j] if bits[j] < least else least
    for j in range(len(bits)):
        top = bits[j] if bits[j] > top else top
    return _number(least), _number(top)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _inner(a, b):
    total = 0.0
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _sum(line):
    total = 0.0
    for j in range(len(line)):
        total += line[j]
    return total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _multiply(line, by):
    for j in range(len(line)):
        line[j] *= by[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _scale(line, factor):
    for j in range(len(line)):
        line[j] *= factor


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _chances(before, after, factor, out):
    for j in range(len(out)):
        out[j] = before[j] * after[j] * factor


@njit(cache=True, nogil=True, error_model="numpy")
def _product(row, matrix, zeros, out):
    """out = row @ matrix; zeros: as long as a row of the matrix."""
    count, line = matrix.shape
    at, to = matrix.ctypes.data, out.ctypes.data
    for j in range(0, line * 8, _STEP * 8):
        _sums_at(row.ctypes.data, 8, at + j, line * 8, zeros.ctypes.data + j, to + j, count)


@njit(cache=True, nogil=True, error_model="numpy")
def add_pairs(size, chances, exps, pairs):
    """pairs[i, j] += the sum over rows of chances[k - 1, i] * exps[k, j]."""
    line = pairs.shape[1]
    at, to = exps.ctypes.data + line * 8, pairs.ctypes.data
    for i in range(len(pairs) if size > 1 else 0):
        for j in range(0, line * 8, _STEP * 8):
            out = to + i * line * 8 + j
            _sums_at(chances.ctypes.data + i * 8, line * 8, at + j, line * 8, out, out, size - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def scaled_forward(e, w, first, size, shift, expw, stop, zeros, chances, exps):
    """(whether nothing vanished, log Z without the largest stop weight) of one sequence.

    stop: exponentials of the stop weights beside the largest. chances: receives the forward variables, each row summing to
    1 and 0 beyond the tags; exps: exponentials of the emissions beside each row's largest (the first row has none).
    """
    n = w.shape[1]
    total = 0.0
    for k in range(size):
        now, line = chances[k], exps[k]
        if k:
            copy_line(e[first + k], line[:n])
            total += relative(line, n) + shift
            _product(chances[k - 1], expw, zeros, now)
            _multiply(now, line)
        else:
            for j in range(n):
                now[j] = w[0, j] + e[first, j]
            total += relative(now, n)
            copy_line(zeros[n:], now[n:])
        norm = _sum(now)
        if not (_range(now[:n])[0] >= LEAST and norm < np.inf):
            return False, total
        _scale(now, 1.0 / norm)
        total += math.log(norm)
    last = _inner(chances[size - 1], stop)
    return LEAST <= last < np.inf, total + math.log(last)


@njit(cache=True, nogil=True, error_model="numpy")
def scaled_backward(size, scale, stop, turned, zeros, chances, exps, after, de):
    """Whether nothing vanished on the way back over one sequence that :func:`scaled_forward` went over.

    turned: `expw` the other way round. after: room for a row of backward variables. de: receives scale * P(tag) of each row.
    exps: from its second row on it becomes what chances of pairs are made of: those of the row before, times this, times
    the exponentials of the weights between.
    """
    n = len(turned)
    copy_line(stop, after)
    for k in range(size - 1, -1, -1):
        if k < size - 1:
            _multiply(exps[k + 1], after)
            _product(exps[k + 1], turned, zeros, after)
        norm = _inner(chances[k], after)
        least, top = _range(after[:n])
        if not (least >= LEAST and LEAST <= norm < np.inf):
            return False
        if k < size - 1:
            _scale(exps[k + 1], scale / norm)
        _chances(chances[k], after, scale / norm, de[k])
        _scale(after, 1.0 / top)
    return True
