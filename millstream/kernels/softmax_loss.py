"""softmax with the negative logarithm at a label, and its gradient, row by row: each row stays in the cache meanwhile."""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, exp32

_TOGETHER = 128
_NUMBERS = 1024  # of narrow rows that are taken together
CUT = np.float32(-64)  # as Fluid's softmax, which reads no logit further than that below the greatest


@njit(cache=True, nogil=True, error_model="numpy")
def _greatest(x):
    """The greatest number; beside a NaN any: the row is NaN then, whatever is subtracted."""
    m = x[0]
    if len(x) >= _TOGETHER:  # side by side: LLVM takes a maximum of its own one number at a time
        best = x[:_TOGETHER].copy()
        for j in range(_TOGETHER, len(x) - _TOGETHER + 1, _TOGETHER):
            line = x[j : j + _TOGETHER]
            for k in range(_TOGETHER):
                best[k] = line[k] if line[k] > best[k] else best[k]
        for k in range(_TOGETHER):
            m = max(m, best[k])
        x = x[len(x) - len(x) % _TOGETHER :]
    for j in range(len(x)):
        m = max(m, x[j])
    return m


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _exponentials(x, m, y):
    total = np.float32(0)
    for j in range(len(x)):
        d = x[j] - m
        d = CUT if d < CUT else d  # NaN stays
        e = exp32(d)
        y[j] = e
        total += e
    return total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _narrow_exponentials(x, y, first, last, shares):
    """:func:`_exponentials` of rows [first, last), and one over the sum of each: the numbers of several rows, which stand
    side by side, fill the vectors that those of one row don't."""
    for i in range(first, last):
        line, source = y[i], x[i]
        m = source[0]
        for j in range(len(source)):  # from 1 on this takes twice as long
            m = max(m, source[j])
        for j in range(len(source)):
            d = source[j] - m
            line[j] = CUT if d < CUT else d  # NaN stays
    flat = y[first:last].reshape(-1)
    for k in range(len(flat)):
        flat[k] = exp32(flat[k])
    for i in range(first, last):
        line, total = y[i], np.float32(0)
        for j in range(len(line)):
            total += line[j]
        shares[i - first] = np.float32(1) / total


@njit(cache=True, nogil=True, error_model="numpy")
def walk(x, y, first, last, shares):
    """Exponentials of rows [first, last), at most as many as `shares` has, in y, and one over the sum of each."""
    if x.shape[1] < _TOGETHER:
        _narrow_exponentials(x, y, first, last, shares)
        return
    for i in range(first, last):
        shares[i - first] = np.float32(1) / _exponentials(x[i], _greatest(x[i]), y[i])


@njit(cache=True, nogil=True, error_model="numpy")
def room(classes):
    """For the sums of as many rows as are taken together."""
    return np.empty(max(_NUMBERS // max(classes, 1), 1), np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def outside(label, classes, ignored):
    """The position of a label that is neither a class nor `ignored`, or -1."""
    for i in range(len(label)):
        if (label[i] < 0 or label[i] >= classes) and label[i] != ignored:
            return i
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def losses(x, label, ignored, y, loss, first, last):
    """y = softmax(x), loss = -log(y at the label), or 0, for rows [first, last).

    float32; :func:`outside` finds nothing in the labels.
    """
    shares = room(x.shape[1])
    for start in range(first, last, len(shares)):
        end = min(start + len(shares), last)
        walk(x, y, start, end, shares)
        for i in range(start, end):
            line, share = y[i], shares[i - start]
            for j in range(len(line)):
                line[j] *= share
            loss[i] = np.float32(0) if label[i] == ignored else -math.log(line[label[i]])


@njit(cache=True, nogil=True, error_model="numpy")
def losses_back(y, label, ignored, dloss, d, first, last):
    """d = dloss * (y - the label as one-hot), 0 where the label is `ignored`."""
    for i in range(first, last):
        line, given = d[i], dloss[i]
        source = y[i]
        if label[i] == ignored:
            line[:] = 0
            continue
        for j in range(len(line)):
            line[j] = source[j] * given
        line[label[i]] -= given


@njit(cache=True, nogil=True, error_model="numpy")
def losses_with_gradient(x, label, ignored, scale, d, loss, first, last):
    """loss = -log(softmax(x) at the label), or 0; d = scale * (softmax(x) - the label as one-hot), or 0; rows [first, last).

    As :func:`losses` and :func:`losses_back` in one walk, for a gradient `scale` of each loss.
    """
    shares = room(x.shape[1])
    for start in range(first, last, len(shares)):
        end = min(start + len(shares), last)
        walk(x, d, start, end, shares)
        for i in range(start, end):
            line, share = d[i], shares[i - start]
            if label[i] == ignored:
                line[:] = 0
                loss[i] = 0
                continue
            loss[i] = -math.log(line[label[i]] * share)
            factor = share * scale
            for j in range(len(line)):
                line[j] *= factor
            line[label[i]] -= scale
