"""Products of few rows in register tiles against float64, at every size where the tiling changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.kernels import gemm, tiles
from millstream.ops import matmul


def check(m, k, n):
    rng = np.random.RandomState(m * 1000 + k * 10 + n)
    a, b, first = (rng.standard_normal(s).astype("float32") for s in ((m, k), (k, n), (n,)))
    out = np.full((m, n), np.nan, "float32")
    tiles.few_rows(a, b, first, out)
    assert np.allclose(out, a.astype("float64") @ b + first, atol=1e-5 * (k + 4))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 20, 64])
def test_rows(m):
    for n in (16, 17, 31, 32, 57, 64, 65, 80, 128, 200):
        check(m, 7, n)


@given(st.integers(1, 64), st.integers(1, 300), st.integers(16, 300))
@settings(max_examples=60, deadline=None)
def test_any_size(m, k, n):
    check(m, k, n)


def test_nan_and_inf_stay_where_they_are():
    a, b = np.ones((18, 128), "float32"), np.ones((128, 64), "float32")
    a[3, 5], b[7, 9] = np.nan, np.inf
    out = np.empty((18, 64), "float32")
    tiles.few_rows(a, b, np.zeros(64, "float32"), out)
    assert np.isnan(out[3]).all() and np.isinf(out[[0, 17], 9]).all()
    assert np.isfinite(np.delete(np.delete(out, 3, 0), 9, 1)).all()


def test_mul_takes_them_only_where_they_hold(monkeypatch):
    calls = []
    monkeypatch.setattr(gemm.tiles(), "few_rows_at", lambda a, b, z, out, m, k, n: calls.append((m, k, n)))
    x, w = torch.randn(18, 128), torch.randn(128, 384)
    with torch.no_grad():
        matmul.mm(x, w)
        assert calls == [(18, 128, 384)]
        others = [(x.double(), w.double()), (torch.randn(700, 128), w), (x, torch.randn(384, 128).t())]
        for a, b in [*others, (x, w[:, :8].contiguous())]:
            error = (matmul.mm(a, b).double() - a.double() @ b.double()).abs()
            assert (error <= 2e-6 * (a.double().abs() @ b.double().abs())).all()  # float32's rounding; 3.5e-7 was seen
            assert len(calls) == 1
        with pytest.raises(RuntimeError):
            matmul.mm(x, w[:100])
    matmul.mm(x.requires_grad_(), w).sum().backward()
    assert x.grad is not None and len(calls) == 1


@pytest.mark.parametrize(("m", "k", "n"), [(7, 1100, 16), (64, 3000, 300), (240, 1024, 131), (2, 9000, 1000)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_deep_products_of_few_rows(m, k, n, threads, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    monkeypatch.setattr(matmul, "_DEEP_WORK", 0)
    a, b, bias = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for extra in (None, bias):
                expected = a.double() @ b.double() + (0 if extra is None else extra.double())
                scale = a.double().abs() @ b.double().abs() + 1
                assert ((matmul.mm(a, b, extra).double() - expected).abs() <= 2e-6 * scale).all()
    finally:
        torch.set_num_threads(before)
