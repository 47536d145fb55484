"""Transforms of small squares of pixels, float32, a vector of channels at a time: what surrounds winograd.py's products.

A transform takes the numbers of a square and gives matrix @ square @ matrix.T. Addresses of pixels stand in a table, so that
beyond a border there is a line of zeros, or one that nobody reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import pairs
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, INDEX, VECTOR, fma, load, number, spread, store

Matrix = Sequence[Sequence[float]]


def _constant(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [float(value)] * LANES)


def _sum(builder: ir.IRBuilder, factors: Sequence[float], values: Sequence[ir.Value]) -> ir.Value:
    """The sum of values times factors; factors of 1 and -1 cost an addition."""
    terms = sorted(((f, v) for f, v in zip(factors, values) if f), key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    factor, total = terms[0]
    if factor != 1:
        total = builder.fneg(total) if factor == -1 else builder.fmul(_constant(factor), total)
    for factor, value in terms[1:]:
        if factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = fma(builder, _constant(factor), value, total)
    return total


def _pairs(lines: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pairs of lines that differ in signs only, in some of them."""
    found: list[tuple[int, int]] = []
    for a, b in combinations(range(len(lines)), 2):
        signs = {x == y for x, y in zip(lines[a], lines[b]) if x or y}
        sizes = all(abs(x) == abs(y) for x, y in zip(lines[a], lines[b]))
        if sizes and signs == {True, False} and not any({a, b} & set(pair) for pair in found):
            found.append((a, b))
    return found


def _product(builder: ir.IRBuilder, matrix: Matrix, values: Sequence[ir.Value]) -> list[ir.Value]:
    """matrix @ values; what two columns, or two rows, share but for signs is computed once."""
    lines, values = [list(line) for line in matrix], list(values)
    for a, b in _pairs(list(zip(*matrix))):
        plus, minus = builder.fadd(values[a], values[b]), builder.fsub(values[a], values[b])
        same = [line[a] == line[b] for line in lines]
        for line, together in zip(lines, same):
            line[a], line[b] = (line[a], 0) if together else (0, line[a])
        values[a], values[b] = plus, minus
    twins = dict(_pairs(lines))
    results: dict[int, ir.Value] = {}
    for a, line in enumerate(lines):
        if a in results:
            continue
        if a not in twins:
            results[a] = _sum(builder, line, values)
            continue
        other = lines[twins[a]]
        same_part = _sum(builder, [x if x == y else 0 for x, y in zip(line, other)], values)
        rest = _sum(builder, [x if x != y else 0 for x, y in zip(line, other)], values)
        results[a], results[twins[a]] = builder.fadd(same_part, rest), builder.fsub(same_part, rest)
    return [results[a] for a in range(len(lines))]


def _square(builder: ir.IRBuilder, matrix: Matrix, square: list[list[ir.Value]]) -> list[ir.Value]:
    """matrix @ square @ matrix.T, row by row."""
    columns = [_product(builder, matrix, column) for column in zip(*square)]
    return [value for row in zip(*columns) for value in _product(builder, matrix, row)]


def _word(builder: ir.IRBuilder, table: ir.Value, k: int) -> ir.Value:
    return builder.load(builder.gep(table, [number(k)]))


def _table(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, INDEX.as_pointer())


def _choose(builder: ir.IRBuilder, which: ir.Value, emits: Sequence[Callable[[], None]]) -> None:
    """Instructions of the `which`th of `emits`."""
    end = builder.append_basic_block("transform.end")
    cases = [builder.append_basic_block("transform") for _ in emits]
    choice = builder.switch(which, cases[0])
    for n, (case, emit) in enumerate(zip(cases, emits)):
        choice.add_case(number(n), case)
        builder.position_at_end(case)
        emit()
        builder.branch(end)
    builder.position_at_end(end)


