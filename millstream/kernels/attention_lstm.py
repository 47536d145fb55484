"""LSTM whose input at each step is a mean of its sequence's rows, weighted by scores of row and cell (form: see lstm.py)."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, activate, add_product, exp64
from millstream.kernels.lstm import running
from millstream.kernels.panels import rows_product


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _attend(rows, scores, shift, scalar, scalar_bias, scaled, shares, mean):
    """shares = softmax(relu(scores + shift)) of one sequence, with a second layer where `scaled`; mean = shares @ rows."""
    zero, most = shift * 0, shift * 0
    for i in range(len(shares)):
        e = scores[i] + shift
        e = zero if e < zero else e
        if scaled:
            e = e * scalar + scalar_bias
            e = zero if e < zero else e
        most = most if e <= most else e
        shares[i] = e
    total = 0.0
    for i in range(len(shares)):
        v = exp64(np.float64(shares[i] - most))
        total += v
        shares[i] = v
    for j in range(len(mean)):
        mean[j] = 0
    for i in range(len(shares)):
        shares[i] /= total
    add_product(shares, rows, mean)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _dot(a, b):
    found = a[0] * 0
    for j in range(len(b)):
        found += a[j] * b[j]
    return found


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(x, scores, w_cell, second, scaled, w, bias, starts, lengths, joint, c_now, product, shares, hidden, cell, codes):
    """All steps.

    Args:
        x, scores: rows [rows, M] and the part of their scores that no step changes [rows].
        second: factor and bias of the second layer of the scores, used where `scaled`.
        w, bias: panels of [D + M, 4D], hidden first, and a padded line; gates: forget, input, output, candidate.
        joint: [sequences, D + M], the initial hidden states and room for the means; overwritten, as c_now is.
        product, shares: receive the gates and the weights of each sequence's last step.
    """
    d = cell.shape[1]
    m, t = running(lengths, 0, len(starts)), 0
    while m:
        for r in range(m):
            first, last = starts[r], starts[r] + lengths[r]
            shift = _dot(c_now[r], w_cell)
            _attend(x[first:last], scores[first:last], shift, second[0], second[1], scaled, shares[first:last], joint[r, d:])
        rows_product(joint, m, w, bias, 0, product)
        for r in range(m):
            g, c, h, i = product[r], c_now[r], joint[r, :d], starts[r] + t
            forget, enter, leave, candidate = g[:d], g[d : 2 * d], g[2 * d : 3 * d], g[3 * d : 4 * d]
            activate(g[: 3 * d], codes[0])
            activate(candidate, codes[2])
            for j in range(d):
                c[j] = forget[j] * c[j] + enter[j] * candidate[j]
                h[j] = c[j]
            activate(h, codes[1])
            here, cells = hidden[i], cell[i]
            for j in range(d):
                h[j] *= leave[j]
                here[j] = h[j]
                cells[j] = c[j]
        t += 1
        m = running(lengths, t, m)
