"""Products with few rows, float32, in register tiles: explicit vectors where LLVM's own vectoriser keeps sums in memory.

A tile is `rows` x `vectors` sums held in registers while k runs over the inner dimension (the micro-kernel of Goto and
van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). With few rows the right matrix is read once
or a few times, so nothing is packed. Measured on Zen 5, one thread: [18, 256] x [256, 384] in 14 us, MKL 41, oneDNN 27.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_FLOAT, _INDEX, _I32, _BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(8)
_LINE = 16  # floats of a cache line


def _registers() -> tuple[int, int]:
    """(float32 lanes of a vector register, vectors of a tile) for this processor."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 4
    return (8, 2) if features.get("avx2") else (4, 4)


LANES, VECTORS = _registers()
ROWS = 6  # 6 x VECTORS sums, VECTORS of the right matrix and one of the left fit the registers
_VECTOR = ir.VectorType(_FLOAT, LANES)


def make_tile(rows: int, vectors: int, ahead: int = 0, turned: bool = False) -> Any:
    """An intrinsic: out[rows, vectors * LANES] = a[rows, depth] @ b[depth, …] + first; addresses, strides in elements.

    turned: the left matrix stands the other way round in memory, a[depth, rows].

    `first` (read with stride `step`, 0 for a row that is the same for all) may be the output itself. Lines of the right
    matrix are fetched before they are needed: those of the columns beside the tile, or those `ahead` rows below.
    """

    @intrinsic
    def tile(typing_context, a, stride_a, b, stride_b, first, step, out, stride_out, depth):
        del typing_context
        signature = types.void(*[types.intp] * 9)

        def emit(context, builder, sig, args):
            pointer = _FLOAT.as_pointer()
            a_, b_, first_, out_ = (builder.inttoptr(args[i], pointer) for i in (0, 2, 4, 6))
            stride_a_, stride_b_, step_, stride_out_, depth_ = (args[i] for i in (1, 3, 5, 7, 8))
            kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")

            kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _I32, _I32, _I32])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")

            def at(base, offset):
                return builder.gep(base, [offset])

            def vector_at(base, j):
                return builder.bitcast(at(base, ir.Constant(_INDEX, j * LANES)), _VECTOR.as_pointer())

            def load(address):
                value = builder.load(address)
                value.align = 4
                return value

            left = [a_] if turned else [at(a_, builder.mul(stride_a_, ir.Constant(_INDEX, i))) for i in range(rows)]
            start = [at(first_, builder.mul(step_, ir.Constant(_INDEX, i))) for i in range(rows)]
            sums = [[load(vector_at(start[i], j)) for j in range(vectors)] for i in range(rows)]
            before = builder.block
            loop, done = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            k.add_incoming(ir.Constant(_INDEX, 0), before)
            held = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in range(rows)]
            row = at(b_, builder.mul(k, stride_b_))
            right = [load(vector_at(row, j)) for j in range(vectors)]
            if ahead:
                coming = at(row, builder.mul(stride_b_, ir.Constant(_INDEX, ahead)))
            else:  # the columns beside these come next, perhaps from far away
                coming = at(row, ir.Constant(_INDEX, vectors * LANES))
            for j in range(0, vectors * LANES, _LINE):
                line = builder.bitcast(at(coming, ir.Constant(_INDEX, j)), _BYTE.as_pointer())
                builder.call(prefetch, [line, *(ir.Constant(_I32, flag) for flag in (0, 3, 1))])
            same = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
            nothing = ir.Constant(_VECTOR, ir.Undefined)
            new = []
            beside = at(a_, builder.mul(k, stride_a_)) if turned else a_
            for i in range(rows):
                here = at(beside, ir.Constant(_INDEX, i)) if turned else at(left[i], k)
                value = builder.insert_element(nothing, builder.load(here), ir.Constant(_I32, 0))
                value = builder.shuffle_vector(value, nothing, same)
                new.append([builder.call(fma, [value, right[j], held[i][j]]) for j in range(vectors)])
            following = builder.add(k, ir.Constant(_INDEX, 1))
            k.add_incoming(following, loop)
            for i in range(rows):
                for j in range(vectors):
                    held[i][j].add_incoming(sums[i][j], before)
                    held[i][j].add_incoming(new[i][j], loop)
            builder.cbranch(builder.icmp_signed("<", following, depth_), loop, done)
            builder.position_at_end(done)
            for i in range(rows):
                target = at(out_, builder.mul(stride_out_, ir.Constant(_INDEX, i)))
                for j in range(vectors):
                    builder.store(new[i][j], vector_at(target, j)).align = 4
            return context.get_dummy_value()

        return signature, emit

    return tile