def _channels(builder: ir.IRBuilder, channels: ir.Value, size: int = 4) -> Any:
    """A loop over vectors of channels, `size` bytes a number; gives (the distance in bytes from the first, _)."""
    end = builder.mul(channels, number(size))
    return cgutils.for_range_slice(builder, number(0), end, number(size * LANES), inc=True)


def _load_brain(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return pairs.widened(builder, pairs.load_halves(builder, address))


def _store_brain(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    pairs.store_halves(builder, pairs.rounded(builder, value), address)


def make_apart(matrices: Sequence[Matrix], brain: bool = False) -> Any:
    """An intrinsic: matrix @ square @ matrix.T for every channel, each number of the result in a plane of its own.

    Arguments (addresses, distances in bytes): which matrix; the table of the square's addresses, row by row; where the first
    number of the result goes; the distance between planes; channels, a multiple of LANES. brain: numbers are bfloat16.
    """
    take, put = (_load_brain, _store_brain) if brain else (load, store)

    def emit_one(builder, matrix, table, out, distance, channels):
        size = len(matrix[0])
        given = [_word(builder, table, k) for k in range(size * size)]
        results = [builder.add(out, builder.mul(distance, number(k))) for k in range(len(matrix) ** 2)]
        with _channels(builder, channels, 2 if brain else 4) as (at, _):
            pixels = [take(builder, builder.add(address, at)) for address in given]
            flat = _square(builder, matrix, [pixels[k * size : (k + 1) * size] for k in range(size)])
            for address, value in zip(results, flat):
                put(builder, value, builder.add(address, at))

    @intrinsic
    def apart(typing_context, which, table, out, distance, channels):
        del typing_context

        def emit(context, builder, signature, args):
            rest = [_table(builder, args[1]), *args[2:]]
            _choose(builder, args[0], [partial(emit_one, builder, matrix, *rest) for matrix in matrices])
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return apart


def make_together(matrices: Sequence[Matrix], added: bool) -> Any:
    """An intrinsic: y = matrix @ square @ matrix.T + bias (+ others) for every channel, times slope where it is below 0,
    `most` at most. The numbers of the square stand each in a plane of its own.

    Arguments (addresses, distances in bytes): which matrix; where the first number stands; the distance between planes; the
    table of the results' addresses; that of the others' (used if `added`); the address of the bias, a number a channel;
    slope (0 to 1) and most, float32; channels, a multiple of LANES.
    """

    def emit_one(builder, matrix, first, distance, table, beside, bias, slope, most, channels):
        floor = builder.select(builder.fcmp_ordered("==", slope, _constant(0)), _constant(0), _constant(-math.inf))
        size, count = len(matrix[0]), len(matrix) ** 2
        results = [_word(builder, table, k) for k in range(count)]
        others = [_word(builder, beside, k) for k in range(count)] if added else []
        planes = [builder.add(first, builder.mul(distance, number(k))) for k in range(size * size)]
        with _channels(builder, channels) as (at, _):
            numbers = [load(builder, builder.add(address, at)) for address in planes]
            flat = _square(builder, matrix, [numbers[k * size : (k + 1) * size] for k in range(size)])
            more = load(builder, builder.add(bias, at))
            for k, value in enumerate(flat):
                y = builder.fadd(value, more)
                if added:
                    y = builder.fadd(y, load(builder, builder.add(others[k], at)))
                small = builder.fmul(y, slope)
                small = builder.select(builder.fcmp_ordered(">", small, floor), small, floor)  # relu's zeros: 0 * -inf
                y = builder.select(builder.fcmp_ordered("<", y, _constant(0)), small, y)  # what is no number stays
                y = builder.select(builder.fcmp_ordered(">", y, most), most, y)
                store(builder, y, builder.add(results[k], at))

    @intrinsic
    def together(typing_context, which, first, distance, table, beside, bias, slope, most, channels):
        del typing_context

        def emit(context, builder, signature, args):
            which, first, distance, table, beside, bias, slope, most, channels = args
            tables = [_table(builder, table), _table(builder, beside)]
            rest = [first, distance, *tables, bias, spread(builder, slope), spread(builder, most), channels]
            _choose(builder, which, [partial(emit_one, builder, matrix, *rest) for matrix in matrices])
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, types.float32, types.float32, types.intp), emit

    return together


def make_together_rounded(matrices: Sequence[Matrix]) -> Any:
    """An intrinsic: bfloat16 of matrix @ square @ matrix.T for every channel, of float32 numbers each in a plane of its own.

    Arguments (addresses, distances in bytes): which matrix; where the first number stands; the distance between planes; the
    table of the results' addresses; channels, a multiple of LANES.
    """

    def emit_one(builder, matrix, first, distance, table, channels):
        size = len(matrix[0])
        results = [_word(builder, table, k) for k in range(len(matrix) ** 2)]
        planes = [builder.add(first, builder.mul(distance, number(k))) for k in range(size * size)]
        with _channels(builder, channels, 2) as (at, _):
            numbers = [load(builder, builder.add(address, builder.mul(at, number(2)))) for address in planes]
            flat = _square(builder, matrix, [numbers[k * size : (k + 1) * size] for k in range(size)])
            for address, value in zip(results, flat):
                _store_brain(builder, value, builder.add(address, at))

    @intrinsic
    def together(typing_context, which, first, distance, table, channels):
        del typing_context

        def emit(context, builder, signature, args):
            rest = [*args[1:3], _table(builder, args[3]), args[4]]
            _choose(builder, args[0], [partial(emit_one, builder, matrix, *rest) for matrix in matrices])
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return together


def _make_turn(rounding):
    """An intrinsic: out[j, i] = given[i, j] for LANES x LANES numbers; addresses, distances between rows in bytes.

    rounding: `given` has LANES x 2 LANES float32, which become pairs of bfloat16.
    """

    @intrinsic
    def turn(typing_context, given, step, out, distance):
        del typing_context

        def emit(context, builder, signature, args):
            given, step, out, distance = args
            places = [builder.add(given, builder.mul(step, number(i))) for i in range(LANES)]
            if rounding:
                rows = [pairs.rounded_pairs(builder, load(builder, at), load(builder, builder.add(at, number(BYTES))))
                        for at in places]  # fmt: skip
            else:
                rows = [load(builder, at) for at in places]
            for j, row in enumerate(_turned(builder, rows)):
                store(builder, row, builder.add(out, builder.mul(distance, number(j))))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), emit

    return turn


