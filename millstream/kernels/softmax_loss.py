"""softmax with the negative logarithm at a label, and its gradient, row by row: each row stays in the cache meanwhile."""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, exp32

_TOGETHER = 128
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
    for i in range(first, last):
        line = y[i]
        share = np.float32(1) / _exponentials(x[i], _greatest(x[i]), line)
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
    for i in range(first, last):
        line = d[i]
        share = np.float32(1) / _exponentials(x[i], _greatest(x[i]), line)
        if label[i] == ignored:
            line[:] = 0
            loss[i] = 0
            continue
        loss[i] = -math.log(line[label[i]] * share)
        factor = share * scale
        for j in range(len(line)):
            line[j] *= factor
        line[label[i]] -= scale