_wide6, _wide5, _wide4, _wide3, _wide2, _wide1 = (make_tile(rows, VECTORS) for rows in (6, 5, 4, 3, 2, 1))
_one6, _one5, _one4, _one3, _one2, _one1 = (make_tile(rows, 1) for rows in (6, 5, 4, 3, 2, 1))

# One row: as many sums as the registers hold, so that the matrix streams through without waiting for a sum. Measured:
# 196 KiB in 1.5 us, which is what the second-level cache delivers.
LONG = 16 if LANES == 16 else 8
_AHEAD = 8
_row_long, _row_wide = make_tile(1, LONG, _AHEAD), make_tile(1, VECTORS, _AHEAD)


@njit(cache=True, nogil=True, error_model="numpy")
def one_row_at(pa, pb, pf, po, depth, n):
    """out = a @ b + first for one row, by addresses; float32 [depth], C-contiguous [depth, n], [n], [n].

    depth >= 1, n >= LANES; `out` must be neither `a` nor, when n is no multiple of LANES, `first`.
    """
    j = 0
    while j < n:
        left = n - j
        if left < LANES:
            j = n - LANES  # some columns twice: cheaper than one by one
        if left >= LONG * LANES:
            _row_long(pa, depth, pb + j * 4, n, pf + j * 4, 0, po + j * 4, n, depth)
            j += LONG * LANES
        elif left >= VECTORS * LANES:
            _row_wide(pa, depth, pb + j * 4, n, pf + j * 4, 0, po + j * 4, n, depth)
            j += VECTORS * LANES
        else:
            _one1(pa, depth, pb + j * 4, n, pf + j * 4, 0, po + j * 4, n, depth)
            j += LANES


