"""fuse_dense_layers: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import compare, types

import millstream.fluid as fluid

RNG = np.random.RandomState(17)
FUSED = ["dense_layer", "dense_layer_grad"]
LEFT = {"mul", "mul_grad", "elementwise_add", "elementwise_add_grad", "relu", "relu_grad", "sigmoid", "tanh"}


def trained(build, shape, dtype="float64", seen=()):
    def make():
        x = fluid.data("x", [None, *shape[1:]], dtype)
        x.stop_gradient = False
        fetches = build(x)
        out = fetches[0]
        loss = fluid.layers.mean(fluid.layers.square(out))
        fluid.optimizer.SGD(0.05).minimize(loss)
        block = loss.block
        return [loss, *fetches, *(block.var(n(block) if callable(n) else n) for n in seen)]

    return make


def layers(acts, width, dims=1):
    def build(x):
        for act in acts:
            x = fluid.layers.fc(x, width, num_flatten_dims=dims, act=act)
        return [x]

    return build


def feed(shape, dtype="float64"):
    return {"x": RNG.randn(*shape).astype(dtype)}


@pytest.mark.parametrize("acts", [("relu", "tanh", None), ("sigmoid", "sigmoid"), (None,), ("softmax",), ("gelu", "relu")])
@pytest.mark.parametrize(("shape", "dims"), [((7, 5), 1), ((4, 3, 5), 2), ((4, 3, 5), 1), ((1, 5), 1)])
def test_training_stays(acts, shape, dims):
    make = trained(layers(acts, 4, dims), shape, seen=["x@GRAD"])
    found = types(compare(make, feed(shape), steps=3, rtol=1e-9, atol=1e-11))
    assert [found.count(t) for t in FUSED] == [len(acts)] * 2 and not LEFT & set(found)


@pytest.mark.parametrize("act", ["relu", "sigmoid", "tanh", None])
@pytest.mark.parametrize("rows", [300, 130])
def test_layers_in_register_tiles(act, rows):
    import numba  # noqa: F401  from 65 rows on the tiles take what they do only when numba is there

    make = trained(layers([act, act], 96), (rows, 80), "float32", ["x@GRAD"])
    compare(make, feed((rows, 80), "float32"), steps=2, rtol=2e-4, atol=2e-6)


def chained(plan):
    """(activation, behind) of each layer's gradient, from the last layer on."""
    grads = [op for op in plan.work.block.ops if op.type == "dense_layer_grad"]
    return [(op.attr("activation"), op.attr("behind")) for op in grads]


def test_a_layer_takes_the_gradient_of_the_activation_before_it():
    acts = ["relu", "sigmoid", "tanh", None]
    plan = compare(trained(layers(acts, 4), (6, 5), seen=["x@GRAD"]), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11)
    assert chained(plan) == [("", "tanh"), ("", "sigmoid"), ("", "relu"), ("", "")]

    def seen(block):
        """The gradient of the first activation's result."""
        return next(op for op in block.ops if op.type == "relu").output("Out")[0] + "@GRAD"

    plan = compare(trained(layers(acts, 4), (6, 5), seen=[seen]), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11)
    assert chained(plan) == [("", "tanh"), ("", "sigmoid"), ("", ""), ("relu", "")]

    def read_twice(x):
        h = fluid.layers.fc(x, 4, act="relu")
        return [fluid.layers.fc(h, 3, act="tanh") + fluid.layers.fc(h, 3)]

    plan = compare(trained(read_twice, (6, 5)), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11)
    assert ("relu", "") in chained(plan) and all(not behind for _, behind in chained(plan))


def test_bfloat16():
    """Biases are cast between the product and the sum."""

    def make():
        out = layers(["relu", None], 32)(fluid.data("x", [None, 16], "float32"))[0]
        loss = fluid.layers.mean(fluid.layers.square(out))
        fluid.contrib.mixed_precision.decorate(fluid.optimizer.SGD(0.05), dtype="bfloat16").minimize(loss)
        return [loss]

    found = types(compare(make, feed((20, 16), "float32"), steps=3, rtol=1e-2, atol=1e-3))
    assert [found.count(t) for t in FUSED] == [2, 2] and not LEFT & set(found)


