"""Depthwise 3x3 filters along a row of pixels, a vector of channels at a time, with filters, window and sums in registers.

A row of a map is [pixels, channels], as it stands in memory; what is read of it is normalised on the way, once for each of
the three rows that a window sees: that costs less than a normalised copy in the cache, which is written and read nine times.
Rows of a gradient are copies with a pixel of zeros before the first and after the last. A sweep takes `count` pixels of the
output; `before` and `after` are 1 where the row has more of them on that side, else 0.

Arguments are addresses; `step` is the distance in bytes between pixels of all rows, and between rows of `taps` [9, channels]
and of `line` [5, channels]: a, b and mean of a * x + b, slope and most. `mode` is what stands behind it: PLAIN: nothing;
RELU; LEAKY: what is below 0 times slope; CAPPED: a relu that gives at most `most`; HARD: hard_swish. `far` is the distance
between rows of `sums`. `coming` are rows that the next call needs or writes: their pixels are fetched on the way, as many as
are filtered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.vectors import VECTOR, Loop, fetch, fma, load, number, store

PLAIN, RELU, LEAKY, CAPPED, HARD = range(5)
_ZERO = ir.Constant(VECTOR, None)
Values = list[ir.Value]


def _all(value: float) -> ir.Constant:
    """A vector of one number."""
    return ir.Constant(VECTOR, [float(np.float32(value))] * VECTOR.count)


def _far(builder: ir.IRBuilder, row: ir.Value, at: ir.Value, step: ir.Value, beyond: int) -> ir.Value:
    return builder.add(row, builder.add(at, builder.mul(step, number(beyond))))


def _pixel(builder: ir.IRBuilder, row: ir.Value, at: ir.Value, step: ir.Value, beyond: int) -> ir.Value:
    return load(builder, _far(builder, row, at, step, beyond))


def _rows(builder: ir.IRBuilder, begin: ir.Value, step: ir.Value, count: int) -> Values:
    return [load(builder, builder.add(begin, builder.mul(step, number(k)))) for k in range(count)]


def _add(builder: ir.IRBuilder, terms: Sequence[tuple[ir.Value, ir.Value]]) -> ir.Value:
    """The sum of products."""
    a, b = terms[0]
    total = builder.fmul(a, b)
    for a, b in terms[1:]:
        total = fma(builder, a, b, total)
    return total


def _fetch(builder: ir.IRBuilder, rows: Sequence[ir.Value], at: ir.Value, step: ir.Value, pixels: int = 1) -> None:
    for row in rows:
        for m in range(pixels):
            fetch(builder, _far(builder, row, at, step, m))


def _keep(builder: ir.IRBuilder, sums: ir.Value, step: ir.Value, values: Values) -> None:
    for k, value in enumerate(values):
        store(builder, value, builder.add(sums, builder.mul(step, number(k))))


def _where(builder: ir.IRBuilder, condition: ir.Value, make: Callable[[], Values], other: Values) -> Values:
    """What `make` gives, with all it does, where the condition holds, else `other`."""
    made: Values = []
    before = builder.block
    with builder.if_then(condition):
        made = make()
        inside = builder.block
    found = []
    for value, instead in zip(made, other):
        phi = builder.phi(VECTOR)
        phi.add_incoming(value, inside)
        phi.add_incoming(instead, before)
        found.append(phi)
    return found


class Line(NamedTuple):
    """A normalisation and the activation behind it."""

    builder: ir.IRBuilder
    mode: int
    a: ir.Value
    b: ir.Value
    slope: ir.Value
    most: ir.Value

    def __call__(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(before the activation, behind it); NaN stays."""
        z = fma(self.builder, x, self.a, self.b)
        if self.mode == PLAIN:
            return z, z
        if self.mode == HARD:
            gate = fma(self.builder, z, _all(1 / 6), _all(0.5))
            gate = self.builder.select(self.builder.fcmp_ordered("<", gate, _ZERO), _ZERO, gate)
            gate = self.builder.select(self.builder.fcmp_ordered(">", gate, _all(1)), _all(1), gate)
            return z, self.builder.fmul(z, gate)
        low = self.builder.fmul(z, self.slope) if self.mode == LEAKY else _ZERO
        y = self.builder.select(self.builder.fcmp_ordered(">", _ZERO, z), low, z)
        if self.mode == CAPPED:
            y = self.builder.select(self.builder.fcmp_ordered("<", self.most, y), self.most, y)
        return z, y

    def back(self, z: ir.Value, gradient: ir.Value) -> ir.Value:
        """The gradient before the activation, from that behind it."""
        if self.mode == PLAIN:
            return gradient
        if self.mode == HARD:
            inner = fma(self.builder, z, _all(1 / 3), _all(0.5))
            inner = self.builder.select(self.builder.fcmp_ordered("<=", z, _all(-3)), _ZERO, inner)
            inner = self.builder.select(self.builder.fcmp_ordered(">=", z, _all(3)), _all(1), inner)
            return self.builder.fmul(gradient, inner)
        low = self.builder.fmul(gradient, self.slope) if self.mode == LEAKY else _ZERO
        given = self.builder.select(self.builder.fcmp_ordered("<=", z, _ZERO), low, gradient)
        if self.mode == CAPPED:
            given = self.builder.select(self.builder.fcmp_ordered(">=", z, self.most), _ZERO, given)
        return given


