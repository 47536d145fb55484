"""step_with_gradient: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid
from millstream.ops.fused.layers import dense_layer_grad, dense_layer_step

RNG = np.random.RandomState(31)


def trained(acts=("relu", "sigmoid", None), width=128, dtype="float32", rows=1, rate=0.05, seen=lambda loss: (), more=None):
    def make():
        x = fluid.data("x", [None] * rows + [160], dtype)
        y = x
        for k, act in enumerate(acts):
            y = fluid.layers.fc(y, width, num_flatten_dims=rows, act=act, param_attr=f"w{k}")
        loss = fluid.layers.mean(fluid.layers.square(y))
        if more is not None:
            loss = more(loss)
        fluid.optimizer.SGD(rate() if callable(rate) else rate).minimize(loss)
        return [loss, y, *seen(loss)]

    return make


def feed(*shape, dtype="float32"):
    return {"x": RNG.randn(*shape, 160).astype(dtype)}


@pytest.mark.parametrize("shape", [(1,), (40,), (300,), (600,), (7, 9)])
@pytest.mark.parametrize("width", [128, 200, 333])
def test_training_stays(shape, width):
    import numba  # noqa: F401  the kernel is for where numba is there already

    plan = compare(trained(width=width, rows=len(shape)), feed(*shape), steps=3, rtol=2e-4, atol=2e-6)
    found = types(plan)
    assert found.count("dense_layer_step") == 3 and not {"dense_layer_grad", "sgd"} & set(found)


def test_float64_stays():
    plan = compare(trained(dtype="float64"), feed(33, dtype="float64"), steps=3, rtol=1e-9, atol=1e-11)
    assert types(plan).count("dense_layer_step") == 3


def test_nan_reaches_the_weight():
    given = feed(40)
    given["x"][3, 5] = np.nan
    main, startup, fetches = build(trained(acts=("sigmoid", None)))
    _, plain, _ = run(main, startup, given, fetches, passes=())
    _, quick, _ = run(main, startup, given, fetches)
    for name in plain:
        np.testing.assert_array_equal(np.isnan(quick[name]), np.isnan(plain[name]), err_msg=name)


def gradients(loss):
    return [loss.block.var("w1@GRAD")]


def weight(loss):
    return [loss.block.var("w1")]


def tied(loss):
    """Another operator reads a weight, whose gradient is a sum then."""
    return loss + fluid.layers.mean(fluid.layers.square(loss.block.var("w1")))


@pytest.mark.parametrize("stays", [{"seen": gradients}, {"seen": weight}, {"more": tied}])
def test_a_weight_that_others_see_moves_by_itself(stays):
    found = types(compare(trained(**stays), feed(40), steps=3, rtol=2e-4, atol=2e-6))
    assert found.count("dense_layer_step") == 2 and found.count("dense_layer_grad") == 1


def test_a_weight_that_is_looked_at_without_a_gradient_moves_by_itself():
    def more(loss):
        seen = fluid.layers.reshape(loss.block.var("w1"), [-1])
        seen.stop_gradient = True
        return loss + fluid.layers.mean(seen)

    found = types(compare(trained(more=more), feed(40), steps=3, rtol=2e-4, atol=2e-6))
    assert found.count("dense_layer_step") == 2


def test_other_updates_stay():
    """With decay, with a rate that decays, of small weights, of one parameter at another rate."""
    plan = compare(trained(rate=lambda: fluid.layers.exponential_decay(0.1, 2, 0.5)), feed(40), 3, 2e-4, 2e-6)
    assert types(plan).count("dense_layer_step") == 3  # the rate is made before everything else

    def small():
        out = fluid.layers.fc(fluid.data("x", [None, 160]), 8)
        loss = fluid.layers.mean(out)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    assert "dense_layer_step" not in types(compare(small, feed(40), 3))

    def decayed():
        out = fluid.layers.fc(fluid.data("x", [None, 160]), 128)
        loss = fluid.layers.mean(fluid.layers.square(out))
        fluid.optimizer.SGD(0.1, regularization=fluid.regularizer.L2Decay(0.01)).minimize(loss)
        return [loss]

    assert "dense_layer_step" not in types(compare(decayed, feed(40), 3, 2e-4, 2e-6))

    def scaled():
        rates = fluid.ParamAttr(name="w", learning_rate=2.0)
        out = fluid.layers.fc(fluid.data("x", [None, 160]), 128, param_attr=rates)
        loss = fluid.layers.mean(fluid.layers.square(out))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    plan = compare(scaled, feed(40), 3, 2e-4, 2e-6)
    assert "dense_layer_step" not in types(plan) and "is made behind the gradient" in plan.work.explain()


@pytest.mark.parametrize(("m", "k", "n"), [(40, 128, 128), (100, 258, 300), (33, 399, 1041), (512, 144, 272), (64, 64, 513)])
@pytest.mark.parametrize("behind", ["", "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("want", [(True, True, True), (False, True, False)])
def test_against_the_gradient(m, k, n, behind, want):
    import numba  # noqa: F401
    import torch

    torch.manual_seed(m + k)
    x, w, d, rate = torch.rand(m, k), torch.rand(k, n), torch.rand(m, n) - 0.5, torch.tensor([0.25])
    dx, dw, sums = dense_layer_grad(x, w, None, d, behind=behind, want=(want[0], True, want[2]))
    expected = w - 0.25 * dw
    got = dense_layer_step(x, w, None, d, rate, behind=behind, want=(want[0], want[2], True))
    assert got[2] is w
    torch.testing.assert_close(w, expected, rtol=1e-5, atol=1e-4)
    for a, b in ((got[0], dx), (got[1], sums)):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
