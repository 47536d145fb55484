"""Convolutions between two batch normalisations: what the operators of a plan give, to the operators one after the other."""

import numpy as np
import pytest
import torch

from millstream.errors import ShapeError
from millstream.ops.nn import _normed_conv
from millstream.ops.nn.batch_norm_relu import batch_norm_relu, batch_norm_relu_grad
from millstream.ops.nn.conv import _conv2d, _conv2d_grad
from millstream.ops.nn.normed_conv import (
    batch_norm_apply,
    batch_norm_finish_grad,
    batch_norm_line_grad,
    batch_norm_statistics,
    normed_conv2d,
    normed_conv2d_grad,
)

# channels in and out, height, width, filter, groups, stride, and dilation where it is not 1
FORMS = {
    "1x1": (32, 48, 9, 9, 1, 1, 1), "1x1 of many rows": (48, 16, 40, 40, 1, 1, 1),
    "1x1, 256 channels": (256, 256, 7, 9, 1, 1, 1), "1x1, odd channels": (23, 85, 40, 40, 1, 1, 1),
    "1x1, even channels": (88, 24, 9, 10, 1, 1, 1), "1x1, large filters": (256, 512, 7, 9, 1, 1, 1),
    "1x1, large filters, odd channels": (1041, 150, 3, 5, 1, 1, 1),
    "1x1, few filters": (8192, 16, 3, 4, 1, 1, 1),
    "depthwise": (32, 32, 9, 12, 3, 32, 1), "depthwise, a row": (16, 16, 1, 8, 3, 16, 1),
    "stride 2, odd": (16, 16, 9, 7, 3, 16, 2), "stride 2, even": (48, 48, 8, 12, 3, 48, 2),
    "stride 2, a column": (16, 16, 5, 1, 3, 16, 2), "256 channels deep": (256, 256, 6, 5, 3, 256, 1),
    "depthwise, odd channels": (19, 19, 7, 8, 3, 19, 1), "stride 2, odd channels": (37, 37, 7, 8, 3, 37, 2),
    "dilated": (32, 32, 9, 12, 3, 32, 1, 2), "dilated, odd channels": (21, 21, 11, 7, 3, 21, 1, 3),
    "dilated beyond the map": (16, 16, 5, 30, 3, 16, 1, 6), "dilated, long rows": (16, 16, 4, 70, 3, 16, 1, 2),
    "groups": (64, 64, 9, 10, 3, 4, 1), "groups, stride 2": (64, 64, 9, 15, 3, 2, 2),
    "groups, a row": (32, 32, 1, 5, 3, 2, 1), "groups, a column": (32, 32, 9, 1, 3, 2, 2),
}  # fmt: skip
ALL = (True,) * 5
BENDS = {
    "relu": {"slope": 0.0}, "leaky": {"slope": 0.1}, "plain": {"slope": 1.0}, "relu6": {"slope": 0.0, "most": 0.8},
    "swish": {"slope": -1.0}, "hard_swish": {"slope": -2.0},
}  # fmt: skip


def last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.fixture(params=["kernels", "torch"])
def by(request, monkeypatch):
    """Whether the kernels do the work, or what stands in for them."""
    calls = []
    if request.param == "torch":
        monkeypatch.setattr(_normed_conv, "_applies", lambda *_: False)
        monkeypatch.setattr(_normed_conv, "is_plain", lambda *_: False)
    else:
        for name in (kind + back for kind in ("_pointwise", "_depthwise", "_grouped") for back in ("", "_back")):
            kept = getattr(_normed_conv, name)
            monkeypatch.setattr(_normed_conv, name, lambda *a, kept=kept, name=name: calls.append(name) or kept(*a))
    yield request.param
    assert bool(calls) == (request.param == "kernels" and taken(**request.node.callspec.params))


def taken(form="1x1", bend=BENDS["relu"], behind="relu", **_):
    """Whether kernels know the form between these activations."""
    c, groups = (FORMS[form] if isinstance(form, str) else form)[0:6:5]
    if 1 < groups < c:
        return bend["slope"] >= 0 and BENDS[behind]["slope"] >= 0
    return groups == 1 or bend["slope"] != -1


