"""3x3 convolutions by Winograd's filtering against direct sums in float64, over sizes where squares and shares are cut."""

import numpy as np
import pytest
import torch

from millstream.ops.nn import _conv_winograd as winograd

_SHAPES = [  # pictures, channels in and out, height, width, paddings
    (2, 16, 48, 9, 14, (1, 1)),
    (1, 80, 16, 3, 5, (0, 2)),
    (3, 32, 64, 12, 4, (2, 0)),
    (5, 144, 80, 7, 7, (1, 1)),  # more squares than one block
    (1, 16, 16, 1, 1, (1, 1)),
    (2, 256, 32, 6, 6, (0, 0)),  # rows of combinations a power of two apart
]


@pytest.fixture(params=[2, 4])
def squares(request, monkeypatch):
    monkeypatch.setattr(winograd, "_LEAST", 0)
    monkeypatch.setattr(winograd, "_MANY", 8192)
    monkeypatch.setattr(winograd.Task, "best", lambda task, kept, sizes=None: request.param)
    with torch.no_grad():
        yield request.param


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _close(got, expected):
    assert got.shape == expected.shape and got.dtype is torch.float32
    np.testing.assert_allclose(got.double() / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=2e-5)


def _values(n, c, k, height, width):
    x = torch.randn(n, c, height, width).contiguous(memory_format=torch.channels_last)
    return x, torch.randn(k, c, 3, 3), torch.randn(k)


@pytest.mark.parametrize("shape", _SHAPES)
def test_output_and_gradients_are_those_of_direct_sums(shape, squares, threads, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    *sizes, pads = shape
    x, w, bias = _values(*sizes)
    rest = ([1, 1], pads, [1, 1], 1)
    double = (x.double(), w.double())
    expected = torch.convolution(*double, bias.double(), *rest[:3], False, [0, 0], 1)
    _close(winograd.forward(x, w, bias, *rest), expected)
    dout = torch.randn(expected.shape)  # in the other memory order
    gradients = torch.ops.aten.convolution_backward(
        dout.double(), *double, None, *rest[:3], False, [0, 0], 1, [True, True, False]
    )
    _close(winograd.backward_input(x, w, dout, *rest), gradients[0])
    _close(winograd.filter_gradient(x, w, dout, *rest), gradients[1])


@pytest.mark.parametrize("reuse", [False, True])
def test_kept_filters_with_bias_sum_and_activation(reuse, squares):
    x, w, bias = _values(2, 16, 32, 10, 11)
    beside = torch.randn(2, 32, 10, 11).contiguous(memory_format=torch.channels_last)
    result = torch.convolution(x.double(), w.double(), bias.double(), [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    state = {}
    for slope, most in ((1.0, float("inf")), (0.0, 6.0), (0.1, float("inf"))):
        given = beside.clone(memory_format=torch.preserve_format)
        total = result + beside
        after = winograd.After(bias, given, slope, most)
        got = winograd.packed(state, x, w, after, [1, 1], [1, 1], [1, 1], 1, reuse)
        _close(got, torch.maximum(total, total * slope).clamp(max=most))
        assert (got.data_ptr() == given.data_ptr()) == reuse
    kept = state["combinations"].filters.values
    winograd.packed(state, x, w, winograd.After(), [1, 1], [1, 1], [1, 1], 1, False)
    assert state["combinations"].filters.values is kept
    other = w * 2
    got = winograd.packed(state, x, other, winograd.After(), [1, 1], [1, 1], [1, 1], 1, False)
    _close(got, (result - bias.double()[:, None, None]) * 2)


def test_what_is_no_number_stays_so(squares):
    x, w, _ = _values(1, 16, 16, 8, 8)
    x[0, 3, 4, 4] = float("nan")
    got = winograd.packed({}, x, w, winograd.After(None, None, 0.0, 6.0), [1, 1], [1, 1], [1, 1], 1, False)
    assert got[0, :, 3:6, 3:6].isnan().all() and not got[0, :, :2, :2].isnan().any()


def test_relu_of_what_is_infinitely_small(squares):
    x, w, bias = _values(1, 16, 16, 8, 8)
    bias[3] = float("-inf")
    got = winograd.packed({}, x, w, winograd.After(bias, None, 0.0), [1, 1], [1, 1], [1, 1], 1, False)
    assert (got[0, 3] == 0).all() and not got.isnan().any()


@pytest.mark.parametrize(
    "change",
    [
        {"strides": [2, 2]},
        {"dilations": [2, 2]},
        {"paddings": [3, 1]},
        {"x": torch.randn(1, 15, 8, 8), "w": torch.randn(16, 15, 3, 3)},
        {"w": torch.randn(16, 16, 1, 1)},
        {"w": torch.randn(32, 8, 3, 3), "groups": 2},
        {"x": torch.randn(1, 16, 8, 8).bfloat16()},
    ],
)
def test_other_convolutions_are_left_alone(change, squares):
    given = {"x": torch.randn(1, 16, 8, 8), "w": torch.randn(16, 16, 3, 3), "strides": [1, 1], "paddings": [1, 1],
             "dilations": [1, 1], "groups": 1}  # fmt: skip
    assert winograd.forward(**given, bias=None) is not None
    assert winograd.forward(**{**given, **change}, bias=None) is None


def test_small_convolutions_and_recorded_ones_stay_with_torch():
    form = (None, [1, 1], [1, 1], [1, 1], 1)
    large = torch.randn(8, 64, 28, 28), torch.randn(64, 64, 3, 3)
    with torch.no_grad():
        assert winograd.forward(torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3), *form) is None
        assert winograd.forward(*large, *form) is not None
    assert winograd.forward(*large, *form) is None  # gradients are being recorded: torch must see the convolution
