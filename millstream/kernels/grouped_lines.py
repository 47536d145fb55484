"""What is done to a map as its rows are laid out in the cache for the tiles of grouped_tiles.py, and to their results.

All arguments are addresses or numbers. A map's pixels are [channels]; `line` has rows of numbers for the same channels,
`far` bytes apart. The kinds of activation (PLAIN, …) are those of depthwise_sweeps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.depthwise_sweeps import CAPPED, LEAKY, PLAIN, RELU, Line
from millstream.kernels.grouped_tiles import SUMMED, choose
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, VECTOR, Loop, fma, load, number, store

COPY, NORMAL, GIVEN = 0, 1, 5  # how pixels are read: as they are, or one of these and the kind of activation
_KINDS = (PLAIN, RELU, LEAKY, CAPPED)
_CHAINS = 4  # sums at a time, so that none waits for the one before it
_ZERO = ir.Constant(VECTOR, None)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


def _rows(builder: ir.IRBuilder, line: ir.Value, far: ir.Value, count: int) -> list[ir.Value]:
    return [load(builder, builder.add(line, builder.mul(far, number(k)))) for k in range(count)]


def _read(builder: ir.IRBuilder, how: int, x: ir.Value, line: ir.Value, far: ir.Value, dz: Any) -> ir.Value:
    """What is laid out for a vector of pixel x; dz: a function that loads the other map's."""
    if how == COPY:
        return x
    if how < GIVEN:
        a, b, _, *bend = _rows(builder, line, far, 5)
        return Line(builder, how - NORMAL, a, b, *bend)(x)[1]
    given = dz()
    p, q, r, *more = _rows(builder, line, far, 3 if how == GIVEN + PLAIN else 7)
    if more:
        a, b, *bend = more
        z = builder.fadd(builder.fmul(x, a), b)  # rounded as where that map was made
        given = Line(builder, how - GIVEN, a, b, *bend).back(z, given)
    return fma(builder, p, given, fma(builder, q, x, r))


@intrinsic
def read_pixel(typing_context, given):
    """Vectors of a pixel, as they are or by a line, to places `plane` bytes apart.

    Its arguments, a tuple: how, x, dz, line, far, vectors, to, plane. how: COPY; NORMAL and a kind of activation, where the
    line is [a, b, mean, slope, most] of a * x + b; GIVEN and a kind, where it is [p, q, r] or, with an activation,
    [p, q, r, a, b, slope, most]: the gradient of x is p * dz + q * x + r, and dz stands for what it is behind that.
    """
    del typing_context

    def emit(context, builder, signature, args):
        how, x, dz, line, far, vectors, to, plane = cgutils.unpack_tuple(builder, args[0])

        def body(case: int) -> None:
            loop = Loop(builder, vectors, [])
            at = builder.mul(loop.k, number(BYTES))
            value = load(builder, builder.add(x, at))
            here = builder.add(line, at)
            value = _read(builder, case, value, here, far, lambda: load(builder, builder.add(dz, at)))
            store(builder, value, builder.add(to, builder.mul(plane, loop.k)))
            loop.close([])

        choose(builder, how, (COPY, *(start + kind for start in (NORMAL, GIVEN) for kind in _KINDS)), body)
        return context.get_dummy_value()

    return types.void(given), emit


def _chained(builder: ir.IRBuilder, pixels: int, turns: ir.Value, emit: Callable[..., Any], sums: Any) -> None:
    """Add up what ``emit(number of a pixel, sum, other sum)`` makes of two sums, for `turns` times as many pixels.

    sums: addresses of LANES float64, to which they are added.
    """
    chains = min(pixels, _CHAINS)
    loop = Loop(builder, turns, [_ZERO] * (2 * chains))
    held, first = list(loop.held), builder.mul(loop.k, number(pixels))
    for p in range(pixels):
        k = p % chains * 2
        held[k], held[k + 1] = emit(builder.add(first, number(p)), held[k], held[k + 1])
    loop.close(held)
    for k, address in enumerate(sums):
        total = held[k]
        for other in held[k + 2 :: 2]:
            total = builder.fadd(total, other)
        place = builder.inttoptr(address, _DOUBLES.as_pointer())
        before = builder.load(place)
        before.align = 8
        builder.store(builder.fadd(before, builder.fpext(total, _DOUBLES)), place).align = 8


@intrinsic
def count_row(typing_context, given):
    """total += numbers of a vector of channels less `shift`, square += their squares, over pixels of a row.

    Its arguments, a tuple: pixels at a time (of SUMMED), how often, row, bytes between pixels, shift, total, square.
    """
    del typing_context

    def emit(context, builder, signature, args):
        which, turns, row, distance, shift, *sums = cgutils.unpack_tuple(builder, args[0])
        off = load(builder, shift)

        def add(pixel: ir.Value, total: ir.Value, square: ir.Value) -> tuple[ir.Value, ir.Value]:
            moved = builder.fsub(load(builder, builder.add(row, builder.mul(distance, pixel))), off)
            return builder.fadd(total, moved), fma(builder, moved, moved, square)

        choose(builder, which, SUMMED, lambda pixels: _chained(builder, pixels, turns, add, sums))
        return context.get_dummy_value()

    return types.void(given), emit


@intrinsic
def back_row(typing_context, given):
    """A row of gradients behind an activation -> before it, in place, of a vector of channels.

    Its arguments, a tuple: kind of activation, pixels at a time (of SUMMED), how often, row, that row of x, bytes between
    pixels, line [a, b, mean, slope, most], far, total, dot: += gradients, and gradients times (x - mean).
    """
    del typing_context

    def emit(context, builder, signature, args):
        kind, which, turns, row, x, distance, line, far, *sums = cgutils.unpack_tuple(builder, args[0])
        a, b, mean, *bend = _rows(builder, line, far, 5)

        def body(case: int) -> None:
            normal = Line(builder, case, a, b, *bend)

            def add(pixel: ir.Value, total: ir.Value, dot: ir.Value) -> tuple[ir.Value, ir.Value]:
                ahead = builder.mul(distance, pixel)
                here, value = builder.add(row, ahead), load(builder, builder.add(x, ahead))
                gradient = normal.back(normal(value)[0], load(builder, here))
                store(builder, gradient, here)
                return builder.fadd(total, gradient), fma(builder, gradient, builder.fsub(value, mean), dot)

            choose(builder, which, SUMMED, lambda pixels: _chained(builder, pixels, turns, add, sums))

        choose(builder, kind, _KINDS, body)
        return context.get_dummy_value()

    return types.void(given), emit
