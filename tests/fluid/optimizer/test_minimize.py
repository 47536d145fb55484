"""Optimizers through the public API: training, arguments of both versions, clipping, decay, learning rates."""

import warnings

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers
O = fluid.optimizer  # noqa: E741
CLASSES = {
    "SGD": lambda **k: O.SGD(0.1, **k),
    "Momentum": lambda **k: O.Momentum(0.05, 0.9, **k),
    "LarsMomentum": lambda **k: O.LarsMomentum(1.0, 0.9, lars_coeff=0.1, **k),
    "Adagrad": lambda **k: O.Adagrad(0.1, **k),
    "DecayedAdagrad": lambda **k: O.DecayedAdagrad(0.05, **k),
    "Adadelta": lambda **k: O.Adadelta(1.0, epsilon=1e-2, **k),
    "RMSProp": lambda **k: O.RMSProp(0.02, centered=True, momentum=0.5, **k),
    "Ftrl": lambda **k: O.Ftrl(0.5, **k),
    "Adam": lambda **k: O.Adam(0.05, **k),
    "Adamax": lambda **k: O.Adamax(0.05, **k),
    "Lamb": lambda **k: O.Lamb(0.05, **k),
    "DGCMomentumOptimizer": lambda **k: O.DGCMomentumOptimizer(0.05, 0.9, 1, **k),
}


@pytest.fixture(autouse=True)
def fresh():
    programs = fluid.program_guard(fluid.Program(), fluid.Program())
    with fluid.unique_name.guard(), programs, fluid.scope_guard(fluid.Scope()):
        yield


def line():
    x = fluid.data("x", [None, 4], "float32")
    y = fluid.data("y", [None, 1], "float32")
    attr = fluid.ParamAttr(initializer=fluid.initializer.Uniform(-0.5, 0.5, seed=3))
    return L.mean(L.square_error_cost(L.fc(x, 1, param_attr=attr), y))


def feed(n=16, seed=0):
    x = np.random.RandomState(seed).uniform(-1, 1, (n, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True) + 1}


def train(loss, steps=40, program=None):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return [float(exe.run(program, feed=feed(), fetch_list=[loss])[0][0]) for _ in range(steps)]


def value(name):
    return np.array(fluid.global_scope().find_var(name).get_tensor())


def ops(kind=None):
    found = fluid.default_main_program().global_block().ops
    return [op for op in found if kind is None or op.type == kind]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_training_makes_the_loss_smaller(name):
    loss = line()
    update, pairs = CLASSES[name]().minimize(loss)
    assert [p.name for p, _ in pairs] == ["fc_0.w_0", "fc_0.b_0"]
    assert update and all(op.block is fluid.default_main_program().global_block() for op in update)
    losses = train(loss)
    assert losses[-1] < 0.7 * losses[0], losses


def test_updates_follow_the_names():
    h = fluid.data("x", [None, 4], "float32")
    for _ in range(11):
        h = L.fc(h, 4)
    O.SGD(0.1).minimize(L.mean(h))
    names = [op.input("Param")[0] for op in ops("sgd")]
    assert names == sorted(names) and names.index("fc_10.b_0") < names.index("fc_2.b_0")


def test_names_of_accumulators():
    loss = line()
    adam = O.Adam(0.1)
    adam.minimize(loss)
    w = fluid.default_main_program().global_block().var("fc_0.w_0")
    assert adam._get_accumulator("moment1", w).name == "fc_0.w_0_moment1_0"
    assert "fc_0.b_0_beta2_pow_acc_0" in adam.get_opti_var_name_list()
    named = O.Momentum(0.1, 0.9, name="second")
    named.minimize(L.scale(loss, 1.0))
    assert "fc_0.w_0_second_velocity_0" in named.get_opti_var_name_list()
    replacement = L.create_global_var([4, 1], 0.0, "float32", persistable=True)
    named._set_accumulator("velocity", w, replacement)
    assert named._get_accumulator("velocity", w) is replacement


def test_arguments_of_1_1_in_their_old_places():
    decay = fluid.regularizer.L2Decay(0.1)
    sgd = O.SGD(0.1, decay, "old")
    assert sgd.regularization is decay and sgd._name == "old" and sgd._parameter_list is None
    momentum = O.Momentum(0.1, 0.9, True, decay, "old")
    assert momentum._use_nesterov and momentum.regularization is decay and momentum._name == "old"
    assert O.Adagrad(0.1, 1e-6, decay).regularization is decay


