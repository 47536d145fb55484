"""Maxima of windows against torch's own."""

import numpy as np
import pytest
import torch

from millstream.kernels import pool

RNG = np.random.RandomState(8)

@pytest.mark.parametrize("size", [(11, 13), (8, 8), (2, 2), (3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maxima_and_places(size, dtype):
    x = RNG.randint(-3, 4, (6, *size)).astype(dtype)  # many ties
    x[0, :2, :2] = np.nan
    x[1, 1, 0] = np.nan
    x[2] = -np.inf
    want, places = torch.ops.aten.max_pool2d_with_indices(torch.from_numpy(x), [2, 2], [2, 2])
    out, index = np.empty(tuple(want.shape), dtype), np.empty(tuple(want.shape), np.int64)
    pool.quarters(x, out, index)
    np.testing.assert_array_equal(out, want.numpy())
    np.testing.assert_array_equal(index, places.numpy())
