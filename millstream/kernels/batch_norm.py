"""Batch normalisation, with a relu (plain, leaky or relu6) behind it or none, over rows, which are read as seldom as can be.

All arrays are row-major [rows, channels], bfloat16 as its bits (see brain.py); vectors have one number a channel, float32
or float64. Sums run over blocks of rows in the vectors' own precision and over blocks in float64, from the last row to the
first: the last ones, just written, are in the cache, and then those are with which the second pass begins. Narrow rows are
taken several at a time, so that inner loops are long. `bend` is (slope, most), float32: numbers below 0 are multiplied by
slope, from 0 to 1 (0 for relu, 1 for none), and a relu gives at most `most`; a slope below 0 is one of curves.py. LLVM takes
that choice out of the loops, but one made among the arguments of `put` keeps a loop from being vectorised.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from millstream.kernels.brain import put, wide
from millstream.kernels.compiled import njit
from millstream.kernels.curves import bent_slope, curved
from millstream.kernels.normed_vectors import take_off
from millstream.kernels.threads import parts, run_parts

_BLOCK = 32
_LONG = 256  # columns
Bend = tuple[np.float32, np.float32]
_SAMPLES = 16  # rows whose mean is taken off before squares are summed


@njit(cache=True, nogil=True, error_model="numpy")
def add_sums(x, shift, first, last, total, square):
    """total += sum of x - shift, square += sum of its squares, over rows first .. last."""
    width = x.shape[1]
    s, q = np.zeros(width, shift.dtype), np.zeros(width, shift.dtype)
    for start in range(first + (last - first - 1) // _BLOCK * _BLOCK, first - 1, -_BLOCK):
        s[:] = 0
        q[:] = 0
        for i in range(start, min(start + _BLOCK, last)):
            for j in range(width):
                d = wide(x[i, j]) - shift[j]
                s[j] += d
                q[j] += d * d
        for j in range(width):
            total[j] += s[j]
            square[j] += q[j]


@njit(cache=True, nogil=True, error_model="numpy")
def count(x, first, last, fresh, shift, total, square):
    """Add rows first .. last of `x` to the sums; the first (`fresh`) choose what is taken off before squares are summed."""
    if fresh:
        rows = min(_SAMPLES, last - first)
        for j in range(x.shape[1]):
            shift[j] = 0
        for i in range(first, first + rows):
            for j in range(x.shape[1]):
                shift[j] += wide(x[i, j])
        for j in range(x.shape[1]):
            shift[j] /= rows
    add_sums(x, shift, first, last, total, square)


@njit(cache=True, nogil=True, error_model="numpy")
def apply_line(x, a, b, bend, first, last, y):
    """y = x * a + b behind `bend`; NaN stays."""
    slope, most = bend
    floor = np.float32(0) if slope == 0 else np.float32(-np.inf)  # the zeros of relu: 0 * -inf, and no -0
    for i in range(first, last):
        for j in range(x.shape[1]):
            v = wide(x[i, j]) * a[j] + b[j]
            if slope < 0:
                v = curved(v, slope)
            else:
                low = v * slope
                low = low if low > floor else floor
                v = low if v < 0 else v
                v = most if v > most else v
            put(y, i, j, v)


@njit(cache=True, nogil=True, error_model="numpy")
def _relu_of_sum(x, a, b, other, first, last, y):
    """y = relu(x * a + b + other)."""
    zero = np.float32(0)
    for i in range(first, last):
        for j in range(x.shape[1]):
            v = wide(x[i, j]) * a[j] + b[j] + wide(other[i, j])
            v = zero if v < zero else v
            put(y, i, j, v)


@njit(cache=True, nogil=True, error_model="numpy")
def _back_sums(x, dy, a, b, bend, mean, first, last, total, dot):
    """total += sum of dz, dot += sum of dz * (x - mean).

    dz is dy, times slope where z <= 0, 0 where z >= most, or times a curve's slope; z = x * a + b is computed as apply_line
    does.
    """
    width = x.shape[1]
    slope, most = bend
    s, q = np.zeros(width, mean.dtype), np.zeros(width, mean.dtype)
    for start in range(first + (last - first - 1) // _BLOCK * _BLOCK, first - 1, -_BLOCK):
        s[:] = 0
        q[:] = 0
        for i in range(start, min(start + _BLOCK, last)):
            for j in range(width):
                v = wide(x[i, j])
                d = wide(dy[i, j])
                z = v * a[j] + b[j]
                g = bent_slope(d, z, slope, most)
                s[j] += g
                q[j] += g * (v - mean[j])
        for j in range(width):
            total[j] += s[j]
            dot[j] += q[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _back_sums_of_sum(x, dy, y, mean, first, last, dz, total, dot):
    """_back_sums that knows y and writes dz, the gradient of what was added."""
    width, zero = x.shape[1], np.float32(0)
    s, q = np.zeros(width, mean.dtype), np.zeros(width, mean.dtype)
    for start in range(first + (last - first - 1) // _BLOCK * _BLOCK, first - 1, -_BLOCK):
        s[:] = 0
        q[:] = 0
        for i in range(start, min(start + _BLOCK, last)):
            for j in range(width):
                g = wide(dy[i, j]) if wide(y[i, j]) > zero else zero
                put(dz, i, j, g)
                s[j] += g
                q[j] += g * (wide(x[i, j]) - mean[j])
        for j in range(width):
            total[j] += s[j]
            dot[j] += q[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _back(x, dy, a, b, bend, mean, k1, k2, first, last, dx):
    """dx = a * dz - k1 - k2 * (x - mean), with dz as in _back_sums."""
    slope, most = bend
    for i in range(first, last):
        for j in range(x.shape[1]):
            v = wide(x[i, j])
            d = wide(dy[i, j])
            z = v * a[j] + b[j]
            g = bent_slope(d, z, slope, most)
            put(dx, i, j, a[j] * g - k1[j] - k2[j] * (v - mean[j]))


@njit(cache=True, nogil=True, error_model="numpy")
def _back_of_sum(x, dz, a, mean, k1, k2, first, last, dx):
    """dx = a * dz - k1 - k2 * (x - mean)."""
    for i in range(first, last):
        for j in range(x.shape[1]):
            put(dx, i, j, a[j] * wide(dz[i, j]) - k1[j] - k2[j] * (wide(x[i, j]) - mean[j]))


class _Cut(NamedTuple):
    """How rows are grouped (`group` rows count as one of `width` numbers) and spread over threads."""

    group: int
    width: int
    bounds: list[tuple[int, int]]

    def wide(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, self.width)

    def tiled(self, v: np.ndarray) -> np.ndarray:
        return v if self.group == 1 else np.tile(v, self.group)


def _cut(rows: int, channels: int) -> _Cut:
    group = 1
    while group * channels < _LONG and rows % (2 * group) == 0:
        group *= 2
    count = rows // group
    pieces = parts(8 * rows * channels, count)  # memory takes as long as some eight multiplications a number would
    edges = [count * k // pieces for k in range(pieces + 1)]
    return _Cut(group, group * channels, list(pairwise(edges)))


def sums(x: np.ndarray, dtype: Any) -> tuple[np.ndarray, ...]:
    """Of each part, [parts, group * channels]: what was taken off, the sum of the rest, and of its squares; how many rows.

    dtype: that in which `x` is worked on.
    """
    cut = _cut(*x.shape)
    wide, count_of = cut.wide(x), len(cut.bounds)
    room = np.empty((count_of, cut.width), dtype), *(np.zeros((count_of, cut.width)) for _ in range(2))
    run_parts(count, [(wide, *ends, True, *(v[k] for v in room)) for k, ends in enumerate(cut.bounds)])
    return *room, np.array([last - first for first, last in cut.bounds])


def forward(x: np.ndarray, a: np.ndarray, b: np.ndarray, bend: Bend, other: np.ndarray | None, y: np.ndarray) -> None:
    """y = x * a + b behind `bend`, or relu(x * a + b + other)."""
    cut = _cut(*x.shape)
    vectors = cut.tiled(a), cut.tiled(b)
    if other is None:
        run_parts(apply_line, [(cut.wide(x), *vectors, bend, *ends, cut.wide(y)) for ends in cut.bounds])
    else:
        wide = cut.wide(other)
        run_parts(_relu_of_sum, [(cut.wide(x), *vectors, wide, *ends, cut.wide(y)) for ends in cut.bounds])


def back_sums(
    x: np.ndarray, dy: np.ndarray, a: np.ndarray, b: np.ndarray, bend: Bend, mean: np.ndarray, y: np.ndarray | None,
    dz: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sums of dz and of dz * (x - mean), [parts, group * channels]; fills dz where y = relu(x * a + b + other) is given."""
    cut = _cut(*x.shape)
    wide, wide_dy = cut.wide(x), cut.wide(dy)
    wide_a, wide_b, wide_mean = cut.tiled(a), cut.tiled(b), cut.tiled(mean)
    total, dot = (np.zeros((len(cut.bounds), cut.width)) for _ in range(2))
    if y is None or dz is None:
        run_parts(_back_sums, [
            (wide, wide_dy, wide_a, wide_b, bend, wide_mean, *ends, total[k], dot[k]) for k, ends in enumerate(cut.bounds)
        ])  # fmt: skip
    else:
        wide_y, wide_dz = cut.wide(y), cut.wide(dz)
        run_parts(_back_sums_of_sum, [
            (wide, wide_dy, wide_y, wide_mean, *ends, wide_dz, total[k], dot[k]) for k, ends in enumerate(cut.bounds)
        ])  # fmt: skip
    return total, dot


