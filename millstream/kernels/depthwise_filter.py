"""Gradients of depthwise filters of any size, stride and dilation over maps [N, H, W, C], in registers.

The gradient of a tap is the sum of dy times the input's pixel that the tap saw. Up to five taps of a row of the filter
and two vectors of channels are summed up at a time, over some rows of pixels that the cache holds; where the input ends,
over the pixels whose windows hold the same taps of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels.compiled import njit
from millstream.kernels.normed_rows import room
from millstream.kernels.tiles import LANES
from millstream.kernels.vectors import BYTES, Loop, fma, load, number, store

_TAPS = 5  # of a row at a time
_BAND = 1 << 17  # bytes of both maps that are read again and again
_LEAST = 32  # pixels for which it is worth while to load and store sums


def _emit(taps: int, vectors: int, builder: ir.IRBuilder, given: Sequence[ir.Value]) -> None:
    x, dy, sums, far, tap, pixel, pixel_dy, row, row_dy, pixels, rows = given
    places = [
        builder.add(sums, builder.add(builder.mul(far, number(m)), number(BYTES * v)))
        for m in range(taps) for v in range(vectors)
    ]  # fmt: skip

    def beyond(start: ir.Value, step: ir.Value, turn: ir.Value) -> ir.Value:
        return builder.add(start, builder.mul(step, turn))

    outer = Loop(builder, rows, [load(builder, place) for place in places])
    x, dy = beyond(x, row, outer.k), beyond(dy, row_dy, outer.k)
    inner = Loop(builder, pixels, outer.held)
    x, dy = beyond(x, pixel, inner.k), beyond(dy, pixel_dy, inner.k)
    gradients = [load(builder, builder.add(dy, number(BYTES * v))) for v in range(vectors)]
    new = []
    for m in range(taps):
        at = beyond(x, tap, number(m))
        for v, gradient in enumerate(gradients):
            seen = load(builder, builder.add(at, number(BYTES * v)))
            new.append(fma(builder, seen, gradient, inner.held[m * vectors + v]))
    inner.close(new)
    outer.close(new)
    for value, place in zip(new, places):
        store(builder, value, place)


@intrinsic
def _summed(typing_context, taps, vectors, given):
    """sums [taps, vectors] += those of `rows` times `pixels` pixels.

    given: addresses of the pixel that the first tap sees, of dy's and of the sums; bytes between rows of sums, taps, pixels
    of x and dy, rows of x and dy; numbers of pixels and rows.
    """
    del typing_context

    def code(context, builder, signature, args):
        counts, numbers = args[:2], cgutils.unpack_tuple(builder, args[2])
        end = builder.append_basic_block("summed")
        kinds = [(m, v) for m in range(1, _TAPS + 1) for v in (1, 2)]
        blocks = [builder.append_basic_block(f"taps.{m}.{v}") for m, v in kinds]
        kind = builder.add(builder.mul(counts[0], number(2)), builder.sub(counts[1], number(3)))
        choice = builder.switch(kind, blocks[0])
        for k, (block, (m, v)) in enumerate(zip(blocks, kinds)):
            choice.add_case(number(k), block)
            builder.position_at_end(block)
            _emit(m, v, builder, numbers)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, given), code


@njit(cache=True, nogil=True, error_model="numpy")
def _ends(taken, stride, padding, dilation, k, size):
    """(first, last) of outputs 0 .. taken whose tap k is within an input of that size."""
    off = k * dilation - padding
    return min(taken, max(0, -(off // stride))), max(0, min(taken, (size - 1 - off) // stride + 1))


@njit(cache=True, nogil=True, error_model="numpy")
def _band(x, dy, shape, runs, picture, rows, channels, sums):
    """Adds to `sums` [kh, kw, whole vectors] the share of rows first .. last of one picture, in channels first .. last."""
    (sv, sh), (pv, ph), (dv, dh) = shape
    (_, height, width, c), (_, tall, wide, _) = x.shape, dy.shape
    step, far, kw = c * 4, sums.shape[2] * 4, sums.shape[1]
    px, pd = x.ctypes.data + picture * height * width * step, dy.ctypes.data + picture * tall * wide * step
    start = channels[0]
    while start < channels[1]:
        vectors = 2 if start + 2 * LANES <= channels[1] else 1
        a = min(start, channels[1] - LANES)  # the last vector has channels that another has, where they fill no vectors
        for k in range(sums.shape[0]):
            top, bottom = _ends(tall, sv, pv, dv, k, height)
            top, bottom = max(top, rows[0]), min(bottom, rows[1])
            if top >= bottom:
                continue
            for r in range(len(runs)):
                j, pixels, m, taps = runs[r]
                seen = (top * sv + k * dv - pv) * width + j * sh + m * dh - ph
                ps = sums.ctypes.data + (k * kw + m) * far + (start - channels[0]) * 4
                _summed(taps, vectors, (
                    px + seen * step + a * 4, pd + (top * wide + j) * step + a * 4, ps, far, dh * step, sh * step, step,
                    sv * width * step, wide * step, pixels, bottom - top,
                ))  # fmt: skip
        start += vectors * LANES


@njit(cache=True, nogil=True, error_model="numpy")
def back_filter(x, dy, shape, runs, first, last, dw):
    """Fills channels first .. last, at least a vector of them, of dw [kh, kw, C], float64; `runs`: see :func:`runs_of`."""
    kh, kw, n = dw.shape[0], dw.shape[1], last - first
    whole = (n + LANES - 1) // LANES * LANES
    tall, wide = dy.shape[1], dy.shape[2]
    band = max(-(-_LEAST // wide), _BAND // ((shape[0][0] * x.shape[2] + wide) * n * 4), 1)
    sums = room(kh * kw, whole).reshape(kh, kw, whole)
    dw[..., first:last] = 0
    full = n - n % LANES
    for picture in range(dy.shape[0]):
        for i in range(0, tall, band):
            sums[:] = 0
            _band(x, dy, shape, runs, picture, (i, min(i + band, tall)), (first, last), sums)
            for k in range(kh):
                for m in range(kw):
                    for c in range(full):
                        dw[k, m, first + c] += sums[k, m, c]
                    for c in range(full, n):
                        dw[k, m, first + c] += sums[k, m, c + whole - n]


@lru_cache(maxsize=1024)
def runs_of(width: int, wide: int, kw: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """[(first pixel of the output's row, pixels, first tap, taps), …]: which taps of a row see which pixels."""
    groups = -(-kw // _TAPS)
    found: list[list[int]] = []
    edges = [kw * g // groups for g in range(groups + 1)]
    for begin, end in pairwise(edges):
        for j in range(wide):
            off = j * stride - padding
            seen = [m for m in range(begin, end) if 0 <= off + m * dilation < width]
            if not seen:
                continue
            if found and found[-1][2:] == [seen[0], len(seen)] and sum(found[-1][:2]) == j:
                found[-1][1] += 1
            else:
                found.append([j, 1, seen[0], len(seen)])
    return np.array(found, np.int64).reshape(-1, 4)