def test_parameter_list_of_the_constructor_and_of_minimize():
    loss = line()
    O.SGD(0.1, parameter_list=["fc_0.b_0"]).minimize(loss)
    assert [op.input("Param") for op in ops("sgd")] == [["fc_0.b_0"]]
    O.SGD(0.1).minimize(L.scale(loss, 1.0), parameter_list=["fc_0.w_0"], no_grad_set={"fc_0.b_0"})
    assert [op.input("Param") for op in ops("sgd")][1:] == [["fc_0.w_0"]]


def test_minimize_with_grad_clip_of_1_7():
    loss = line()
    O.SGD(0.1).minimize(loss, grad_clip=fluid.clip.GradientClipByValue(0.01))
    assert len(ops("clip")) == 2


def test_learning_rate_of_a_parameter():
    x = fluid.data("x", [None, 4], "float32")
    attr = fluid.ParamAttr(learning_rate=0.5, initializer=fluid.initializer.Constant(1.0))
    loss = L.mean(L.fc(x, 1, param_attr=attr, bias_attr=False))
    O.SGD(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=[loss])
    np.testing.assert_allclose(value("fc_0.w_0"), np.full((4, 1), 0.95), rtol=1e-6)


def test_variable_learning_rate_is_used_as_it_is():
    loss = line()
    rate = L.create_global_var([1], 0.0, "float32", persistable=True, name="my_rate")
    O.SGD(rate).minimize(loss)
    losses = train(loss, 3)
    assert losses[0] == losses[2]
    fluid.global_scope().find_var("my_rate").get_tensor().set(np.array([0.1], "float32"), fluid.CPUPlace())


@pytest.mark.parametrize("kind", ["value", "norm", "global"])
def test_clipping_before_decay(kind):
    clip = {
        "value": fluid.clip.GradientClipByValue(0.05),
        "norm": fluid.clip.GradientClipByNorm(0.05),
        "global": fluid.clip.GradientClipByGlobalNorm(0.05),
    }[kind]
    loss = line()
    _, pairs = O.SGD(0.1, regularization=fluid.regularizer.L2Decay(0.3), grad_clip=clip).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    before = {n: value(n) for n in ("fc_0.w_0", "fc_0.b_0")}
    names = [op.input("Grad")[0] for op in sorted(ops("sgd"), key=lambda op: op.input("Param")[0])]
    raw = exe.run(feed=feed(), fetch_list=[pairs[1][1], pairs[0][1], *names])
    # the decay is added in place, so look at what the update did
    moved = {n: (before[n] - value(n)) / 0.1 - 0.3 * before[n] for n in before}
    norms = {n: np.linalg.norm(v) for n, v in moved.items()}
    assert len(raw) == 4
    if kind == "value":
        assert max(np.abs(v).max() for v in moved.values()) < 0.0501
    elif kind == "norm":
        assert all(abs(n - 0.05) < 1e-3 for n in norms.values())
    else:
        assert abs(np.sqrt(sum(n**2 for n in norms.values())) - 0.05) < 1e-3


def test_set_gradient_clip_for_all_and_for_some():
    loss = line()
    clip = fluid.clip.GradientClipByGlobalNorm(1.0)
    fluid.clip.set_gradient_clip(clip)
    pairs = O.SGD(0.1).backward(loss)
    clipped = fluid.clip.append_gradient_clip_ops(pairs)
    assert [g.name for _, g in clipped] == ["elementwise_mul_0.tmp_0", "elementwise_mul_1.tmp_0"]
    for p, _ in pairs:
        p.gradient_clip_attr = None
    fluid.clip.set_gradient_clip(clip, param_list=["fc_0.w_0"])
    with pytest.warns(UserWarning, match="set_gradient_clip left out fc_0.b_0"):
        assert fluid.clip.append_gradient_clip_ops(pairs) == pairs


def test_clip_of_a_parameter_by_1_1():
    x = fluid.data("x", [None, 4], "float32")
    attr = fluid.ParamAttr(gradient_clip=fluid.clip.GradientClipByNorm(0.1))
    O.SGD(0.1).minimize(L.mean(L.fc(x, 2, param_attr=attr)))
    assert [op.input("X") for op in ops("clip_by_norm")] == [["fc_0.w_0@GRAD"]]


