"""A machine for the steps of a recurrent loop: instructions over rows that stand in one array of float32.

Loops that users write (DynamicRNN, StaticRNN) apply the same few operators to a handful of rows, hundreds of times; called
one by one they cost far more than they compute. Here a step is a list of instructions, and numba runs all steps. The
lists come from kernels/row_program.py. Rows of one sequence never meet those of another, so a batch may be cut into
parts that run in threads.

A value is rows of `width` numbers at `stride` (0: one line that all rows share) from `base` in the array; `per_row` is the
stride where each step keeps its rows, 0 where the next step overwrites them. A value belongs to a space: space 0 has one
row for each running sequence, another space the rows of a sequence that each of them keeps (LoD), cut by `cuts`.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, sigmoid, tanh, through
from millstream.kernels.panels import product_at
from millstream.kernels.vectors import copy_line

# Instructions: [code, a, b, out, add, c]; `add`: add to what stands in `out`.
(
    PRODUCT, COPY, ADD, SUB, MUL, DIV, SCALE, ACT, ACT_BACK, SCALE_ROWS, DOT_ROWS, SPREAD, GATHER, SOFTMAX, SOFTMAX_BACK,
    PART_SOFTMAX, PART_SOFTMAX_BACK, REMEMBER, CARRY, ZERO, DIV_BACK, KEPT_DOT, KEPT_SUM, KEPT_OUTER,
) = range(24)  # fmt: skip
FIELDS = 6


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _activated(x, out, code):
    if code == 1:
        for j in range(len(x)):
            out[j] = sigmoid(x[j])
    elif code == 2:
        for j in range(len(x)):
            out[j] = tanh(x[j])
    else:
        for j in range(len(x)):
            out[j] = x[j]
        activate(out, code)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _activation_back(g, y, out, add, code):
    if code == 1:
        if add:
            for j in range(len(g)):
                out[j] += g[j] * (y[j] - y[j] * y[j])
        else:
            for j in range(len(g)):
                out[j] = g[j] * (y[j] - y[j] * y[j])
    elif code == 2:
        if add:
            for j in range(len(g)):
                out[j] += g[j] - g[j] * y[j] * y[j]
        else:
            for j in range(len(g)):
                out[j] = g[j] - g[j] * y[j] * y[j]
    elif add:
        for j in range(len(g)):
            out[j] += g[j] if y[j] > 0 or code != 3 else g[j] * 0
    else:
        for j in range(len(g)):
            out[j] = g[j]
        through(out, y, code)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _two(code, a, b, out, add):
    """ADD, SUB, MUL, DIV of lines."""
    if code == MUL:
        if add:
            for j in range(len(out)):
                out[j] += a[j] * b[j]
        else:
            for j in range(len(out)):
                out[j] = a[j] * b[j]
    elif code == ADD:
        for j in range(len(out)):
            out[j] = a[j] + b[j]
    elif code == SUB:
        for j in range(len(out)):
            out[j] = a[j] - b[j]
    elif add:
        for j in range(len(out)):
            out[j] += a[j] / b[j]
    else:
        for j in range(len(out)):
            out[j] = a[j] / b[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _one(code, a, out, add, scale, shift):
    """COPY and SCALE of a line."""
    if code == COPY:
        if add:
            for j in range(len(out)):
                out[j] += a[j]
        else:
            for j in range(len(out)):
                out[j] = a[j]
    elif add:
        for j in range(len(out)):
            out[j] += a[j] * scale
    else:
        for j in range(len(out)):
            out[j] = a[j] * scale + shift


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _dot(a, b):
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _softmax(x, step, n, out, step_out):
    """`n` numbers at distance `step`: a row, or a column of a sequence's rows."""
    top = x[0]
    for j in range(1, n):
        v = x[j * step]
        top = v if v > top or v != v else top
    total = np.float32(0)
    for j in range(n):
        v = np.float32(np.exp(x[j * step] - top))
        out[j * step_out] = v
        total += v
    scale = np.float32(1) / total
    for j in range(n):
        out[j * step_out] *= scale


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _softmax_back(g, step_g, y, step_y, n, out, step, add):
    total = np.float32(0)
    for j in range(n):
        total += g[j * step_g] * y[j * step_y]
    for j in range(n):
        v = (g[j * step_g] - total) * y[j * step_y]
        out[j * step] = out[j * step] + v if add else v


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _spread(memory, at, stride, width, cuts, n, to, stride_to, add, scale, mean):
    """Row i to all rows of sequence i; `mean` 1: over their number, 2: over its root."""
    for i in range(n):
        row = memory[at + i * stride : at + i * stride + width]
        size = cuts[i + 1] - cuts[i]
        factor = scale
        if mean == 1 and size:
            factor = scale / np.float32(size)
        elif mean == 2 and size:
            factor = scale / np.float32(np.sqrt(size))
        for r in range(cuts[i], cuts[i + 1]):
            _one(SCALE, row, memory[to + r * stride_to : to + r * stride_to + width], add, factor, np.float32(0))


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _gather(memory, at, stride, width, cuts, n, to, stride_to, add, mean):
    """The sum of sequence i's rows to row i; `mean` as above."""
    for i in range(n):
        out = memory[to + i * stride_to : to + i * stride_to + width]
        size = cuts[i + 1] - cuts[i]
        factor = np.float32(1)
        if mean == 1 and size:
            factor = np.float32(1) / np.float32(size)
        elif mean == 2 and size:
            factor = np.float32(1) / np.float32(np.sqrt(size))
        if not add:
            for j in range(width):
                out[j] = 0
        for r in range(cuts[i], cuts[i + 1]):
            _one(SCALE, memory[at + r * stride : at + r * stride + width], out, True, factor, np.float32(0))


