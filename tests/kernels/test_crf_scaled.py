"""The CRF's sums over probabilities, and over logarithms where probabilities vanish: one batch that needs both."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from millstream.kernels.crf import cost, cost_back

LENGTHS, TAGS = [7, 1, 12, 4, 9], 35


def by_torch(e, w, label, dout):
    """Costs and gradients by autograd in float64."""
    e, w = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (e, w))
    costs, first = [], 0
    for m in LENGTHS:
        now, y = w[0] + e[first], label[first : first + m]
        score = w[0, y[0]] + w[1, y[-1]] + sum(e[first + k, y[k]] for k in range(m))
        score = score + sum(w[2 + a, b] for a, b in pairwise(y))
        for k in range(1, m):
            now = torch.logsumexp(now[:, None] + w[2:], 0) + e[first + k]
        costs.append(torch.logsumexp(now + w[1], 0) - score)
        first += m
    found = torch.stack(costs)
    found.backward(torch.tensor(dout))
    return found.detach().numpy(), e.grad.numpy(), w.grad.numpy()


def run(e, w, label, dout):
    size = np.array(LENGTHS)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    alpha, out, de, dw = np.zeros_like(e), np.zeros(len(size), e.dtype), np.zeros_like(e), np.zeros(w.shape)
    cost(e, w, label, start, size, alpha, out)
    cost_back(e, w, label, start, size, dout, de, dw)
    return alpha, out, de, dw


def test_sequences_that_vanish_stand_beside_others():
    rng = np.random.RandomState(0)
    rows = sum(LENGTHS)
    e, w = rng.randn(rows, TAGS), rng.randn(TAGS + 2, TAGS)
    e[8:20] *= 900  # the third sequence
    e[21, 3] = -5000.0  # a tag of the fourth
    label, dout = rng.randint(0, TAGS, rows), rng.rand(len(LENGTHS))
    alpha, out, de, dw = run(e, w, label, dout)
    expected = by_torch(e, w, label, dout)
    for got, wanted in zip((out, de, dw), expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(alpha.sum(1), 1, rtol=1e-12)


def test_forbidden_moves_and_nan_stay_where_they_are():
    rng = np.random.RandomState(1)
    rows = sum(LENGTHS)
    e, w = rng.randn(rows, TAGS).astype(np.float32), rng.randn(TAGS + 2, TAGS).astype(np.float32)
    label, dout = rng.randint(1, TAGS, rows), np.ones(len(LENGTHS), np.float32)
    whole = run(e, w, label, dout)
    e[9, 5] = np.nan  # in the third sequence
    alpha, out, de, _ = run(e, w, label, dout)
    assert np.isnan(out[2]) and np.isnan(de[8:20]).any()
    others = np.r_[0:8, 20:rows]
    np.testing.assert_array_equal(np.delete(out, 2), np.delete(whole[1], 2))
    np.testing.assert_array_equal(alpha[others], whole[0][others])
    np.testing.assert_array_equal(de[others], whole[2][others])
    e[9, 5] = 0
    w[2:, 0] = -np.inf
    alpha, out, de, dw = run(e, w, label, dout)
    assert np.isfinite(out).all() and np.isfinite(de).all() and np.isfinite(dw).all()
