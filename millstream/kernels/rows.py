"""Rows of a tall matrix by number: equal numbers merged by a hash table, values added to rows in place."""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.compiled import njit

_FAST = {"reassoc", "contract", "nsz", "arcp"}  # NaN and Inf keep their meaning
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hashing: 2**64 over the golden ratio


@njit(cache=True, nogil=True, error_model="numpy")
def _number(rows, table, distinct, which):
    """distinct[which[i]] = rows[i], numbered as they come; returns how many there are. table: -1s, a power of two long."""
    last = len(table) - 1
    shift = np.uint64(64)
    while last >> (np.uint64(64) - shift):
        shift -= np.uint64(1)
    count = 0
    for i in range(len(rows)):
        row = rows[i]
        at = np.int64((np.uint64(row) * _GOLDEN) >> shift)
        while table[at] >= 0 and distinct[table[at]] != row:
            at = (at + 1) & last
        if table[at] < 0:
            table[at] = count
            distinct[count] = row
            count += 1
        which[i] = table[at]
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _add(values, which, place, out):
    width = values.shape[1]
    for i in range(len(which)):
        source, target = values[i], out[place[which[i]]]
        for j in range(width):
            target[j] += source[j]


def merge(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the distinct `rows` in increasing order, the sums of `values` [rows, width] over each)."""
    n = len(rows)
    distinct, which = np.empty(n, np.int64), np.empty(n, np.int64)
    table = np.full(1 << max(int(n).bit_length() + 1, 2), -1, np.int64)
    count = _number(rows, table, distinct, which)
    order = np.argsort(distinct[:count])
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    out = np.zeros((count, values.shape[1]), values.dtype)
    _add(values, which, place, out)
    return distinct[order], out


def _gathered(rows: np.ndarray, values: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """As merge, in the order in which the rows first come; IndexError when a matrix of `height` rows lacks one."""
    wrong = _outside(rows, height)
    if wrong >= 0:
        raise IndexError(f"row {rows[wrong]} of a matrix of {height} rows")
    n = len(rows)
    distinct, which = np.empty(n, np.int64), np.empty(n, np.int64)
    table = np.full(1 << max(int(n).bit_length() + 1, 2), -1, np.int64)
    count = _number(rows, table, distinct, which)
    if count == n:
        return rows, values
    out = np.zeros((count, values.shape[1]), values.dtype)
    _add(values, which, np.arange(count), out)
    return distinct[:count], out


@njit(cache=True, nogil=True, error_model="numpy")
def _outside(rows, height):
    """The position of a row number that a matrix of `height` rows does not have, or -1."""
    for i in range(len(rows)):
        if rows[i] < 0 or rows[i] >= height:
            return i
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def _add_scaled(out, rows, values, alpha):
    width = values.shape[1]
    for i in range(len(rows)):
        source, target = values[i], out[rows[i]]
        for j in range(width):
            target[j] += alpha * source[j]


def add_rows(out: np.ndarray, rows: np.ndarray, values: np.ndarray, alpha: float) -> None:
    """out[rows[i]] += alpha * values[i] in this order, in place; repeats add up.

    Raises IndexError, before anything changes, when `out` has no such row.
    """
    wrong = _outside(rows, len(out))
    if wrong >= 0:
        raise IndexError(f"row {rows[wrong]} of a matrix of {len(out)} rows")
    _add_scaled(out, rows, values, out.dtype.type(alpha))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _adagrad(param, moment, rows, values, rate, epsilon):
    width = values.shape[1]
    for i in range(len(rows)):
        p, m, g = param[rows[i]], moment[rows[i]], values[i]
        for j in range(width):
            m[j] += g[j] * g[j]
            p[j] -= rate * g[j] / (math.sqrt(m[j]) + epsilon)


def adagrad(
    param: np.ndarray, moment: np.ndarray, rows: np.ndarray, values: np.ndarray, rate: float, epsilon: float
) -> None:
    """m += g^2, p -= rate * g / (sqrt(m) + epsilon) in the named rows, in place; g is the sum of the values of a row.

    Raises IndexError, before anything changes, when there is no such row.
    """
    rows, values = _gathered(rows, values, len(param))
    real = param.dtype.type
    _adagrad(param, moment, rows, values, real(rate), real(epsilon))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _adam(param, moment1, moment2, rows, values, rate, keep1, keep2, new1, new2, epsilon):
    width = values.shape[1]
    for i in range(len(rows)):
        p, m, v, g = param[rows[i]], moment1[rows[i]], moment2[rows[i]], values[i]
        for j in range(width):
            m[j] = keep1 * m[j] + new1 * g[j]
            v[j] = keep2 * v[j] + new2 * g[j] * g[j]
            p[j] -= rate * m[j] / (math.sqrt(v[j]) + epsilon)


def adam(
    param: np.ndarray, moments: tuple[np.ndarray, np.ndarray], rows: np.ndarray, values: np.ndarray, rate: float,
    betas: tuple[float, float], epsilon: float,
) -> None:  # fmt: skip
    """m = b1 * m + (1 - b1) * g, v = b2 * v + (1 - b2) * g^2, p -= rate * m / (sqrt(v) + epsilon), likewise."""
    rows, values = _gathered(rows, values, len(param))
    real = param.dtype.type
    (moment1, moment2), (b1, b2) = moments, betas
    factors = real(b1), real(b2), real(1.0 - b1), real(1.0 - b2)
    _adam(param, moment1, moment2, rows, values, real(rate), *factors, real(epsilon))


@njit(cache=True, nogil=True, error_model="numpy")
def _gather_sums(table, rows, offsets, starts, columns, out):
    width, slots, sequences = table.shape[1], offsets.shape[0], offsets.shape[1] - 1
    for i in range(sequences):
        for s in range(slots):
            target, first = out[i, columns[s] : columns[s] + width], starts[s]
            target[:] = 0
            for r in range(first + offsets[s, i], first + offsets[s, i + 1]):
                source = table[rows[r]]
                for j in range(width):
                    target[j] += source[j]


def gather_sums(
    table: np.ndarray, rows: np.ndarray, offsets: np.ndarray, starts: np.ndarray, columns: np.ndarray, out: np.ndarray
) -> None:
    """out[i, columns[s] : + width] = the sum of the rows of sequence i of slot s, whose numbers begin at rows[starts[s]].

    offsets: [slots, sequences + 1]. Raises IndexError, before anything changes, when the table has no such row.
    """
    wrong = _outside(rows, len(table))
    if wrong >= 0:
        raise IndexError(f"id out of range: must be from 0 to {len(table) - 1}, received {rows[wrong]}")
    _gather_sums(table, rows, offsets, starts, columns, out)


@njit(cache=True, nogil=True, error_model="numpy")
def spread(gradient, offsets, starts, columns, values):
    """The transpose: values[r] = the columns of `gradient` that row r was added to."""
    width, slots, sequences = values.shape[1], offsets.shape[0], offsets.shape[1] - 1
    for i in range(sequences):
        for s in range(slots):
            source, first = gradient[i, columns[s] : columns[s] + width], starts[s]
            for r in range(first + offsets[s, i], first + offsets[s, i + 1]):
                target = values[r]
                for j in range(width):
                    target[j] = source[j]
