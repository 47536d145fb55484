"""Products with laid-out matrices against numpy, at every size where the layout or the tiling changes."""

import numpy as np
import pytest
from numba import njit

from millstream.kernels.gates import exp64
from millstream.kernels.panels import padded, panels, rows_product


@njit
def product(a, m, b, first, step, out):
    rows_product(a, m, b, first, step, out)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 15, 16, 63, 64, 65, 81, 200])
def test_any_size(n, dtype):
    rng = np.random.RandomState(n)
    for m in (*range(1, 15), 33):
        for depth in (1, 7, 130):
            a, w = rng.standard_normal((m, depth)).astype(dtype), rng.standard_normal((depth, n)).astype(dtype)
            expected = a.astype("float64") @ w
            line = np.zeros(padded(n), dtype)
            line[:n] = rng.standard_normal(n)
            out = np.full((m, padded(n)), np.nan, dtype)
            product(a, m, panels(w), line, 0, out)
            assert np.allclose(out[:, :n], expected + line[:n], atol=1e-5 * (depth + 4))
            product(a, m - 1, panels(w), out, padded(n), out)  # adds to what stands there, and leaves the last row
            expected[:-1] *= 2
            assert np.allclose(out[:, :n], expected + line[:n], atol=1e-5 * (depth + 4))


@njit
def exponentials(x, out):
    for i in range(len(x)):
        out[i] = exp64(x[i])


def test_exp64():
    x = np.concatenate([np.linspace(-707.9, 708.9, 100_003), [0.0, -1e-300, 1e-20]])
    out = np.empty_like(x)
    exponentials(x, out)
    assert np.abs(out / np.exp(x) - 1).max() < 5e-16
    special = np.array([-np.inf, -1e9, -708.5, np.nan, np.inf])
    exponentials(special, out)
    assert (out[:3] == 0).all() and np.isnan(out[3]) and out[4] > 1e307
