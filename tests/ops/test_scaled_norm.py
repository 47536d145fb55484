"""Squeeze-and-excitation of a normalised map: what a plan's operators give, to the operators one after the other."""

import numpy as np
import pytest
import torch

from millstream.errors import ShapeError
from millstream.ops import _scaled_maps
from millstream.ops.fused.scaled_norm import (
    batch_norm_average,
    scaled_batch_norm,
    scaled_batch_norm_line_grad,
    scaled_batch_norm_sums,
)
from millstream.ops.nn import _normed_conv
from millstream.ops.nn.normed_conv import normed_conv2d, normed_conv2d_grad

ATTRS = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1}
ALL = (True,) * 5
# pictures, channels of the convolution's input and output, height, width
SIZES = [(3, 16, 64, 7, 9), (2, 40, 32, 16, 16), (1, 16, 300, 5, 3), (4, 23, 85, 13, 19), (5, 32, 48, 2, 1)]


@pytest.fixture(params=["kernels", "torch"])
def by(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    if request.param == "torch":
        monkeypatch.setattr(_normed_conv, "_applies", lambda *_: False)
    monkeypatch.setattr(_scaled_maps, "_LEAST", 0 if request.param == "kernels" else 1 << 40)
    return request.param


@pytest.fixture(params=[1, 2])
def threads(request):
    kept = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(kept)


def last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def close(got, expected, rtol=1e-4):
    expected = expected.detach()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.double(), expected, rtol=0, atol=rtol * (float(expected.abs().max()) or 1.0))


class Step:
    """A 1x1 convolution, batch_norm, and its channels scaled by what is made of their means; by torch in float64."""

    def __init__(self, size, added):
        n, c, k, height, width = size
        self.x, self.w = last(n, c, height, width) + 0.4, torch.randn(k, c, 1, 1) / c**0.5
        self.scale, self.bias, self.deep = torch.randn(k), torch.randn(k), torch.randn(k, k) / k
        self.other, self.dy = (last(n, k, height, width) if added else None), last(n, k, height, width)
        given = [self.x, self.w, self.scale, self.bias, self.deep, *([self.other] if added else [])]
        x, w, scale, bias, deep, *other = self.given = [v.double().requires_grad_() for v in given]
        t = torch.nn.functional.conv2d(x, w)
        z = torch.nn.functional.batch_norm(t, None, None, scale, bias, True, 0.0, 1e-5)
        self.average = z.mean((2, 3), keepdim=True)
        self.factor = torch.sigmoid(self.average.flatten(1) @ deep)
        y = z * self.factor[:, :, None, None]
        self.y = torch.relu(y + other[0]) if added else y
        for v in (self.average, self.factor):
            v.retain_grad()
        self.y.backward(self.dy.double())


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_is_the_operators_one_after_the_other(size, added, threads, by):
    step = Step(size, added)
    n, k = size[0], size[2]
    with torch.no_grad():
        blank = torch.zeros(k), torch.ones(k)
        t, _, _, mean, inverse = normed_conv2d(step.x, None, None, None, None, step.w, *blank, None, epsilon=1e-5, **ATTRS)
        norm = (t, step.scale, step.bias, mean, inverse)
        average, offset = batch_norm_average(*norm)
        close(average, step.average)
        for factor in (step.factor.detach().float(), step.factor.detach().float().view(n, k, 1, 1)):
            y = scaled_batch_norm(*norm, factor, step.other)
            close(y, step.y)
            out = step.y.detach().float().contiguous(memory_format=torch.channels_last) if added else None
            dfactor, sums, dz = scaled_batch_norm_sums(*norm, factor, out, step.dy)
            assert dfactor.shape == factor.shape and (dz is not None) == added
            close(dfactor.view(n, k), step.factor.grad)
            if added:
                close(dz, step.given[5].grad)
            # the mean's own gradient: that of all of average is what came through the factor
            given = t, step.scale, mean, inverse, factor, offset, sums, step.average.grad.float()
            dscale, dbias, line = scaled_batch_norm_line_grad(*given)
            close(dscale, step.given[2].grad)
            close(dbias, step.given[3].grad)
            dx, dw, *rest = normed_conv2d_grad(
                step.x, None, None, None, None, step.w, t, line, step.dy if dz is None else dz, want=ALL, **ATTRS
            )  # fmt: skip
            close(dx, step.given[0].grad, 3e-4)
            close(dw, step.given[1].grad, 3e-4)
            assert rest == [None] * 3


@pytest.mark.parametrize("size", SIZES)
def test_gradient_that_begins_with_another(size, threads, by):
    n, c, k, height, width = size
    x, w, dout = last(n, c, height, width), torch.randn(k, c, 1, 1), last(n, k, height, width)
    added = torch.randn(n, c, height, width)
    with torch.no_grad():
        for other in (added, added.contiguous(memory_format=torch.channels_last)):
            kept = other.clone()
            given = (x, None, None, None, None, w, None, None, dout)
            dx, dw, *_ = normed_conv2d_grad(*given, other, want=ALL, **ATTRS)
            plain = normed_conv2d_grad(*given, None, want=ALL, **ATTRS)
            close(dx, plain[0] + added, 1e-5)
            close(dw, plain[1], 1e-6)
            assert torch.equal(other, kept)


def test_nan_and_infinity_go_on(by):
    x, other, dy = last(2, 32, 8, 9), last(2, 32, 8, 9), last(2, 32, 8, 9)
    x[0, 1, 2, 3], dy[1, 2, 0, 1] = float("nan"), float("inf")
    number, factor = torch.rand(32) + 0.5, torch.rand(2, 32) + 0.5
    norm = (x, number, number, number, number)
    with torch.no_grad():
        average, _ = batch_norm_average(*norm)
        assert average.isnan().sum() == 1 and average[0, 1].isnan()
        for residual in (None, other):
            out = scaled_batch_norm(*norm, factor, residual)
            assert out.isnan().sum() == 1 and out[0, 1, 2, 3].isnan()
        _, sums, dz = scaled_batch_norm_sums(*norm, factor, torch.ones_like(x), dy)
        assert torch.equal(dz, dy) and sums[0, 1, 2].isinf() and sums[1, 0, 1].isnan()


def test_what_is_added_has_the_shape_of_the_map():
    x, number = last(4, 32, 64, 64), torch.rand(32)
    with torch.no_grad(), pytest.raises(ShapeError, match=r"its shape \[4, 32, 64, 64\], received \[1, 32, 64, 64\]; take"):
        scaled_batch_norm(x, number, number, number, number, torch.rand(4, 32), x[:1])


def test_other_types_and_memory():
    x, number = torch.randn(2, 32, 20, 20, dtype=torch.float64), torch.rand(32, dtype=torch.float64) + 0.5
    factor = torch.rand(2, 32, dtype=torch.float64)
    with torch.no_grad():
        for to in (torch.float64, torch.float32):
            given = [v.to(to) for v in (x, number, number, number, number)]
            average, _ = batch_norm_average(*given)
            z = (x - number.view(-1, 1, 1)) * (number * number).view(-1, 1, 1) + number.view(-1, 1, 1)
            close(average, z.mean((2, 3), keepdim=True))
            close(scaled_batch_norm(*given, factor.to(to), None), z * factor[:, :, None, None])
