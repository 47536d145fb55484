"""3x3 convolutions in groups of channels against direct sums in float64, over sizes where tiles and shares are cut."""

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream.ops.nn import _conv_grouped as grouped

_SHAPES = [  # pictures, channels, channels of a group, height, width, stride, paddings
    (2, 32, 4, 9, 8, 1, (1, 1)),
    (2, 32, 4, 9, 16, 2, (1, 1)),
    (1, 16, 2, 5, 7, 1, (1, 1)),
    (1, 48, 8, 7, 7, 2, (2, 1)),
    (2, 64, 16, 6, 15, 1, (0, 2)),
    (2, 64, 32, 7, 13, 2, (1, 0)),
    (1, 32, 16, 4, 4, 2, (0, 0)),  # the last row and column have no gradient
    (1, 32, 4, 3, 3, 2, (1, 1)),
    (3, 64, 8, 30, 29, 1, (2, 0)),
]


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    monkeypatch.setattr(grouped, "_LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with torch.no_grad():
        yield request.param
    torch.set_num_threads(before)


def _close(got, expected):
    assert got is not None and got.shape == expected.shape and got.dtype is torch.float32
    np.testing.assert_allclose(got.double() / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-5)


def _case(n, c, group, height, width, stride, pads):
    x = torch.randn(n, c, height, width).contiguous(memory_format=torch.channels_last)
    return x, torch.randn(c, group, 3, 3), torch.randn(c), ([stride, stride], list(pads), [1, 1], c // group)


@pytest.mark.parametrize("room", [384 << 10, 8 << 10])  # the second cuts channels and rows
@pytest.mark.parametrize("shape", _SHAPES)
def test_output_and_gradients_are_those_of_direct_sums(shape, room, threads, monkeypatch):
    monkeypatch.setattr(grouped, "_ROOM", room)
    x, w, bias, rest = _case(*shape)
    double = x.double(), w.double()
    expected = torch.convolution(*double, bias.double(), *rest[:3], False, [0, 0], rest[3])
    _close(grouped.forward(x, w, bias, *rest), expected)
    dout = torch.randn(expected.shape)  # in the other memory order
    gradients = torch.ops.aten.convolution_backward(
        dout.double(), *double, None, *rest[:3], False, [0, 0], rest[3], [True, True, False]
    )
    _close(grouped.backward_input(x, w, dout, *rest), gradients[0])
    _close(grouped.filter_gradient(x, w, dout, *rest), gradients[1])


def test_what_is_no_number_stays_where_it_is(threads):
    x, w, _, rest = _case(1, 32, 4, 9, 20, 1, (1, 1))
    x[0, 5, 4, 7] = float("nan")
    x[0, 20, 0, 0] = float("inf")
    expected = torch.convolution(x, w, None, *rest[:3], False, [0, 0], rest[3])
    got = grouped.forward(x, w, None, *rest)
    assert torch.equal(got.isfinite(), expected.isfinite()) and torch.equal(got.isnan(), expected.isnan())
    dout = torch.randn(expected.shape).contiguous(memory_format=torch.channels_last)
    dw = torch.ops.aten.convolution_backward(dout, x, w, None, *rest[:3], False, [0, 0], rest[3], [False, True, False])[1]
    assert torch.equal(grouped.filter_gradient(x, w, dout, *rest).isfinite(), dw.isfinite())


@pytest.mark.parametrize("change", ["groups", "channels", "dilation", "strides", "taps", "double", "gradients"])
def test_others_are_left_to_torch(change, threads):
    x, w, _, (strides, pads, dilations, groups) = _case(1, 32, 4, 9, 9, 1, (1, 1))
    if change == "groups":  # more channels out than in
        w = torch.randn(64, 4, 3, 3)
    elif change == "channels":
        x, w, groups = torch.randn(1, 36, 9, 9), torch.randn(36, 4, 3, 3), 9
    elif change == "dilation":
        dilations = [2, 2]
    elif change == "strides":
        strides = [1, 2]
    elif change == "taps":
        w = torch.randn(32, 4, 3, 5)
    elif change == "double":
        x = x.double()
    with torch.set_grad_enabled(change == "gradients"):
        assert grouped.forward(x, w, None, strides, pads, dilations, groups) is None


def test_a_layer_learns_as_on_torch(monkeypatch):
    """A program with such layers, with the kernels and without."""
    found = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(grouped, "_LEAST", least)
        main, startup = fluid.Program(), fluid.Program()
        startup.random_seed = 3
        with fluid.program_guard(main, startup), fluid.unique_name.guard():
            x = fluid.data("x", [2, 32, 11, 10])
            y = fluid.layers.conv2d(x, 32, 3, padding=1, groups=8, act="relu")
            y = fluid.layers.conv2d(y, 32, 3, stride=2, padding=1, groups=4)
            loss = fluid.layers.mean(y * y)
            fluid.optimizer.SGD(0.5).minimize(loss)
        exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
        feed = {"x": np.random.RandomState(1).randn(2, 32, 11, 10).astype("float32")}
        with fluid.scope_guard(scope):
            exe.run(startup)
            found.append([float(exe.run(main, feed, [loss])[0].item()) for _ in range(4)])
    assert found[0][3] < found[0][0]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
