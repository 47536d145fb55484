"""Products with few rows, float32, in register tiles: explicit vectors where LLVM's own vectoriser keeps sums in memory.

A tile is `rows` x `vectors` sums held in registers while k runs over the inner dimension (the micro-kernel of Goto and
van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). With few rows the right matrix is read once
or a few times, so nothing is packed. Measured on Zen 5, one thread: [18, 256] x [256, 384] in 14 us, MKL 41, oneDNN 27.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import pairs
from millstream.kernels.compiled import njit

_FLOAT, _INDEX, _I32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
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


class _Kind(NamedTuple):
    """How a tile reads: its vectors of columns; see :func:`make_tile`."""

    vectors: int
    ahead: int
    turned: bool
    pairs: bool = False
    rounded: bool = False
    fetching: bool = False


def _number(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


def _vector_at(builder: ir.IRBuilder, base: ir.Value, j: int) -> ir.Value:
    return builder.bitcast(builder.gep(base, [_number(j * LANES)]), _VECTOR.as_pointer())


def _load(builder: ir.IRBuilder, base: ir.Value, j: int) -> ir.Value:
    value = builder.load(_vector_at(builder, base, j))
    value.align = 4
    return value


def _emit(builder: ir.IRBuilder, args: Any, rows: int, kind: _Kind) -> None:
    """The instructions of a tile of `rows` rows; args: those of :func:`make_tile` or :func:`make_fetching_tile`."""
    a, b, first = (builder.inttoptr(args[i], _FLOAT.as_pointer()) for i in (0, 2, 4))
    stride_a, stride_b, step, out, stride_out, depth = (args[i] for i in (1, 3, 5, 6, 7, 8))
    tile = [(i, j) for i in range(rows) for j in range(kind.vectors)]
    starts = [builder.gep(first, [builder.mul(step, _number(i))]) for i in range(rows)]
    lines = [a if kind.turned else builder.gep(a, [builder.mul(stride_a, _number(i))]) for i in range(rows)]
    sums = [_load(builder, starts[i], j) for i, j in tile]
    before = builder.block
    loop, done = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INDEX)
    held = [builder.phi(_VECTOR) for _ in tile]
    right = _right(builder, builder.gep(b, [builder.mul(k, stride_b)]), stride_b, kind)
    if kind.fetching:
        fetch(builder, builder.inttoptr(builder.add(args[9], builder.mul(k, args[10])), _FLOAT.as_pointer()), 2)
    at = builder.mul(k, stride_a) if kind.turned else k
    left = [
        _spread(builder, builder.gep(lines[i], [builder.add(at, _number(i)) if kind.turned else at])) for i in range(rows)
    ]
    multiply = pairs.add_products if kind.pairs else _add_product
    new = [multiply(builder, left[i], right[j], value) for (i, j), value in zip(tile, held)]
    following = builder.add(k, _number(1))
    for phi, begin, end in zip([k, *held], [_number(0), *sums], [following, *new]):
        phi.add_incoming(begin, before)
        phi.add_incoming(end, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    size = 2 if kind.rounded else 4
    ends = [builder.add(out, builder.mul(stride_out, _number(i * size))) for i in range(rows)]
    for (i, j), value in zip(tile, new):
        at = builder.add(ends[i], _number(j * LANES * size))
        if kind.rounded:
            pairs.store_halves(builder, pairs.rounded(builder, value), at)
        else:
            builder.store(value, builder.inttoptr(at, _VECTOR.as_pointer())).align = 4


def _add_product(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
    )  # fmt: skip
    return builder.call(fma, [left, right, total])


def _right(builder: ir.IRBuilder, row: ir.Value, stride: ir.Value, kind: _Kind) -> list[ir.Value]:
    """The vectors of a row of the right matrix; the lines that come later are fetched."""
    vectors = [_load(builder, row, j) for j in range(kind.vectors)]
    if kind.ahead:
        coming = builder.gep(row, [builder.mul(stride, _number(kind.ahead))])
    else:  # the columns beside these come next, perhaps from far away
        coming = builder.gep(row, [_number(kind.vectors * LANES)])
    for j in range(0, kind.vectors * LANES, _LINE):
        fetch(builder, builder.gep(coming, [_number(j)]), 3)
    return vectors


def fetch(builder: ir.IRBuilder, pointer: ir.Value, level: int) -> None:
    """Have the line at a pointer, which may be any, brought to a cache; level: 3 the first, 2 the second."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
    )
    builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(flag, n) for n in (0, level, 1))])


@intrinsic
def fetch_line(typing_context, address):
    """Have the line at an address brought to the second-level cache."""
    del typing_context

    def emit(context, builder, signature, args):
        fetch(builder, builder.inttoptr(args[0], _FLOAT.as_pointer()), 2)
        return context.get_dummy_value()

    return types.void(types.intp), emit