@njit(cache=True, nogil=True, error_model="numpy")
def _kept(memory, code, at, stride, width, cuts, n, add):
    """Attention over the rows that each sequence keeps, without a copy of what they meet.

    KEPT_DOT: out_r = a_i . b_r for the rows r of sequence i; KEPT_SUM: out_i = sum of a_r (a number) * b_r;
    KEPT_OUTER: out_r = b_r (a number) * a_i.
    """
    pa, pb, po = at
    sa, sb, so = stride
    for i in range(n):
        if code == KEPT_SUM:
            out = memory[po + i * so : po + i * so + width]
            if not add:
                out[:] = 0
            for r in range(cuts[i], cuts[i + 1]):
                b = memory[pb + r * sb : pb + r * sb + width]
                _one(SCALE, b, out, True, memory[pa + r * sa], np.float32(0))
            continue
        a = memory[pa + i * sa : pa + i * sa + width]
        for r in range(cuts[i], cuts[i + 1]):
            if code == KEPT_DOT:
                v = _dot(a, memory[pb + r * sb : pb + r * sb + width])
                memory[po + r * so] = memory[po + r * so] + v if add else v
            else:
                out = memory[po + r * so : po + r * so + width]
                _one(SCALE, a, out, add, memory[pb + r * sb], np.float32(0))


@njit(cache=True, nogil=True, error_model="numpy")
def _rowwise(memory, code, at, stride, width, n, add, numbers, extra, whole):
    """Instructions that treat every row alike; at and stride: of a, b and out; `whole`: none of them is a view."""
    pa, pb, po = at
    sa, sb, so = stride
    lines = n
    one_operand = code in (COPY, SCALE, ACT)
    if whole and sa == so and (one_operand or (sb == so and (code <= DIV or code == ACT_BACK))):
        lines, width = 1, n * so  # rows without gaps between them are one line
    for r in range(lines):
        a, out = memory[pa + r * sa : pa + r * sa + width], memory[po + r * so : po + r * so + width]
        if code in (COPY, SCALE):
            _one(code, a, out, add, numbers[0], numbers[1])
        elif code == ACT:
            _activated(a, out, extra)
        elif code == ACT_BACK:
            _activation_back(a, memory[pb + r * sb : pb + r * sb + width], out, add, extra)
        elif code == SCALE_ROWS:
            _one(SCALE, a, out, add, memory[pb + r * sb], np.float32(0))
        elif code == DOT_ROWS:
            v = _dot(a, memory[pb + r * sb : pb + r * sb + width])
            memory[po + r * so] = memory[po + r * so] + v if add else v
        elif code == SOFTMAX:
            _softmax(a, 1, width, out, 1)
        elif code == SOFTMAX_BACK:
            _softmax_back(a, 1, memory[pb + r * sb : pb + r * sb + width], 1, width, out, 1, add)
        elif code == ZERO:
            out[:] = 0
        else:
            _two(code, a, memory[pb + r * sb : pb + r * sb + width], out, add)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _division_back(memory, pg, sg, pb, sb, py, sy, po, so, width, n, add):
    """Gradient of the divisor b of y = a / b: -g y / b."""
    for r in range(n):
        g, b = memory[pg + r * sg : pg + r * sg + width], memory[pb + r * sb : pb + r * sb + width]
        y, out = memory[py + r * sy : py + r * sy + width], memory[po + r * so : po + r * so + width]
        for j in range(width):
            v = -g[j] * y[j] / b[j]
            out[j] = out[j] + v if add else v


@njit(cache=True, nogil=True, error_model="numpy")
def _parts(memory, code, at, stride, cuts, n, add):
    """Softmax over the rows of each sequence (width 1) and its gradient."""
    pa, pb, po = at
    sa, sb, so = stride
    for i in range(n):
        first, size = cuts[i], cuts[i + 1] - cuts[i]
        if size and code == PART_SOFTMAX:
            _softmax(memory[pa + first * sa :], sa, size, memory[po + first * so :], so)
        elif size:
            _softmax_back(
                memory[pa + first * sa :], sa, memory[pb + first * sb :], sb, size, memory[po + first * so :], so, add
            )


