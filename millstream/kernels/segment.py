"""Loops over the sequences of a ragged batch: pooling, softmax, context windows.

All take row-major arrays [rows, width] and int64 offsets [sequences + 1].
"""

from __future__ import annotations

import math

from millstream.kernels.compiled import njit

FAST = {"reassoc", "contract", "nsz", "arcp"}  # NaN and Inf keep their meaning


@njit(cache=True, nogil=True, fastmath=FAST)
def pool_sum(x, offsets, out):
    """out[i] = sum of the rows of sequence i (zeros for an empty one)."""
    width = x.shape[1]
    for i in range(len(offsets) - 1):
        for j in range(width):
            out[i, j] = 0
        for r in range(offsets[i], offsets[i + 1]):
            for j in range(width):
                out[i, j] += x[r, j]


@njit(cache=True, nogil=True)
def pool_max(x, offsets, out, index):
    """Maximum of each column of a sequence, and the row where it stands (-1 for an empty sequence)."""
    width = x.shape[1]
    for i in range(len(offsets) - 1):
        first = offsets[i]
        last = offsets[i + 1]
        if first == last:
            index[i, :] = -1
            continue
        for j in range(width):
            out[i, j] = x[first, j]
            index[i, j] = first
        for r in range(first + 1, last):
            for j in range(width):
                if x[r, j] > out[i, j]:
                    out[i, j] = x[r, j]
                    index[i, j] = r


@njit(cache=True, nogil=True)
def pool_max_back(dout, index, dx):
    """dx (zeros on entry) gets dout where the maxima stood."""
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            r = index[i, j]
            if r >= 0:
                dx[r, j] += dout[i, j]


@njit(cache=True, nogil=True)
def softmax(x, offsets, out):
    """Softmax over each sequence of a vector."""
    for i in range(len(offsets) - 1):
        first = offsets[i]
        last = offsets[i + 1]
        if first == last:
            continue
        top = x[first]
        for r in range(first + 1, last):
            if x[r] > top:
                top = x[r]
        total = 0.0
        for r in range(first, last):
            e = math.exp(x[r] - top)
            out[r] = e
            total += e
        for r in range(first, last):
            out[r] /= total


@njit(cache=True, nogil=True)
def softmax_back(y, dy, offsets, dx):
    """dx = y * (dy - sum(y * dy)) within each sequence."""
    for i in range(len(offsets) - 1):
        total = 0.0
        for r in range(offsets[i], offsets[i + 1]):
            total += y[r] * dy[r]
        for r in range(offsets[i], offsets[i + 1]):
            dx[r] = y[r] * (dy[r] - total)


@njit(cache=True, nogil=True)
def context_gather(x, offsets, start, length, padding, out):
    """out[r] = the rows r+start .. r+start+length-1 of r's sequence side by side.

    A row before the sequence is `padding[up + position]`, one after it `padding[up + position - size]`, with
    up = max(0, -start); zeros when `padding` has no rows.
    """
    width = x.shape[1]
    up = max(0, -start)
    for i in range(len(offsets) - 1):
        first = offsets[i]
        size = offsets[i + 1] - first
        for k in range(size):
            for j in range(length):
                p = k + start + j
                base = j * width
                if 0 <= p < size:
                    for c in range(width):
                        out[first + k, base + c] = x[first + p, c]
                    continue
                row = up + p if p < 0 else up + p - size
                if padding.shape[0] == 0:
                    for c in range(width):
                        out[first + k, base + c] = 0
                else:
                    for c in range(width):
                        out[first + k, base + c] = padding[row, c]


@njit(cache=True, nogil=True)
def context_scatter(dcol, offsets, start, length, dx, dpadding):
    """The transpose of `context_gather`: adds into dx and dpadding (both zeros on entry)."""
    width = dx.shape[1]
    up = max(0, -start)
    for i in range(len(offsets) - 1):
        first = offsets[i]
        size = offsets[i + 1] - first
        for k in range(size):
            for j in range(length):
                p = k + start + j
                base = j * width
                if 0 <= p < size:
                    for c in range(width):
                        dx[first + p, c] += dcol[first + k, base + c]
                elif dpadding.shape[0] > 0:
                    row = up + p if p < 0 else up + p - size
                    for c in range(width):
                        dpadding[row, c] += dcol[first + k, base + c]
