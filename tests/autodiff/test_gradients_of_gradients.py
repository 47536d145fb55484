"""Gradients of gradients, as a gradient penalty takes them: along one direction they are the difference quotient."""

import numpy as np
import pytest

import millstream.fluid as fluid
import millstream.fluid.layers as L
from millstream.errors import NotSupportedError

_ROWS, _IMAGE = (3, 4), (2, 4, 6, 6)
_ONE = fluid.ParamAttr(initializer=fluid.initializer.Constant(1.3))
_UNARY = [
    "elu", "exp", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "logsigmoid", "relu", "relu6", "selu",
    "sigmoid", "softplus", "softsign", "sqrt", "square", "stanh", "swish", "tanh", "tanh_shrink", "softmax",
    "reciprocal", "rsqrt", "sin", "cos", "abs",
]


def _labels():
    return L.assign(np.array([[1], [3], [0]], "int64"))


_LAYERS = {
    **{name: (getattr(L, name), _ROWS) for name in _UNARY},
    "instance_norm": (L.instance_norm, _IMAGE),
    "instance_norm scaled": (lambda x: L.instance_norm(x, param_attr=_ONE), _IMAGE),
    "layer_norm": (L.layer_norm, _ROWS),
    "batch_norm": (L.batch_norm, _IMAGE),
    "group_norm": (lambda x: L.group_norm(x, 2, param_attr=_ONE), _IMAGE),
    "batch_norm scaled": (lambda x: L.batch_norm(x, param_attr=_ONE), _IMAGE),
    "huber_loss": (lambda x: L.huber_loss(x, L.zeros_like(x), 1.0), _ROWS),
    "softmax_with_cross_entropy": (lambda x: L.softmax_with_cross_entropy(x, _labels()), _ROWS),
    "softmax_with_cross_entropy soft": (lambda x: L.softmax_with_cross_entropy(x, L.softmax(x), soft_label=True), _ROWS),
    "cross_entropy": (lambda x: L.cross_entropy(L.softmax(x), _labels()), _ROWS),
    "fc": (lambda x: L.fc(x, 3, act="tanh"), _ROWS),
    "matmul": (lambda x: L.matmul(x, x, transpose_y=True), _ROWS),
    "conv2d": (lambda x: L.conv2d(x, 3, 3, act="leaky_relu"), _IMAGE),
    "conv2d_transpose": (lambda x: L.conv2d_transpose(x, 3, filter_size=4, stride=2), _IMAGE),
    "depthwise": (lambda x: L.conv2d(x, 4, 3, groups=4), _IMAGE),
    "average pool": (lambda x: L.pool2d(x, 2, "avg", 2), _IMAGE),
    "max pool": (lambda x: L.pool2d(x, 2, "max", 2), _IMAGE),
    "global pool": (lambda x: L.pool2d(x, global_pooling=True, pool_type="avg"), _IMAGE),
    "pad2d": (lambda x: L.pad2d(x, [1, 1, 1, 1], mode="reflect"), _IMAGE),
    "pad": (lambda x: L.pad(x, [0, 1, 1, 0]), _ROWS),
    "resize_nearest": (lambda x: L.resize_nearest(x, scale=2.0), _IMAGE),
    "resize_bilinear": (lambda x: L.resize_bilinear(x, scale=2.0), _IMAGE),
    "prelu": (lambda x: L.prelu(x, "channel"), _IMAGE),
    "maxout": (lambda x: L.maxout(x, 2), _IMAGE),
    "l2_normalize": (lambda x: L.l2_normalize(x, 1), _ROWS),
    "expand": (lambda x: L.expand(x, [2, 1]), _ROWS),
    "gather": (lambda x: L.gather(x, L.assign(np.array([0, 2], "int32"))), _ROWS),
    "slice": (lambda x: L.slice(x, [1], [1], [3]), _ROWS),
    "stack": (lambda x: L.stack([x, x * x]), _ROWS),
    "split": (lambda x: L.concat([p * p for p in L.split(x, 2, dim=1)], 1), _ROWS),
    "reduce_prod": (lambda x: L.reduce_prod(x, 1), _ROWS),
    "reduce_max": (lambda x: L.reduce_max(x, 1), _ROWS),
    "cumsum": (lambda x: L.cumsum(x, 1), _ROWS),
    "pixel_shuffle": (lambda x: L.pixel_shuffle(x, 2), _IMAGE),
    "unfold": (lambda x: L.unfold(x, [2, 2]), _IMAGE),
    "sigmoid cross entropy": (lambda x: L.sigmoid_cross_entropy_with_logits(x, L.sigmoid(x)), _ROWS),
}