@njit(cache=True, nogil=True, error_model="numpy")
def _memory(memory, code, t, last, at, stride, width, n, before, add, fill):
    """REMEMBER: out = a's first rows of the step before, at the first step b's rows (no b: `fill`).

    CARRY: out += a, which the later step left for its rows (with `add` 0: zeros where it had none).
    """
    pa, pb, po = at
    sa, sb, so = stride
    if code == REMEMBER:
        for r in range(n):
            out = memory[po + r * so : po + r * so + width]
            if t > 0:
                copy_line(memory[pa + r * sa : pa + r * sa + width], out)
            elif pb >= 0:
                copy_line(memory[pb + r * sb : pb + r * sb + width], out)
            else:
                out[:] = fill
        return
    for r in range(n):
        out = memory[po + r * so : po + r * so + width]
        if r < before:
            _one(COPY, memory[pa + r * sa : pa + r * sa + width], out, add, np.float32(1), np.float32(0))
        elif not add:
            out[:] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def run(memory, code, numbers, base, per_row, stride, width, space, view, first, count, cuts, backwards):
    """All steps of one part.

    Args:
        memory: float32 [all]; code: int64 [instructions, FIELDS]; numbers: float32 [instructions, 2].
        base, per_row, stride, width, space: int64, of each value; value 0 is a line of zeros, and stands where an
            instruction has no second operand. The width of a matrix is that of its panels.
        view: bool, of each value: it is columns of another one.
        first, count: int64 [spaces, steps]: the first kept row of a step, and how many rows it has.
        cuts: int64 [spaces, sequences + 1]: of the spaces' rows, from the part's first.
    """
    steps = count.shape[1]
    start = memory.ctypes.data
    for k in range(steps):
        t = steps - 1 - k if backwards else k
        running = count[0, t]
        later = count[0, t + 1] if t + 1 < steps else 0
        for i in range(len(code)):
            what, a, b, out, add, extra = code[i, 0], code[i, 1], code[i, 2], code[i, 3], code[i, 4], code[i, 5]
            n = count[space[out], t]
            at_a = base[a] + per_row[a] * first[space[a], t]
            at_b = base[b] + per_row[b] * first[space[b], t]
            at_out = base[out] + per_row[out] * first[space[out], t]
            if what == PRODUCT:
                at_line, step = base[extra], 0
                if add:
                    at_line, step = at_out, stride[out]
                product_at(
                    start + at_a * 4, stride[a], n, start + base[b] * 4, width[a], width[b], start + at_line * 4, step,
                    start + at_out * 4, stride[out],
                )  # fmt: skip
            elif what == SPREAD:
                _spread(
                    memory, at_a, stride[a], width[a], cuts[space[out]], running, at_out, stride[out], add != 0,
                    numbers[i, 0], extra,
                )  # fmt: skip
            elif what == GATHER:
                _gather(memory, at_a, stride[a], width[a], cuts[space[a]], running, at_out, stride[out], add != 0, extra)
            elif what in (KEPT_DOT, KEPT_SUM, KEPT_OUTER):
                where, strides = (at_a, at_b, at_out), (stride[a], stride[b], stride[out])
                of = cuts[space[a] if what == KEPT_SUM else space[out]]
                _kept(memory, what, where, strides, width[b] if what == KEPT_SUM else width[a], of, running, add != 0)
            elif what in (PART_SOFTMAX, PART_SOFTMAX_BACK):
                where, strides = (at_a, at_b, at_out), (stride[a], stride[b], stride[out])
                _parts(memory, what, where, strides, cuts[space[out]], running, add != 0)
            elif what in (REMEMBER, CARRY):
                at_a = base[a] + (per_row[a] * first[0, t - 1] if what == REMEMBER and t > 0 else 0)
                if what == CARRY and later:
                    at_a = base[a] + per_row[a] * first[0, t + 1]
                where, strides = (at_a, base[b] if b else -1, at_out), (stride[a], stride[b], stride[out])
                _memory(memory, what, t, steps, where, strides, width[out], n, later, add != 0, numbers[i, 0])
            elif what == DIV_BACK:
                at_y = base[extra] + per_row[extra] * first[space[extra], t]
                _division_back(
                    memory,
                    at_a,
                    stride[a],
                    at_b,
                    stride[b],
                    at_y,
                    stride[extra],
                    at_out,
                    stride[out],
                    width[out],
                    n,
                    add != 0,
                )
            else:
                where, strides = (at_a, at_b, at_out), (stride[a], stride[b], stride[out])
                wide = width[a] if what == DOT_ROWS else width[out]
                whole = not (view[a] or view[b] or view[out])
                _rowwise(memory, what, where, strides, wide, n, add != 0, numbers[i], extra, whole)