def backward(
    x: np.ndarray, dy: np.ndarray, line: np.ndarray, bend: Bend, inverse: np.ndarray, dx: np.ndarray,
    parameters: tuple[np.ndarray, np.ndarray], y: np.ndarray | None, dz: np.ndarray | None,
) -> None:  # fmt: skip
    """Fills dx, the gradients of scale and bias (`parameters`), and dz as :func:`back_sums`.

    line: a, b and mean; inverse: 1 / sqrt(variance + epsilon).
    """
    a, b, mean = line[:3]
    cut = _cut(*x.shape)
    off = np.empty((2, cut.width), line.dtype)
    take_off(a, inverse, *back_sums(x, dy, a, b, bend, mean, y, dz), x.shape[0], *parameters, off)
    wide, wide_dy, wide_dx = cut.wide(x), cut.wide(dy), cut.wide(dx)
    wide_a, wide_b, wide_mean = cut.tiled(a), cut.tiled(b), cut.tiled(mean)
    if y is None or dz is None:
        run_parts(_back, [(wide, wide_dy, wide_a, wide_b, bend, wide_mean, *off, *e, wide_dx) for e in cut.bounds])
    else:
        run_parts(_back_of_sum, [(wide, cut.wide(dz), wide_a, wide_mean, *off, *e, wide_dx) for e in cut.bounds])
