"""Rows in falling order by introspective sort (Musser 1997), for the order that it leaves equal numbers and NaN in.

Median of three, partitions down to 16 numbers, one insertion sort over all of them at the end; a heap takes over
where partitions do not get small (after 2 log2 n of them).
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.partial_sort import heap_sort

_SMALL = 16


@njit(cache=True, nogil=True)
def _swap(v, p, a, b):
    v[a], v[b] = v[b], v[a]
    p[a], p[b] = p[b], p[a]


@njit(cache=True, nogil=True)
def _median_to(v, p, to, a, b, c):
    if v[a] > v[b]:
        if v[b] > v[c]:
            _swap(v, p, to, b)
        elif v[a] > v[c]:
            _swap(v, p, to, c)
        else:
            _swap(v, p, to, a)
    elif v[a] > v[c]:
        _swap(v, p, to, a)
    elif v[b] > v[c]:
        _swap(v, p, to, c)
    else:
        _swap(v, p, to, b)


@njit(cache=True, nogil=True)
def _partition(v, p, first, last):
    """Split [first, last) around the median of three numbers; where the second part starts."""
    _median_to(v, p, first, first + 1, first + (last - first) // 2, last - 1)
    pivot = v[first]
    low, high = first + 1, last
    while True:
        while low < last and v[low] > pivot:
            low += 1
        high -= 1
        while high > first and pivot > v[high]:
            high -= 1
        if low >= high:
            return low
        _swap(v, p, low, high)
        low += 1


@njit(cache=True, nogil=True)
def _insert(v, p, first, at, guarded):
    """Put the number `at` into its place among those of [first, at); to the front when it is the greatest."""
    value, index = v[at], p[at]
    if guarded and value > v[first]:
        to = first
        for i in range(at, first, -1):
            v[i], p[i] = v[i - 1], p[i - 1]
    else:
        to = at
        while to > first and value > v[to - 1]:
            v[to], p[to] = v[to - 1], p[to - 1]
            to -= 1
    v[to], p[to] = value, index


@njit(cache=True, nogil=True)
def _sort(v, p):
    n = len(v)
    starts, ends, depths = np.empty(128, np.int64), np.empty(128, np.int64), np.empty(128, np.int64)
    depth = 0
    while n >> (depth + 1):
        depth += 1
    starts[0], ends[0], depths[0] = 0, n, 2 * depth
    waiting = 1
    while waiting:
        waiting -= 1
        first, last, depth = starts[waiting], ends[waiting], depths[waiting]
        while last - first > _SMALL:
            if depth == 0:
                heap_sort(v[first:last], p[first:last])
                break
            depth -= 1
            cut = _partition(v, p, first, last)
            starts[waiting], ends[waiting], depths[waiting] = cut, last, depth
            waiting += 1
            last = cut
    for i in range(1, n):
        _insert(v, p, 0, i, i < _SMALL)


@njit(cache=True, nogil=True)
def order_rows(values: np.ndarray, index: np.ndarray) -> None:
    """Sort each row of `values` [rows, n] in place, greatest first; `index` (int64) gets where the numbers were."""
    for r in range(values.shape[0]):
        for i in range(values.shape[1]):
            index[r, i] = i
        _sort(values[r], index[r])
