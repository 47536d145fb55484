"""fuse_batch_norm_relu: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import compare, types

import millstream.fluid as fluid

RNG = np.random.RandomState(3)
FUSED = ["batch_norm_relu", "batch_norm_relu_grad"]


def network(residual=None, layout="NCHW", dtype="float32", size=32, **norm):
    """Two normalised convolutions of an image, the second one with a sum before its relu; the loss."""
    shape = [None, 3, size, size] if layout == "NCHW" else [None, size, size, 3]
    x = fluid.data("x", shape, dtype)
    h = fluid.layers.conv2d(x, 8, 3, padding=1, bias_attr=False, data_format=layout)
    h = fluid.layers.batch_norm(h, act="relu", data_layout=layout)
    g = fluid.layers.conv2d(h, 8, 3, padding=1, bias_attr=False, data_format=layout)
    g = fluid.layers.batch_norm(g, data_layout=layout, **norm)
    if residual is not None:
        g = fluid.layers.elementwise_add(*((h, g) if residual == "X" else (g, h)))
    g = fluid.layers.relu(g)
    return g, fluid.layers.mean(fluid.layers.square(fluid.layers.fc(g, 3)))


def feed(layout="NCHW", dtype="float32", size=32):
    shape = (4, 3, size, size) if layout == "NCHW" else (4, size, size, 3)
    return {"x": RNG.randn(*shape).astype(dtype)}


def trained(*, seen=None, **how):
    def make():
        _, loss = network(**how)
        fluid.optimizer.Momentum(0.01, 0.9).minimize(loss)
        block = fluid.default_main_program().global_block()
        return [loss, *(block.var(name) for name in (seen(block) if seen else ()))]

    return make


@pytest.mark.parametrize("residual", [None, "X", "Y"])
@pytest.mark.parametrize(("layout", "size"), [("NCHW", 32), ("NHWC", 32), ("NCHW", 5)])
def test_training_stays(residual, layout, size):
    how = {"layout": layout, "dtype": "float64", "size": size}
    plan = compare(trained(residual=residual, **how), feed(**how), steps=3, rtol=1e-9, atol=1e-11)
    found = types(plan)
    assert [found.count(t) for t in FUSED] == [2, 2]
    assert not {"batch_norm", "batch_norm_grad", "relu", "relu_grad"} & set(found)


@pytest.mark.parametrize("residual", [None, "X"])
def test_single_precision(residual):
    compare(trained(residual=residual), feed(), steps=1, rtol=2e-4, atol=2e-6)


def test_two_normalised_operands_of_a_sum():
    def make():
        x = fluid.data("x", [None, 3, 32, 32], "float64")
        a, b = (fluid.layers.conv2d(x, 8, 3, bias_attr=False) for _ in range(2))
        total = fluid.layers.batch_norm(a) + fluid.layers.batch_norm(b)
        loss = fluid.layers.mean(fluid.layers.square(fluid.layers.relu(total)))
        fluid.optimizer.SGD(0.01).minimize(loss)
        return [loss]

    found = types(compare(make, feed(dtype="float64"), steps=2, rtol=1e-9, atol=1e-11))
    assert [found.count(t) for t in (*FUSED, "batch_norm", "batch_norm_grad")] == [1, 1, 1, 1]


def leaky(slope, dtype, size):
    def make():
        x = fluid.data("x", [None, 3, size, size], dtype)
        for _ in range(2):
            x = fluid.layers.batch_norm(fluid.layers.conv2d(x, 8, 3, padding=1, bias_attr=False))
            x = fluid.layers.leaky_relu(x, slope)
        loss = fluid.layers.mean(fluid.layers.square(x - 0.2))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
        return [loss]

    return make


@pytest.mark.parametrize("size", [32, 5])
def test_leaky_relu(size):
    plan = compare(leaky(0.1, "float64", size), feed(dtype="float64", size=size), steps=3, rtol=1e-9, atol=1e-11)
    found = types(plan)
    assert [found.count(t) for t in FUSED] == [2, 2] and "leaky_relu" not in found
    compare(leaky(0.1, "float32", size), feed(size=size), steps=1, rtol=2e-4, atol=2e-6)


def capped(threshold, dtype, size, layout="NCHW"):
    def make():
        x = fluid.data("x", [None, 3, size, size] if layout == "NCHW" else [None, size, size, 3], dtype)
        x = fluid.layers.conv2d(x, 8, 3, padding=1, bias_attr=False, data_format=layout)
        x = fluid.layers.batch_norm(x, act="relu6" if threshold == 6 else None, data_layout=layout)
        x = x if threshold == 6 else fluid.layers.relu6(x, threshold)
        x = fluid.layers.conv2d(x * 3.0, 8, 3, padding=1, bias_attr=False, data_format=layout)
        x = fluid.layers.relu6(fluid.layers.batch_norm(x, data_layout=layout), threshold)
        loss = fluid.layers.mean(fluid.layers.square(x - 0.2))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
        return [loss]

    return make


@pytest.mark.parametrize("threshold", [6.0, 0.7])
@pytest.mark.parametrize(("layout", "size"), [("NCHW", 32), ("NHWC", 32), ("NCHW", 5)])
def test_relu6(threshold, layout, size):
    how = {"dtype": "float64", "size": size, "layout": layout}
    plan = compare(capped(threshold, **how), feed(**how), steps=3, rtol=1e-9, atol=1e-11)
    found = types(plan)
    assert [found.count(t) for t in FUSED] == [2, 2] and "relu6" not in found
    compare(capped(threshold, "float32", size, layout), feed(layout, size=size), steps=1, rtol=2e-4, atol=2e-6)


def curved(act, dtype, size, layout="NCHW", **form):
    def make():
        x = fluid.data("x", [None, 3, size, size] if layout == "NCHW" else [None, size, size, 3], dtype)
        x = fluid.layers.conv2d(x, 8, 3, padding=1, bias_attr=False, data_format=layout)
        x = getattr(fluid.layers, act)(fluid.layers.batch_norm(x, data_layout=layout) * 1.0, **form)
        x = fluid.layers.conv2d(x * 3.0, 8, 3, padding=1, bias_attr=False, data_format=layout)
        x = getattr(fluid.layers, act)(fluid.layers.batch_norm(x, data_layout=layout), **form)
        x = fluid.layers.conv2d(x, 8, 1, bias_attr=False, data_format=layout)
        x = getattr(fluid.layers, act)(fluid.layers.batch_norm(x, data_layout=layout), **form)
        loss = fluid.layers.mean(fluid.layers.square(x - 0.2))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
        return [loss]

    return make


@pytest.mark.parametrize("act", ["swish", "hard_swish"])
@pytest.mark.parametrize(("layout", "size"), [("NCHW", 32), ("NHWC", 32), ("NCHW", 5)])
def test_curves(act, layout, size):
    how = {"dtype": "float64", "size": size, "layout": layout}
    plan = compare(curved(act, **how), feed(**how), steps=3, rtol=1e-9, atol=1e-11)
    found = types(plan)
    assert [found.count(t) for t in FUSED] == [2, 2] and found.count(act) == 1
    compare(curved(act, "float32", size, layout), feed(layout, size=size), steps=1, rtol=2e-4, atol=2e-6)


def test_another_curve_stays():
    plan = compare(curved("hard_swish", "float64", 32, offset=2.0), feed(dtype="float64"), steps=2, rtol=1e-9, atol=1e-11)
    assert types(plan).count("hard_swish") == 3 and "form of a swish" in plan.work.explain()


def test_a_threshold_of_nothing_stays():
    plan = compare(capped(-1.0, "float64", 32), feed(dtype="float64"), steps=2, rtol=1e-9, atol=1e-11)
    assert types(plan).count("relu6") == 2 and "threshold" in plan.work.explain()


def test_a_slope_of_another_kind_stays():
    plan = compare(leaky(1.5, "float64", 32), feed(dtype="float64"), steps=2, rtol=1e-9, atol=1e-11)
    assert types(plan).count("leaky_relu") == 2 and "slope" in plan.work.explain()


def inner(block):
    return [next(op.output("Y")[0] for op in block.ops if op.type == "batch_norm")]


def gradient(block):
    return [next(op.output("X@GRAD")[0] for op in block.ops if op.type == "relu_grad")]


@pytest.mark.parametrize("seen", [inner, gradient])
def test_a_fetched_value_inside_stays(seen):
    plan = compare(trained(seen=seen), feed(), steps=1, rtol=2e-4, atol=2e-6)
    assert types(plan).count("batch_norm_relu") == 1
    assert "is fetched" in plan.work.explain()


def test_stored_statistics_stay():
    plan = compare(trained(use_global_stats=True), feed(), steps=2, rtol=2e-4, atol=2e-6)
    assert types(plan).count("batch_norm_relu") == 1
    assert "batch's statistics" in plan.work.explain()


def test_without_a_gradient():
    plan = compare(lambda: [network()[0]], feed(), rtol=2e-4, atol=2e-5)
    assert "batch_norm_relu" not in types(plan)
    assert "no gradient" in plan.work.explain()


def test_a_sum_that_spreads_stays():
    def make():
        x = fluid.data("x", [None, 3, 32, 32])
        y = fluid.layers.batch_norm(fluid.layers.conv2d(x, 8, 3))
        one = fluid.layers.create_parameter([8, 30, 30], "float32")
        loss = fluid.layers.mean(fluid.layers.relu(fluid.layers.elementwise_add(y, one, axis=1)))
        fluid.optimizer.SGD(0.01).minimize(loss)
        return [loss]

    plan = compare(make, feed(), steps=1, rtol=2e-4, atol=2e-5)
    assert "batch_norm_relu" not in types(plan)
    assert "another shape" in plan.work.explain()


def test_a_sum_with_another_feed_may_spread():
    def make():
        x, other = fluid.data("x", [None, 3, 32, 32]), fluid.data("other", [None, 8, 32, 32])
        y = fluid.layers.batch_norm(fluid.layers.conv2d(x, 8, 3, padding=1))
        loss = fluid.layers.mean(fluid.layers.relu(y + other))
        fluid.optimizer.SGD(0.01).minimize(loss)
        return [loss]

    given = {**feed(), "other": np.ones((1, 8, 32, 32), "float32")}
    plan = compare(make, given, steps=1, rtol=2e-4, atol=2e-5)
    assert "batch_norm_relu" not in types(plan)
    assert "other feeds" in plan.work.explain()
