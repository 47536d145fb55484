"""fuse_optimizers, and the kernels it leads to."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(5)
FEED = {"x": RNG.randn(8, 6).astype("float32"), "y": RNG.randn(8, 1).astype("float32")}

DECAY = fluid.regularizer.L2Decay(0.1)
OPTIMIZERS = {
    "sgd": lambda rate: fluid.optimizer.SGD(rate),
    "momentum": lambda rate: fluid.optimizer.Momentum(rate, 0.9),
    "nesterov": lambda rate: fluid.optimizer.Momentum(rate, 0.9, use_nesterov=True),
    "decayed": lambda rate: fluid.optimizer.Momentum(rate, 0.9, regularization=DECAY),
    "decayed_nesterov": lambda rate: fluid.optimizer.Momentum(rate, 0.9, True, regularization=DECAY),
    "decayed_sgd": lambda rate: fluid.optimizer.SGD(rate, regularization=DECAY),
    "decayed_adam": lambda rate: fluid.optimizer.Adam(rate, epsilon=1e-3, regularization=DECAY),
    "adam": lambda rate: fluid.optimizer.Adam(rate, beta1=0.8, beta2=0.99, epsilon=1e-3),
    "adagrad": lambda rate: fluid.optimizer.Adagrad(rate, epsilon=1e-3),
    "decayed_adagrad_of_decayed": lambda rate: fluid.optimizer.Adagrad(rate, epsilon=1e-3, regularization=DECAY),
    "decaying_adagrad": lambda rate: fluid.optimizer.DecayedAdagrad(rate, epsilon=1e-3),
    "adadelta": lambda rate: fluid.optimizer.Adadelta(rate, epsilon=1e-3),
    "decayed_adadelta": lambda rate: fluid.optimizer.Adadelta(rate, epsilon=1e-3, regularization=DECAY),
    "rmsprop": lambda rate: fluid.optimizer.RMSProp(rate, epsilon=1e-3, momentum=0.5),
    "centered": lambda rate: fluid.optimizer.RMSProp(rate, epsilon=1e-3, centered=True),
    "decayed_rmsprop": lambda rate: fluid.optimizer.RMSProp(rate, epsilon=1e-3, regularization=DECAY),
    "ftrl": lambda rate: fluid.optimizer.Ftrl(rate),
    "ftrl_with_l1": lambda rate: fluid.optimizer.Ftrl(rate, l1=0.01, l2=0.1, lr_power=-0.4),
    "adamax": lambda rate: fluid.optimizer.Adamax(rate, epsilon=1e-3),
    "lamb": lambda rate: fluid.optimizer.Lamb(rate, epsilon=1e-3),
    "lars": lambda rate: fluid.optimizer.LarsMomentum(rate, 0.9),
    "decayed_lars": lambda rate: fluid.optimizer.LarsMomentum(rate, 0.9, regularization=DECAY),
}
KINDS = {
    "sgd", "momentum", "adam", "adagrad", "decayed_adagrad", "adadelta", "rmsprop", "ftrl", "adamax", "lamb",
    "lars_momentum",
}  # fmt: skip


def regression(dtype="float32"):
    x, y = fluid.data("x", [None, 6], dtype), fluid.data("y", [None, 1], dtype)
    hidden = fluid.layers.fc(x, 16, act="tanh")
    return fluid.layers.mean(fluid.layers.square_error_cost(fluid.layers.fc(hidden, 1), y))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_stays(name, dtype):
    def make():
        loss = regression(dtype)
        OPTIMIZERS[name](0.1).minimize(loss)
        return [loss]

    feed = {k: v.astype(dtype) for k, v in FEED.items()}
    found = types(compare(make, feed, steps=6, rtol=1e-4, atol=1e-5))
    assert sum(t.startswith("fused_") for t in found) == 1
    assert not KINDS & set(found) and "sum" not in found  # sum: the L2 decay


@pytest.mark.parametrize("seen", ["gradient", "decay", "reader"])
def test_decay_that_somebody_sees_stays(seen):
    def make():
        loss = regression()
        fluid.optimizer.Momentum(0.1, 0.9, regularization=DECAY).minimize(loss)
        block = fluid.default_main_program().global_block()
        (added, *_) = [op for op in block.ops if op.type == "sum"]
        if seen == "reader":
            return [loss, fluid.layers.scale(block.var(added.output("Out")[0]), 2.0)]
        return [loss, block.var(added.output("Out")[0] if seen == "gradient" else added.input("X")[1])]

    plan = compare(make, FEED, steps=3, rtol=1e-4, atol=1e-5)
    assert types(plan).count("sum") == 1
    assert "L2 decay" in plan.work.explain() or "read elsewhere" in plan.work.explain()


def test_decay_of_one_parameter_and_of_its_own():
    def make():
        x = fluid.data("x", [None, 6])
        mine = fluid.ParamAttr(regularizer=fluid.regularizer.L2Decay(0.3))
        loss = fluid.layers.mean(fluid.layers.fc(x, 4, param_attr=mine))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    assert "sum" not in types(compare(make, {"x": FEED["x"]}, steps=3))


def test_a_schedule_and_clipping():
    def make():
        loss = regression()
        rate = fluid.layers.exponential_decay(0.1, 2, 0.5)
        fluid.optimizer.Adam(rate, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.5)).minimize(loss)
        return [loss]

    assert "fused_adam" in types(compare(make, FEED, steps=5, rtol=1e-4, atol=1e-5))


def test_rates_of_their_own_make_groups():
    def make():
        x = fluid.data("x", [None, 6])
        slow = fluid.ParamAttr(learning_rate=0.1)
        hidden = fluid.layers.fc(x, 16, act="tanh", param_attr=slow, bias_attr=slow)
        loss = fluid.layers.mean(fluid.layers.fc(hidden, 1))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
        return [loss]

    found = types(compare(make, {"x": FEED["x"]}, steps=3))
    assert found.count("fused_momentum") + found.count("momentum") >= 2


def test_one_factor_of_several_parameters_makes_one_group():
    """Old models learn biases at twice the rate: a `scale` of the rate for each of them, of which one stays."""

    def make():
        h = fluid.data("x", [None, 6])
        for size in (16, 8, 1):
            h = fluid.layers.fc(h, size, act="tanh", bias_attr=fluid.ParamAttr(learning_rate=2.0))
        loss = fluid.layers.mean(h)
        fluid.optimizer.RMSProp(fluid.layers.exponential_decay(0.1, 2, 0.5), epsilon=1e-3).minimize(loss)
        return [loss]

    fused = types(compare(make, {"x": FEED["x"]}, steps=3, rtol=1e-4, atol=1e-5))
    assert fused.count("fused_rmsprop") == 2 and "rmsprop" not in fused
    main, startup, fetches = build(make)
    plain = types(run(main, startup, {"x": FEED["x"]}, fetches, passes=())[2])
    assert plain.count("scale") - fused.count("scale") == 2


def test_factors_that_somebody_reads_stay():
    def make():
        bias = [fluid.ParamAttr(learning_rate=2.0) for _ in range(2)]
        h = fluid.layers.fc(fluid.data("x", [None, 6]), 4, act="tanh", bias_attr=bias[0])
        loss = fluid.layers.mean(fluid.layers.fc(h, 1, bias_attr=bias[1]))
        fluid.optimizer.Ftrl(0.1).minimize(loss)
        rates = {op.input("LearningRate")[0] for op in fluid.default_main_program().global_block().ops if op.type == "ftrl"}
        return [loss, *sorted(rates)]

    found = types(compare(make, {"x": FEED["x"]}, steps=3, rtol=1e-4, atol=1e-5))
    assert found.count("ftrl") == 2 and found.count("fused_ftrl") == 1


@pytest.mark.parametrize("lazy", [False, True])
def test_sparse_gradients_stay_single(lazy):
    def make():
        words = fluid.data("w", [None, 1], "int64")
        vectors = fluid.layers.embedding(words, [30, 8], is_sparse=True)
        loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.fc(vectors, 4, act="tanh"), 1))
        fluid.optimizer.Adam(0.1, lazy_mode=lazy).minimize(loss)
        return [loss]

    plan = compare(make, {"w": RNG.randint(0, 30, (9, 1))}, steps=4, rtol=1e-4, atol=1e-5)
    assert types(plan).count("adam") == 1 and "fused_adam" in types(plan)
    assert "not dense" in plan.work.explain()


def test_a_parameter_that_is_read_between_the_updates_stays():
    def make():
        loss = regression()
        first, *rest = fluid.backward.append_backward(loss)
        optimizer = fluid.optimizer.SGD(0.1)
        optimizer.apply_gradients([first])
        seen = fluid.layers.scale(first[0], 1.0)
        optimizer.apply_gradients(rest)
        return [loss, seen]

    plan = compare(make, FEED, steps=2)
    assert "fused_sgd" not in types(plan)
    assert "is read between the updates" in plan.work.explain()


def test_parameters_that_joined_later_keep_their_powers():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        loss = regression()
        fluid.optimizer.Adam(0.1).minimize(loss)
    values = {}
    for passes in ((), fluid.Executor().passes):
        exe, scope = fluid.Executor(), fluid.Scope()
        exe.passes = passes
        with fluid.scope_guard(scope):
            main.random_seed = startup.random_seed = 9
            exe.run(startup)
            powers = sorted(v.name for v in main.list_vars() if "beta1_pow" in v.name)
            scope.find_var(powers[0]).get_tensor().set(np.array([0.5], "float32"), fluid.CPUPlace())
            for _ in range(3):
                value = exe.run(main, feed=FEED, fetch_list=[loss])[0]
        values[passes] = [value, *(np.asarray(scope.find_var(p.name).get_tensor()) for p in main.all_parameters())]
    for a, b in zip(*values.values()):
        np.testing.assert_allclose(b, a, 1e-4, 1e-6)