def test_groups_of_one_norm_agree():
    loss = line()
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(1.0), ["fc_0.w_0"])
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(2.0), ["fc_0.b_0"])
    with pytest.raises(ValueError, match="one group has one clip_norm"):
        O.SGD(0.1).minimize(loss)


def test_sparse_gradient_with_decay_becomes_dense():
    ids = fluid.data("ids", [None, 1], "int64")
    loss = L.mean(L.embedding(ids, [10, 4], is_sparse=True))
    O.SGD(0.1, regularization=fluid.regularizer.L2Decay(0.5)).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    before = value("embedding_0.w_0")
    exe.run(feed={"ids": np.array([[1], [1], [3]], "int64")}, fetch_list=[loss])
    want = 0.95 * before
    for row in (1, 1, 3):
        want[row] -= 0.1 / 12
    np.testing.assert_allclose(value("embedding_0.w_0"), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: O.SGD("a"), TypeError),
        (lambda: O.SGD(1), TypeError),
        (lambda: O.SGD(0.1, grad_clip=3), TypeError),
        (lambda: O.SGD(0.1, regularization=3), TypeError),
        (lambda: O.SGD(0.1, parameter_list="w"), TypeError),
        (lambda: O.Momentum(None, 0.9), ValueError),
        (lambda: O.Adam(0.1, beta1=None), ValueError),
        (lambda: O.RMSProp(0.1, rho=None), ValueError),
        (lambda: O.LookaheadOptimizer(None), ValueError),
        (lambda: O.LookaheadOptimizer(O.SGD(0.1), alpha=2.0), ValueError),
        (lambda: O.LookaheadOptimizer(O.SGD(0.1), k=0), ValueError),
        (lambda: O.RecomputeOptimizer(O.SGD(0.1)).minimize(line()), ValueError),
        (lambda: O.DGCMomentumOptimizer(0.1, 0.9, 0, sparsity=[1.5]), ValueError),
        (lambda: O.DGCMomentumOptimizer(0.1, 0.9, 0, grad_clip=fluid.clip.GradientClipByNorm(1.0)), ValueError),
        (lambda: fluid.clip.GradientClipByValue(-1.0), ValueError),
        (lambda: fluid.clip.GradientClipByNorm("a"), ValueError),
        (lambda: fluid.clip.GradientClipByNorm(1.0, need_clip=3), TypeError),
        (lambda: fluid.clip.set_gradient_clip(3), TypeError),
        (lambda: O.SGD(0.1).minimize(3), TypeError),
        (lambda: O.SGD(0.1).state_dict(), NotImplementedError),
        (lambda: O.SGD(0.1).current_step_lr(), NotImplementedError),
        (lambda: fluid.average.WeightedAverage().eval(), ValueError),
        (lambda: fluid.average.WeightedAverage().add("a", 1), ValueError),
        (lambda: L.piecewise_decay([1, 2], [0.1]), ValueError),
        (lambda: L.noam_decay("a", 1), TypeError),
        (lambda: L.cosine_decay("a", 1, 2), TypeError),
    ],
)
def test_refused(make, error):
    with pytest.raises(error):
        make()


