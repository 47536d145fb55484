"""Merged rows against numpy's unique."""

import numpy as np
import pytest

from millstream.kernels.rows import merge


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
