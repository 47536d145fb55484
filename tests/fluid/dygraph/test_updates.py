"""Updates of many eager parameters in one operator: the same numbers as one by one."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.runtime.eager_updates import Group
from millstream.runtime.tracer import EagerTracer

dy, layers, optimizers = fluid.dygraph, fluid.layers, fluid.optimizer
L2, L1 = fluid.regularizer.L2Decay(0.1), fluid.regularizer.L1Decay(0.1)

MAKERS = {
    "sgd": lambda **k: optimizers.SGD(0.1, **k),
    "momentum": lambda **k: optimizers.Momentum(0.1, 0.9, use_nesterov=True, **k),
    "adam": lambda **k: optimizers.Adam(0.1, **k),
    "lazy_adam": lambda **k: optimizers.Adam(0.1, lazy_mode=True, **k),
    "adagrad": lambda **k: optimizers.Adagrad(0.1, **k),
    "adadelta": lambda **k: optimizers.Adadelta(0.1, **k),
    "rmsprop": lambda **k: optimizers.RMSProp(0.1, momentum=0.5, centered=True, **k),
    "ftrl": lambda **k: optimizers.Ftrl(0.1, **k),
    "adamax": lambda **k: optimizers.Adamax(0.1, **k),
    "lamb": lambda **k: optimizers.Lamb(0.1, exclude_from_weight_decay_fn=lambda p: p.name.endswith("b_0"), **k),
    "lars": lambda **k: optimizers.LarsMomentum(0.1, 0.9, **k),
    "schedule": lambda **k: optimizers.Adam(dy.NoamDecay(10, 3), **k),
}


def ran(monkeypatch):
    """The types of operators as they run."""
    types, run = [], EagerTracer.trace_op

    def watched(self, type, *args, **kwargs):
        types.append(type)
        return run(self, type, *args, **kwargs)

    update = Group.run

    def watched_group(self, *args):
        types.append(self.type)
        return update(self, *args)

    monkeypatch.setattr(EagerTracer, "trace_op", watched)
    monkeypatch.setattr(Group, "run", watched_group)
    return types


def trained(make, sparse, alone=False, **given):
    """Parameters after five steps; the third of them is without the first parameter."""
    r = np.random.RandomState(0)

    def attr(*shape, **more):
        values = r.randn(*shape).astype("float32")
        return fluid.ParamAttr(initializer=fluid.initializer.NumpyArrayInitializer(values), **more)

    with dy.guard(), fluid.unique_name.guard():
        table = dy.Embedding([6, 3], is_sparse=sparse, param_attr=attr(6, 3))
        a = dy.Linear(3, 4, param_attr=attr(3, 4, learning_rate=0.5), bias_attr=attr(4, learning_rate=0.5))
        b = dy.Linear(4, 2, param_attr=attr(4, 2, regularizer=fluid.regularizer.L2Decay(0.2)), bias_attr=attr(2))
        params = table.parameters() + a.parameters() + b.parameters()
        optimizer = make(parameter_list=params, **given)
        if alone:
            optimizer._facts = lambda pairs: None
        for k in range(5):
            ids = dy.to_variable(np.array([[1, 2], [2, k]], "int64"))
            loss = layers.mean(layers.tanh(b(layers.tanh(a(table(ids))))))
            loss.backward()
            optimizer.minimize(loss, parameter_list=params[1:] if k == 2 else params)
            for p in params:
                p.clear_gradient()
        return [p.numpy() for p in params]


@pytest.mark.parametrize("decay", [None, L2, L1], ids=["plain", "L2", "L1"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", MAKERS)
def test_as_one_by_one(name, sparse, decay):
    if sparse and name in ("lamb", "lars"):
        pytest.skip("take dense gradients only")
    together = trained(MAKERS[name], sparse, regularization=decay)
    for got, expected in zip(together, trained(MAKERS[name], sparse, alone=True, regularization=decay)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_changed_settings_are_seen():
    def results(alone):
        with dy.guard(), fluid.unique_name.guard():
            net = dy.Linear(2, 1, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(2.0)))
            decay = fluid.regularizer.L2Decay(0.5)
            optimizer = optimizers.Momentum(0.1, 0.9, parameter_list=net.parameters(), regularization=decay)
            if alone:
                optimizer._facts = lambda pairs: None
            for k in range(6):
                optimizer._momentum = 0.9 if k < 3 else 0.1
                optimizer.regularization._regularization_coeff = 0.5 if k < 4 else 0.0
                net.weight.optimize_attr["learning_rate"] = 1.0 if k < 5 else 0.25
                loss = layers.mean(net(dy.to_variable(np.ones((3, 2), "float32"))))
                loss.backward()
                optimizer.minimize(loss)
                net.clear_gradients()
            return net.weight.numpy()

    np.testing.assert_allclose(results(False), results(True), rtol=1e-6)


def test_one_operator_and_gradients_without_decay(monkeypatch):
    types = ran(monkeypatch)
    with dy.guard():
        net = dy.Linear(2, 1, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(2.0)))
        optimizer = optimizers.SGD(0.1, parameter_list=net.parameters(), regularization=fluid.regularizer.L2Decay(0.5))
        loss = layers.mean(net(dy.to_variable(np.ones((1, 2), "float32"))))
        loss.backward()
        types.clear()
        _, pairs = optimizer.minimize(loss)
        assert [t for t in types if t != "fill_constant"] == ["fused_sgd"]
        np.testing.assert_array_equal(pairs[0][1].numpy(), [[1], [1]])  # as 1.8.5 has it
        np.testing.assert_allclose(net.weight.numpy(), [[1.8], [1.8]], rtol=1e-6)


@pytest.mark.parametrize("limit", [0.01, 100.0])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_global_norm(monkeypatch, sparse, limit):
    def results():
        return trained(MAKERS["momentum"], sparse, grad_clip=fluid.clip.GradientClipByGlobalNorm(limit))

    types = ran(monkeypatch)
    together = results()
    assert "scale_gradients" in types  # the third step has no sparse gradient
    assert ("elementwise_div" in types) == sparse
    monkeypatch.setattr("millstream.fluid.clip._plain", lambda grads: False)
    for got, expected in zip(together, results()):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_users_own_update_sees_the_decay(monkeypatch):
    seen = []

    class Own(optimizers.SGD):
        def _append_optimize_op(self, block, param_and_grad):
            seen.append(param_and_grad[1].numpy())
            return super()._append_optimize_op(block, param_and_grad)

    types = ran(monkeypatch)
    with dy.guard():
        net = dy.Linear(2, 1, bias_attr=False, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(2.0)))
        optimizer = Own(0.1, parameter_list=net.parameters(), regularization=fluid.regularizer.L2Decay(0.5))
        loss = layers.mean(net(dy.to_variable(np.ones((1, 2), "float32"))))
        loss.backward()
        optimizer.minimize(loss)
    assert "sgd" in types and "fused_sgd" not in types
    np.testing.assert_array_equal(seen[0], [[2], [2]])


def test_pools_do_not_search_maxima_again(monkeypatch):
    from millstream.ops.nn import pool

    calls, search = [], pool._max_windows
    monkeypatch.setattr(pool, "_max_windows", lambda *a: calls.append(1) or search(*a))
    with dy.guard():
        x = dy.to_variable(np.arange(16, dtype="float32").reshape(1, 1, 4, 4))
        x.stop_gradient = False
        layers.reduce_sum(layers.pool2d(x, 2, "max", 2)).backward()
        assert len(calls) == 1
        expected = np.zeros((4, 4), "float32")
        expected[1::2, 1::2] = 1
        np.testing.assert_array_equal(x.gradient()[0, 0], expected)
