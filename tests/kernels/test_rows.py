"""Merged rows against numpy's unique."""

import numpy as np
import pytest

from millstream.kernels.rows import adagrad, adam, add_rows, merge


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "high"), [(0, 1), (1, 1), (7, 3), (1000, 5), (1000, 2**40), (5000, 4000)])
def test_merge(n, high, dtype):
    rng = np.random.RandomState(n)
    rows, values = rng.randint(0, high, n).astype("int64"), rng.standard_normal((n, 5)).astype(dtype)
    distinct, which = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), 5), dtype)
    np.add.at(sums, which, values)
    found_rows, found = merge(rows, values)
    assert np.array_equal(found_rows, distinct) and np.array_equal(found, sums) and found.dtype == dtype


def test_rows_that_fall_into_one_place():
    rows = (np.arange(300, dtype="int64") << 40) + 7
    found, sums = merge(np.concatenate([rows, rows[::-1]]), np.ones((600, 1), "float32"))
    assert np.array_equal(found, rows) and (sums == 2).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_added_in_place(dtype):
    rng = np.random.RandomState(1)
    rows, values = rng.randint(0, 7, 50), rng.standard_normal((50, 3)).astype(dtype)
    out = rng.standard_normal((7, 3)).astype(dtype)
    expected = out.astype("float64")
    np.add.at(expected, rows, -0.5 * values)
    add_rows(out, rows, values, -0.5)
    np.testing.assert_allclose(out, expected, 1e-5)


@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_row_that_is_not_there_changes_nothing(wrong):
    out = np.zeros((7, 3), "float32")
    with pytest.raises(IndexError, match=f"row {wrong} of a matrix of 7 rows"):
        add_rows(out, np.array([0, 1, wrong]), np.ones((3, 3), "float32"), 1.0)
    assert not out.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_updates_of_rows(dtype):
    rng = np.random.RandomState(2)
    rows, values = rng.randint(0, 9, 30), rng.standard_normal((30, 5)).astype(dtype)
    param, first, second = (rng.rand(9, 5).astype(dtype) for _ in range(3))
    named = np.unique(rows)
    g = np.zeros((9, 5))
    np.add.at(g, rows, values)
    g = g[named]
    m = first[named] + g * g
    moved = param[named] - 0.1 * g / (np.sqrt(m) + 1e-6)
    p, moment = param.copy(), first.copy()
    adagrad(p, moment, rows, values, 0.1, 1e-6)
    np.testing.assert_allclose((p[named], moment[named]), (moved, m), 1e-4, 1e-5)
    rest = np.setdiff1d(np.arange(9), named)
    assert np.array_equal(p[rest], param[rest])
    m, v = 0.9 * first[named] + 0.1 * g, 0.99 * second[named] + 0.01 * g * g
    moved = param[named] - 0.1 * m / (np.sqrt(v) + 1e-6)
    adam(param, (first, second), rows, values, 0.1, (0.9, 0.99), 1e-6)
    np.testing.assert_allclose((param[named], first[named], second[named]), (moved, m, v), 1e-4, 1e-5)