def _build(layer, shape, at, direction):
    """(the penalty at `at` and a little further along `direction` both ways, its derivative along it)."""
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        x = fluid.data("x", list(shape), "float64")
        x.stop_gradient = False
        y = layer(x)
        (first,) = fluid.gradients(L.reduce_sum(y * y * y), x)
        penalty = L.reduce_sum(L.square(first))
        (second,) = fluid.gradients(penalty, x)
        exe = fluid.Executor()
        exe.run(fluid.default_startup_program())
        step = 1e-5
        ends = [exe.run(main, {"x": at + s * direction}, [penalty])[0][0] for s in (-step, step)]
        found = exe.run(main, {"x": at}, [second])[0]
        return (ends[1] - ends[0]) / (2 * step), float((found * direction).sum())


@pytest.mark.parametrize("name", _LAYERS)
def test_penalty_of_a_gradient(name):
    layer, shape = _LAYERS[name]
    rng = np.random.RandomState(3)
    at, direction = rng.uniform(0.2, 1.7, shape) * rng.choice([-1.0, 1.0], shape), rng.randn(*shape)
    at = np.abs(at) if name in ("sqrt", "reciprocal", "rsqrt") else at
    quotient, found = _build(layer, shape, at, direction)
    np.testing.assert_allclose(found, quotient, rtol=2e-4, atol=1e-6)


def test_a_gradient_that_is_no_derivative_refuses():
    with pytest.raises(NotSupportedError, match="gradient of its gradient"):
        _build(lambda x: L.group_norm(x, 2), _IMAGE, np.ones(_IMAGE), np.ones(_IMAGE))


def test_a_program_from_a_file():
    """There a gradient operator does not know its forward."""
    x = fluid.data("x", list(_ROWS), "float64")
    x.stop_gradient = False
    (first,) = fluid.gradients(L.softmax_with_cross_entropy(x, _labels()), x)
    program = fluid.Program.parse_from_string(fluid.default_main_program().desc.serialize_to_string())
    x, first = (program.global_block().var(v.name) for v in (x, first))
    x.stop_gradient = False
    with fluid.program_guard(program):
        scalar = L.reduce_sum(first * first)
        (second,) = fluid.gradients(scalar, x)
    rng, exe = np.random.RandomState(1), fluid.Executor()
    at, direction = rng.randn(*_ROWS), rng.randn(*_ROWS)
    ends = [exe.run(program, {"x": at + s * direction}, [scalar])[0][0] for s in (-1e-5, 1e-5)]
    found = (exe.run(program, {"x": at}, [second])[0] * direction).sum()
    np.testing.assert_allclose(found, (ends[1] - ends[0]) / 2e-5, rtol=1e-5)


def test_a_stopped_gradient_stops_what_it_is_the_gradient_of():
    """As in 1.8.5: adversarial examples whose gradient is stopped leave the embedding without an update."""
    x = fluid.data("x", [None, 3])
    x.stop_gradient = False
    w = fluid.layers.create_parameter([3, 3], "float32", name="w")
    hidden = fluid.layers.relu(fluid.layers.mul(x, w))
    loss = fluid.layers.mean(fluid.layers.fc(hidden, 2, param_attr="v", bias_attr=False))
    slope = fluid.gradients(loss, hidden)[0]
    assert [p.name for p, _ in fluid.backward.append_backward(loss)] == ["w", "v"]
    slope.stop_gradient = True
    assert [p.name for p, _ in fluid.backward.append_backward(loss)] == ["v"]
    assert fluid.gradients(loss, [hidden, w]) == [None, None]
    later = fluid.gradients(loss, [fluid.default_main_program().global_block().var("v")])[0]
    later.stop_gradient = True  # named grad/…: says nothing about v
    assert [p.name for p, _ in fluid.backward.append_backward(loss)] == ["v"]
