"""fuse_fc, fuse_fc_relu."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(3)
X = RNG.randn(7, 6).astype("float32")


@pytest.mark.parametrize("act", [None, "relu", "tanh"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(7, 6, 3), (9, 256, 384), (200, 64, 64)])
def test_results_stay(act, rows, depth, columns):
    def make():
        return [fluid.layers.fc(fluid.data("x", [None, depth]), columns, act=act)]

    plan = compare(make, {"x": RNG.randn(rows, depth).astype("float32")}, rtol=1e-5, atol=1e-5)
    assert types(plan) == (["fc", "tanh"] if act == "tanh" else ["fc"])


def test_rows_of_several_dims():
    x = RNG.randn(4, 5, 6).astype("float32")
    plan = compare(lambda: [fluid.layers.fc(fluid.data("x", [None, 5, 6]), 3, num_flatten_dims=2)], {"x": x})
    assert types(plan) == ["fc"]
    plan = compare(lambda: [fluid.layers.fc(fluid.data("x", [None, 5, 6]), 3)], {"x": x})
    assert types(plan) == ["fc"]


def test_training_keeps_its_operators():
    def make():
        loss = fluid.layers.mean(fluid.layers.fc(fluid.data("x", [None, 6]), 3, act="relu"))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    plan = compare(make, {"x": X}, steps=3)
    assert "dense_layer_grad" in types(plan) and "fc" not in types(plan)


def test_a_fetched_product_stays():
    def make():
        out = fluid.layers.fc(fluid.data("x", [None, 6]), 3)
        return [out, out.op.input("X")[0]]

    plan = compare(make, {"x": X})
    assert types(plan) == ["mul", "elementwise_add"]
    assert "is fetched, fed or persistable, or leaves its block" in plan.work.explain()


def test_a_product_with_two_readers_stays():
    def make():
        out = fluid.layers.fc(fluid.data("x", [None, 6]), 3)
        product = out.block.var(out.op.input("X")[0])
        return [out, fluid.layers.exp(product)]

    assert "mul" in types(compare(make, {"x": X}))


def test_what_is_added_must_be_a_bias():
    def make():
        x = fluid.data("x", [None, 6])
        product = fluid.layers.fc(x, 6, bias_attr=False)
        return [fluid.layers.elementwise_add(product, x)]

    plan = compare(make, {"x": X})
    assert types(plan) == ["mul", "elementwise_add"]
    assert "not that of a bias" in plan.work.explain()


def test_an_input_overwritten_before_the_sum_stays():
    def make():
        x = fluid.data("x", [None, 6])
        y = fluid.layers.scale(x, 2.0)
        product = fluid.layers.fc(y, 3, bias_attr=False)
        fluid.layers.increment(fluid.layers.fill_constant([1], "float32", 1.0))
        fluid.layers.assign(x, output=y)
        bias = fluid.layers.create_parameter([3], "float32", default_initializer=fluid.initializer.Constant(2.0))
        return [fluid.layers.elementwise_add(product, bias), y]

    plan = compare(make, {"x": X})
    assert "mul" in types(plan) and "is overwritten before the last operator" in plan.work.explain()


def test_check_nan_inf_runs_the_users_operators():
    main, startup, fetches = build(lambda: [fluid.layers.fc(fluid.data("x", [None, 6]), 3)])
    fluid.set_flags({"FLAGS_check_nan_inf": True})
    try:
        assert types(run(main, startup, {"x": X}, fetches)[2]) == ["mul", "elementwise_add"]
    finally:
        fluid.set_flags({"FLAGS_check_nan_inf": False})
