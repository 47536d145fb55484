"""skip_parameter_casts: training steps in bfloat16 with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid
from millstream.kernels import pair_products, pairs

pytestmark = pytest.mark.skipif(not pairs.available(), reason="the processor has no products of bfloat16")

layers = fluid.layers
RNG = np.random.RandomState(29)
ROWS = {"x": RNG.randn(40, 64).astype("float32")}
MAPS = {"x": RNG.randn(2, 32, 12, 12).astype("float32")}


def named(name):
    return fluid.ParamAttr(name=name, initializer=fluid.initializer.Normal(0.0, 0.1, seed=len(name)))


def trained(net, shape, seen=("w",), also=lambda block: []):
    def make():
        loss = layers.mean(layers.square(net(fluid.data("x", shape, "float32"))))
        fluid.contrib.mixed_precision.decorate(fluid.optimizer.Momentum(0.1, 0.9), dtype="bfloat16").minimize(loss)
        return [loss, *map(loss.block.var, seen), *also(loss.block)]

    return make


def parameters_cast(plan):
    """Parameters of more than one dim that the Plan casts."""
    block = plan.work.block
    names = [op.input("X")[0] for op in block.ops if op.type == "cast"]
    return [n for n in names if block.has_var(n) and block.var(n).persistable and len(block.var(n).shape) > 1]


def dense(x, width=96):
    hidden = layers.fc(x, width, act="relu", param_attr=named("w"))
    return layers.fc(hidden, 32, param_attr=named("plain"), bias_attr=False)


def convolved(x):
    x = layers.conv2d(x, 64, 1, param_attr=named("w"), bias_attr=False)
    x = layers.batch_norm(x, act="relu")
    x = layers.conv2d(x, 32, 3, padding=1, param_attr=named("three"), bias_attr=False)
    return layers.batch_norm(layers.conv2d(x, 64, 1, param_attr=named("last"), bias_attr=False))


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(("net", "feed"), [(dense, ROWS), (convolved, MAPS)])
def test_training_stays(net, feed, kernels, monkeypatch):
    """Also where no kernel takes a product in the end, and the operators round parameters themselves."""
    import numba  # noqa: F401  without it small parameters stay as they are

    monkeypatch.setattr(pair_products, "_LEAST", 0 if kernels else 1 << 60)
    plan = compare(trained(net, feed["x"].shape), feed, steps=3, rtol=2e-2, atol=2e-3)
    assert not parameters_cast(plan)
    casts = types(plan).count("cast")
    assert casts < types(run(*build(trained(net, feed["x"].shape))[:2], feed, [], 1, ())[2]).count("cast")


@pytest.mark.parametrize(
    "net",
    [
        lambda x: dense(x, 80),  # no multiple of two vectors
        lambda x: layers.matmul(x, layers.create_parameter([64, 32], "float32", attr=named("w"))),
    ],
)
def test_sizes_and_operators_without_kernels(net):
    import numba  # noqa: F401

    assert "w" in parameters_cast(compare(trained(net, [40, 64]), ROWS, steps=2, rtol=2e-2, atol=2e-3))


def test_strided_filters_stay():
    import numba  # noqa: F401

    def net(x):
        return layers.conv2d(x, 32, 3, stride=2, param_attr=named("w"), bias_attr=False)

    assert parameters_cast(compare(trained(net, [2, 32, 12, 12]), MAPS, steps=2, rtol=2e-2, atol=2e-3)) == ["w"]


def test_a_fetched_copy_stays():
    import numba  # noqa: F401

    def copy(block):
        (cast,) = [op for op in block.ops if op.type == "cast" and op.input("X") == ["w"]]
        return [block.var(cast.output("Out")[0])]

    plan = compare(trained(dense, [40, 64], also=copy), ROWS, steps=2, rtol=2e-2, atol=2e-3)
    assert parameters_cast(plan) == ["w"]


def test_a_parameter_that_changes_between_stays():
    """The product behind the change must not see it: it takes the copy from before."""
    import numba  # noqa: F401

    def make():
        x = fluid.data("x", [40, 64], "float32")
        w = layers.create_parameter([64, 32], "float32", attr=named("w"))
        copy = layers.cast(w, "bfloat16")
        layers.assign(layers.scale(w, 2.0), w)
        return [layers.cast(layers.mul(layers.cast(x, "bfloat16"), copy), "float32")]

    plan = compare(make, ROWS, rtol=1e-6)
    assert parameters_cast(plan) == ["w"]
