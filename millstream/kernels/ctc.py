"""Connectionist temporal classification: loss and gradient, one sequence after another, in the log domain."""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.vectors import copy_line

NONE = -np.inf


@njit(cache=True, nogil=True)
def _log_add(a, b):
    if a == NONE:
        return b
    if b == NONE:
        return a
    return a + math.log1p(math.exp(b - a)) if a > b else b + math.log1p(math.exp(a - b))


@njit(cache=True, nogil=True)
def _log_softmax(logits, base, stride, size, logp):
    for t in range(size):
        row = logits[base + t * stride]
        top = row[0]
        for v in row:
            top = max(top, v)
        total = 0.0
        for v in row:
            total += math.exp(float(v) - top)
        norm = top + math.log(total)
        for k in range(len(row)):
            logp[t, k] = row[k] - norm


@njit(cache=True, nogil=True)
def _forward(logp, size, path, n, blank, alpha):
    """alpha[t, s]: log probability of all ways to be at s of the path (blanks between labels) after frame t."""
    alpha[:size, :n] = NONE
    alpha[0, 0] = logp[0, path[0]]
    if n > 1:
        alpha[0, 1] = logp[0, path[1]]
    for t in range(1, size):
        for s in range(max(0, n - 2 * (size - t)), min(n, 2 * t + 2)):
            v = alpha[t - 1, s]
            if s > 0:
                v = _log_add(v, alpha[t - 1, s - 1])
            if s > 1 and path[s] != blank and path[s] != path[s - 2]:
                v = _log_add(v, alpha[t - 1, s - 2])
            alpha[t, s] = v + logp[t, path[s]]
    last = alpha[size - 1, n - 1]
    return _log_add(last, alpha[size - 1, n - 2]) if n > 1 else last


@njit(cache=True, nogil=True)
def _occupancy(logp, size, path, n, blank, alpha, beta, ahead, total, seen, t):
    """Turns beta[s] of frame t+1 (`ahead`) into that of frame t, and sums alpha * beta over equal labels into `seen`."""
    for s in range(n):
        if t == size - 1:
            beta[s] = 0.0 if s >= n - 2 else NONE
        else:
            v = ahead[s] + logp[t + 1, path[s]]
            if s + 1 < n:
                v = _log_add(v, ahead[s + 1] + logp[t + 1, path[s + 1]])
            if s + 2 < n and path[s + 2] != blank and path[s + 2] != path[s]:
                v = _log_add(v, ahead[s + 2] + logp[t + 1, path[s + 2]])
            beta[s] = v
        here = alpha[t, s] + beta[s]
        if here != NONE:
            seen[path[s]] += math.exp(here - total)


@njit(cache=True, nogil=True)
def loss(logits, base, stride, size, label, label_start, label_size, blank, out, grad):
    """CTC loss of each sequence and its gradient with respect to the logits.

    Args:
        logits: [rows, classes]; frame t of sequence q is row base[q] + t * stride.
        label: all labels end to end; label_start, label_size: intervals of it by sequence.
        out: [sequences]; 0 where the frames are too few for the labels, or there are none.
        grad: like logits, zeros on entry.
    """
    frames, states = 1, 1
    for q in range(len(size)):
        frames = max(frames, size[q])
        states = max(states, 2 * label_size[q] + 1)
    classes = logits.shape[1]
    logp, alpha = np.empty((frames, classes)), np.empty((frames, states))
    path = np.empty(states, np.int64)
    beta, ahead, seen = np.empty(states), np.empty(states), np.empty(classes)
    for q in range(len(size)):
        m, length = size[q], label_size[q]
        n = 2 * length + 1
        repeats = 0
        for k in range(length):
            path[2 * k] = blank
            path[2 * k + 1] = label[label_start[q] + k]
            if k and path[2 * k + 1] == path[2 * k - 1]:
                repeats += 1
        path[n - 1] = blank
        if m == 0 or m < length + repeats:
            out[q] = 0
            continue
        _log_softmax(logits, base[q], stride, m, logp)
        total = _forward(logp, m, path, n, blank, alpha)
        out[q] = -total
        for t in range(m - 1, -1, -1):
            seen[:] = 0.0
            copy_line(beta[:n], ahead[:n])
            _occupancy(logp, m, path, n, blank, alpha, beta, ahead, total, seen, t)
            row = grad[base[q] + t * stride]
            for k in range(classes):
                row[k] = math.exp(logp[t, k]) - seen[k]
