"""Both directions of a GRU over a few sequences in one call, from unprojected rows or from ids: arrays come as addresses.

The results of the two directions stand side by side in one matrix, so that nothing is copied afterwards. Where an address of
digits is not 0, products with states are those of digits.py.
"""

from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from millstream.kernels.compiled import njit
from millstream.kernels.digits import row_at, rows_at, size_of, split
from millstream.kernels.gates import FAST, activate
from millstream.kernels.gru import mix, pointer
from millstream.kernels.lstm import place, running
from millstream.kernels.tiles import few_rows_at, many_rows_at, one_row_at, strip_at
from millstream.kernels.vectors import add_line


@intrinsic
def _integers(typing_context, address):
    """The int64 pointer of an address."""
    del typing_context, address

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.intp), emit


@njit(cache=True, nogil=True, error_model="numpy")
def outside(ids, count, size):
    """Whether one of `count` int64 numbers at an address does not lie in [0, size)."""
    found = False
    numbers = carray(_integers(ids), count)
    for i in range(count):
        found |= (numbers[i] < 0) | (numbers[i] >= size)
    return found


@intrinsic
def _bytes(typing_context, address):
    """The uint8 pointer of an address."""
    del typing_context, address

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.intp), emit


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def split_rows(x, d, out, m):
    """Digits of m rows of d numbers, by addresses."""
    for i in range(m):
        split(carray(pointer(x + i * d * 4), d), carray(_bytes(out + i * d * 2), 2 * d))


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _steps(weight, digits, hidden, column, scratch, offsets, d, reverse, code_gate, code, origin):
    """The recurrence over rows of `scratch` that hold the projections; one more row there is room for a step."""
    total, width = offsets[len(offsets) - 1], 3 * d
    z = carray(pointer(scratch), (total + 1, width))
    h = carray(pointer(hidden), (total, 2 * d))
    rh, zero = z[total, :d], z[total, d : 2 * d]
    at_rh, at_zero = scratch + total * width * 4, scratch + (total * width + d) * 4
    at_digits = scratch + (total * width + 2 * d) * 4
    few, split_candidate = carray(_bytes(at_digits), 2 * d), digits + size_of(d, 2 * d)
    zero[:] = 0
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        before = at_zero
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            at_z = scratch + i * width * 4
            g = z[i]
            h_before = carray(pointer(before), d)
            if digits != 0:
                split(h_before, few)
                row_at(at_digits, digits, at_z, at_z, d, 2 * d)
            else:
                one_row_at(before, weight, at_z, at_z, d, 2 * d)
            activate(g[: 2 * d], code_gate)
            r = g[d : 2 * d]
            for j in range(d):
                rh[j] = r[j] * h_before[j]
            at_c = at_z + 2 * d * 4
            if digits != 0:
                split(rh, few)
                row_at(at_digits, split_candidate, at_c, at_c, d, d)
            else:
                one_row_at(at_rh, weight + 2 * d * d * 4, at_c, at_c, d, d)
            c = g[2 * d :]
            activate(c, code)
            mix(g[:d], c, h_before, h[i, column : column + d], origin)
            before = hidden + (i * 2 * d + column) * 4


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def from_rows(first, last, x, weights, hidden, scratches, offsets, depth, d, reverse, code_gate, code, origin):
    """Directions `first` to `last` - 1 (of 0 and 1) over x [rows, depth].

    weights: addresses (0: there is none), for each direction weight_x [depth, 3D], bias_x [3D], weight [D, 3D] in gru's
    layout, bias [3D]; float32, C-contiguous; digits of weight_x; digits of weight's [D, 2D] and [D, D]. hidden [rows, 2D];
    scratches: of each direction, [rows + 1, 3D], and 2 * rows * depth bytes where there are digits of weight_x. D is a
    multiple of the processor's float32 lanes. reverse: of direction 0; the other runs the other way.
    """
    total, width = offsets[len(offsets) - 1], 3 * d
    for k in range(first, last):
        scratch = scratches[k]
        sums = carray(pointer(scratch + total * width * 4), width)
        sums[:] = 0
        for slot in (6 * k + 1, 6 * k + 3):
            if weights[slot] != 0:
                add_line(carray(pointer(weights[slot]), width), sums)
        if weights[6 * k + 4] != 0:
            rows = scratch + (total + 1) * width * 4
            split_rows(x, depth, rows, total)
            rows_at(rows, 2 * depth, weights[6 * k + 4], sums.ctypes.data, 0, scratch, width, total, depth, width)
        else:
            few_rows_at(x, weights[6 * k], sums.ctypes.data, scratch, total, depth, width)
        backwards = reverse != (k == 1)
        _steps(
            weights[6 * k + 2], weights[6 * k + 5], hidden, k * d, scratch, offsets, d, backwards, code_gate, code, origin
        )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def from_ids(first, last, ids, table, weights, hidden, scratches, offsets, d, reverse, code_gate, code, origin):
    """Directions over rows of `table` [ids, 6D], which hold the projections of the two; ids: int64 [rows], in range.

    weights: for each direction weight [D, 3D], bias [3D], digits of weight; else as from_rows.
    """
    total, width = offsets[len(offsets) - 1], 3 * d
    which = carray(_integers(ids), total)
    for k in range(first, last):
        scratch = scratches[k]
        z = carray(pointer(scratch), (total + 1, width))
        for i in range(total):
            row = carray(pointer(table + (which[i] * 2 * width + k * width) * 4), width)
            z[i] = row
        if weights[3 * k + 1] != 0:
            bias = carray(pointer(weights[3 * k + 1]), width)
            for i in range(total):
                z[i] += bias
        backwards = reverse != (k == 1)
        _steps(weights[3 * k], weights[3 * k + 2], hidden, k * d, scratch, offsets, d, backwards, code_gate, code, origin)


