"""Products of numbers in [-1, 1] with stored weights, both as 16-bit integers of two signed bytes each.

    a @ w = s * sum (256 a1 + a0) (256 w1 + w0),  without a0 w0

Processors with AVX-512 VNNI multiply four bytes and add the products in one instruction, so that the three products of
digits take three quarters of the time of float32 where the core computes, and half of it where it waits for the weights. A
weight is off by at most 2^-16 of the largest in its column, a number by 2^-16; what is left out amounts to as much. The
instruction takes one unsigned operand: digits of numbers have 128 added, for which sums begin with less.

Layout of a matrix [depth, columns]: panels of COLUMNS columns. A panel begins with its vectors' first sums of the two kinds
(int32) and scales (float32), vector by vector, and goes on, for every four rows and vector, with 64 high and 64 low digits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, nearest
from millstream.kernels.tiles import tile_rows

_FLOAT, _INDEX, _I32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_FLOATS, _INTEGERS, _BYTES = ir.VectorType(_FLOAT, 16), ir.VectorType(_I32, 16), ir.VectorType(ir.IntType(8), 64)

LANES, VECTORS = 16, 4
COLUMNS = LANES * VECTORS
LARGEST = 32639  # 127 * 256 + 127
_HEAD = VECTORS * 3 * 64
_TOP, _ONE = np.float32(LARGEST), np.float32(1)


@cache
def available() -> bool:
    """Whether the processor has the instruction."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512bw"))


@njit(cache=True, nogil=True, error_model="numpy")
def size_of(depth, columns):
    """Bytes that :func:`digits_of` makes; depth a multiple of 4, columns of COLUMNS."""
    return columns // COLUMNS * (_HEAD + 2 * depth * COLUMNS)


