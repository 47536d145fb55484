"""1x1 convolutions of bfloat16 maps between two batch normalisations, to the operators one after the other in float64."""

import numpy as np
import pytest
import torch

from millstream.kernels import pairs
from millstream.ops.nn import _normed_pairs
from millstream.ops.nn._bend import Bend
from millstream.ops.nn.normed_conv import (
    batch_norm_apply,
    batch_norm_finish_grad,
    batch_norm_line_grad,
    batch_norm_statistics,
    normed_conv2d,
    normed_conv2d_grad,
)

# channels in and out, height, width
FORMS = {
    "few channels": (32, 64, 9, 9), "many rows": (64, 32, 40, 40), "256 channels": (256, 256, 7, 9),
    "large filters": (256, 512, 7, 9), "large filters the other way": (1024, 128, 3, 5), "odd rows": (32, 32, 7, 1),
    "96 channels": (96, 160, 23, 23),
}  # fmt: skip
ALL = (True,) * 5
BENDS = {"relu": {"slope": 0.0}, "leaky": {"slope": 0.1}, "plain": {"slope": 1.0}, "relu6": {"slope": 0.0, "most": 0.8}}
FORM = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1}


@pytest.fixture(params=["kernels", "torch"])
def by(request, monkeypatch):
    """Whether the kernels do the work, or what stands in for them."""
    if request.param == "torch":
        monkeypatch.setattr(_normed_pairs, "_applies", lambda *_: False)
        monkeypatch.setattr("millstream.ops.nn._norm_rows._WORTH", 1 << 40)
        monkeypatch.setattr("millstream.ops.nn._normed_conv.is_plain", lambda *_: False)
    elif not pairs.available():
        pytest.skip("the processor has no products of pairs")
    else:  # small maps as well
        monkeypatch.setattr("millstream.kernels.pair_products._LEAST", 0)
        monkeypatch.setattr("millstream.ops.nn._norm_rows._WORTH", 1)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last).bfloat16()


def close(got, expected, rtol=0.012):
    expected = expected.double()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.double().numpy(), expected.numpy(), rtol=0, atol=rtol * float(expected.abs().max()))


def row(v):
    return v.double().view(-1, 1, 1)


class Case:
    """A normalisation of x, a convolution, and one of its output; what float64 says of them."""

    def __init__(self, form, bend, batch=3):
        c, k, height, width = form
        self.x, self.w = last(batch, c, height, width) + 0.5, torch.randn(k, c, 1, 1).bfloat16() / 8
        self.norm = torch.randn(c), torch.randn(c)
        self.mean = self.x.float().mean((0, 2, 3))
        self.inverse = torch.rsqrt(self.x.float().var((0, 2, 3), correction=0) + 1e-5)
        self.bend = Bend(**bend)
        self.running = torch.randn(k), torch.rand(k)
        self.given = self.x, *self.norm, self.mean, self.inverse, self.w
        self.before = row(self.norm[0] * self.inverse) * (self.x.double() - row(self.mean)) + row(self.norm[1])
        self.y = self.bend.forward(self.before).bfloat16().double()

    def out(self, normalised=True):
        return torch.einsum("nchw,kc->nkhw", self.y if normalised else self.x.double(), self.w.double()[..., 0, 0])

    def gradients(self, g):
        """(dz of x's normalisation, gradient of y, filters' gradient) from that of the output."""
        dy = torch.einsum("nkhw,kc->nchw", g, self.w.double()[..., 0, 0])
        return self.bend.backward(self.before, dy), dy, torch.einsum("nkhw,nchw->kc", g, self.y)[..., None, None]