# ---- many sequences: step by step ------------------------------------------------------------------
@njit(apart=True, cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _batch(
    rows, ids, stride, bias, weight, digits, hidden, column, starts, lengths, room, d, reverse, code_gate, code, origin
):
    """The recurrence over sequences, the longest first, all of a step at a time.

    rows: address of projections, `stride` numbers apart; row i of the sequences is row i of them, or (ids not 0) row ids[i].
    room: address of [6, sequences, D] numbers.
    """
    count, width = len(starts), 3 * d
    size = count * d * 4
    at_h, at_rh, at_g, at_c, at_digits = room, room + size, room + 2 * size, room + 4 * size, room + 5 * size
    now, reset = carray(pointer(at_h), (count, d)), carray(pointer(at_rh), (count, d))
    gates, new = carray(pointer(at_g), (count, 2 * d)), carray(pointer(at_c), (count, d))
    now[:] = 0
    line = carray(pointer(bias), width)
    m, t = running(lengths, 0, count), 0
    while m:
        for q in range(m):
            i = place(starts[q], lengths[q], t, reverse)
            i = carray(_integers(ids), i + 1)[i] if ids != 0 else i
            z, g, c = carray(pointer(rows + i * stride * 4), width), gates[q], new[q]
            for j in range(2 * d):
                g[j] = z[j] + line[j]
            tail, end = z[2 * d :], line[2 * d :]
            for j in range(d):
                c[j] = tail[j] + end[j]
        if digits != 0:
            split_rows(at_h, d, at_digits, m)
            rows_at(at_digits, 2 * d, digits, at_g, 2 * d, at_g, 2 * d, m, d, 2 * d)
        else:
            strip_at(at_h, d, weight, 2 * d, at_g, 2 * d, at_g, 2 * d, m, d, 2 * d)
        for q in range(m):
            g, h, out = gates[q], now[q], reset[q]
            activate(g, code_gate)
            r = g[d:]
            for j in range(d):
                out[j] = r[j] * h[j]
        if digits != 0:
            split_rows(at_rh, d, at_digits, m)
            rows_at(at_digits, 2 * d, digits + size_of(d, 2 * d), at_c, d, at_c, d, m, d, d)
        else:
            strip_at(at_rh, d, weight + 2 * d * d * 4, d, at_c, d, at_c, d, m, d, d)
        for q in range(m):
            i = place(starts[q], lengths[q], t, reverse)
            c, h = new[q], now[q]
            activate(c, code)
            out = carray(pointer(hidden + (i * 2 * d + column) * 4), d)
            mix(gates[q, :d], c, h, out, origin)
            for j in range(d):
                h[j] = out[j]
        t += 1
        m = running(lengths, t, m)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def batch_from_rows(
    k, first, x, weights, hidden, scratch, room, starts, lengths, depth, d, reverse, code_gate, code, origin
):
    """Direction `k` of :func:`from_rows` over sequences whose rows follow each other, from row `first` on.

    starts (from `first` on), lengths: of the sequences, the longest first; scratch as there, room [6, sequences, D].
    """
    total, width = 0, 3 * d
    for q in range(len(lengths)):
        total += lengths[q]
    zero = scratch + total * width * 4
    sums = carray(pointer(zero), width)
    sums[:] = 0
    for slot in (6 * k + 1, 6 * k + 3):
        if weights[slot] != 0:
            add_line(carray(pointer(weights[slot]), width), sums)
    begin = x + first * depth * 4
    if weights[6 * k + 4] != 0:
        rows = zero + width * 4
        split_rows(begin, depth, rows, total)
        rows_at(rows, 2 * depth, weights[6 * k + 4], zero, 0, scratch, width, total, depth, width)
    else:
        many_rows_at(begin, depth, weights[6 * k], width, zero, scratch, total, depth, width)
    sums[:] = 0
    out = hidden + first * 2 * d * 4
    backwards = reverse != (k == 1)
    _batch(
        scratch, 0, width, zero, weights[6 * k + 2], weights[6 * k + 5], out, k * d, starts, lengths, room, d, backwards,
        code_gate, code, origin,
    )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def batch_from_ids(
    k, first, ids, table, weights, hidden, scratch, room, starts, lengths, d, reverse, code_gate, code, origin
):
    """Direction `k` of :func:`from_ids` as in :func:`batch_from_rows`; scratch [1, 3D]."""
    width = 3 * d
    sums = carray(pointer(scratch), width)
    sums[:] = 0
    if weights[3 * k + 1] != 0:
        add_line(carray(pointer(weights[3 * k + 1]), width), sums)
    out = hidden + first * 2 * d * 4
    backwards = reverse != (k == 1)
    _batch(
        table + k * width * 4, ids + first * 8, 2 * width, scratch, weights[3 * k], weights[3 * k + 2], out, k * d, starts,
        lengths, room, d, backwards, code_gate, code, origin,
    )  # fmt: skip
