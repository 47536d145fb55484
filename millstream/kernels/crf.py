"""Linear-chain CRF: forward algorithm, its gradient, and Viterbi decoding, one sequence after another.

A transition matrix w [tags + 2, tags] has the start weights in row 0, the stop weights in row 1, and in row 2 + i
the weights from tag i. Sequences are intervals start[q] .. start[q] + size[q] of the rows. Sums over tags are done in
float64 on exponentials relative to the largest term; where all of those vanish, term by term.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from millstream.kernels.compiled import njit
from millstream.kernels.crf_scaled import add_pairs, relative, rows, scaled_backward, scaled_forward
from millstream.kernels.gates import FAST, exp64
from millstream.kernels.vectors import copy_line

BIG = 600.0  # exponents beyond it would overflow float64 together with the factors next to them


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _top(row):
    top = row[0]
    for j in range(len(row)):
        top = row[j] if row[j] > top else top
    return top


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _exps(row, shift, out):
    """out = exp(row + shift)."""
    for j in range(len(row)):
        out[j] = exp64(row[j] + shift)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _log_sum(row):
    top = _top(row)
    if top == -np.inf:
        return top
    total = 0.0
    for j in range(len(row)):
        total += exp64(row[j] - top)
    return top + math.log(total)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _advance(before, w, shift, transposed, expw, scaled, out):
    """out[j] = log sum_i exp(before[i] + w(i, j)); w(i, j) = w[2+i, j], or w[2+j, i] when transposed."""
    n = len(before)
    top = _top(before)
    _exps(before, -top, scaled)
    if transposed:
        for j in range(n):
            total, line = 0.0, expw[j]
            for i in range(n):
                total += scaled[i] * line[i]
            out[j] = total
    else:
        for j in range(n):
            out[j] = 0.0
        for i in range(n):
            p, line = scaled[i], expw[i]
            for j in range(n):
                out[j] += p * line[j]
    for j in range(n):
        if out[j] > 1e-280:
            out[j] = math.log(out[j]) + (top + shift)
        else:
            for i in range(n):
                scaled[i] = before[i] + (w[2 + j, i] if transposed else w[2 + i, j])
            out[j] = _log_sum(scaled)


@njit(cache=True, nogil=True)
def _relative(w, expw):
    """expw = exp(weights between tags - the largest of them), which is returned."""
    n = w.shape[1]
    shift = float(w[2, 0])
    for i in range(n):
        for j in range(n):
            shift = max(shift, float(w[2 + i, j]))
    for i in range(n):
        _exps(w[2 + i], -shift, expw[i, :n])
    return shift


@njit(cache=True, nogil=True, error_model="numpy")
def _alphas(e, w, first, size, shift, expw, scaled, alpha):
    """Fills alpha[k] = log of the summed scores of all paths that end in each tag; returns log Z."""
    n = w.shape[1]
    for j in range(n):
        alpha[0, j] = w[0, j] + e[first, j]
    for k in range(1, size):
        now, line = alpha[k, :n], e[first + k]
        _advance(alpha[k - 1, :n], w, shift, False, expw, scaled, now)
        for j in range(n):
            now[j] += line[j]
    for j in range(n):
        scaled[j] = alpha[size - 1, j] + w[1, j]
    return _log_sum(scaled)


@njit(cache=True, nogil=True, error_model="numpy")
def _stops(w, stop):
    """stop, zeros, = exp(stop weights - the largest of them), which is returned."""
    n = w.shape[1]
    copy_line(w[1], stop[:n])
    return relative(stop[:n], n)


@njit(cache=True, nogil=True, error_model="numpy")
def _longest(size):
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    return longest


@njit(cache=True, nogil=True, error_model="numpy")
def cost(e, w, label, start, size, alpha_out, out):
    """out[q] = log Z - score of the labels; alpha_out: forward variables, each row summing to 1."""
    n = w.shape[1]
    longest = _longest(size)
    expw, stop, zeros = rows(n, n), rows(1, n)[0], rows(1, n)[0]
    shift, top_stop = _relative(w, expw), _stops(w, stop)
    chances, exps = rows(longest, n), rows(longest, n)
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            out[q] = 0
            continue
        whole, total = scaled_forward(e, w, first, m, shift, expw, stop, zeros, chances, exps)
        total += top_stop
        if not whole:
            total = _alphas(e, w, first, m, shift, expw, exps[0, :n], chances)
            for k in range(m):
                norm = _log_sum(chances[k, :n])
                _exps(chances[k, :n], -norm, chances[k, :n])
        for k in range(m):
            copy_line(chances[k, :n], alpha_out[first + k])
        if not whole:
            chances[:] = 0
            exps[:] = 0
        y = label[first]
        score = float(w[0, y]) + e[first, y]
        for k in range(1, m):
            z = label[first + k]
            score += float(w[2 + y, z]) + e[first + k, z]
            y = z
        out[q] = total - (score + w[1, y])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _pairs(e, w, dw, scale, total, before, after, row, shift, expw, ends):
    """Adds scale * P(tag i at k-1, tag j at k) to dw[2 + i, j]; `after` is beta[k]."""
    n = w.shape[1]
    line = e[row]
    top_a, top_b = _top(before), line[0] + after[0]
    for j in range(n):
        v = line[j] + after[j]
        top_b = v if v > top_b else top_b
    power = top_a + top_b + shift - total
    if power < BIG:
        factor = math.exp(power) * scale
        for j in range(n):
            ends[j] = exp64(line[j] + after[j] - top_b) * factor
        for i in range(n):
            p, out, weights = exp64(before[i] - top_a), dw[2 + i], expw[i]
            for j in range(n):
                out[j] += p * weights[j] * ends[j]
    else:
        for i in range(n):
            for j in range(n):
                dw[2 + i, j] += scale * math.exp(before[i] + w[2 + i, j] + e[row, j] + after[j] - total)


@njit(cache=True, nogil=True, error_model="numpy")
def _back_in_logs(e, w, first, m, scale, shift, expw, room, alpha, de, dw):
    """:func:`cost_back` of one sequence without the actual counts."""
    n = w.shape[1]
    beta, ahead = np.empty(n), np.empty(n)
    total = _alphas(e, w, first, m, shift, expw, room, alpha)
    for j in range(n):
        beta[j] = w[1, j]
    for k in range(m - 1, -1, -1):
        line, now = de[first + k], alpha[k]
        for j in range(n):
            line[j] = scale * exp64(now[j] + beta[j] - total)
        if k == 0:
            break
        _pairs(e, w, dw, scale, total, alpha[k - 1, :n], beta, first + k, shift, expw, room)
        for j in range(n):
            ahead[j] = e[first + k, j] + beta[j]
        _advance(ahead, w, shift, True, expw, room, beta)


@njit(cache=True, nogil=True, error_model="numpy")
def cost_back(e, w, label, start, size, dout, de, dw):
    """Gradients of `cost`: expected minus actual counts, times dout. de, dw: zeros on entry; dw is float64."""
    n = w.shape[1]
    longest = _longest(size)
    expw, turned, pairs = rows(n, n), rows(n, n), rows(n, n)
    stop, zeros, after = rows(1, n)[0], rows(1, n)[0], rows(1, n)[0]
    shift = _relative(w, expw)
    _stops(w, stop)
    for i in range(n):
        copy_line(expw[:, i], turned[i, :n])
    chances, exps = rows(longest, n), rows(longest, n)
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            continue
        scale = float(dout[q])
        whole, _ = scaled_forward(e, w, first, m, shift, expw, stop, zeros, chances, exps)
        if whole and scaled_backward(m, scale, stop, turned, zeros, chances, exps, after, de[first : first + m]):
            add_pairs(m, chances, exps, pairs)
        else:
            _back_in_logs(e, w, first, m, scale, shift, expw, after[:n], chances, de, dw)
            chances[:] = 0
            exps[:] = 0
            after[:] = 0
        for j in range(n):
            dw[0, j] += de[first, j]
            dw[1, j] += de[first + m - 1, j]
        y = label[first]
        dw[0, y] -= scale
        de[first, y] -= scale
        for k in range(1, m):
            z = label[first + k]
            dw[2 + y, z] -= scale
            de[first + k, z] -= scale
            y = z
        dw[1, y] -= scale
    for i in range(n):
        for j in range(n):
            dw[2 + i, j] += pairs[i, j] * expw[i, j]


# ---- decoding --------------------------------------------------------------------------------------
_INDEX, _I32 = ir.IntType(64), ir.IntType(32)
_FLOATS, _INTEGERS = ir.VectorType(ir.FloatType(), 16), ir.VectorType(_I32, 16)
_SPREAD = ir.Constant(_INTEGERS, [0] * 16)


def padded(tags):
    """How long rows of tags are: what lies beyond the last tag is computed and never looked at."""
    return (tags + 63) // 64 * 64


_padded = njit(cache=True, nogil=True)(padded)


def _emit_step(builder: ir.IRBuilder, best: ir.Value, move: ir.Value, line: ir.Value, n: ir.Value) -> list[ir.Value]:
    """The loop over tags for 64 columns, in registers: four vectors of the best sums, four of where they came from."""

    def spread(value: ir.Value, kind: ir.Type) -> ir.Value:
        nothing = ir.Constant(kind, ir.Undefined)
        return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(_I32, 0)), nothing, _SPREAD)

    def sums(i: ir.Value) -> list[ir.Value]:
        at = builder.inttoptr(builder.add(best, builder.mul(i, _INDEX(4))), ir.FloatType().as_pointer())
        b = spread(builder.load(at), _FLOATS)
        row = builder.add(move, builder.mul(i, line))
        found = []
        for j in range(4):
            value = builder.load(builder.inttoptr(builder.add(row, _INDEX(64 * j)), _FLOATS.as_pointer()))
            value.align = 4
            found.append(builder.fadd(b, value))
        return found

    first = sums(_INDEX(0))
    before = builder.block
    loop, body, done = (builder.append_basic_block(f"tags.{name}") for name in ("loop", "body", "end"))
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_INDEX)
    top, came = [builder.phi(_FLOATS) for _ in range(4)], [builder.phi(_INTEGERS) for _ in range(4)]
    builder.cbranch(builder.icmp_signed("<", i, n), body, done)
    builder.position_at_end(body)
    tag = spread(builder.trunc(i, _I32), _INTEGERS)
    values = sums(i)
    better = [builder.fcmp_ordered(">", new, old) for new, old in zip(values, top)]
    tops = [builder.select(*args) for args in zip(better, values, top)]
    tags = [builder.select(one, tag, old) for one, old in zip(better, came)]
    starts = [_INDEX(1), *first, *[ir.Constant(_INTEGERS, [0] * 16)] * 4]
    for phi, start, end in zip([i, *top, *came], starts, [builder.add(i, _INDEX(1)), *tops, *tags]):
        phi.add_incoming(start, before)
        phi.add_incoming(end, body)
    builder.branch(loop)
    builder.position_at_end(done)
    return [*top, *came]


@intrinsic
def _step_at(typing_context, best, move, line, n, ahead, came):
    """:func:`_step` for 64 columns, by addresses; line: bytes from row to row of `move`."""
    del typing_context, best, move, line, n, ahead, came

    def emit(context, builder, signature, args):
        found = _emit_step(builder, args[0], args[1], args[2], args[3])
        for k, value in enumerate(found):
            at = builder.add(args[4 + k // 4], _INDEX(64 * (k % 4)))
            builder.store(value, builder.inttoptr(at, value.type.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


def _step(best, move, ahead, came):
    """ahead[j] = max_i best[i] + move[i, j], came[j] = the first such i; float32 rows are multiples of 64 long."""


def _step32(best, move, ahead, came):
    n, line = move.shape[0], move.shape[1] * 4
    for at in range(0, line, 256):
        _step_at(best.ctypes.data, move.ctypes.data + at, line, n, ahead.ctypes.data + at, came.ctypes.data + at)


def _step64(best, move, ahead, came):
    row = move[0]
    for j in range(len(ahead)):
        ahead[j] = best[0] + row[j]
        came[j] = 0
    for i in range(1, move.shape[0]):
        b = best[i]
        row = move[i]
        for j in range(len(ahead)):
            v = b + row[j]
            better = v > ahead[j]
            ahead[j] = v if better else ahead[j]
            came[j] = i if better else came[j]


@overload(_step)
def _step_of(best, move, ahead, came):
    return _step32 if best.dtype == types.float32 else _step64


@njit(cache=True, nogil=True)
def viterbi(e, w, start, size, path):
    """path[row] = tag of the best path; on ties the lowest tag."""
    n = w.shape[1]
    wide = _padded(n)
    move = np.zeros((n, wide), w.dtype)
    for i in range(n):
        copy_line(w[2 + i], move[i, :n])
    decode(e, w, move, start, size, path)


@njit(cache=True, nogil=True)
def decode(e, w, move, start, size, path):
    """:func:`viterbi` with the moves between tags as rows of :func:`padded` numbers; rows of `e` may be longer than w's."""
    n, wide = move.shape
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    came = np.empty((longest, wide), np.int32)
    best, ahead = np.zeros(wide, e.dtype), np.zeros(wide, e.dtype)
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            continue
        for j in range(n):
            best[j] = w[0, j] + e[first, j]
        for k in range(1, m):
            _step(best, move, ahead, came[k])
            for j in range(n):
                best[j] = ahead[j] + e[first + k, j]
        y = 0
        top = best[0] + w[1, 0]
        for j in range(1, n):
            v = best[j] + w[1, j]
            if v > top:
                top = v
                y = j
        for k in range(m - 1, -1, -1):
            path[first + k] = y
            if k:
                y = came[k, y]
