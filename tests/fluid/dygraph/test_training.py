"""Optimizers, schedules and their states in dygraph mode."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import NotSupportedError, StateMismatchError

dy, layers = fluid.dygraph, fluid.layers
X = np.random.RandomState(0).uniform(-1, 1, (8, 3)).astype("float32")


@pytest.fixture(autouse=True)
def eager():
    with dy.guard(), fluid.unique_name.guard():
        yield


def step(net, optimizer):
    loss = layers.mean(layers.square(net(dy.to_variable(X))))
    loss.backward()
    result = optimizer.minimize(loss)
    net.clear_gradients()
    return result


def test_arguments():
    net = dy.Linear(3, 2)
    with pytest.raises(AttributeError, match="parameter_list"):
        fluid.optimizer.SGD(0.1)
    with pytest.raises(TypeError, match="float or a schedule"):
        fluid.optimizer.SGD(1, parameter_list=net.parameters())
    with pytest.raises(TypeError, match="list of Parameters"):
        fluid.optimizer.SGD(0.1, parameter_list=net.weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: o.ExponentialMovingAverage(0.9),
        lambda o: o.ModelAverage(0.1),
        lambda o: o.LookaheadOptimizer(None),
        lambda o: o.RecomputeOptimizer(None),
        lambda o: o.PipelineOptimizer(None),
        lambda o: o.DGCMomentumOptimizer(0.1, 0.9, 0, parameter_list=[]),
    ],
)
def test_optimizers_of_programs_only(make):
    with pytest.raises(NotSupportedError, match="Programs"):
        make(fluid.optimizer)


def test_only_parameters_with_gradients_change():
    used, other = dy.Linear(3, 2), dy.Linear(3, 2)
    decay = fluid.regularizer.L2Decay(0.1)
    optimizer = fluid.optimizer.SGD(0.1, parameter_list=used.parameters() + other.parameters(), regularization=decay)
    before = other.weight.numpy()
    ops, pairs = step(used, optimizer)
    assert ops == [] and [(p.name, g.name) for p, g in pairs] == [
        ("linear_0.w_0", "linear_0.w_0@GRAD"),
        ("linear_0.b_0", "linear_0.b_0@GRAD"),
    ]
    np.testing.assert_array_equal(other.weight.numpy(), before)


def test_frozen_parameters_and_no_grad_set():
    net = dy.Linear(3, 2)
    net.bias.trainable = False
    optimizer = fluid.optimizer.SGD(0.1, parameter_list=net.parameters())
    before = net.state_dict()["bias"].numpy()
    assert [p.name for p, _ in step(net, optimizer)[1]] == ["linear_0.w_0"]
    np.testing.assert_array_equal(net.bias.numpy(), before)
    loss = layers.mean(net(dy.to_variable(X)))
    loss.backward()
    assert optimizer.minimize(loss, no_grad_set={"linear_0.w_0"})[1] == []


def test_rate_of_one_parameter():
    attr = fluid.ParamAttr(learning_rate=0.5, initializer=fluid.initializer.Constant(1.0))
    net = dy.Linear(3, 1, param_attr=attr, bias_attr=False)
    optimizer = fluid.optimizer.SGD(0.1, parameter_list=net.parameters())
    loss = layers.reduce_sum(net(dy.to_variable(np.ones((1, 3), "float32"))))
    loss.backward()
    optimizer.minimize(loss)
    np.testing.assert_allclose(net.weight.numpy(), 0.95, rtol=1e-6)


def test_state_goes_on(tmp_path):
    """Five steps are the same as three, saving, loading into new objects, and two."""

    def train(steps, path=None, save=None):
        with dy.guard(), fluid.unique_name.guard():
            attr = fluid.ParamAttr(initializer=fluid.initializer.Constant(0.5))
            net = dy.Linear(3, 2, param_attr=attr)
            rate = dy.ExponentialDecay(0.1, 2, 0.5)
            optimizer = fluid.optimizer.Adam(rate, parameter_list=net.parameters())
            if path is not None:
                params, opt = dy.load_dygraph(path)
                net.set_dict(params)
                optimizer.set_dict(opt)
            for _ in range(steps):
                step(net, optimizer)
            if save is not None:
                dy.save_dygraph(net.state_dict(), save)
                dy.save_dygraph(optimizer.state_dict(), save)
            return net.weight.numpy(), optimizer.current_step_lr()

    whole, rate = train(5)
    train(3, save=str(tmp_path / "m"))
    parts, rate2 = train(2, path=str(tmp_path / "m"))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    assert rate == pytest.approx(rate2)


def test_states_refused():
    net = dy.Linear(3, 2)
    optimizer = fluid.optimizer.Adam(0.1, parameter_list=net.parameters())
    assert optimizer.state_dict() == {} and optimizer.current_step_lr() == 0.1
    step(net, optimizer)
    state = optimizer.state_dict()
    with pytest.raises(StateMismatchError, match="moment1"):
        optimizer.set_dict({k: v for k, v in state.items() if "moment1" not in k})
    with pytest.raises(StateMismatchError, match=r"expects float32\[1\]"):
        optimizer.set_dict({**state, "linear_0.w_0_beta1_pow_acc_0": np.zeros(2, "float32")})
    scheduled = fluid.optimizer.SGD(dy.NoamDecay(8, 5), parameter_list=net.parameters())
    with pytest.raises(StateMismatchError, match="LR_Scheduler"):
        scheduled.set_dict({"global_step": np.array([9])})
    with pytest.raises(StateMismatchError, match="global_step"):
        scheduled.set_dict({"LR_Scheduler": {"step_num": 9}})


def test_states_belong_to_dygraph_mode():
    with fluid.dygraph.guard():
        pass
    from millstream.ir import mode

    old = mode.switch_tracer(None)
    try:
        optimizer = fluid.optimizer.SGD(0.1)
        for call in (optimizer.state_dict, optimizer.clear_gradients, optimizer.current_step_lr):
            with pytest.raises(NotSupportedError, match="dygraph"):
                call()
    finally:
        mode.switch_tracer(old)


def test_schedule_states():
    rate = dy.StepDecay(0.1, 2)
    rate.epoch()
    rate.epoch()
    assert rate.state_dict() == {"epoch_num": 2, "learning_rate": pytest.approx(0.01)}
    with pytest.raises(StateMismatchError, match="learning_rate"):
        rate.set_dict({"epoch_num": 5})
    plateau = dy.ReduceLROnPlateau(0.1, patience=0, decay_rate=0.5)
    for value in (1.0, 2.0, 3.0):
        plateau.step(dy.to_variable(np.array([value], "float32")))
    again = dy.ReduceLROnPlateau(0.1, patience=0, decay_rate=0.5)
    again.set_dict(plateau.state_dict())
    assert float(again()) == pytest.approx(0.025)


@pytest.mark.parametrize(
    "make,error",
    [
        (lambda: dy.PiecewiseDecay([1, 2], [0.1, 0.2], 0), ValueError),
        (lambda: dy.StepDecay(0.1, "a"), TypeError),
        (lambda: dy.StepDecay(0.1, 2, 2.0), ValueError),
        (lambda: dy.MultiStepDecay(0.1, [4, 2]), ValueError),
        (lambda: dy.LambdaDecay(0.1, 3), TypeError),
        (lambda: dy.ReduceLROnPlateau(0.1, mode="x"), ValueError),
        (lambda: dy.ReduceLROnPlateau(0.1).step(0.1), TypeError),
        (lambda: dy.LinearLrWarmup("a", 3, 0.0, 0.1), TypeError),
        (lambda: dy.LinearLrWarmup(0.1, 3, 0.3, 0.1), ValueError),
    ],
)
def test_schedules_refused(make, error):
    with pytest.raises(error):
        make()


def test_layer_schedules_are_objects():
    assert isinstance(layers.noam_decay(8, 5), dy.NoamDecay)
    assert layers.noam_decay(8, 5, 2.0).learning_rate == 2.0
    assert isinstance(layers.piecewise_decay([1], [0.1, 0.2]), dy.PiecewiseDecay)


def test_enable_and_disable():
    from millstream.ir import mode

    old = mode.switch_tracer(None)
    try:
        fluid.enable_dygraph()
        fluid.enable_dygraph()
        assert dy.enabled() and dy.to_variable(X).shape == [8, 3]
        fluid.disable_dygraph()
        assert not dy.enabled()
        with pytest.raises(ValueError, match="dygraph mode"):
            dy.to_variable(X)
    finally:
        mode.switch_tracer(old)
