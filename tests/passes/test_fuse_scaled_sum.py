"""fuse_scaled_sum: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import compare, types

import millstream.fluid as fluid

RNG = np.random.RandomState(3)
FUSED = ["scaled_sum_relu", "scaled_sum_relu_grad"]
layers = fluid.layers


def excited(h, flat, turned):
    """relu of `h` and of itself with scaled channels."""
    pooled = layers.pool2d(h, pool_type="avg", global_pooling=True)
    scale = layers.fc(pooled, 8, act="sigmoid")
    g = layers.conv2d(h, 8, 3, padding=1, bias_attr=False)
    if flat:
        g = layers.elementwise_mul(g, scale, axis=0)
    else:
        g = layers.elementwise_mul(g, layers.reshape(scale, [-1, 8, 1, 1]))
    return layers.relu(layers.elementwise_add(*((g, h) if turned else (h, g)))), g


def trained(flat=True, turned=False, seen=False, dtype="float64"):
    def make():
        x = fluid.data("x", [None, 8, 9, 9], dtype)
        first, inside = excited(layers.conv2d(x, 8, 1), flat, turned)
        second, _ = excited(first, flat, turned)
        loss = layers.mean(layers.square(second))
        fluid.optimizer.Momentum(0.01, 0.9).minimize(loss)
        return [loss, inside] if seen else [loss]

    return make


def feed(dtype="float64"):
    return {"x": RNG.randn(4, 8, 9, 9).astype(dtype)}


@pytest.mark.parametrize(("flat", "turned"), [(True, False), (True, True), (False, True)])
def test_training_stays(flat, turned):
    plan = compare(trained(flat, turned), feed(), steps=3, rtol=1e-9, atol=1e-11)
    found = types(plan)
    assert [found.count(t) for t in FUSED] == [2, 2]
    assert not {"relu", "relu_grad", "elementwise_mul", "elementwise_mul_grad"} & set(found)


def test_a_fetched_value_inside_stays():
    plan = compare(trained(seen=True), feed(), steps=2, rtol=1e-9, atol=1e-11)
    assert types(plan).count("scaled_sum_relu") == 1 and "is fetched" in plan.work.explain()


def test_without_a_gradient():
    def make():
        x = fluid.data("x", [None, 8, 9, 9], "float64")
        return [excited(x, True, False)[0]]

    plan = compare(make, feed())
    assert "scaled_sum_relu" not in types(plan) and "no gradient" in plan.work.explain()


def test_a_sum_with_another_feed_may_spread():
    def make():
        x, other = fluid.data("x", [None, 8, 9, 9], "float64"), fluid.data("other", [None, 8, 9, 9], "float64")
        scale = layers.fc(layers.pool2d(x, pool_type="avg", global_pooling=True), 8)
        h = layers.elementwise_mul(layers.conv2d(x, 8, 1), scale, axis=0)
        loss = layers.mean(layers.relu(h + other))
        fluid.optimizer.SGD(0.01).minimize(loss)
        return [loss]

    given = {**feed(), "other": np.ones((1, 8, 9, 9))}
    plan = compare(make, given, steps=2, rtol=1e-9, atol=1e-11)
    assert "scaled_sum_relu" not in types(plan) and "other feeds" in plan.work.explain()


def test_a_scale_of_another_kind_stays():
    def make():
        x = fluid.data("x", [None, 8, 9, 9], "float64")
        h = layers.conv2d(x, 8, 1)
        rows = layers.create_parameter([9], "float64")
        loss = layers.mean(layers.relu(layers.elementwise_mul(h, rows) + h))
        fluid.optimizer.SGD(0.01).minimize(loss)
        return [loss]

    assert "scaled_sum_relu" not in types(compare(make, feed(), steps=2, rtol=1e-9, atol=1e-11))
