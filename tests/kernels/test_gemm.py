"""Products by oneDNN and by tiles agree with torch.mm for every layout, size and dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.kernels import gemm
from millstream.kernels.gemm import product, product_of_rows
from millstream.kernels.layer_gradients import layer_gradients


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


TURNED = [(66, 100, 80), (100, 1100, 130), (300, 16, 17), (257, 33, 64), (70, 2000, 49)]


@pytest.mark.parametrize(("m", "depth", "n"), TURNED)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_right_matrix_that_stands_turned(m, depth, n, threads):
    import numba  # noqa: F401  the tiles take 66 rows only when it is there

    a, b = torch.randn(m, depth + 3)[:, :depth], torch.randn(n, depth + 5)[:, :depth].t()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert gemm.takes_turned(a, b) == (m * depth * n >= gemm.LEAST)
        found = gemm.turned_product(a, b)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, a.double() @ b.double(), check_dtype=False, rtol=1e-4, atol=1e-4 * depth**0.5)


@pytest.mark.parametrize("behind", ["", "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize(("m", "k", "n"), [(100, 96, 170), (300, 33, 64), (129, 64, 80), (300, 100, 2), (70, 133, 7)])
@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_a_layer(behind, m, k, n, threads):
    import numba  # noqa: F401

    torch.set_grad_enabled(True)
    act = {"": lambda t: t * 1, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[behind]
    z = torch.randn(m, k, requires_grad=True)
    x, w, d = act(z), torch.randn(k, n), torch.randn(m, n)
    dz = torch.autograd.grad(x, z, d @ w.t())[0]
    torch.set_grad_enabled(False)
    want = dz, x.detach().t() @ d, d.sum(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for wanted in ((True, True, True), (False, True, True), (True, False, False)):
            found = layer_gradients(x.detach(), w, d, wanted, behind)
            assert found is not None
            for value, expected, there in zip(found, want, wanted):
                assert (value is not None) == there
                if there:
                    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    finally:
        torch.set_num_threads(before)


def test_gradients_that_go_piece_by_piece():
    import numba  # noqa: F401

    x, w, d = torch.randn(100, 96), torch.randn(96, 80), torch.randn(100, 80)
    every = (True, True, True)
    assert layer_gradients(x.double(), w.double(), d.double(), every, "") is None
    assert layer_gradients(x[:9], w, d[:9], every, "") is None  # few rows
    assert layer_gradients(x, torch.randn(80, 96).t(), d, every, "") is None  # a weight that stands turned itself
    assert layer_gradients(torch.randn(96, 100).t(), w, d, every, "") is None
    with torch.enable_grad():
        assert layer_gradients(x, w, d, every, "") is None  # something is recorded


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_few_columns_in_our_kernel(n, threads):
    import numba  # noqa: F401

    a, b, bias = torch.randn(5000, 410), torch.randn(410, n), torch.randn(n)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert gemm.takes_narrow(a, b) and not gemm.takes_narrow(a, b.t().contiguous().t())
        for given in (bias, None):
            want = a @ b if given is None else a @ b + given
            torch.testing.assert_close(product(a, b, given), want, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_gradients_of_few_columns_on_many_cores(monkeypatch):
    """Each share has a vector of columns at least."""
    import numba  # noqa: F401

    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    x, w, d = torch.randn(3000, 70), torch.randn(70, 5), torch.randn(3000, 5)
    before = torch.get_num_threads()
    torch.set_num_threads(40)
    try:
        with torch.no_grad():
            dx, dw, sums = layer_gradients(x, w, d, (True, True, True), "")
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(dx, d @ w.t(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dw, x.t() @ d, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sums, d.sum(0), rtol=1e-3, atol=1e-3)