def _by_mode(builder: ir.IRBuilder, mode: ir.Value, line: ir.Value, step: ir.Value, emit: Callable[..., None]) -> None:
    """`emit` for each kind of activation, with (line, mean); `mode` picks one."""
    a, b, mean, *bend = _rows(builder, line, step, 5)
    end = builder.append_basic_block("swept")
    kinds = [builder.append_basic_block(f"mode.{kind}") for kind in (PLAIN, RELU, LEAKY, CAPPED, HARD)]
    choice = builder.switch(mode, kinds[0])
    for kind, block in enumerate(kinds):
        choice.add_case(number(kind), block)
        builder.position_at_end(block)
        emit(Line(builder, kind, a, b, *bend), mean)
        builder.branch(end)
    builder.position_at_end(end)


def _make(emit: Any) -> Any:
    """An intrinsic that takes `emit`'s arguments as one tuple of integers."""

    @intrinsic
    def sweep(typing_context, given):
        del typing_context

        def code(context, builder, signature, args):
            emit(builder, *cgutils.unpack_tuple(builder, args[0]))
            return context.get_dummy_value()

        return types.void(given), code

    return sweep


def _is(builder: ir.IRBuilder, flag: ir.Value) -> ir.Value:
    return builder.icmp_signed("!=", flag, number(0))


def _inside(builder: ir.IRBuilder, k: ir.Value, count: ir.Value, after: ir.Value) -> ir.Value:
    """Whether the column behind those of turn k is one of the row."""
    return builder.icmp_signed("<", k, builder.add(count, builder.sub(after, number(1))))


def _filtered(stride: int) -> Any:
    """Three rows of the input, each with its three taps -> a row of the output; sums [2, …] += its numbers less `shift`, and
    the squares of those. coming: `stride` rows of the input and one of the output."""

    def emit(
        builder, above, middle, below, taps_above, taps_middle, taps_below, line, mode, out, shift, sums, far, step, count,
        before, after, *coming,
    ):  # fmt: skip
        rows = above, middle, below
        factors = [tap for taps in (taps_above, taps_middle, taps_below) for tap in _rows(builder, taps, step, 3)]
        off, totals = load(builder, shift), _rows(builder, sums, far, 2)

        def sweep(normal: Line, mean: ir.Value) -> None:
            def column(at: ir.Value, beyond: int) -> Values:
                return [normal(_pixel(builder, row, at, step, beyond))[1] for row in rows]

            left = _where(builder, _is(builder, before), lambda: column(number(0), -1), [_ZERO] * 3)
            turn = Loop(builder, count, [*left, *(column(number(0), 0) if stride == 1 else []), *totals])
            at, to = (builder.mul(turn.k, builder.mul(step, number(n))) for n in (stride, 1))
            _fetch(builder, coming[:stride], at, step, stride)
            _fetch(builder, coming[stride:], to, step)
            here = turn.held[3:6] if stride == 1 else column(at, 0)
            inside = _inside(builder, turn.k, count, after)
            right = _where(builder, inside, lambda: column(at, 1), [_ZERO] * 3)
            window = [pixel for row in zip(turn.held[:3], here, right) for pixel in row]
            value = _add(builder, list(zip(factors, window)))
            store(builder, value, builder.add(out, to))
            total, square = turn.held[-2:]
            moved = builder.fsub(value, off)
            new = [builder.fadd(total, moved), fma(builder, moved, moved, square)]
            turn.close([*here, *right, *new] if stride == 1 else [*right, *new])
            _keep(builder, sums, far, new)

        _by_mode(builder, mode, line, step, sweep)

    return emit


