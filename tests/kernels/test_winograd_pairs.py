"""3x3 convolutions of bfloat16 by Winograd's filtering against direct sums in float64, where squares and shares are cut."""

import pytest
import torch

from millstream.kernels import pair_products, pairs
from millstream.ops._opdef import REGISTRY
from millstream.ops.nn import _conv_winograd, _conv_winograd_pairs

pytestmark = pytest.mark.skipif(not pairs.available(), reason="the processor has no products of bfloat16")

_SHAPES = [  # pictures, channels in and out, height, width, paddings
    (2, 16, 48, 9, 14, (1, 1)),
    (1, 80, 16, 3, 5, (0, 2)),
    (3, 32, 64, 12, 4, (2, 0)),
    (5, 144, 80, 7, 7, (1, 1)),  # more squares than one block
    (1, 16, 16, 1, 1, (1, 1)),  # one square, which has no partner
    (2, 256, 32, 6, 6, (0, 0)),  # rows of combinations a power of two apart
]
# Root mean square error in that of the results: combinations are rounded to 8 bits; 3.6e-3 to 4.3e-3 were seen.
_ERROR = 6e-3


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(_conv_winograd, "_LEAST", 0)
    monkeypatch.setattr(pair_products, "_LEAST", 0)
    monkeypatch.setattr(_conv_winograd_pairs, "_is_faster", lambda task, direct: True)
    with torch.no_grad():
        yield


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _close(got, expected):
    assert got.shape == expected.shape and got.dtype is torch.bfloat16
    assert (got.double() - expected).norm() <= _ERROR * expected.norm()


@pytest.mark.parametrize("many", [0, 1 << 30], ids=["panels", "squares"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_output_and_gradients_are_those_of_direct_sums(shape, many, always, threads, monkeypatch):
    monkeypatch.setattr(_conv_winograd_pairs, "_MANY", many)
    n, c, k, height, width, pads = shape
    x = torch.randn(n, c, height, width).bfloat16().contiguous(memory_format=torch.channels_last)
    w = torch.randn(k, c, 3, 3).bfloat16()
    rest = ([1, 1], pads, [1, 1], 1)
    double = (x.double(), w.double())
    expected = torch.convolution(*double, None, *rest[:3], False, [0, 0], 1)
    _close(_conv_winograd_pairs.forward(x, w, None, *rest), expected)
    dout = torch.randn(expected.shape).bfloat16()  # in the other memory order
    gradients = torch.ops.aten.convolution_backward(
        dout.double(), *double, None, *rest[:3], False, [0, 0], 1, [True, True, False]
    )
    _close(_conv_winograd_pairs.backward_input(x, w, dout, *rest), gradients[0])
    _close(_conv_winograd_pairs.filter_gradient(x, w, dout, *rest), gradients[1])


def test_operators_take_it_where_it_is_faster(monkeypatch):
    import numba  # noqa: F401  it is not loaded for a small convolution

    met = []
    monkeypatch.setattr(_conv_winograd_pairs, "_run", lambda *a: met.append(a[0]))
    kernel = REGISTRY.get("conv2d").kernel
    rest = {"strides": [1, 1], "paddings": [1, 1]}
    x, w = torch.randn(1, 64, 24, 24).bfloat16(), torch.randn(64, 64, 3, 3).bfloat16()
    with torch.no_grad():
        kernel(x, w, None, None, **rest)
        assert len(met) == 1
        kernel(x[:, :, :2, :2], w, None, None, **rest)  # too little work
        kernel(x[:, :60], w[:, :60], None, None, **rest)  # channels that fill no vector
        kernel(x, w, None, None, strides=[2, 2], paddings=[1, 1])
        kernel(x, w, torch.randn(64).bfloat16(), None, **rest, use_mkldnn=True)
        kernel(x.float(), w.float(), None, None, **rest)
    kernel(x, w.requires_grad_(), None, None, **rest)
    assert len(met) == 1


def test_a_processor_without_the_instructions(monkeypatch):
    monkeypatch.setattr(pair_products, "tiles", lambda: None)
    x, w = torch.randn(1, 64, 24, 24).bfloat16(), torch.randn(64, 64, 3, 3).bfloat16()
    with torch.no_grad():
        out = REGISTRY.get("conv2d").kernel(x, w, None, None, strides=[1, 1], paddings=[1, 1])
        assert pair_products.product(x[0, 0], x[0, 1]) is None
    torch.testing.assert_close(out.float(), torch.conv2d(x.float(), w.float(), padding=1), rtol=1e-2, atol=0.05)
