"""Products of bfloat16 in register tiles of pairs against float64, where sizes, slabs, strips and shares are cut."""

import pytest
import torch

from millstream.kernels import pair_products, pairs
from millstream.ops import matmul
from millstream.ops._opdef import REGISTRY

pytestmark = pytest.mark.skipif(not pairs.available(), reason="the processor has no products of bfloat16")

_SIZES = [(1, 32, 16), (7, 64, 48), (250, 96, 80), (130, 512, 64), (513, 32, 144), (65, 416, 528), (1030, 16, 32)]


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    monkeypatch.setattr(pair_products, "_LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with torch.no_grad():
        yield request.param
    torch.set_num_threads(before)


def _close(got, expected, left, right):
    """Within bfloat16's rounding of the result and float32's of the sums."""
    assert got.dtype is torch.bfloat16 and got.shape == expected.shape
    assert ((got.double() - expected).abs() <= expected.abs() * 2**-8 + (left.abs() @ right.abs()) * 1e-6).all()


@pytest.mark.parametrize(("m", "k", "n"), _SIZES)
def test_products(m, k, n, threads):
    x, w, bias, dy = (torch.randn(s).bfloat16() for s in ((m, k), (k, n), (n,), (m, n)))
    xd, wd, dyd = x.double(), w.double(), dy.double()
    _close(pair_products.product(x, w), xd @ wd, xd, wd)
    _close(pair_products.product(x, w, bias), xd @ wd + bias.double(), xd, wd)
    if n % 32 == 0:
        _close(pair_products.product(dy, w.t()), dyd @ wd.t(), dyd, wd.t())
    _close(pair_products.product_of_rows(x, dy), xd.t() @ dyd, xd.t(), dyd)


@pytest.mark.parametrize(("m", "k", "n"), _SIZES)
def test_a_right_matrix_of_float32(m, k, n, threads):
    """It is rounded as it is laid out, either way round."""
    x, w, dy = torch.randn(m, k).bfloat16(), torch.randn(k, n), torch.randn(m, n).bfloat16()
    assert torch.equal(pair_products.product(x, w), pair_products.product(x, w.bfloat16()))
    if n % 32 == 0:
        assert torch.equal(pair_products.product(dy, w.t()), pair_products.product(dy, w.bfloat16().t()))
    wide = torch.randn(k, n + 48)[:, 16 : n + 16]
    assert torch.equal(pair_products.product(x, wide), pair_products.product(x, wide.bfloat16()))


def test_slices_of_wider_matrices(threads):
    x, w, dy = (torch.randn(s).bfloat16() for s in ((33, 128), (64, 96), (33, 96)))
    left, right = x[:, 64:], w[:, 32:]
    _close(pair_products.product(left, right), left.double() @ right.double(), left.double(), right.double())
    _close(pair_products.product_of_rows(left, dy[:, :48]), left.double().t() @ dy[:, :48].double(),
           left.double().t(), dy[:, :48].double())  # fmt: skip


def test_what_is_not_taken(monkeypatch):
    monkeypatch.setattr(pair_products, "_LEAST", 0)
    x, w = torch.randn(8, 64).bfloat16(), torch.randn(64, 32).bfloat16()
    with torch.no_grad():
        assert pair_products.product(x, w) is not None
        for a, b in ((x.float(), w.float()), (x[:, :63], w[:63]), (x, w[:, :31]), (x.t().contiguous().t(), w), (x, w[:32])):
            assert pair_products.product(a, b) is None
        assert pair_products.product_of_rows(x, x[:4]) is None
    assert pair_products.product(x.requires_grad_(), w) is None
    with pytest.raises(RuntimeError), torch.no_grad():
        matmul.mm(x, w[:32])


def test_not_finite_numbers_stay_in_their_rows():
    x, w = torch.ones(300, 64).bfloat16(), torch.ones(64, 128).bfloat16()
    x[3, 5], w[7, 9] = float("nan"), float("inf")
    with torch.no_grad():
        out = pair_products.product(x, w)
    assert out[3].isnan().all() and out[[0, 299], 9].isinf().all()
    kept = torch.ones(300, dtype=torch.bool)
    kept[3] = False
    assert out[kept][:, :9].eq(64).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_convolutions(stride, threads, monkeypatch):
    x = torch.randn(2, 64, 9, 10).bfloat16().contiguous(memory_format=torch.channels_last)
    w = torch.randn(96, 64, 1, 1).bfloat16()
    leaves = [t.double().requires_grad_() for t in (x, w)]
    with torch.enable_grad():
        wanted = torch.conv2d(*leaves, None, stride)
        dout = torch.randn(wanted.shape).bfloat16()
        wanted.backward(dout.double())
    met = []
    for name in ("product", "product_of_rows"):
        kernel = getattr(pair_products, name)
        monkeypatch.setattr(pair_products, name, lambda *a, kernel=kernel: met.append(kernel(*a)) or met[-1])
    form = {"strides": [stride, stride], "paddings": [0, 0]}
    out = REGISTRY.get("conv2d").kernel(x, w, None, None, **form)
    dx, dw, _ = REGISTRY.get("conv2d_grad").kernel(x, w, None, dout, want=(True, True, False), **form)
    assert len(met) == 3 and all(t is not None for t in met)
    for got, expected in ((out, wanted), (dx, leaves[0].grad), (dw, leaves[1].grad)):
        torch.testing.assert_close(got.double(), expected.detach(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("activation", ["", "relu", "tanh"])
def test_dense_layers(activation, threads):
    x, w, bias = (torch.randn(s).bfloat16() for s in ((4, 6, 64), (64, 96), (96,)))
    leaves = [t.double().requires_grad_() for t in (x, w, bias)]
    with torch.enable_grad():
        wanted = leaves[0] @ leaves[1] + leaves[2]
        wanted = getattr(torch, activation)(wanted) if activation else wanted
        dout = torch.randn(wanted.shape).bfloat16()
        wanted.backward(dout.double())
    out = REGISTRY.get("dense_layer").kernel(x, w, bias, rows=2, activation=activation)
    found = REGISTRY.get("dense_layer_grad").kernel(
        x, w, out, dout, rows=2, activation=activation, want=(True, True, True)
    )  # fmt: skip
    for got, leaf in zip((out, *found), (wanted, *(leaf.grad for leaf in leaves))):
        assert got.dtype is torch.bfloat16
        scale = leaf.detach().abs().max()
        torch.testing.assert_close(got.double() / scale, leaf.detach() / scale, rtol=0, atol=1e-2)