@njit(cache=True, nogil=True, error_model="numpy")
def fetch_row(a, i):
    """Have row `i` of a C-contiguous matrix, which need not exist, brought to the second-level cache."""
    length = a.shape[1] * a.itemsize
    begin = a.ctypes.data + i * length
    for at in range(begin, begin + length, 64):
        fetch_line(at)


def _spread(builder: ir.IRBuilder, at: ir.Value) -> ir.Value:
    """A vector of one number."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    value = builder.insert_element(nothing, builder.load(at), ir.Constant(_I32, 0))
    return builder.shuffle_vector(value, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _emit_by_rows(builder: ir.IRBuilder, args: Any, kind: _Kind) -> None:
    """A tile for each number of rows; the first of `args` picks one."""
    end = builder.append_basic_block("tiles.end")
    cases = [builder.append_basic_block(f"rows.{n}") for n in range(1, ROWS + 1)]
    choice = builder.switch(args[0], cases[0])
    for n, case in enumerate(cases, 1):
        choice.add_case(_number(n), case)
        builder.position_at_end(case)
        _emit(builder, args[1:], n, kind)
        builder.branch(end)
    builder.position_at_end(end)


def make_tile(vectors: int, ahead: int = 0, turned: bool = False, brain: bool = False, rounded: bool = False) -> Any:
    """An intrinsic: out[rows, vectors * LANES] = a[rows, depth] @ b[depth, …] + first; addresses, strides in elements.

    rows: 1 to ROWS; a tile is compiled for each, and the number picks one. turned: the left matrix stands the other way
    round in memory, a[depth, rows]. brain: the elements of both matrices are pairs of bfloat16 along the depth (pairs.py).
    rounded: the output is bfloat16; `first` is float32 always.

    `first` (read with stride `step`, 0 for a row that is the same for all) may be the output itself. Lines of the right
    matrix are fetched before they are needed: those of the columns beside the tile, or those `ahead` rows below.
    """
    kind = _Kind(vectors, ahead, turned, brain, rounded)

    @intrinsic
    def tile(typing_context, rows, a, stride_a, b, stride_b, first, step, out, stride_out, depth):
        del typing_context

        def emit(context, builder, signature, args):
            _emit_by_rows(builder, args, kind)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), emit

    return tile


def make_fetching_tile(vectors: int, ahead: int) -> Any:
    """:func:`make_tile` that also has something else brought to the second-level cache: `depth` addresses from `coming` on,
    `far` bytes apart, one for each row of the right matrix."""
    kind = _Kind(vectors, ahead, False, fetching=True)

    @intrinsic
    def tile(typing_context, rows, a, stride_a, b, stride_b, first, step, out, stride_out, depth, coming, far):
        del typing_context

        def emit(context, builder, signature, args):
            _emit_by_rows(builder, args, kind)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 12), emit

    return tile


def make_row(vectors: int, ahead: int) -> Any:
    """:func:`make_tile` of a single row, without the choice."""
    kind = _Kind(vectors, ahead, False)

    @intrinsic
    def tile(typing_context, a, b, stride_b, first, out, depth):
        del typing_context

        def emit(context, builder, signature, args):
            a_, b_, stride_b_, first_, out_, depth_ = args
            zero = _number(0)
            _emit(builder, [a_, zero, b_, stride_b_, first_, zero, out_, zero, depth_], 1, kind)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), emit

    return tile


_wide, _one = make_tile(VECTORS), make_tile(1)

# One row: as many sums as the registers hold, so that the matrix streams through without waiting for a sum. Measured:
# 196 KiB in 1.5 us, which is what the second-level cache delivers.
LONG = 16 if LANES == 16 else 8
_AHEAD = 8
_row_long, _row_wide, _row_one = make_row(LONG, _AHEAD), make_row(VECTORS, _AHEAD), make_row(1, 0)


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
            _row_long(pa, pb + j * 4, n, pf + j * 4, po + j * 4, depth)
            j += LONG * LANES
        elif left >= VECTORS * LANES:
            _row_wide(pa, pb + j * 4, n, pf + j * 4, po + j * 4, depth)
            j += VECTORS * LANES
        else:
            _row_one(pa, pb + j * 4, n, pf + j * 4, po + j * 4, depth)
            j += LANES


@njit(cache=True, nogil=True, error_model="numpy")
def tile_rows(left):
    """Rows of the next tile where `left` remain: two fours are faster than a six and what is left of it."""
    return 4 if left == 7 or left == 8 else min(left, 6)


@njit(cache=True, nogil=True, error_model="numpy")
def few_rows_at(pa, pb, pf, po, m, depth, n):
    """:func:`few_rows` by addresses, which reach a kernel faster than arrays do."""
    strip_at(pa, depth, pb, n, pf, 0, po, n, m, depth, n)


# Rows of the right matrix that are multiplied with all rows on the left before the next ones: a deeper panel of columns
# leaves the second-level cache. One thread, GFLOP/s, oneDNN -> so: [64, 6272] x [6272, 1024] 85 -> 109, [64, 1024] x
# [1024, 6272] 98 -> 107, [32, 25088] x [25088, 4096] 62 -> 101.
_DEPTH = 512


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def strip_at(pa, sa, pb, sb, pf, sf, po, so, m, depth, n):
    """out = a @ b + first for few rows, by addresses; sa, sb, sf, so: distances between rows, in numbers.

    float32 [m, depth], [depth, n], [m or 1, n], [m, n]; depth >= 1, n >= LANES. sf: 0 for one row for all. `first` may be
    the output if n is a multiple of LANES.
    """
    whole = n - n % LANES
    k = 0
    while k < depth:
        deep = depth - k if depth - k < 2 * _DEPTH else _DEPTH
        j = 0
        while j < whole:
            wide = whole - j >= LANES * VECTORS
            i = 0
            while i < m:
                rows = tile_rows(m - i)
                at_a, at_b, at_out = pa + (i * sa + k) * 4, pb + (k * sb + j) * 4, po + (i * so + j) * 4
                first, step = (at_out, so) if k else (pf + (i * sf + j) * 4, sf)
                if wide:
                    _wide(rows, at_a, sa, at_b, sb, first, step, at_out, so, deep)
                else:
                    _one(rows, at_a, sa, at_b, sb, first, step, at_out, so, deep)
                i += rows
            j += LANES * VECTORS if wide else LANES
        k += deep
    j, i = n - LANES, 0
    while whole < n and i < m:  # the last columns, with some that are there already: cheaper than one by one
        rows = tile_rows(m - i)
        _one(rows, pa + i * sa * 4, sa, pb + j * 4, sb, pf + (i * sf + j) * 4, sf, po + (i * so + j) * 4, so, depth)
        i += rows


# Rows of the left matrix that stay in the second-level cache while the right one is walked through once, and rows of both
# that do so where the product runs over rows. Measured on Zen 4, one thread, [940, 256] x [256, 384]: 104 GFLOP/s (oneDNN
# 99, MKL 77), its weight gradient 113 (75, 96); [1000, 1024] x [1024, 1024]: 99 (100, -) and 95 (-, 90).
STRIP, _SLAB = 240, 256


@njit(cache=True, nogil=True, error_model="numpy")
def many_rows_at(pa, sa, pb, sb, pf, po, m, depth, n):
    """out = a @ b + first for any number of rows, by addresses; sa, sb: distances between rows of a and b, in numbers.

    float32 [m, depth], [depth, n], [n], C-contiguous [m, n]; depth >= 1, n >= LANES.
    """
    i = 0
    while i < m:
        rows = min(STRIP, m - i)
        strip_at(pa + i * sa * 4, sa, pb, sb, pf, 0, po + i * n * 4, n, rows, depth, n)
        i += rows


_turned_wide, _turned_one = make_tile(VECTORS, turned=True), make_tile(1, turned=True)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def turned_at(pa, sa, pb, sb, pf, sf, po, depth, m, n):
    """out = a.T @ b + first, by addresses; sa, sb, sf: distances between rows, in numbers (sf: 0 for one row for all).

    float32 [depth, m], [depth, n], [m or 1, n], C-contiguous [m, n]; depth >= 1, n >= LANES. `first` may be the output
    if n is a multiple of LANES.
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
                rows = tile_rows(m - i)
                at_a, at_b, at_out = pa + (k * sa + i) * 4, pb + (k * sb + j) * 4, po + (i * n + j) * 4
                first, step = (at_out, n) if k else (pf + (i * sf + j) * 4, sf)
                for r in range(i + rows, min(i + rows + ROWS, m)):
                    for v in range(0, VECTORS * LANES if wide else LANES, _LINE):
                        fetch_line(po + (r * n + j + v) * 4)
                if wide:
                    _turned_wide(rows, at_a, sa, at_b, sb, first, step, at_out, n, slab)
                else:
                    _turned_one(rows, at_a, sa, at_b, sb, first, step, at_out, n, slab)
                i += rows
            j += LANES * VECTORS if wide else LANES
        k += slab
    j, i = n - LANES, 0
    while whole < n and i < m:  # the last columns, with some that are there already, over all rows at once
        rows = tile_rows(m - i)
        _turned_one(rows, pa + i * 4, sa, pb + j * 4, sb, pf + (i * sf + j) * 4, sf, po + (i * n + j) * 4, n, depth)
        i += rows


@njit(cache=True, nogil=True, error_model="numpy")
def few_rows(a, b, first, out):
    """out = a @ b + first; C-contiguous float32 [M, K], [K, N], [N], [M, N]; K >= 1, N >= LANES."""
    few_rows_at(a.ctypes.data, b.ctypes.data, first.ctypes.data, out.ctypes.data, a.shape[0], a.shape[1], b.shape[1])
