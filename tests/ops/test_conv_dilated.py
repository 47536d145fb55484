"""3x3 convolutions with dilations by filtering of smaller pictures, against torch's direct sums in float64."""

import numpy as np
import pytest
import torch

from millstream.ops import REGISTRY
from millstream.ops.nn import _conv_dilated

# channels, filters, size, dilations, paddings
FORMS = [
    (64, 64, (40, 40), (2, 2), (2, 2)),
    (64, 32, (41, 39), (2, 2), (0, 0)),
    (128, 64, (37, 30), (4, 4), (4, 4)),
    (32, 64, (50, 44), (2, 3), (1, 6)),
    (64, 64, (33, 40), (1, 2), (1, 0)),
]


def random(*shape):
    return torch.from_numpy(np.random.randn(*shape).astype("float32"))


@pytest.fixture
def always(monkeypatch):
    """Taken wherever it can be computed."""
    monkeypatch.setattr(_conv_dilated, "_worth", lambda *_: True)
    monkeypatch.setattr(_conv_dilated._conv_winograd.Task, "best", lambda task, kept, sizes=(2, 4): sizes[-1])
    monkeypatch.setattr(_conv_dilated._conv_winograd, "_LEAST", 0)


@pytest.mark.parametrize("form", FORMS)
def test_as_direct_sums(form, always):
    c, k, size, dilations, paddings = form
    x, w = random(2, c, *size), random(k, c, 3, 3)
    attrs = ((1, 1), paddings, dilations, 1)
    with torch.no_grad():
        whole = torch.conv2d(x.double(), w.double(), None, 1, paddings, dilations)
        dout = random(*whole.shape)
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dout.double(), x.double(), w.double(), None, (1, 1), paddings, dilations, False, (0, 0), 1, (True, True, False)
        )
        found = _conv_dilated.forward(x, w, None, *attrs)
        grads = [f(x, w, dout, *attrs) for f in (_conv_dilated.backward_input, _conv_dilated.filter_gradient)]
    for got, expected in zip((found, *grads), (whole, dx, dw)):
        assert got.shape == expected.shape
        reach = float(expected.abs().max())
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=0, atol=2e-5 * reach)


def test_operator_takes_it():
    """conv2d and its gradient with dilation, where it is worth it, and where paddings are too wide for it."""
    x, w = random(1, 128, 40, 40), random(128, 128, 3, 3) / 30
    for padding in (2, 5):
        attrs = {"strides": [1, 1], "paddings": [padding] * 2, "dilations": [2, 2]}
        with torch.no_grad():
            taken = _conv_dilated.forward(x, w, None, (1, 1), (padding,) * 2, (2, 2), 1)
            assert (taken is not None) == (padding == 2)
            out = REGISTRY.get("conv2d").kernel(x, w, None, None, **attrs)
        expected = torch.conv2d(x.double(), w.double(), None, 1, padding, 2)
        np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=2e-5 * float(expected.abs().max()))


def test_what_it_leaves_to_others():
    x, w = random(1, 64, 40, 40), random(64, 64, 3, 3)
    for attrs in (((2, 2), (2, 2), (2, 2), 1), ((1, 1), (1, 1), (1, 1), 1), ((1, 1), (0, 0), (20, 20), 1)):
        assert _conv_dilated.forward(x, w, None, *attrs) is None
    with torch.no_grad():
        assert _conv_dilated.forward(x.double(), w.double(), None, (1, 1), (2, 2), (2, 2), 1) is None
        assert _conv_dilated.forward(x, random(64, 32, 3, 3), None, (1, 1), (2, 2), (2, 2), 2) is None