def test_an_input_without_a_gradient_and_a_stopped_bias():
    def build(x):
        x.stop_gradient = True
        first = fluid.layers.fc(x, 4, act="relu", bias_attr=fluid.ParamAttr(trainable=False))
        return [fluid.layers.fc(first, 3)]

    compare(trained(build, (6, 5)), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11)


def test_results_that_others_read():
    """The sum before the activation, the product, and a gradient inside: each keeps what it needs."""

    def of_sum(x):
        s = fluid.layers.fc(x, 4)
        return [fluid.layers.relu(s) + fluid.layers.tanh(s)]

    def of_product(x):
        p = fluid.layers.fc(x, 4, bias_attr=False)
        b = fluid.layers.create_parameter([4], "float64")
        return [fluid.layers.relu(fluid.layers.elementwise_add(p, b)) * p]

    def fetched(x):
        s = fluid.layers.fc(x, 4)
        return [fluid.layers.relu(s), s]

    for build, count in ((of_sum, 1), (of_product, 0), (fetched, 1)):
        found = types(compare(trained(build, (6, 5)), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11))
        assert found.count("dense_layer") == count

    def gradient(block):
        return next(n for n in block.vars if n.startswith("fc_") and n.endswith("tmp_1@GRAD"))

    found = types(compare(trained(layers(["relu"], 4), (6, 5), seen=[gradient]), feed((6, 5)), rtol=1e-9, atol=1e-11))
    assert "dense_layer" not in found


def test_what_is_no_bias():
    def matrix(x):
        return [fluid.layers.elementwise_add(fluid.layers.fc(x, 4, bias_attr=False), fluid.layers.fc(x, 4, bias_attr=False))]

    def wide(x):
        p = fluid.layers.fc(x, 5, bias_attr=False)
        return [fluid.layers.elementwise_add(p, fluid.layers.create_parameter([6], "float64"), axis=0)]

    for build in (matrix, wide):
        found = types(compare(trained(build, (6, 5)), feed((6, 5)), steps=2, rtol=1e-9, atol=1e-11))
        assert "dense_layer" not in found


def test_weights_that_are_shared_and_written_between():
    def shared(x):
        name = fluid.ParamAttr(name="w")
        first = fluid.layers.fc(x, 5, act="tanh", param_attr=name)
        return [fluid.layers.fc(first, 5, act="relu", param_attr=name)]

    def changed(x):
        """The operand is overwritten between the product and its activation, and again before the gradients."""
        h = fluid.layers.scale(x, 2.0)
        p = fluid.layers.fc(h, 4)
        fluid.layers.assign(fluid.layers.scale(h, 0.5), h)
        return [fluid.layers.relu(p), h]

    for build in (shared, changed):
        compare(trained(build, (6, 5)), feed((6, 5)), steps=3, rtol=1e-9, atol=1e-11)


def test_empty_batches_and_sequences():
    def build(x):
        return [fluid.layers.sequence_pool(fluid.layers.fc(x, 4, act="relu"), "sum")]

    def make():
        x = fluid.data("x", [None, 5], "float64", 1)
        x.stop_gradient = False
        out = build(x)[0]
        loss = fluid.layers.mean(out)
        fluid.optimizer.SGD(0.05).minimize(loss)
        return [loss, out, loss.block.var("x@GRAD")]

    given = {"x": fluid.create_lod_tensor(RNG.randn(6, 5), [[4, 2]], None)}
    found = types(compare(make, given, steps=2, rtol=1e-9, atol=1e-11))
    assert found.count("dense_layer_grad") == 1
    compare(trained(layers(["relu"], 4), (0, 5), seen=["x@GRAD"]), feed((0, 5)))
