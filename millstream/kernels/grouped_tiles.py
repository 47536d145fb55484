"""Tiles of 3x3 convolutions in groups of channels: some pixels of a row and a vector of channels, in registers.

A row is [pixels, LANES]: those channels of a map that one vector of the output is computed from, or that many of them.
Where a group fills vectors, a number of the input is multiplied by the filters' vector that stands for it. Where a vector
holds several groups, each lane needs a number of its own group: a shuffle brings it there, once for all taps of the row.

Filters of a row of taps are [depth, taps, LANES]; depth: the channels of a group, or as many of them as a vector holds.
All arguments are addresses or numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, INDEX, VECTOR, Loop, fetch, fma, load, number, spread, store

PIXELS = (14, 7, 4, 1)  # of a tile of the output
SUMMED = (7, 4, 1)  # pixels that are added to sums of filters' gradients at a time
DEPTH = 4  # channels of a group whose filters' gradients are summed at a time
_ZERO = ir.Constant(VECTOR, None)
_LANE = ir.IntType(32)
_PLACES = ir.VectorType(_LANE, LANES)


def _word(builder: ir.IRBuilder, address: ir.Value, k: int) -> ir.Value:
    return builder.load(builder.inttoptr(builder.add(address, number(8 * k)), INDEX.as_pointer()))


def _spread_at(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """A vector of the number at `address`."""
    value = builder.load(builder.inttoptr(address, ir.FloatType().as_pointer()))
    return spread(builder, value)


def _shuffled(builder: ir.IRBuilder, value: ir.Value, places: ir.Value) -> ir.Value:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(VECTOR, [VECTOR, _PLACES]), "llvm.x86.avx512.permvar.sf.512"
    )  # fmt: skip
    return builder.call(function, [value, places])


def _places(builder: ir.IRBuilder, group: ir.Value, depth: ir.Value) -> ir.Value:
    """For each lane, the number `depth` of its group, where groups have `group` channels, a power of two."""
    lanes = ir.Constant(_PLACES, list(range(LANES)))
    first = builder.and_(lanes, spread(builder, builder.trunc(builder.neg(group), _LANE), _PLACES))
    return builder.add(first, spread(builder, builder.trunc(depth, _LANE), _PLACES))


def choose(builder: ir.IRBuilder, which: ir.Value, sizes: Sequence[int], emit: Any) -> None:
    """Instructions of ``emit(size)`` for that one of `sizes` which `which` is."""
    end = builder.append_basic_block("sizes.end")
    cases = [builder.append_basic_block(f"size.{size}") for size in sizes]
    choice = builder.switch(which, cases[-1])
    for size, case in zip(sizes, cases):
        choice.add_case(number(size), case)
        builder.position_at_end(case)
        emit(size)
        builder.branch(end)
    builder.position_at_end(end)


def _one(places: Sequence[int]) -> ir.Constant:
    return ir.Constant(_PLACES, list(places))


def _meetings(offsets: Sequence[int], step: int, pixels: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """(pixel of the row, [(pixel of the tile, tap), …] that meet there)."""
    found: dict[int, list[tuple[int, int]]] = {}
    for p in range(pixels):
        for t, offset in enumerate(offsets):
            found.setdefault(p * step + offset, []).append((p, t))
    return sorted(found.items())


def make_row(taps: int, step: int, shuffled: bool) -> Any:
    """An intrinsic: out[p] = first + sum of row[p * step + tap] times filters, over rows; see the module.

    Its arguments, a tuple: pixels (of PIXELS), table of (row, filters) addresses, their number, bytes that the tile is ahead
    in each row, depth, channels of a group, first (LANES numbers), out, bytes between pixels of out.
    """

    def tile(builder: ir.IRBuilder, pixels: int, table, rows, ahead, depth, group, first, out, distance) -> None:
        meetings = _meetings(range(taps), step, pixels)
        for p in range(pixels):  # what will be written next
            fetch(builder, builder.add(builder.add(out, number(BYTES)), builder.mul(distance, number(p))))
        begin = load(builder, first)
        start = _places(builder, group, number(0)) if shuffled else None
        outer = Loop(builder, rows, [begin] * pixels)
        entry = builder.add(table, builder.mul(outer.k, number(16)))
        row, filters = builder.add(_word(builder, entry, 0), ahead), _word(builder, entry, 1)
        inner = Loop(builder, depth, [*outer.held, *([start] if shuffled else [])])
        sums, places = list(inner.held[:pixels]), inner.held[-1]
        at = builder.add(filters, builder.mul(inner.k, number(taps * BYTES)))
        factors = [load(builder, builder.add(at, number(t * BYTES))) for t in range(taps)]
        here = row if shuffled else builder.add(row, builder.mul(inner.k, number(4)))
        for q, meeting in meetings:
            pixel = builder.add(here, number(q * BYTES))
            value = _shuffled(builder, load(builder, pixel), places) if shuffled else _spread_at(builder, pixel)
            for p, t in meeting:
                sums[p] = fma(builder, value, factors[t], sums[p])
        inner.close([*sums, *([builder.add(places, _one([1] * LANES))] if shuffled else [])])
        outer.close(sums)
        for p, value in enumerate(sums):
            store(builder, value, builder.add(out, builder.mul(distance, number(p))))

    @intrinsic
    def row_tile(typing_context, given):
        del typing_context

        def emit(context, builder, signature, args):
            which, *rest = cgutils.unpack_tuple(builder, args[0])
            choose(builder, which, PIXELS, lambda pixels: tile(builder, pixels, *rest))
            return context.get_dummy_value()

        return types.void(given), emit

    return row_tile


def make_sums(step: int, shuffled: bool, depth: int = DEPTH) -> Any:
    """An intrinsic: sums[depth, 3, LANES] += row[p * step + tap] times gradients[p], over pixels and rows.

    Its arguments, a tuple: pixels at a time (of SUMMED), how often, from which pixel on, table of (row, gradients' row)
    addresses, their number, channels of a group, the first of them that is taken, sums. Products are added up apart from
    what stands in `sums`.
    """

    def sweep(builder: ir.IRBuilder, pixels: int, turns, done, table, rows, group, channel, sums) -> None:
        meetings = _meetings(range(3), step, pixels)
        first = _places(builder, group, channel) if shuffled else None
        outer = Loop(builder, rows, [_ZERO] * (3 * depth))
        entry = builder.add(table, builder.mul(outer.k, number(16)))
        row = builder.add(_word(builder, entry, 0), builder.mul(done, number(step * BYTES)))
        given = builder.add(_word(builder, entry, 1), builder.mul(done, number(BYTES)))
        if not shuffled:
            row = builder.add(row, builder.mul(channel, number(4)))
        inner = Loop(builder, turns, outer.held)
        new = list(inner.held)
        here = builder.add(row, builder.mul(inner.k, number(pixels * step * BYTES)))
        there = builder.add(given, builder.mul(inner.k, number(pixels * BYTES)))
        gradients = [load(builder, builder.add(there, number(p * BYTES))) for p in range(pixels)]
        for q, meeting in meetings:
            pixel = builder.add(here, number(q * BYTES))
            whole = load(builder, pixel) if shuffled else None
            for d in range(depth):
                if shuffled:
                    value = _shuffled(builder, whole, builder.add(first, _one([d] * LANES)))
                else:
                    value = _spread_at(builder, builder.add(pixel, number(4 * d)))
                for p, t in meeting:
                    new[3 * d + t] = fma(builder, value, gradients[p], new[3 * d + t])
        inner.close(new)
        outer.close(new)
        for k, value in enumerate(new):
            at = builder.add(sums, number(k * BYTES))
            store(builder, builder.fadd(load(builder, at), value), at)

    @intrinsic
    def sum_tile(typing_context, given):
        del typing_context

        def emit(context, builder, signature, args):
            which, *rest = cgutils.unpack_tuple(builder, args[0])
            choose(builder, which, SUMMED, lambda pixels: sweep(builder, pixels, *rest))
            return context.get_dummy_value()

        return types.void(given), emit

    return sum_tile
