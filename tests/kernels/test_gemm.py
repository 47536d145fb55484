"""Products by oneDNN agree with torch.mm for every layout, size and dtype."""

from __future__ import annotations

import pytest
import torch

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 15, 16])
def test_narrow_products(columns, dtype):
    a, b, d = (torch.randn(s, dtype=dtype) for s in ((70, 96), (96, columns), (70, columns)))
    assert product(a, b).is_contiguous() and product_of_rows(a, d).is_contiguous()
    for left in (a, a.t().contiguous().t()):
        torch.testing.assert_close(product(left, b), left @ b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(product_of_rows(left, d), left.t() @ d, rtol=1e-4, atol=1e-4)


def test_empty_and_differentiable_operands():
    assert product(torch.zeros(0, 4), torch.zeros(4, 5)).shape == (0, 5)
    with torch.enable_grad():
        a = torch.randn(300, 100, requires_grad=True)
        product(a, torch.randn(100, 100)).sum().backward()
        assert a.grad is not None
