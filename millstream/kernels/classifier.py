"""A classifier's last layer, its loss and all their gradients, by rows: what one makes the next reads from the cache."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from millstream.kernels.compiled import njit
from millstream.kernels.dense import CODES
from millstream.kernels.gates import FAST, through
from millstream.kernels.gru import pointer
from millstream.kernels.softmax_loss import room, walk
from millstream.kernels.tiles import STRIP, strip_at, turned_at

__all__ = ["CODES", "classify_at", "joined"]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _scores(x, turned, bias, out):
    """out = x @ turned.T + bias for one row of x."""
    for j in range(len(out)):
        line, total = turned[j], np.float32(0)
        for k in range(len(x)):
            total += x[k] * line[k]
        out[j] = total + bias[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _losses(scores, label, ignored, scale, softmax, d, sums, loss, first):
    """softmax and loss = -log of it at the label, or 0, of rows from `first` on; d of these rows only, added up in `sums`.

    d = scale * (softmax - the label as one-hot), or 0.
    """
    rows, n = d.shape
    shares = room(n)
    for start in range(0, rows, len(shares)):
        end = min(start + len(shares), rows)
        walk(scores[first : first + rows], d, start, end, shares)
        for i in range(start, end):
            line, p, at = d[i], softmax[first + i], label[first + i]
            for j in range(n):
                p[j] = line[j] * shares[i - start]
            if at == ignored:
                line[:] = 0
                loss[first + i] = 0
                continue
            loss[first + i] = -math.log(p[at])
            for j in range(n):
                line[j] = p[j] * scale
            line[at] -= scale
            for j in range(n):
                sums[j] += line[j]


@njit(cache=True, nogil=True, error_model="numpy")
def classify_at(px, pw, pbias, label, ignored, pscores, psoftmax, ploss, pdx, pshare, zeros, k, n, scale, code, first, last):
    """Rows [first, last) of everything that is by rows, and their share of the sums over rows; addresses, pdx 0: not wanted.

    float32 x [m, k], w [k, n], bias [n]; label int64 [m]; scores, softmax [m, n], loss [m], dx [m, k].
    zeros: k of them; code: of the activation whose result x is, or 0; k >= LANES. share: as :func:`joined` reads it.
    """
    m = len(label)
    scores, softmax = carray(pointer(pscores), (m, n)), carray(pointer(psoftmax), (m, n))
    w, bias, loss = carray(pointer(pw), (k, n)), carray(pointer(pbias), n), carray(pointer(ploss), m)
    share, sums = carray(pointer(pshare), (n, k)), carray(pointer(pshare + n * k * 4), n)
    turned, place, whole = np.empty((n, k), np.float32), np.empty((STRIP, n), np.float32), np.empty((n, k), np.float32)
    for q in range(k):
        for j in range(n):
            turned[j, q] = w[q, j]
    share[:], sums[:] = 0, 0
    for begin in range(first, last, STRIP):
        rows = min(STRIP, last - begin)
        d, at = place[:rows], px + begin * k * 4
        for i in range(rows):
            _scores(carray(pointer(at + i * k * 4), k), turned, bias, scores[begin + i])
        _losses(scores, label, ignored, scale, softmax, d, sums, loss, begin)
        if pdx:
            to = pdx + begin * k * 4
            strip_at(place.ctypes.data, n, turned.ctypes.data, k, zeros, 0, to, k, rows, n, k)
            if code:
                for i in range(rows):
                    through(carray(pointer(to + i * k * 4), k), carray(pointer(at + i * k * 4), k), code)
        turned_at(place.ctypes.data, n, at, k, zeros, 0, whole.ctypes.data, rows, n, k)
        for j in range(n):
            for q in range(k):
                share[j, q] += whole[j, q]
    turned[0, 0] = place[0, 0] = whole[0, 0] = 0  # used by name here: they must stand until now


@njit(cache=True, nogil=True, error_model="numpy")
def joined(shares, loss, dw, sums):
    """The mean of `loss`; dw [k, n] and sums [n] from those of each thread, [n, k] and [n] one behind the other."""
    k, n = dw.shape
    for j in range(n):
        total = np.float32(0)
        for c in range(len(shares)):
            total += shares[c, n * k + j]
        sums[j] = total
        for q in range(k):
            total = np.float32(0)
            for c in range(len(shares)):
                total += shares[c, j * k + q]
            dw[q, j] = total
    mean = 0.0
    for i in range(len(loss)):
        mean += loss[i]
    return mean / len(loss)
