"""Updates of float32 parameters by gradients of bfloat16 in one walk: every number is read and written once.

Flat arrays; bfloat16 as its bits (brain.py). Formulas and order of operations are those of torch's one-pass kernels.
"""

from __future__ import annotations

import math

from millstream.kernels.brain import wide
from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True, error_model="numpy")
def sgd(p, g, rate, decay, first, last):
    """p -= rate * (g + decay * p) for elements first .. last."""
    p, g = p[first:last], g[first:last]
    for i in range(len(p)):
        p[i] -= rate * (wide(g[i]) + decay * p[i])


@njit(cache=True, nogil=True, error_model="numpy")
def momentum(p, g, v, rate, mu, nesterov, decay, first, last):
    """v = mu * v + g + decay * p; p -= rate * v, or rate * (g + decay * p + mu * v), for elements first .. last."""
    p, g, v = p[first:last], g[first:last], v[first:last]
    for i in range(len(p)):
        d = wide(g[i]) + decay * p[i]
        speed = mu * v[i] + d
        v[i] = speed
        p[i] -= rate * (d + mu * speed if nesterov else speed)


@njit(cache=True, nogil=True, error_model="numpy")
def adam(p, g, m, v, rate, beta1, rest1, beta2, rest2, epsilon, decay, first, last):
    """m and v take in d = g + decay * p; p -= rate * m / (sqrt(v) + epsilon); elements first .. last. rest: 1 - beta."""
    p, g, m, v = p[first:last], g[first:last], m[first:last], v[first:last]
    for i in range(len(p)):
        d = wide(g[i]) + decay * p[i]
        mean = m[i] + rest1 * (d - m[i])
        square = beta2 * v[i] + rest2 * d * d
        m[i], v[i] = mean, square
        p[i] -= rate * mean / (math.sqrt(square) + epsilon)