def close(got, expected, rtol=2e-5):
    scale = float(expected.abs().max()) or 1.0
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=0, atol=rtol * scale)


class Pair:
    """Two normalisations with a convolution between them, operator by operator."""

    def __init__(self, form, bend, batch=3, dtype=torch.float32, behind=BENDS["relu"]):
        c, k, height, width, size, groups, stride, apart = (*form, 1)[:8]
        pad = size // 2 * apart
        self.attrs = {
            "strides": [stride, stride], "paddings": [pad, pad], "dilations": [apart, apart], "groups": groups
        }  # fmt: skip
        self.bend, self.bend_2 = bend, behind
        self.x, self.w = last(batch, c, height, width).to(dtype) + 0.7, torch.randn(k, c // groups, size, size).to(dtype) / 3
        self.scale, self.bias = (torch.randn(c).to(dtype) for _ in range(2))
        self.scale_2, self.bias_2 = (torch.randn(k).to(dtype) for _ in range(2))
        self.running = torch.randn(k).to(dtype), torch.rand(k).to(dtype)
        blank = torch.zeros(c, dtype=dtype), torch.ones(c, dtype=dtype)
        self.y, _, _, self.mean, self.inverse = batch_norm_relu(
            self.x, self.scale, self.bias, *blank, None, None, **bend
        )  # fmt: skip
        self.out = _conv2d(self.y, self.w, None, None, **self.attrs)
        self.behind = batch_norm_relu(self.out, self.scale_2, self.bias_2, *self.running, None, None, momentum=0.8, **behind)
        self.dy = torch.randn_like(self.out)

    def gradients(self, added=False):
        """(dX, dFilter, dScale, dBias)."""
        y, _, _, mean, inverse = self.behind
        given = (self.out, self.scale_2, self.bias_2, mean, inverse, y, self.dy)
        dout = batch_norm_relu_grad(*given, want=ALL[:4], residual=added, **self.bend_2)[0]
        dy, dw, _ = _conv2d_grad(self.y, self.w, None, dout, want=(True, True, False), **self.attrs)
        given = (self.x, self.scale, self.bias, self.mean, self.inverse, self.y, dy)
        dx, dscale, dbias, _ = batch_norm_relu_grad(*given, want=ALL[:4], **self.bend)
        return dx, dw, dscale, dbias

    def line(self):
        """(dZ, Line) of the normalisation behind."""
        y, _, _, mean, inverse = self.behind
        dz = self.dy * (y > 0)
        each = self.out.numel() // self.out.shape[1]
        total, dot = dz.sum((0, 2, 3)), (dz * (self.out - mean.view(-1, 1, 1))).sum((0, 2, 3))
        p, q = self.scale_2 * inverse, -self.scale_2 * inverse**3 * dot / each
        return dz, torch.stack([p, q, -p * total / each - q * mean])

    def before(self):
        return self.x, self.scale, self.bias, self.mean, self.inverse, self.w


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize(("by", "threads"), [("kernels", 1), ("kernels", 2), ("kernels", 40), ("torch", 2)], indirect=["by"])
@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_between_two_normalisations(form, bend, by, threads, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pair = Pair(form, bend)
        out, *statistics = normed_conv2d(*pair.before(), *pair.running, None, **bend, momentum=0.8, **pair.attrs)
        close(out, pair.out)
        for got, expected in zip(statistics, pair.behind[1:]):
            close(got, expected)
        dz, line = pair.line()
        dx, dw, dscale, dbias, before = normed_conv2d_grad(
            *pair.before(), pair.out, line, dz, want=ALL, **bend, **pair.attrs
        )  # fmt: skip
        expected = pair.gradients()
        close(batch_norm_finish_grad(pair.x, dx, before), expected[0], 1e-4)
        close(dw, expected[1], 1e-4)
        close(dscale, expected[2], 1e-4)
        if bend["slope"] != 1 or (form[4] != 1 and form[2] != 1):  # else nothing: a shift of all pixels is normalised away
            close(dbias, expected[3], 1e-4)
    finally:
        torch.set_num_threads(kept)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_without_normalisations(form, by):
    pair = Pair(form, BENDS["plain"])
    nothing = (pair.x, None, None, None, None, pair.w)
    out, *statistics = normed_conv2d(*nothing, None, None, None, **pair.attrs)
    close(out, _conv2d(pair.x, pair.w, None, None, **pair.attrs))
    assert statistics == [None] * 4
    dx, dw, *rest = normed_conv2d_grad(*nothing, None, None, pair.dy, want=ALL, **pair.attrs)
    expected = _conv2d_grad(pair.x, pair.w, None, pair.dy, want=(True, True, False), **pair.attrs)
    close(dx, expected[0])
    close(dw, expected[1])
    assert rest == [None] * 3


@pytest.mark.parametrize(("added", "behind"), [(False, name) for name in BENDS if name != "plain"] + [(True, "relu")])
@pytest.mark.parametrize("form", ["1x1", "1x1, odd channels", "1x1, large filters", "depthwise", "stride 2, odd", "groups"])
def test_first_convolution_alone(form, added, behind, by, monkeypatch):
    """The normalisation behind it is applied, and its gradient summed up, by operators of their own."""
    monkeypatch.setattr("millstream.ops.nn._norm_rows._WORTH", 1 if by == "kernels" else 1 << 40)
    bend = BENDS[behind]
    pair = Pair(FORMS[form], BENDS["relu"], behind=bend)
    mean, inverse = pair.behind[3:]
    other = torch.randn_like(pair.out) if added else None
    norm = (pair.out, pair.scale_2, pair.bias_2, mean, inverse)
    y = batch_norm_apply(*norm, other, **bend)
    if other is not None:
        pair.behind = batch_norm_relu(pair.out, pair.scale_2, pair.bias_2, *pair.running, None, other)
    close(y, pair.behind[0])
    dscale, dbias, line, dz = batch_norm_line_grad(*norm, y if added else None, pair.dy, **bend)
    assert (dz is not None) == added and line.shape[0] == (3 if added else 5)
    given = (*norm, pair.behind[0], pair.dy)
    expected = batch_norm_relu_grad(*given, want=ALL[:4], residual=added, **bend)
    close(dscale, expected[1], 1e-4)
    close(dbias, expected[2], 1e-4)
    if added:
        close(dz, expected[3])
    given, bend = (pair.dy, bend) if dz is None else (dz, BENDS["plain"])
    attrs = {**pair.attrs, **{f"line_{name}": number for name, number in bend.items()}}
    found = normed_conv2d_grad(*pair.before(), pair.out, line, given, want=ALL, slope=0.0, **attrs)
    for got, right in zip(found[1:3], pair.gradients(added)[1:3]):
        close(got, right, 1e-4)


@pytest.mark.parametrize("form", ["1x1", "1x1, odd channels", "1x1, large filters"])
def test_input_that_is_the_relu_of_a_sum(form, by):
    """As the sum of gradients and batch_norm_line_grad one after the other."""
    pair = Pair(FORMS[form], BENDS["plain"])
    x, summed, more = pair.x.relu(), torch.randn_like(pair.x) + 1, torch.randn_like(pair.x)
    spread, mean = torch.var_mean(summed, (0, 2, 3), correction=0)
    norm = torch.randn_like(mean), mean, torch.rsqrt(spread + 1e-5)
    given = (x, None, None, None, None, pair.w, None, None, pair.dy, more)
    dy, dw, *_ = normed_conv2d_grad(*given, want=ALL, **pair.attrs)
    dscale, dbias, line, dz = batch_norm_line_grad(summed, norm[0], torch.zeros_like(mean), *norm[1:], x, dy, slope=0.0)
    found = normed_conv2d_grad(*given, summed, *norm, want=ALL, **pair.attrs)
    for got, right in zip(found, (dz, dw, dscale, dbias, line)):
        close(got, right, 1e-4)
    assert bool((found[0][x == 0] == 0).all())


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_added_has_the_shape_of_the_map(batch):
    """Kernels would read beyond it."""
    x, number = last(4, 32, 40, 40), torch.rand(32)
    with pytest.raises(ShapeError, match=rf"its shape \[4, 32, 40, 40\], received \[{batch}, 32, 40, 40\]; take"):
        batch_norm_apply(x, number, number, number, number, last(batch, 32, 40, 40), slope=0.0)
    with pytest.raises(ShapeError, match=rf"its shape \[4, 32, 40, 40\], received \[{batch}, 32, 40, 40\]; take"):
        batch_norm_relu(x, number, number, number, number, None, last(batch, 32, 40, 40))


def test_gradient_of_filters_alone(by):
    pair = Pair(FORMS["1x1"], BENDS["relu"])
    want = (False, True, False, False, False)
    found = normed_conv2d_grad(pair.x, None, None, None, None, pair.w, None, None, pair.dy, want=want, **pair.attrs)
    assert found[0] is None
    close(found[1], _conv2d_grad(pair.x, pair.w, None, pair.dy, want=(False, True, False), **pair.attrs)[1])


@pytest.mark.parametrize("c, group", [(16, 1), (32, 16)])
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_statistics_far_from_zero(far, c, group):
    """Sums of squares lose nothing where the mean is large."""
    x = (last(4, c, 20, 21) + far).contiguous(memory_format=torch.channels_last)
    w = torch.zeros(c, group, 3, 3)
    w[range(c), [k % group for k in range(c)], 1, 1] = 1.0
    attrs = {"strides": [1, 1], "paddings": [1, 1], "dilations": [1, 1], "groups": c // group}
    blank = torch.zeros(c), torch.zeros(c)
    made = normed_conv2d(x, None, None, None, None, w, *blank, None, momentum=0.0, **attrs)
    seen = batch_norm_statistics(x, *blank, None, momentum=0.0)
    spread, center = torch.var_mean(x.double(), [0, 2, 3], correction=0)
    for mean, variance, *_ in (made[1:], seen):
        np.testing.assert_allclose(mean.numpy(), center.numpy(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variance.numpy(), spread.numpy(), rtol=1e-5)


def test_other_types_and_memory():
    """What the kernels do not take, torch does: float64, and maps in the usual order of memory."""
    pair = Pair((16, 32, 6, 6, 1, 1, 1), BENDS["relu"], dtype=torch.float64)
    out, *statistics = normed_conv2d(*pair.before(), *pair.running, None, slope=0.0, momentum=0.8, **pair.attrs)
    close(out, pair.out, 1e-12)
    close(statistics[1], pair.behind[2], 1e-12)
    plain = Pair(FORMS["depthwise"], BENDS["relu"])
    x, *rest = plain.before()
    close(normed_conv2d(x.contiguous(), *rest, *plain.running, None, slope=0.0, **plain.attrs)[0], plain.out)


@pytest.mark.parametrize("form, begin, end", [("depthwise", 3, 4), ("groups", 0, 16)])
@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
def test_nan_is_passed_on(bend, form, begin, end):
    pair = Pair(FORMS[form], bend)
    pair.x[0, 3, 2, 2] = float("nan")
    out = normed_conv2d(*pair.before(), None, None, None, **bend, **pair.attrs)[0]
    assert torch.isnan(out[0, begin:end, 1:4, 1:4]).all()
    assert not torch.isnan(out[1:]).any() and not torch.isnan(out[:, end:]).any() and not torch.isnan(out[..., 4:]).any()


def test_momentum_as_a_tensor():
    pair = Pair(FORMS["1x1"], BENDS["relu"])
    found = normed_conv2d(*pair.before(), *pair.running, torch.tensor([0.8]), slope=0.0, **pair.attrs)
    close(found[1], pair.behind[1])