def _turned(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of LANES x LANES numbers."""
    rows, size = list(rows), 1
    while size < LANES:  # squares of `size` change places across the diagonal
        low = [lane if not lane & size else LANES + lane - size for lane in range(LANES)]
        high = [lane + size if not lane & size else LANES + lane for lane in range(LANES)]
        for i in range(LANES):
            if not i & size:
                pair = rows[i], rows[i + size]
                rows[i], rows[i + size] = (_shuffle(builder, *pair, lanes) for lanes in (low, high))
        size *= 2
    return rows


turn, turn_rounded = _make_turn(False), _make_turn(True)


@intrinsic
def apart_taps(typing_context, given, out):
    """out[i, lane] = given[lane, i] for the nine taps of LANES filters; addresses."""
    del typing_context

    def emit(context, builder, signature, args):
        given, out = args
        vectors = [load(builder, builder.add(given, number(k * BYTES))) for k in range(9)]
        for i in range(9):
            places = [divmod(lane * 9 + i, LANES) for lane in range(LANES)]
            row = vectors[0]
            for k in range(9):  # one vector after the other gives its lanes
                row = _shuffle(builder, row, vectors[k], [LANES + at if k == n else lane
                                                          for lane, (n, at) in enumerate(places)])  # fmt: skip
            store(builder, row, builder.add(out, number(i * BYTES)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
    kind = ir.VectorType(ir.IntType(32), LANES)
    return builder.shuffle_vector(a, b, ir.Constant(kind, list(lanes)))