@pytest.mark.parametrize(("by", "threads"), [("kernels", 1), ("kernels", 2), ("kernels", 40), ("torch", 2)], indirect=["by"])
@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_between_two_normalisations(form, bend, by, threads, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        case = Case(form, bend)
        out, *statistics = normed_conv2d(*case.given, *case.running, None, **bend, momentum=0.8, **FORM)
        assert out.dtype is torch.bfloat16
        close(out, case.out())
        spread, center = torch.var_mean(out.double(), (0, 2, 3), correction=0)
        close(statistics[0], case.running[0] * 0.8 + center * 0.2, 1e-4)
        close(statistics[1], case.running[1] * 0.8 + spread * 0.2, 1e-4)
        close(statistics[3], torch.rsqrt(spread + 1e-5), 1e-4)
        dz = last(*out.shape)
        p, q, r = line = torch.randn(3, form[1])
        g = (row(p) * dz.double() + row(q) * out.double() + row(r)).bfloat16().double()
        dx, dw, dscale, dbias, before = normed_conv2d_grad(*case.given, out, line, dz, want=ALL, **bend, **FORM)
        expected, _, filters = case.gradients(g)
        assert dx.dtype is dw.dtype is torch.bfloat16
        close(dx, expected)
        close(dw, filters)
        close(dbias, dx.double().sum((0, 2, 3)), 5e-4)
        close(dscale, (dx.double() * (case.x.double() - row(case.mean))).sum((0, 2, 3)) * case.inverse, 5e-4)
        a, b, c = (row(v) for v in before)
        close(batch_norm_finish_grad(case.x, dx, before), a * dx.double() + b * case.x.double() + c)
    finally:
        torch.set_num_threads(kept)


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("form", ["few channels", "many rows", "large filters"])
def test_behind_an_activation(form, bend, by):
    """The line has numbers of the activation behind the output's normalisation."""
    case = Case(FORMS[form], BENDS["relu"])
    out = case.out().bfloat16().contiguous(memory_format=torch.channels_last)
    dy, line = last(*out.shape), torch.randn(5, out.shape[1])
    p, q, r, a, b = (row(v) for v in line)
    dz = Bend(**bend).backward(a * out.double() + b, dy.double())
    behind = {f"line_{name}": number for name, number in bend.items()}
    _, dw, *_ = normed_conv2d_grad(*case.given, out, line, dy, want=ALL, slope=0.0, **behind, **FORM)
    close(dw, case.gradients((p * dz + q * out.double() + r).bfloat16().double())[2])


@pytest.mark.parametrize("form", ["few channels", "many rows", "large filters"])
@pytest.mark.parametrize("added", [False, True])
def test_without_normalisations(form, added, by):
    case = Case(FORMS[form], BENDS["plain"])
    nothing = (case.x, None, None, None, None, case.w)
    out, *statistics = normed_conv2d(*nothing, None, None, None, **FORM)
    close(out, case.out(False))
    assert statistics == [None] * 4
    dout, more = last(*out.shape), last(*case.x.shape) if added else None
    dx, dw, *rest = normed_conv2d_grad(*nothing, None, None, dout, more, want=ALL, **FORM)
    dy = case.gradients(dout.double())[1]
    close(dx, dy + more.double() if added else dy)
    close(dw, torch.einsum("nkhw,nchw->kc", dout.double(), case.x.double())[..., None, None])
    assert rest == [None] * 3


def test_gradient_of_filters_alone(by):
    case = Case(FORMS["many rows"], BENDS["relu"])
    dout, want = last(3, 32, 40, 40), (False, True, False, False, False)
    found = normed_conv2d_grad(case.x, None, None, None, None, case.w, None, None, dout, want=want, **FORM)
    assert found[0] is None
    close(found[1], torch.einsum("nkhw,nchw->kc", dout.double(), case.x.double())[..., None, None])


@pytest.mark.parametrize("added", [False, True])
def test_first_convolution_alone(added, by):
    """The normalisation behind it is applied, and its gradient summed up, by operators of their own."""
    x, scale, bias, running = last(2, 32, 20, 21), torch.randn(32), torch.randn(32), (torch.zeros(32), torch.ones(32))
    mean, inverse = batch_norm_statistics(x, *running, None)[2:]
    norm, other = (x, scale, bias, mean, inverse), last(2, 32, 20, 21) if added else None
    y = batch_norm_apply(*norm, other, slope=0.0)
    before = row(scale * inverse) * (x.double() - row(mean)) + row(bias)
    right = (before + other.double() if added else before).clamp(min=0)
    assert y.dtype is torch.bfloat16
    close(y, right)
    dy = last(*x.shape)
    dscale, dbias, line, dz = batch_norm_line_grad(*norm, y if added else None, dy, slope=0.0)
    through = dy.double() * (y > 0 if added else before > 0)
    close(dbias, through.sum((0, 2, 3)), 2e-3)
    close(dscale, (through * (x.double() - row(mean))).sum((0, 2, 3)) * inverse, 2e-3)
    assert line.shape[0] == (3 if added else 5) and (dz is not None) == added
    if added:
        close(dz, through, 1e-6)


@pytest.mark.parametrize("form", ["few channels", "many rows", "large filters", "odd rows"])
def test_input_that_is_the_relu_of_a_sum(form, by):
    """The gradient of that sum, and of the normalisation that is one part of it."""
    case = Case(FORMS[form], BENDS["plain"])
    x = case.x.clamp(min=0)
    summed, dout, more = last(*x.shape) * 2 + 1, last(3, FORMS[form][1], *x.shape[2:]), last(*x.shape)
    spread, mean = torch.var_mean(summed.float(), (0, 2, 3), correction=0)
    scale, inverse = torch.randn_like(mean), torch.rsqrt(spread + 1e-5)
    dx, dw, dscale, dbias, line = normed_conv2d_grad(
        x, None, None, None, None, case.w, None, None, dout, more, summed, scale, mean, inverse, want=ALL, **FORM
    )  # fmt: skip
    dz = (case.gradients(dout.double())[1] + more.double()) * (x > 0)
    close(dx, dz)
    close(dw, torch.einsum("nkhw,nchw->kc", dout.double(), x.double())[..., None, None])
    assert bool((dx[x == 0] == 0).all())
    close(dbias, dx.double().sum((0, 2, 3)), 5e-4)
    close(dscale, (dx.double() * (summed.double() - row(mean))).sum((0, 2, 3)) * inverse, 5e-4)
    variables = [t.double().requires_grad_() for t in (summed, scale)]
    with torch.enable_grad():
        spread, mean = torch.var_mean(variables[0], (0, 2, 3), correction=0)
        y = row(variables[1]) * (variables[0] - row(mean)) * row(torch.rsqrt(spread + 1e-5))
        right = torch.autograd.grad((y * dx.double()).sum(), variables)[0]
    p, q, r = (row(v) for v in line)
    close(p * dx.double() + q * summed.double() + r, right, 1e-3)