def _back(builder, above, middle, below, taps, line, mode, given, out, sums, far, step, count, *coming):
    """Stride 1: rows of the output's gradient, from the pixel before the first on, and one of the input -> its gradient,
    before the activation; sums [11, …] += the filters' gradient, that of the input, and that times (input - mean)."""
    before, rows = _rows(builder, sums, far, 11), (below, middle, above)

    def sweep(normal: Line, mean: ir.Value) -> None:
        first = [_pixel(builder, row, number(0), step, m) for row in rows for m in (1, 0)]
        turn = Loop(builder, count, [*first, *before])
        at = builder.mul(turn.k, step)
        _fetch(builder, coming, at, step)
        right = [_pixel(builder, row, at, step, 2) for row in rows]
        middles, lefts, totals = turn.held[0:6:2], turn.held[1:6:2], turn.held[6:]
        around = [pixel for row in zip(right, middles, lefts) for pixel in row]
        factors = _rows(builder, taps, step, 9)  # anew for each pixel: with them in registers sums would not fit these
        x = _pixel(builder, given, at, step, 0)
        z, value = normal(x)
        gradient = normal.back(z, _add(builder, list(zip(factors, around))))
        store(builder, gradient, builder.add(out, at))
        new = [fma(builder, value, pixel, total) for pixel, total in zip(around, totals)]
        new += _with_line(builder, gradient, x, mean, totals[9:])
        turn.close([pixel for row in zip(right, middles) for pixel in row] + new)
        _keep(builder, sums, far, new)

    _by_mode(builder, mode, line, step, sweep)


def _with_line(builder: ir.IRBuilder, gradient: ir.Value, x: ir.Value, mean: ir.Value, sums: Values) -> Values:
    """The two sums that a normalisation's gradient is made of."""
    return [builder.fadd(sums[0], gradient), fma(builder, gradient, builder.fsub(x, mean), sums[1])]


def _back_2(
    builder, gradient, following, above, middle, below, taps, line, mode, out, out_below, sums, far, step, count, before,
    after, *coming,
):  # fmt: skip
    """Stride 2: two rows of the output's gradient, from the first pixel on, and three of the input -> gradients of the
    input's rows `middle` and `below`, 2 * count pixels each but for one that the row does not have; sums [13, …] as in
    :func:`_back`, the last ones for each of the two rows. coming: two rows of what has the output's size, then rows of what
    has the input's."""
    held, rows = _rows(builder, sums, far, 13), (above, middle, below)

    def sweep(normal: Line, mean: ir.Value) -> None:
        def column(at: ir.Value, beyond: int) -> list[tuple[ir.Value, ir.Value, ir.Value]]:
            pixels = [_pixel(builder, row, at, step, beyond) for row in rows]
            return [(x, *normal(x)) for x in pixels]

        left = _where(builder, _is(builder, before), lambda: [y for _, _, y in column(number(0), -1)], [_ZERO] * 3)
        first = [_pixel(builder, row, number(0), step, 0) for row in (gradient, following)]
        turn = Loop(builder, count, [*left, *first, *held])
        at = builder.mul(turn.k, step)
        twice = builder.add(at, at)
        _fetch(builder, coming[:2], at, step)
        _fetch(builder, coming[2:], twice, step, 2)
        (here, under), totals = turn.held[3:5], turn.held[5:14]
        right, beside = (_pixel(builder, row, at, step, 1) for row in (gradient, following))

        def give(pixels: Any, beyond: int, terms: tuple[Any, Any], sums: Values) -> Values:
            found: Values = []
            for k, (row, (x, z, _)) in enumerate(zip((out, out_below), pixels[1:])):
                value = normal.back(z, _add(builder, terms[k]))
                store(builder, value, _far(builder, row, twice, step, beyond))
                found += _with_line(builder, value, x, mean, sums[2 * k : 2 * k + 2])
            return found

        pixels, w = column(twice, 0), _rows(builder, taps, step, 9)
        ends = give(pixels, 0, ([(w[4], here)], [(w[7], here), (w[1], under)]), turn.held[14:])

        def ahead() -> Values:
            beyond, w = column(twice, 1), _rows(builder, taps, step, 9)
            terms = [(w[5], here), (w[3], right)], [(w[8], here), (w[6], right), (w[2], under), (w[0], beside)]
            return [*(y for _, _, y in beyond), *give(beyond, 1, terms, ends)]

        inside = _inside(builder, turn.k, count, after)
        found = _where(builder, inside, ahead, [_ZERO, _ZERO, _ZERO, *ends])
        window = [y for row in zip(turn.held[:3], (y for _, _, y in pixels), found[:3]) for y in row]
        new = [fma(builder, here, y, total) for y, total in zip(window, totals)] + found[3:]
        turn.close([*found[:3], right, beside, *new])
        _keep(builder, sums, far, new)

    _by_mode(builder, mode, line, step, sweep)


filtered_1, filtered_2 = _make(_filtered(1)), _make(_filtered(2))
back_1, back_2 = _make(_back), _make(_back_2)
