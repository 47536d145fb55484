"""Depthwise 3x3 filters along a row of pixels, a vector of channels at a time, with filters and sums in registers.

A row is [pixels, channels] with a pixel of zeros before the first and after the last; rows beyond a map are rows of zeros.
Arguments are addresses; `step` is the distance in bytes between pixels of all rows and between rows of `taps`
[9, channels], `far` that between rows of `sums`. `coming` are rows that the next call needs or writes: their pixels are
fetched on the way, as many as are filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.vectors import Loop, fetch, fma, load, number, store


def _taps(builder: ir.IRBuilder, taps: ir.Value, step: ir.Value) -> list[ir.Value]:
    return [load(builder, builder.add(taps, builder.mul(step, number(k)))) for k in range(9)]


def _pixel(builder: ir.IRBuilder, row: ir.Value, at: ir.Value, step: ir.Value, beyond: int) -> ir.Value:
    return load(builder, builder.add(row, builder.add(at, builder.mul(step, number(beyond)))))


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
            fetch(builder, builder.add(row, builder.add(at, builder.mul(step, number(m)))))


def _keep(builder: ir.IRBuilder, sums: ir.Value, step: ir.Value, values: Sequence[ir.Value]) -> None:
    for k, value in enumerate(values):
        store(builder, value, builder.add(sums, builder.mul(step, number(k))))


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


def _filtered(stride: int) -> Any:
    """coming: `stride` rows of the input and one of the output."""

    def emit(builder, above, middle, below, taps, out, step, count, *coming):
        factors = _taps(builder, taps, step)
        sweep = Loop(builder, count, [])
        at, to = (builder.mul(sweep.k, builder.mul(step, number(n))) for n in (stride, 1))
        _fetch(builder, coming[:stride], at, step, stride)
        _fetch(builder, coming[stride:], to, step)
        pixels = [_pixel(builder, row, at, step, m) for row in (above, middle, below) for m in range(3)]
        store(builder, _add(builder, list(zip(factors, pixels))), builder.add(out, to))
        sweep.close([])

    return emit


def _back(builder, above, middle, below, taps, given, out, sums, far, step, count, *coming):
    """Stride 1: rows of the output's gradient and one of the input -> its gradient; sums += the filters'."""
    factors, before = _taps(builder, taps, step), _taps(builder, sums, far)
    sweep = Loop(builder, count, before)
    at = builder.mul(sweep.k, step)
    _fetch(builder, coming, at, step)
    around = [_pixel(builder, row, at, step, m) for row in (below, middle, above) for m in (2, 1, 0)]
    value = _pixel(builder, given, at, step, 1)
    store(builder, _add(builder, list(zip(factors, around))), builder.add(out, at))
    new = [fma(builder, value, gradient, total) for gradient, total in zip(around, sweep.held)]
    sweep.close(new)
    _keep(builder, sums, far, new)


def _back_2(builder, gradient, following, above, middle, below, taps, out, out_below, sums, far, step, count, *coming):
    """Stride 2: two rows of the output's gradient (without a pixel before the first) and three of the input -> gradients of
    the input's rows `middle` and `below`, 2 * count pixels each; sums as in :func:`_back`. coming: two rows of what has the
    output's size, then rows of what has the input's."""
    w, before = _taps(builder, taps, step), _taps(builder, sums, far)
    sweep = Loop(builder, count, before)
    at = builder.mul(sweep.k, step)
    twice = builder.add(at, at)
    _fetch(builder, coming[:2], at, step)
    _fetch(builder, coming[2:], twice, step, 2)
    here, right = (_pixel(builder, gradient, at, step, m) for m in (0, 1))
    under, beside = (_pixel(builder, following, at, step, m) for m in (0, 1))
    for row, beyond, terms in (
        (out, 0, [(w[4], here)]),
        (out, 1, [(w[5], here), (w[3], right)]),
        (out_below, 0, [(w[7], here), (w[1], under)]),
        (out_below, 1, [(w[8], here), (w[6], right), (w[2], under), (w[0], beside)]),
    ):
        to = builder.add(row, builder.add(twice, builder.mul(step, number(beyond))))
        store(builder, _add(builder, terms), to)
    pixels = [_pixel(builder, row, twice, step, m) for row in (above, middle, below) for m in range(3)]
    new = [fma(builder, here, pixel, total) for pixel, total in zip(pixels, sweep.held)]
    sweep.close(new)
    _keep(builder, sums, far, new)


filtered_1, filtered_2 = _make(_filtered(1)), _make(_filtered(2))
back_1, back_2 = _make(_back), _make(_back_2)
