"""From eager code to Programs: TracedLayer, declarative, StaticModelRunner."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError

dy, layers = fluid.dygraph, fluid.layers
X = np.random.RandomState(0).uniform(0.1, 1, (2, 3)).astype("float32")


@pytest.fixture(autouse=True)
def eager():
    dy.ProgramTranslator.reset()
    with dy.guard(), fluid.unique_name.guard():
        yield


class Net(dy.Layer):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = dy.Linear(3, 2), dy.BatchNorm(2)

    def forward(self, x):
        return self.bn(self.fc(x))


class DeclaredNet(Net):
    @dy.declarative
    def forward(self, x):
        h = self.bn(self.fc(x))
        if layers.mean(h) > 1000:
            h = h * 0
        return h


def load_and_run(path, value):
    from millstream.ir import mode

    old = mode.switch_tracer(None)
    try:
        with fluid.scope_guard(fluid.Scope()):
            exe = fluid.Executor(fluid.CPUPlace())
            program, feeds, fetches = fluid.io.load_inference_model(path, exe)
            return exe.run(program, feed={feeds[0]: value}, fetch_list=fetches)[0]
    finally:
        mode.switch_tracer(old)


# ---- TracedLayer -------------------------------------------------------------------------------
def test_traced_layer(tmp_path):
    net = Net()
    net.eval()
    out, traced = dy.TracedLayer.trace(net, [dy.to_variable(X)])
    assert [op.type for op in traced.program.global_block().ops] == ["matmul", "elementwise_add", "batch_norm"]
    np.testing.assert_allclose(traced([X])[0], out.numpy(), rtol=1e-6)
    net.fc.bias.set_value(np.ones(2, "float32"))
    np.testing.assert_allclose(traced([dy.to_variable(X)])[0], net(dy.to_variable(X)).numpy(), rtol=1e-6)
    traced.save_inference_model(str(tmp_path / "m"), feed=[0], fetch=[0])
    np.testing.assert_allclose(load_and_run(str(tmp_path / "m"), X), net(dy.to_variable(X)).numpy(), rtol=1e-6)


def test_traced_training_writes_back():
    net = Net()
    _, traced = dy.TracedLayer.trace(net, [dy.to_variable(X)])
    before = net.bn._mean.numpy()
    traced([X])
    assert (net.bn._mean.numpy() != before).any()


def test_traced_layer_refuses(tmp_path):
    with pytest.raises(TypeError, match="Layer"):
        dy.TracedLayer.trace(lambda x: x, [dy.to_variable(X)])
    with pytest.raises(TypeError, match="Variables"):
        dy.TracedLayer.trace(Net(), [X])
    _, traced = dy.TracedLayer.trace(Net(), [dy.to_variable(X)])
    with pytest.raises(TypeError, match="list"):
        traced(X)
    with pytest.raises(InvalidProgramError, match="1 inputs, received 2"):
        traced([X, X])
    with pytest.raises(InvalidProgramError, match="below 1"):
        traced.save_inference_model(str(tmp_path), feed=[1])
    with pytest.raises(TypeError, match="Program"):
        dy.TracedLayer(1, [], [], [])


# ---- declarative -------------------------------------------------------------------------------
def relu_like(x):
    if layers.reduce_sum(x) > 0:
        y = x + 1
    else:
        y = x - 1
    return y


def early(x, k=2):
    if layers.mean(x) > 5:
        return x * 10
    for _ in range(k):
        x = x + 1
    if layers.mean(x) < 0 and k == 2:
        return -x
    return x


def jumps(x, n):
    total = 0
    for i in range(n):
        if i == 3:
            break
        if i == 1:
            continue
        x = x * 2
        total = total + i
    return x, total


def loop(x):
    i = 0
    while layers.reduce_sum(x) < 100 and i < 50:
        x = x * 2
        i += 1
    return x


def rows(x):
    out = x[0] * 0
    for row in x:
        out = out + row
    return {"sum": out, "n": len(x)}


def helper_call(x):
    scale = 3.0 if layers.mean(x) > 0 else 0.5

    def inner(v):
        return relu_like(v) * scale

    return inner(x)


@pytest.mark.parametrize("factor", [1.0, -3.0, 100.0])
@pytest.mark.parametrize("function", [relu_like, early, loop])
def test_converted_functions_agree_with_eager_ones(function, factor):
    x = dy.to_variable(X * factor)
    np.testing.assert_allclose(dy.declarative(function)(x).numpy(), function(x).numpy(), rtol=1e-5)


def test_jumps_over_python_and_variables():
    x = dy.to_variable(X)
    for n in (2, dy.to_variable(np.array([2])), dy.to_variable(np.array([9]))):
        got, total = dy.declarative(jumps)(x, n)
        want, sum_ = jumps(x, n if isinstance(n, int) else int(n))
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)
        assert float(total) == sum_


def test_structures_and_helpers():
    x = dy.to_variable(X)
    found = dy.declarative(rows)(x)
    assert found["n"] == 2
    np.testing.assert_allclose(found["sum"].numpy(), X.sum(0), rtol=1e-6)
    np.testing.assert_allclose(dy.declarative(helper_call)(x).numpy(), (X + 1) * 3, rtol=1e-6)


def test_gradients_flow_through():
    x = dy.to_variable(X)
    x.stop_gradient = False
    y = dy.declarative(relu_like)(x)
    assert not y.stop_gradient
    layers.reduce_sum(layers.square(y * 2)).backward()
    np.testing.assert_allclose(x.gradient(), 8 * (X + 1), rtol=1e-5)


def test_a_declared_layer_trains_like_an_eager_one():
    results = []
    for kind in (Net, DeclaredNet):
        with fluid.unique_name.guard():
            fluid.default_startup_program().random_seed = 3
            net = kind()
            net.train()  # after another network's eval() no operator leaves a graph
            optimizer = fluid.optimizer.Momentum(0.1, 0.9, parameter_list=net.parameters())
            for _ in range(4):
                loss = layers.mean(layers.square(net(dy.to_variable(X)) - 1.0))
                loss.backward()
                optimizer.minimize(loss)
                net.clear_gradients()
            net.eval()
            results.append((net(dy.to_variable(X)).numpy(), net.bn._mean.numpy(), net.fc.weight.numpy()))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_programs_are_kept_by_kind_of_input():
    declared = dy.declarative(relu_like)
    for shape in ((2, 3), (2, 3), (4, 3)):
        declared(dy.to_variable(np.ones(shape, "float32")))
    assert len(declared._programs) == 2


def test_program_translator(tmp_path):
    translator = dy.ProgramTranslator()
    assert translator is dy.ProgramTranslator.get_instance()
    main, _, inputs, outputs = translator.get_program(relu_like, X)
    assert isinstance(main, fluid.Program) and len(inputs) == len(outputs) == 1
    assert "conditional_block" in [op.type for op in main.global_block().ops]
    assert "_convert.if_" in translator.get_code(relu_like)
    np.testing.assert_allclose(translator.get_output(relu_like, X).numpy(), X + 1, rtol=1e-6)
    with pytest.raises(TypeError, match="bool"):
        translator.enable(3)
    translator.enable(False)
    calls = []
    dy.declarative(lambda x: calls.append(x))(1)
    assert calls == [1]
    translator.enable(True)
    net = DeclaredNet()
    net.eval()
    want = net(dy.to_variable(X)).numpy()
    translator.save_inference_model(str(tmp_path / "m"))
    np.testing.assert_allclose(load_and_run(str(tmp_path / "m"), X), want, rtol=1e-6)


def test_static_mode_makes_operators_of_the_current_program():
    from millstream.ir import mode

    old = mode.switch_tracer(None)
    try:
        with fluid.program_guard(fluid.Program(), fluid.Program()):
            x = fluid.data("x", [-1, 3])
            y = dy.dygraph_to_static_func(relu_like)(x)
            exe = fluid.Executor()
            for sign in (1, -1):
                np.testing.assert_allclose(exe.run(feed={"x": sign * X}, fetch_list=[y])[0], sign * (X + 1), rtol=1e-6)
    finally:
        mode.switch_tracer(old)


def returns_in_a_loop(x):
    while layers.mean(x) < 3:
        x = x + 1
        return x
    return x


def undefined_after(x):
    if layers.mean(x) > 0:
        y = x
    return y


def changes_a_list(x):
    kept = []
    if layers.mean(x) > 0:
        kept = [x]
    return kept


def no_source(x):
    return eval("1 if layers.mean(x) > 0 else 2", {"layers": layers, "x": x})


@pytest.mark.parametrize(
    "function,error,text",
    [
        (returns_in_a_loop, InvalidProgramError, "while with return"),
        (undefined_after, UnboundLocalError, "only one branch"),
        (changes_a_list, TypeError, "'kept' becomes list"),
        (no_source, InvalidProgramError, "truth value"),
    ],
)
def test_what_cannot_be_converted_is_refused(function, error, text):
    with pytest.raises(error, match=text):
        dy.declarative(function)(dy.to_variable(X))


# ---- StaticModelRunner -------------------------------------------------------------------------
def test_static_model_runner_trains_on(tmp_path):
    net = Net()
    net.eval()
    out, traced = dy.TracedLayer.trace(net, [dy.to_variable(X)])
    traced.save_inference_model(str(tmp_path / "m"))
    net.train()
    runner = dy.StaticModelRunner(str(tmp_path / "m"))
    runner.eval()
    got = runner(dy.to_variable(X))
    np.testing.assert_allclose(got.numpy(), out.numpy(), rtol=1e-6)
    runner.train()
    got = runner(dy.to_variable(X))
    assert not np.allclose(got.numpy(), out.numpy())  # by the batch's statistics
    layers.mean(layers.square(got - 1.0)).backward()
    weight = next(p for p in runner.parameters() if p.name == "linear_0.w_0")
    assert np.abs(weight.gradient()).sum() > 0


def halves(x):
    k = layers.fill_constant([1], "int32", 0)
    while k.numpy()[0] < 2:
        x = x * 0.5
        k = k + 1
    if layers.mean(x).numpy()[0] > 0.0 and x.shape[1] == 2:
        return x - 1.0
    return x + 1.0


def test_numpy_in_a_converted_condition_is_asked_when_the_program_runs():
    converted = dy.declarative(halves)
    for value in (4.0, -4.0):  # one Program serves both branches
        assert converted(dy.to_variable(np.full((1, 2), value, "float32"))).numpy().tolist() == [[0.0, 0.0]]
