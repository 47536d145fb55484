"""Products by oneDNN and by tiles agree with torch.mm for every layout, size and dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.kernels.gemm import product, product_of_rows


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 7, 256, 257, 700])
def test_products(m, dtype):
    a, b, d = (torch.randn(s, dtype=dtype) for s in ((m, 96), (96, 130), (m, 130)))
    wide = torch.randn(96, 300, dtype=dtype)[:, 10:140]
    for weight in (b, b.t().contiguous().t(), wide):
        torch.testing.assert_close(product(a, weight), a @ weight, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(product_of_rows(a, d), a.t() @ d, rtol=1e-4, atol=1e-3)


def cut(rows, columns, way):
    """A matrix that stands in memory by rows, within wider rows, turned, or as one row again and again."""
    if way == "turned":
        return torch.randn(columns, rows).t()
    if way == "same":
        return torch.randn(1, columns).expand(rows, columns)
    return torch.randn(rows, columns + 7)[:, 3 : 3 + columns] if way == "within" else torch.randn(rows, columns)


WAYS = st.sampled_from(["rows", "rows", "within", "turned", "same"])


@settings(max_examples=120)
@given(st.integers(257, 1100), st.integers(1, 150), st.integers(16, 170), WAYS, WAYS, st.booleans(), st.sampled_from([1, 2]))
def test_many_rows_of_any_layout(m, k, n, way, other, biased, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            a, b, d = cut(m, k, way), cut(k, n, other), cut(m, n, other)
            bias = torch.randn(n) if biased else None
            got, want = product(a, b, bias), a.double() @ b.double() + (bias if biased else 0)
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
            got, want = product_of_rows(a, d), a.double().t() @ d.double()
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 15, 16])
def test_narrow_products(columns, dtype):
    a, b, d = (torch.randn(s, dtype=dtype) for s in ((70, 96), (96, columns), (70, columns)))
    assert product(a, b).is_contiguous() and product_of_rows(a, d).is_contiguous()
    for left in (a, a.t().contiguous().t()):
        torch.testing.assert_close(product(left, b), left @ b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(product_of_rows(left, d), left.t() @ d, rtol=1e-4, atol=1e-4)


def test_another_default_dtype():
    a, b, d = (torch.randn(s, dtype=torch.float32) for s in ((300, 64), (64, 100), (300, 100)))
    want = product(a, b), product_of_rows(a, d)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        got = product(a, b), product_of_rows(a, d)
    finally:
        torch.set_default_dtype(before)
    assert all(g.dtype is torch.float32 and torch.equal(g, w) for g, w in zip(got, want))


def test_empty_and_differentiable_operands():
    assert product(torch.zeros(0, 4), torch.zeros(4, 5)).shape == (0, 5)
    with torch.enable_grad():
        a = torch.randn(300, 100, requires_grad=True)
        product(a, torch.randn(100, 100)).sum().backward()
        assert a.grad is not None
