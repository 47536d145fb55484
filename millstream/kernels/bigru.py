"""Both directions of a GRU over a few sequences in one call, from unprojected rows or from ids: arrays come as addresses.

The results of the two directions stand side by side in one matrix, so that nothing is copied afterwards.
"""

from __future__ import annotations

from numba import carray, njit, types
from numba.extending import intrinsic

from millstream.kernels.gates import FAST, activate
from millstream.kernels.gru import mix, pointer
from millstream.kernels.tiles import few_rows_at, one_row_at


@intrinsic
def _integers(typing_context, address):
    """The int64 pointer of an address."""
    del typing_context, address

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.intp), emit


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _steps(weight, hidden, column, scratch, offsets, d, reverse, code_gate, code, origin):
    """The recurrence over rows of `scratch` that hold the projections; one more row there is room for a step."""
    total, width = offsets[len(offsets) - 1], 3 * d
    z = carray(pointer(scratch), (total + 1, width))
    h = carray(pointer(hidden), (total, 2 * d))
    rh, zero = z[total, :d], z[total, d : 2 * d]
    at_rh, at_zero = scratch + total * width * 4, scratch + (total * width + d) * 4
    zero[:] = 0
    for q in range(len(offsets) - 1):
        first, last = offsets[q], offsets[q + 1]
        before = at_zero
        for t in range(last - first):
            i = last - 1 - t if reverse else first + t
            at_z = scratch + i * width * 4
            g = z[i]
            one_row_at(before, weight, at_z, at_z, d, 2 * d)
            activate(g[: 2 * d], code_gate)
            h_before = carray(pointer(before), d)
            r = g[d : 2 * d]
            for j in range(d):
                rh[j] = r[j] * h_before[j]
            one_row_at(at_rh, weight + 2 * d * d * 4, at_z + 2 * d * 4, at_z + 2 * d * 4, d, d)
            c = g[2 * d :]
            activate(c, code)
            mix(g[:d], c, h_before, h[i, column : column + d], origin)
            before = hidden + (i * 2 * d + column) * 4


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def from_rows(first, last, x, weights, hidden, scratches, offsets, depth, d, reverse, code_gate, code, origin):
    """Directions `first` to `last` - 1 (of 0 and 1) over x [rows, depth].

    weights: addresses (0: there is none), for each direction weight_x [depth, 3D], bias_x [3D], weight [D, 3D] in gru's
    layout, bias [3D]; float32, C-contiguous. hidden [rows, 2D]; scratches: of each direction, [rows + 1, 3D]. D is a
    multiple of the processor's float32 lanes. reverse: of direction 0; the other runs the other way.
    """
    total, width = offsets[len(offsets) - 1], 3 * d
    for k in range(first, last):
        scratch = scratches[k]
        sums = carray(pointer(scratch + total * width * 4), width)
        sums[:] = 0
        for slot in (4 * k + 1, 4 * k + 3):
            if weights[slot] != 0:
                sums += carray(pointer(weights[slot]), width)
        few_rows_at(x, weights[4 * k], scratch + total * width * 4, scratch, total, depth, width)
        _steps(weights[4 * k + 2], hidden, k * d, scratch, offsets, d, reverse != (k == 1), code_gate, code, origin)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def from_ids(first, last, ids, table, weights, hidden, scratches, offsets, d, reverse, code_gate, code, origin):
    """Directions over rows of `table` [ids, 6D], which hold the projections of the two; ids: int64 [rows], in range.

    weights: for each direction weight [D, 3D], bias [3D]; else as from_rows.
    """
    total, width = offsets[len(offsets) - 1], 3 * d
    which = carray(_integers(ids), total)
    for k in range(first, last):
        scratch = scratches[k]
        z = carray(pointer(scratch), (total + 1, width))
        for i in range(total):
            row = carray(pointer(table + (which[i] * 2 * width + k * width) * 4), width)
            z[i] = row
        if weights[2 * k + 1] != 0:
            bias = carray(pointer(weights[2 * k + 1]), width)
            for i in range(total):
                z[i] += bias
        _steps(weights[2 * k], hidden, k * d, scratch, offsets, d, reverse != (k == 1), code_gate, code, origin)
