"""Maps scaled by channel, with a sum and a relu behind them or none: kernels against torch, and where those stay away."""

import numpy as np
import pytest
import torch

from millstream.errors import ShapeError
from millstream.ops import _scaled_maps
from millstream.ops.elementwise import elementwise_mul_grad
from millstream.ops.fused.scaled import scaled_sum_relu, scaled_sum_relu_grad

ALL = (True, True, True)


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    monkeypatch.setattr(_scaled_maps, "_LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with torch.no_grad():
        yield request.param
    torch.set_num_threads(before)


def _values(n, c, height, width):
    maps = [torch.randn(n, c, height, width).contiguous(memory_format=torch.channels_last) for _ in range(3)]
    return maps[0], torch.randn(n, c), maps[1], maps[2].contiguous()  # one of them in the other memory order


def _close(got, expected, atol=1e-5):
    assert got.shape == expected.shape and got.dtype is torch.float32
    np.testing.assert_allclose(got.double(), expected, rtol=1e-5, atol=atol * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(2, 32, 7, 9), (3, 40, 1, 5), (1, 48, 13, 11)])
def test_gradients_of_a_product(size, threads, monkeypatch):
    x, scale, _, dout = _values(*size)
    wide = scale[:, :, None, None]
    for y, axis in ((scale, 0), (wide, -1)):
        dx, dy = elementwise_mul_grad(x, y, dout, axis=axis, want=(True, True))
        assert dy.shape == y.shape and dx.is_contiguous(memory_format=torch.channels_last)
        _close(dx, dout.double() * wide.double())
        _close(dy, (dout.double() * x.double()).sum((2, 3)).view(y.shape))
    assert _scaled_maps.back(x.contiguous(), wide, dout) is None or size[2] * size[3] == 1
    assert _scaled_maps.back(x.double(), wide, dout) is None
    assert _scaled_maps.back(x, wide[:1], dout) is None or size[0] == 1


@pytest.mark.parametrize("size", [(2, 32, 7, 9), (3, 40, 1, 5), (1, 48, 13, 11)])
def test_scaled_sum_relu_is_its_parts(size, threads):
    x, scale, other, dout = _values(*size)
    x[0, 1, 0, 2], dout[0, 2, 0, 1] = float("nan"), float("inf")
    wide = scale[:, :, None, None]
    out = scaled_sum_relu(x, scale, other, axis=0)
    expected = torch.relu(x * wide + other)
    assert torch.equal(out.isnan(), expected.isnan())
    _close(out.nan_to_num(), expected.nan_to_num().double(), 1e-6)
    got = scaled_sum_relu_grad(x, scale, out, dout, axis=0, want=ALL)
    dz = torch.ops.aten.leaky_relu_backward(dout, out, 0.0, True)
    for a, b in zip(got, (dz * wide, (dz * x).sum((2, 3)), dz)):
        assert torch.equal(a.isnan(), b.isnan())
        _close(a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0).double())


@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 32, 3, 3)])
def test_small_and_narrow_maps_are_torchs(size):
    x, scale, other, dout = _values(*size)
    wide = scale[:, :, None, None]
    out = scaled_sum_relu(x, wide, other)
    _close(out, torch.relu(x.double() * wide + other))
    dx, dscale, dz = scaled_sum_relu_grad(x, wide, out, dout, want=ALL)
    _close(dz, dout.double() * (out > 0))
    _close(dx, dz.double() * wide)
    _close(dscale, (dz.double() * x).sum((2, 3), keepdim=True))


def test_what_is_added_has_the_shape_of_the_map():
    x = torch.randn(4, 32, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), pytest.raises(ShapeError, match=r"its shape \[4, 32, 64, 64\], received \[1, 32, 64, 64\]; take"):
        scaled_sum_relu(x, torch.rand(4, 32), x[:1], axis=0)