def test_ftrl_says_that_l2_is_not_used():
    with pytest.warns(UserWarning, match="l2"):
        O.Ftrl(0.1, l1=0.1, l2=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        O.Ftrl(0.1)


def test_weighted_average():
    mean = fluid.average.WeightedAverage()
    mean.add(np.array([1.0, 2.0]), 2)
    mean.add(3.0, 1)
    np.testing.assert_allclose(mean.eval(), [5 / 3, 7 / 3])
    mean.reset()
    with pytest.raises(ValueError):
        mean.eval()


# ---- schedules ---------------------------------------------------------------------------------
STEPS = np.arange(6)
SCHEDULES = {
    "noam": (lambda: L.noam_decay(64, 3), lambda s: 64**-0.5 * np.minimum((s + 1) ** -0.5, (s + 1) * 3**-1.5)),
    "exponential": (lambda: L.exponential_decay(0.1, 2, 0.9), lambda s: 0.1 * 0.9 ** (s / 2)),
    "staircase": (lambda: L.exponential_decay(0.1, 2, 0.9, True), lambda s: 0.1 * 0.9 ** (s // 2)),
    "natural": (lambda: L.natural_exp_decay(0.1, 2, 0.9), lambda s: 0.1 * np.exp(-0.9 * s / 2)),
    "inverse": (lambda: L.inverse_time_decay(0.1, 2, 0.9), lambda s: 0.1 / (1 + 0.9 * s / 2)),
    "polynomial": (
        lambda: L.polynomial_decay(0.1, 3, 0.01, 2.0),
        lambda s: 0.09 * (1 - np.minimum(s, 3) / 3) ** 2 + 0.01,
    ),
    "polynomial_cycle": (
        lambda: L.polynomial_decay(0.1, 2, 0.01, 1.0, cycle=True),
        lambda s: 0.09 * (1 - s / (2 * np.maximum(np.ceil(s / 2), 1))) + 0.01,
    ),
    "piecewise": (lambda: L.piecewise_decay([2, 4], [0.3, 0.2, 0.1]), lambda s: np.select([s < 2, s < 4], [0.3, 0.2], 0.1)),
    "cosine": (lambda: L.cosine_decay(0.1, 2, 3), lambda s: 0.05 * (np.cos(s // 2 * np.pi / 3) + 1)),
    "warmup": (lambda: L.linear_lr_warmup(0.5, 3, 0.0, 0.3), lambda s: np.where(s < 3, 0.1 * s, 0.5)),
    "warmup_then_decay": (
        lambda: L.linear_lr_warmup(L.exponential_decay(0.1, 2, 0.9), 3, 0.0, 0.3),
        lambda s: np.where(s < 3, 0.1 * s, 0.1 * 0.9 ** (s / 2)),
    ),
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedule(name):
    make, formula = SCHEDULES[name]
    rate = make()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    got = [float(exe.run(fetch_list=[rate])[0][0]) for _ in STEPS]
    np.testing.assert_allclose(got, formula(STEPS), rtol=1e-5, atol=1e-7)


def test_clips_and_initializers_that_users_write():
    class Half(fluid.clip.GradientClipBase):
        def _static_clip(self, params_grads):
            return [(p, fluid.layers.scale(g, 0.5)) for p, g in params_grads]

    class Ramp(fluid.initializer.Initializer):
        def __call__(self, var, block):
            fan_in, _ = self._compute_fans(var)
            values = [float(v) / fan_in for v in range(4)]
            attrs = {"shape": list(var.shape), "dtype": var.dtype, "fp32_values": values}
            return block._prepend_op(type="assign_value", outputs={"Out": [var]}, attrs=attrs)

    x = fluid.data("x", [None, 4])
    weight = fluid.ParamAttr(name="w", initializer=Ramp())
    loss = fluid.layers.mean(fluid.layers.fc(x, 1, param_attr=weight, bias_attr=False))
    fluid.optimizer.SGD(1.0, grad_clip=Half()).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=[loss])
    w = np.array(fluid.global_scope().find_var("w").get_tensor()).ravel()
    np.testing.assert_allclose(w, np.arange(4) / 4 - 0.5)

    class Nothing(fluid.clip.GradientClipBase):
        pass

    with pytest.raises(NotImplementedError, match="_static_clip"):
        fluid.optimizer.SGD(1.0, grad_clip=Nothing()).minimize(loss)


def test_a_program_cloned_for_test_does_not_move_the_learning_rate():
    loss = line()
    before = [op.type for op in ops()]
    counter = "@LR_DECAY_COUNTER@"
    O.SGD(L.piecewise_decay([3, 6], [0.1, 0.05, 0.01])).minimize(loss)
    test = fluid.default_main_program().clone(for_test=True)
    assert [op.type for op in test.global_block().ops] == before and test.num_blocks == 1
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for _ in range(4):
        exe.run(feed=feed(), fetch_list=[loss])
        exe.run(test, feed=feed(), fetch_list=[loss])
    assert value(counter).tolist() == [3]


def test_a_program_without_a_marked_loss_keeps_its_gradients_when_it_is_cloned_for_test():
    x = fluid.data("x", [None, 4], "float32")
    x.stop_gradient = False
    (grad,) = fluid.gradients([L.reduce_sum(L.square(L.dropout(x, 0.5)))], [x])
    test = fluid.default_main_program().clone(for_test=True)
    exe = fluid.Executor(fluid.CPUPlace())
    (got,) = exe.run(test, feed={"x": np.ones((2, 4), "float32")}, fetch_list=[grad])
    np.testing.assert_allclose(got, 0.5)
