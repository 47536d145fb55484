"""release_operands: operands that only their shape kept alive die early, gradients stay."""

import numpy as np
import pytest
from pass_programs import compare

import millstream.fluid as fluid

RNG = np.random.RandomState(3)


def test_biases_of_convolutions():
    def make():
        image = fluid.data("image", [None, 3, 8, 8])
        x = fluid.layers.conv2d(image, 4, 3, act="relu")
        x = fluid.layers.conv2d(x, 5, 3, act="tanh")
        loss = fluid.layers.mean(fluid.layers.square(x))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
        return [loss]

    plan = compare(make, {"image": RNG.randn(2, 3, 8, 8).astype("float32")}, steps=3, rtol=1e-5)
    assert dict(plan.work.done)["release_operands"] == 2
    grads = [op for op in plan.work.block.ops if op.type == "elementwise_add_grad"]
    assert len(grads) == 2 and all(op.input("X") == op.input("Out@GRAD") for op in grads)


@pytest.mark.parametrize(
    ("shape", "bias", "axis", "released"),
    [
        ([None, 6], [6], -1, 1),
        ([None, 4, 6], [4], 1, 1),
        ([None, 4, 6], [4, 1], 1, 1),
        ([None, 1], [6], -1, 0),  # X is spread over the bias: its gradient is a sum
        ([None, None], [6], -1, 0),  # it may be
        ([None, 6], [1], -1, 1),
    ],
)
def test_only_where_the_sum_has_the_shape_of_x(shape, bias, axis, released):
    def make():
        x = fluid.data("x", shape)
        scale = fluid.layers.create_parameter([1], "float32", name="scale")
        b = fluid.layers.create_parameter(bias, "float32", name="bias")
        out = fluid.layers.elementwise_add(fluid.layers.elementwise_mul(x, scale), b, axis=axis)
        loss = fluid.layers.mean(fluid.layers.square(out))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    size = [{0: 3}.get(k, 1) if d is None else d for k, d in enumerate(shape)]
    plan = compare(make, {"x": RNG.randn(*size).astype("float32")}, steps=2, rtol=1e-5)
    assert dict(plan.work.done)["release_operands"] == released


def test_two_variables_are_left_alone():
    """A batch of one may be spread over a batch: the shapes that a Program declares do not tell."""

    def make():
        x, y = fluid.data("x", [None, 4]), fluid.data("y", [None, 4])
        w = fluid.layers.fc(x, 4, bias_attr=False)
        loss = fluid.layers.mean(fluid.layers.square(fluid.layers.elementwise_add(w, y)))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    feed = {"x": RNG.randn(1, 4).astype("float32"), "y": RNG.randn(1, 4).astype("float32")}
    plan = compare(make, feed, rtol=1e-5)
    assert dict(plan.work.done)["release_operands"] == 0
    assert "Y is not a parameter" in plan.work.explain()
