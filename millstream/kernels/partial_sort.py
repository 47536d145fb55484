"""The k largest numbers of each row in the order of a heap-based partial sort.

Which of several equal numbers comes first is part of what `top_k` gives, and of what its gradient hits. The order is
that of the classical algorithm (Knuth, TAOCP 3, 5.2.3): a heap of the first k, every later number that is larger than
the least of the heap replaces it, then the heap is sorted.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True)
def _sift(values, index, hole, size, value, at):
    """Put (value, at) into the heap of `size` at `hole`: down along the smaller children, then up to its place."""
    top = hole
    child = hole
    while child < (size - 1) // 2:
        child = 2 * (child + 1)
        if values[child] > values[child - 1]:
            child -= 1
        values[hole] = values[child]
        index[hole] = index[child]
        hole = child
    if size % 2 == 0 and child == (size - 2) // 2:
        child = 2 * (child + 1)
        values[hole] = values[child - 1]
        index[hole] = index[child - 1]
        hole = child - 1
    parent = (hole - 1) // 2
    while hole > top and values[parent] > value:
        values[hole] = values[parent]
        index[hole] = index[parent]
        hole = parent
        parent = (hole - 1) // 2
    values[hole] = value
    index[hole] = at


@njit(cache=True, nogil=True)
def _heapify(v, p):
    k = len(v)
    for parent in range((k - 2) // 2, -1, -1):
        _sift(v, p, parent, k, v[parent], p[parent])


@njit(cache=True, nogil=True)
def _unwind(v, p):
    for last in range(len(v) - 1, 0, -1):
        value, at = v[last], p[last]
        v[last], p[last] = v[0], p[0]
        _sift(v, p, 0, last, value, at)


@njit(cache=True, nogil=True)
def heap_sort(v: np.ndarray, p: np.ndarray) -> None:
    """Sort `v`, greatest first, and `p` along with it, in place."""
    if len(v) > 1:
        _heapify(v, p)
        _unwind(v, p)


@njit(cache=True, nogil=True)
def top_rows(x: np.ndarray, out: np.ndarray, index: np.ndarray) -> None:
    """Largest `out.shape[1]` of each row of x [rows, n] into `out` and their positions into `index` (int64)."""
    rows, n = x.shape
    k = out.shape[1]
    for r in range(rows):
        row = x[r]
        v = out[r]
        p = index[r]
        for i in range(k):
            v[i] = row[i]
            p[i] = i
        if k > 1:
            _heapify(v, p)
        for i in range(k, n):
            if row[i] > v[0]:
                _sift(v, p, 0, k, row[i], i)
        _unwind(v, p)
