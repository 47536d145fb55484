"""Gradients of linear interpolation along one axis, over arrays [outer, size, inner] of float32 or float64.

Each element of the longer axis was made of two of the shorter one; its gradient goes back to those two, each times its
weight. A whole image is done axis by axis, so that every number is read once an axis, whatever the memory order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.threads import parts, run_parts


class Taps(NamedTuple):
    """The two elements of the shorter axis (int64) that an element of the longer one is made of, and their weights."""

    low: np.ndarray
    high: np.ndarray
    of_low: np.ndarray
    of_high: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def _rows(dy, low, high, of_low, of_high, first, last, begin, end, dx):
    """first .. last of the outer dimension, begin .. end of the inner one."""
    for n in range(first, last):
        dx[n, :, begin:end] = 0
        for i in range(dy.shape[1]):
            given, below, above = dy[n, i, begin:end], dx[n, low[i], begin:end], dx[n, high[i], begin:end]
            a, b = of_low[i], of_high[i]
            for j in range(end - begin):
                below[j] += given[j] * a
            for j in range(end - begin):
                above[j] += given[j] * b


@njit(cache=True, nogil=True, error_model="numpy")
def _numbers(dy, low, high, of_low, of_high, first, last, dx):
    """_rows where the inner dimension is 1."""
    for n in range(first, last):
        dx[n] = 0
        for i in range(dy.shape[1]):
            dx[n, low[i]] += dy[n, i] * of_low[i]
            dx[n, high[i]] += dy[n, i] * of_high[i]


def back(dy: np.ndarray, taps: Taps, dx: np.ndarray) -> None:
    """Fills dx [outer, size, inner] from dy [outer, longer, inner]."""
    outer, _, inner = dy.shape
    most = outer if outer > 1 else inner
    count = parts(2 * dy.size, most)
    edges = list(pairwise(most * k // count for k in range(count + 1)))
    if inner == 1:
        run_parts(_numbers, [(dy[..., 0], *taps, *ends, dx[..., 0]) for ends in edges])
    elif outer > 1:
        run_parts(_rows, [(dy, *taps, *ends, 0, inner, dx) for ends in edges])
    else:
        run_parts(_rows, [(dy, *taps, 0, 1, *ends, dx) for ends in edges])