@njit(cache=True, nogil=True, error_model="numpy")
def _wide(rows, a, sa, b, sb, first, step, out, so, depth):
    if rows == 6:
        _wide6(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 5:
        _wide5(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 4:
        _wide4(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 3:
        _wide3(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 2:
        _wide2(a, sa, b, sb, first, step, out, so, depth)
    else:
        _wide1(a, sa, b, sb, first, step, out, so, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _one(rows, a, sa, b, sb, first, step, out, so, depth):
    if rows == 6:
        _one6(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 5:
        _one5(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 4:
        _one4(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 3:
        _one3(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 2:
        _one2(a, sa, b, sb, first, step, out, so, depth)
    else:
        _one1(a, sa, b, sb, first, step, out, so, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _tile_rows(left):
    return 4 if left == 7 or left == 8 else min(left, 6)


@njit(cache=True, nogil=True, error_model="numpy")
def few_rows_at(pa, pb, pf, po, m, depth, n):
    """:func:`few_rows` by addresses, which reach a kernel faster than arrays do."""
    _strip(pa, depth, pb, n, pf, po, m, depth, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _strip(pa, sa, pb, sb, pf, po, m, depth, n):
    j = 0
    while j < n:
        wide = n - j >= LANES * VECTORS
        if not wide and n - j < LANES:
            j = n - LANES  # some columns twice: cheaper than one by one
        i = 0
        while i < m:
            rows = _tile_rows(m - i)
            at_a, at_b, at_out = pa + i * sa * 4, pb + j * 4, po + (i * n + j) * 4
            if wide:
                _wide(rows, at_a, sa, at_b, sb, pf + j * 4, 0, at_out, n, depth)
            else:
                _one(rows, at_a, sa, at_b, sb, pf + j * 4, 0, at_out, n, depth)
            i += rows
        j += LANES * VECTORS if wide else LANES


# Rows of the left matrix that stay in the second-level cache while the right one is walked through once, and rows of both
# that do so where the product runs over rows. Measured on Zen 4, one thread, [940, 256] x [256, 384]: 104 GFLOP/s (oneDNN
# 99, MKL 77), its weight gradient 113 (75, 96); [1000, 1024] x [1024, 1024]: 99 (100, -) and 95 (-, 90).
_STRIP, _SLAB = 240, 256


@njit(cache=True, nogil=True, error_model="numpy")
def many_rows_at(pa, sa, pb, sb, pf, po, m, depth, n):
    """out = a @ b + first for any number of rows, by addresses; sa, sb: distances between rows of a and b, in numbers.

    float32 [m, depth], [depth, n], [n], C-contiguous [m, n]; depth >= 1, n >= LANES.
    """
    i = 0
    while i < m:
        rows = min(_STRIP, m - i)
        _strip(pa + i * sa * 4, sa, pb, sb, pf, po + i * n * 4, rows, depth, n)
        i += rows


_turned6, _turned5, _turned4, _turned3, _turned2, _turned1 = (
    make_tile(rows, VECTORS, turned=True) for rows in (6, 5, 4, 3, 2, 1)
)
_turned_one6, _turned_one5, _turned_one4, _turned_one3, _turned_one2, _turned_one1 = (
    make_tile(rows, 1, turned=True) for rows in (6, 5, 4, 3, 2, 1)
)


@njit(cache=True, nogil=True, error_model="numpy")
def _turned_wide(rows, a, sa, b, sb, first, step, out, so, depth):
    if rows == 6:
        _turned6(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 5:
        _turned5(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 4:
        _turned4(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 3:
        _turned3(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 2:
        _turned2(a, sa, b, sb, first, step, out, so, depth)
    else:
        _turned1(a, sa, b, sb, first, step, out, so, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _turned_one(rows, a, sa, b, sb, first, step, out, so, depth):
    if rows == 6:
        _turned_one6(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 5:
        _turned_one5(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 4:
        _turned_one4(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 3:
        _turned_one3(a, sa, b, sb, first, step, out, so, depth)
    elif rows == 2:
        _turned_one2(a, sa, b, sb, first, step, out, so, depth)
    else:
        _turned_one1(a, sa, b, sb, first, step, out, so, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def turned_at(pa, sa, pb, sb, pf, po, depth, m, n):
    """out = a.T @ b + first, by addresses; sa, sb: distances between rows of a and b, in numbers.

    float32 [depth, m], [depth, n], [n], C-contiguous [m, n]; depth >= 1, n >= LANES.
    """
    whole = n - n % LANES
    k = 0
    while k < depth:
        slab = min(_SLAB, depth - k)
        j = 0
        while j < whole:
            wide = whole - j >= LANES * VECTORS
            i = 0
            while i < m:
                rows = _tile_rows(m - i)
                at_a, at_b, at_out = pa + (k * sa + i) * 4, pb + (k * sb + j) * 4, po + (i * n + j) * 4
                first, step = (at_out, n) if k else (pf + j * 4, 0)
                if wide:
                    _turned_wide(rows, at_a, sa, at_b, sb, first, step, at_out, n, slab)
                else:
                    _turned_one(rows, at_a, sa, at_b, sb, first, step, at_out, n, slab)
                i += rows
            j += LANES * VECTORS if wide else LANES
        k += slab
    j, i = n - LANES, 0
    while whole < n and i < m:  # the last columns, with some that are there already, over all rows at once
        rows = _tile_rows(m - i)
        _turned_one(rows, pa + i * 4, sa, pb + j * 4, sb, pf + j * 4, 0, po + (i * n + j) * 4, n, depth)
        i += rows


@njit(cache=True, nogil=True, error_model="numpy")
def few_rows(a, b, first, out):
    """out = a @ b + first; C-contiguous float32 [M, K], [K, N], [N], [M, N]; K >= 1, N >= LANES."""
    few_rows_at(a.ctypes.data, b.ctypes.data, first.ctypes.data, out.ctypes.data, a.shape[0], a.shape[1], b.shape[1])