def digits_of(w: np.ndarray) -> np.ndarray:
    """float32 `w` [depth, columns] in the layout above, as int8."""
    depth, columns = w.shape
    top = np.abs(w).max(0).astype("float64")
    scale = np.where(top > 0, top, 1) / LARGEST
    whole = np.rint(w / scale).astype(np.int32)
    high = (whole + 128) >> 8
    low = whole - (high << 8)
    panels = columns // COLUMNS
    begin = np.empty((panels, VECTORS, 3, LANES), np.int32)
    begin[:, :, 0] = (-128 * high.sum(0)).reshape(panels, VECTORS, LANES)
    begin[:, :, 1] = (-128 * (high + low).sum(0)).reshape(panels, VECTORS, LANES)
    begin[:, :, 2] = (scale * 256 / LARGEST).astype("float32").view(np.int32).reshape(panels, VECTORS, LANES)
    both = np.stack([high, low], 2).astype(np.int8).reshape(depth // 4, 4, panels, VECTORS, LANES, 2)
    body = both.transpose(2, 0, 3, 5, 4, 1).reshape(panels, -1)
    return np.concatenate([begin.reshape(panels, -1).view(np.int8), body], 1).reshape(-1)


# ---- tiles -----------------------------------------------------------------------------------------
def _number(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


def _at(builder: ir.IRBuilder, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(builder.add(address, _number(offset)), kind.as_pointer())


def _load(builder: ir.IRBuilder, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    value = builder.load(_at(builder, address, offset, kind))
    value.align = 4
    return value


def _spread(builder: ir.IRBuilder, value: ir.Value, kind: ir.Type) -> ir.Value:
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTEGERS, [0] * LANES))


def _emit(builder: ir.IRBuilder, args: Any, rows: int, chosen: range) -> None:
    """The instructions of a tile of `rows` rows and the `chosen` vectors of a panel; args: those of :func:`make_tile`."""
    a, stride, panel, depth, first, step, out, stride_out = args
    dot = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_INTEGERS, [_INTEGERS, _BYTES, _BYTES]), "llvm.x86.avx512.vpdpbusd.512"
    )  # fmt: skip
    tile = [(i, j) for i in range(rows) for j in chosen]
    lines = [builder.add(a, builder.mul(stride, _number(i))) for i in range(rows)]
    begin = [_load(builder, panel, (3 * j + k) * 64, _INTEGERS) for _, j in tile for k in (0, 1)]
    weights = builder.add(panel, _number(_HEAD))
    before = builder.block
    loop, done = builder.append_basic_block("digits"), builder.append_basic_block("digits.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INDEX)
    held = [builder.phi(_INTEGERS) for _ in begin]
    row = builder.add(weights, builder.mul(k, _number(2 * COLUMNS)))  # k counts rows, by fours
    right = {j: [_load(builder, row, (2 * j + half) * 64, _BYTES) for half in (0, 1)] for j in chosen}
    left = []
    for line in lines:
        at = builder.add(line, k)
        pair = [_load(builder, at, 0, _I32), _load(builder, builder.add(at, depth), 0, _I32)]
        left.append([builder.bitcast(_spread(builder, word, _INTEGERS), _BYTES) for word in pair])
    new = []
    for t, (i, j) in enumerate(tile):
        (high, low), (top, rest) = left[i], right[j]
        new.append(builder.call(dot, [held[2 * t], high, top]))
        new.append(builder.call(dot, [builder.call(dot, [held[2 * t + 1], low, top]), high, rest]))
    following = builder.add(k, _number(4))
    for phi, start, end in zip([k, *held], [_number(0), *begin], [following, *new]):
        phi.add_incoming(start, before)
        phi.add_incoming(end, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fma.v16f32")
    shift = _spread(builder, ir.Constant(_FLOAT, 256.0), _FLOATS)
    for t, (i, j) in enumerate(tile):
        high, low = (builder.sitofp(value, _FLOATS) for value in new[2 * t : 2 * t + 2])
        total = builder.call(fma, [high, shift, low])
        start = builder.add(first, builder.mul(step, _number(4 * i)))
        end = builder.add(out, builder.mul(stride_out, _number(4 * i)))
        scale = _load(builder, panel, (3 * j + 2) * 64, _FLOATS)
        value = builder.call(fma, [total, scale, _load(builder, start, 64 * j, _FLOATS)])
        builder.store(value, _at(builder, end, 64 * j, _FLOATS)).align = 4


def _make_tile(rows: int) -> Any:
    """An intrinsic: out[rows, COLUMNS] = a @ w + first for one panel; as many sums at a time as the registers hold.

    a: address of digits, `stride` bytes from row to row; first, out: float32, strides in numbers.
    """

    @intrinsic
    def tile(typing_context, a, stride, panel, depth, first, step, out, stride_out):
        del typing_context

        def emit(context, builder, signature, args):
            for chosen in [range(VECTORS)] if rows <= 3 else [range(2), range(2, VECTORS)]:
                _emit(builder, args, rows, chosen)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), emit

    return tile


_one, _two, _three, _four, _five, _six = (_make_tile(rows) for rows in range(1, 7))


# ---- kernels ---------------------------------------------------------------------------------------
@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def split(x, digits):
    """uint8 `digits` [2, n] of float32 `x` [n], which lies in [-1, 1]."""
    n = len(x)
    high, low = digits[:n], digits[n:]
    for j in range(n):
        v = x[j]
        v = _ONE if v > _ONE else v
        v = -_ONE if v < -_ONE else v
        whole = np.int32(nearest(v * _TOP))
        top = (whole + np.int32(128)) >> np.int32(8)
        high[j] = np.uint8(top + np.int32(128))
        low[j] = np.uint8(whole - (top << np.int32(8)) + np.int32(128))


@njit(cache=True, nogil=True, error_model="numpy")
def row_at(pa, pw, pf, po, depth, n):
    """out = a @ w + first for one row, by addresses; out, first: float32 [n]."""
    size = _HEAD + 2 * depth * COLUMNS
    for panel in range(n // COLUMNS):
        at = panel * COLUMNS * 4
        _one(pa, 0, pw + panel * size, depth, pf + at, 0, po + at, 0)


@njit(apart=True, cache=True, nogil=True, error_model="numpy")
def rows_at(pa, sa, pw, pf, sf, po, so, m, depth, n):
    """out = a @ w + first, by addresses; sa: bytes between rows of digits; sf, so: numbers between rows of first and out."""
    size = _HEAD + 2 * depth * COLUMNS
    for panel in range(n // COLUMNS):
        w, column = pw + panel * size, panel * COLUMNS * 4
        i = 0
        while i < m:
            rows = tile_rows(m - i)
            a, first, out = pa + i * sa, pf + i * sf * 4 + column, po + i * so * 4 + column
            if rows == 6:
                _six(a, sa, w, depth, first, sf, out, so)
            elif rows == 5:
                _five(a, sa, w, depth, first, sf, out, so)
            elif rows == 4:
                _four(a, sa, w, depth, first, sf, out, so)
            elif rows == 3:
                _three(a, sa, w, depth, first, sf, out, so)
            elif rows == 2:
                _two(a, sa, w, depth, first, sf, out, so)
            else:
                _one(a, sa, w, depth, first, sf, out, so)
            i += rows
