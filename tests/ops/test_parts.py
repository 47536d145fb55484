"""Parts of an eager tensor: gradients as autograd's own, which small tensors still take."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.ops import _parts
from millstream.runtime import tracer

layers, dygraph = fluid.layers, fluid.dygraph
VALUES = np.random.RandomState(0).randn(6, 5, 4).astype("float32")


def loss_of(y):
    """A sum over steps and over pieces that overlap, and of the whole."""
    total = layers.reduce_sum(y * y)
    for t in range(5):
        step = layers.reshape(layers.slice(y, [1], [t], [t + 1]), [-1, 4])
        piece = y[:, max(0, t - 1) : t + 1, 1:3]
        total = total + layers.reduce_sum(step * step * float(t + 1)) + layers.reduce_sum(piece * piece * piece)
    return total


def gradients(parts, monkeypatch, work):
    monkeypatch.setattr(tracer, "WORTH", 1 if parts else 1 << 40)
    with dygraph.guard():
        x = dygraph.to_variable(VALUES)
        x.stop_gradient = False
        return work(x)


def once(x):
    y = x * x
    loss_of(y).backward()
    return x.gradient(), y.gradient()


def leaf(x):
    loss_of(x).backward()
    return (x.gradient(),)


def twice(x):
    loss = loss_of(x * x)
    loss.backward(retain_graph=True)
    first = x.gradient()
    loss.backward()
    return first, x.gradient()


def of_a_gradient(x):
    (g,) = dygraph.grad([loss_of(x * x)], [x], create_graph=True)
    layers.reduce_sum(g * g).backward()
    return (x.gradient(),)


def of_one_part(x):
    y = x * x
    part = layers.slice(y, [0], [2], [4])
    (g,) = dygraph.grad([layers.reduce_sum(part * part)], [part], retain_graph=True)
    layers.reduce_sum(part).backward()
    return g.numpy(), x.gradient()


@pytest.mark.parametrize("work", [once, leaf, twice, of_a_gradient, of_one_part])
def test_gradients_are_those_of_autograd(work, monkeypatch):
    for found, expected in zip(gradients(True, monkeypatch, work), gradients(False, monkeypatch, work)):
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def test_a_pass_that_failed_leaves_nothing(monkeypatch):
    """What a part gave in a pass that ended early is not added later."""

    def work(x):
        y = x * x
        whole = _parts.Whole(y.tensor)
        whole._sum, whole._pass = np.inf, -7
        y._whole = whole
        layers.reduce_sum(layers.slice(y, [1], [0], [2])).backward()
        return (x.gradient(),)

    (found,) = gradients(True, monkeypatch, work)
    np.testing.assert_allclose(found[:, :2], 2 * VALUES[:, :2], 1e-6)
    assert not found[:, 2:].any()
