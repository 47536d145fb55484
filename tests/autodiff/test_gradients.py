"""append_backward and gradients: values, names, order, stops, callbacks."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError

L = fluid.layers


@pytest.fixture(autouse=True)
def fresh():
    programs = fluid.program_guard(fluid.Program(), fluid.Program())
    with fluid.unique_name.guard(), programs, fluid.scope_guard(fluid.Scope()):
        yield


def data(name="x", shape=(3, 4), stop=False):
    var = fluid.data(name, list(shape), "float32")
    var.stop_gradient = stop
    return var


def fetch(feed, *variables):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe.run(feed=feed, fetch_list=list(variables))


def types():
    return [op.type for op in fluid.default_main_program().global_block().ops]


X = np.random.RandomState(0).uniform(0.2, 1.0, (3, 4)).astype("float32")


def test_uses_add_up_before_their_consumer():
    x = data()
    a = L.square(x)
    loss = L.mean(L.elementwise_mul(a, a))
    (g,) = fluid.gradients([loss], [x])
    np.testing.assert_allclose(fetch({"x": X}, g)[0], 4 * X**3 / 12, rtol=1e-5)
    block = fluid.default_main_program().global_block()
    total = next(op for op in block.ops if op.type == "sum")
    assert total.input("X") == [f"{a.name}@GRAD@RENAME@block0@{k}" for k in (0, 1)]
    assert total.output("Out") == [a.name + "@GRAD"]
    assert types()[-2:] == ["sum", "square_grad"]


def test_sums_of_parameters_come_last():
    x = data()
    for name in ("v", "w", "v", "w"):
        x = L.fc(x, 4, param_attr=name, bias_attr=False)
    fluid.backward.append_backward(L.mean(x))
    ops = fluid.default_main_program().global_block().ops[-2:]
    assert [op.output("Out") for op in ops] == [["w@GRAD"], ["v@GRAD"]]  # by the first contribution


def test_later_passes_get_a_prefix():
    x = data()
    loss = L.mean(L.square(x))
    found = [fluid.gradients(loss, x)[0] for _ in range(3)]
    assert [g.name for g in found] == ["x@GRAD", "grad/grad/x@GRAD", "grad/grad/grad/x@GRAD"]
    for value in fetch({"x": X}, *found):
        np.testing.assert_allclose(value, X / 6, rtol=1e-5)


def test_gradient_of_a_gradient():
    x = data()
    loss = L.reduce_sum(L.elementwise_mul(L.square(x), x))  # x^3
    g = fluid.gradients(loss, x)[0]
    gg = fluid.gradients(L.reduce_sum(L.square(g)), x)[0]  # d (3 x^2)^2 = 36 x^3
    np.testing.assert_allclose(fetch({"x": X}, gg)[0], 36 * X**3, rtol=1e-4)


def test_gradient_penalty_reaches_parameters():
    x = data()
    w = L.create_parameter([4, 1], "float32", name="w")
    out = L.mul(L.tanh(L.mul(x, L.create_parameter([4, 4], "float32", name="v"))), w)
    g = fluid.gradients(out, x)[0]
    pairs = fluid.backward.append_backward(L.reduce_sum(L.square(g)))
    assert [p.name for p, _ in pairs] == ["w", "v"]
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.global_scope()
    exe.run(fluid.default_startup_program())
    values = {n: np.array(scope.find_var(n).get_tensor()) for n in ("w", "v")}

    def penalty(w, v):
        t = np.tanh(X @ v)
        return ((((1 - t**2) * w[:, 0]) @ v.T) ** 2).sum()

    got = exe.run(feed={"x": X}, fetch_list=[g for _, g in pairs])
    for name, grad in zip(("w", "v"), got):
        want = np.zeros_like(values[name])
        for index in np.ndindex(want.shape):
            up, down = ({k: v.astype("float64").copy() for k, v in values.items()} for _ in "ab")
            up[name][index] += 1e-4
            down[name][index] -= 1e-4
            want[index] = (penalty(**up) - penalty(**down)) / 2e-4
        np.testing.assert_allclose(grad, want, rtol=2e-2, atol=1e-3)


def test_stops_and_unrelated_inputs_give_none():
    x, y = data(), data("y")
    middle = L.tanh(x)
    assert fluid.gradients(L.relu(middle), [x, y], no_grad_set={middle.name}) == [None, None]
    g = fluid.gradients(L.square(x), [x, y])
    assert g[0] is not None and g[1] is None
    stopped = data("z", stop=True)
    assert fluid.gradients(L.square(stopped), stopped) == []  # one input: 1.8.5's list has nothing then
    assert fluid.backward.calc_gradient(L.square(stopped), stopped) is None
    label = fluid.data("label", [3, 1], "int64")
    assert fluid.gradients(L.cross_entropy(L.softmax(L.fc(x, 3)), label), label) == []


def test_a_target_that_is_an_input():
    """It has a gradient where an operator of the path touches it (1.8.5)."""
    x, other = data(), data("y")
    middle = L.square(x)
    loss, unrelated = L.reduce_sum(middle), L.reduce_sum(other)
    assert fluid.gradients(loss, [loss]) == []
    assert fluid.gradients(loss, [other, loss]) == [None, None]
    first, second = fluid.gradients([loss, unrelated], [loss, other])
    assert first is None and second is not None
    seed, gradient = fluid.gradients(loss, [loss, x])
    got = fetch({"x": X}, seed, gradient)
    assert got[0].item() == 1
    np.testing.assert_allclose(got[1], 2 * X, rtol=1e-6)


def test_inputs_may_be_in_the_middle():
    x = data()
    a = L.square(x)
    ga, gx = fluid.gradients(L.reduce_sum(L.square(a)), [a, x])
    got = fetch({"x": X}, ga, gx)
    np.testing.assert_allclose(got[0], 2 * X**2, rtol=1e-5)
    np.testing.assert_allclose(got[1], 4 * X**3, rtol=1e-5)


def test_target_gradients():
    x = data()
    weight = L.fill_constant([3, 4], "float32", 2.0)
    g = fluid.gradients([L.square(x), L.scale(x, 3.0)], [x], target_gradients=[weight, None])[0]
    np.testing.assert_allclose(fetch({"x": X}, g)[0], 4 * X + 3, rtol=1e-5)


def test_a_value_that_is_overwritten_keeps_its_own_gradient():
    x = data()
    a = L.square(x)
    b = L.tanh(a)
    L.assign(L.scale(b, 2.0), a)
    g = fluid.gradients(L.reduce_sum(L.elementwise_mul(a, b)), x)[0]
    t = np.tanh(X**2)
    np.testing.assert_allclose(fetch({"x": X}, g)[0], 4 * t * (1 - t**2) * 2 * X, rtol=1e-4)


def test_missing_output_gradients_are_zero():
    a, _ = L.split(L.square(data()), 2, dim=1)
    loss = L.reduce_sum(a)
    g = fluid.gradients(loss, fluid.default_main_program().global_block().var("x"))[0]
    assert "fill_zeros_like" in types()
    want = 2 * X
    want[:, 2:] = 0
    np.testing.assert_allclose(fetch({"x": X}, g)[0], want, rtol=1e-5)


def test_calc_gradient_returns_one_variable():
    x = data()
    assert fluid.backward.calc_gradient(L.square(x), x).name == "x@GRAD"
    assert isinstance(fluid.backward.calc_gradient(L.square(x), [x, data("y")]), list)


def test_error_clip_limits_the_gradient_on_its_way():
    x = data()
    h = L.fc(x, 4, bias_attr=False, param_attr=fluid.ParamAttr("w", initializer=fluid.initializer.Constant(1.0)))
    h.error_clip = fluid.clip.ErrorClipByValue(max=0.01)
    loss = L.reduce_sum(h)
    pairs = fluid.optimizer.SGD(0.1).backward(loss)
    np.testing.assert_allclose(fetch({"x": X}, pairs[0][1])[0], np.outer(X.sum(0), np.full(4, 0.01)), rtol=1e-4)


def test_callbacks_see_complete_gradients():
    x = data()
    a = L.square(x)
    loss = L.mean(L.elementwise_mul(a, a))
    L.create_parameter([1], "float32", name="unused")
    seen = []

    def note(block, context):
        op = block.ops[-1]
        seen.append((op.type, [n in context for n in op.output_arg_names]))

    fluid.backward.append_backward(loss, callbacks=note)
    assert ("elementwise_mul_grad", [False, False]) in seen and ("sum", [True]) in seen


def test_untrained_parameters_get_no_gradient():
    h = L.fc(data(stop=True), 4, bias_attr=fluid.ParamAttr(trainable=False))
    pairs = fluid.backward.append_backward(L.mean(h))
    assert [p.name for p, _ in pairs] == ["fc_0.w_0"]
    add = next(op for op in fluid.default_main_program().global_block().ops if op.type == "elementwise_add_grad")
    assert add.output("Y@GRAD") == []


def test_second_backward_after_an_optimizer():
    loss = L.mean(L.square(L.fc(data(stop=True), 2)))
    fluid.optimizer.SGD(0.1).minimize(loss)
    before = len(types())
    _, pairs = fluid.optimizer.SGD(0.1).minimize(L.scale(loss, 2.0))
    assert [g.name for _, g in pairs] == ["grad/grad/fc_0.w_0@GRAD", "grad/grad/fc_0.b_0@GRAD"]
    assert types()[before:].count("mul_grad") == 1


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x: fluid.backward.append_backward(L.square(x)), InvalidProgramError, "one element"),
        (lambda x: fluid.backward.append_backward("loss"), TypeError, "Variable"),
        (lambda x: fluid.gradients(3, x), TypeError, "targets"),
        (lambda x: fluid.gradients([L.square(x)], [x], [None, None]), InvalidProgramError, "2 target_gradients"),
        (lambda x: fluid.gradients([L.square(x)], [x], no_grad_set="x"), TypeError, "no_grad_set"),
        (lambda x: fluid.backward.append_backward(L.mean(x), callbacks=[3]), TypeError, "callable"),
        (lambda x: fluid.backward.append_backward(L.mean(x), checkpoints=["nothing"]), InvalidProgramError, "nothing"),
    ],
)
def test_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(data())


def test_frozen_parameters_and_updated_ones_have_gradients():
    """gradients() asks no Parameter whether it is trainable; hsigmoid names its weight as an output too."""
    half = fluid.initializer.Constant(0.5)
    x = data()
    hidden = L.fc(x, 4, param_attr=fluid.ParamAttr(initializer=half, trainable=False), bias_attr=False)
    label = L.fill_constant([3, 1], "int64", 2)
    loss = L.reduce_sum(L.square(L.hsigmoid(hidden, label, 8, param_attr=half, bias_attr=half)))
    grads = fluid.gradients([loss], [x, *fluid.default_main_program().all_parameters()])
    assert all(g is not None for g in grads)
    found = fetch({"x": np.arange(12, dtype="float32").reshape(3, 4) / 10}, *grads)
    assert all(np.abs(g).max() > 0 for g in found)


@pytest.mark.parametrize("in_place", [True, False])
def test_an_increment_passes_gradients_in_place_only(in_place):
    x = data()
    total = L.reduce_sum(x)
    squared = total * total
    more = L.increment(total, 1.0, in_place=in_place)
    (grad,) = fluid.gradients([L.reduce_sum(squared * more)], [x])
    (found,) = fetch({"x": np.ones((3, 4), "float32")}, grad)
    np.testing.assert_allclose(found, np.full((3, 4), 2 * 12 * 13 + (12 * 12 if in_place else 0)))


def test_a_sum_that_is_reshaped_in_place_and_whose_parts_are_read_elsewhere():
    x = data(shape=(3, 4))
    part = L.square(x)
    total = L.sums([x, part])
    square = L.reshape(total, [3, 2, 2], inplace=True)
    loss = L.reduce_sum(square * square) + L.reduce_sum(part)
    (grad,) = fluid.gradients([loss], [x])
    value = np.arange(12, dtype="float32").reshape(3, 4) / 8
    (got,) = fetch({"x": value}, grad)
    np.testing.assert_allclose(got, 2 * (value + value**2) * (1 + 2 * value) + 2 * value, rtol=1e-5)
