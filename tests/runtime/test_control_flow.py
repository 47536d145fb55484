"""Control flow: loops, branches and step Blocks, forward and trained, against plain numpy."""

from itertools import pairwise

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError, OperatorError

L = fluid.layers


def run(fetch, feed=None, **kwargs):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe.run(feed=feed, fetch_list=fetch, **kwargs)


def power_of_two(x, steps):
    """x doubled `steps` times in a While."""
    i = L.fill_constant([1], "int64", 0)
    n = L.fill_constant([1], "int64", steps)
    y = L.assign(x)
    cond = L.less_than(i, n)
    loop = L.While(cond)
    with loop.block():
        L.assign(L.scale(y, 2.0), y)
        L.increment(i)
        L.less_than(i, n, cond=cond)
    return y


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_while(steps):
    x = L.data("x", [3])
    (out,) = run([power_of_two(x, steps)], {"x": np.ones((2, 3), "float32")})
    np.testing.assert_allclose(out, 2.0**steps)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_gradient_through_while(steps):
    x = L.data("x", [3])
    x.stop_gradient = False
    (grad,) = fluid.gradients(L.reduce_sum(power_of_two(x, steps)), [x])
    (value,) = run([grad], {"x": np.ones((2, 3), "float32")})
    np.testing.assert_allclose(value, 2.0**steps)


def test_a_while_that_never_writes_its_condition_is_refused():
    cond = L.less_than(L.fill_constant([1], "int64", 0), L.fill_constant([1], "int64", 3))
    loop = L.While(cond)
    with pytest.raises(InvalidProgramError, match="never writes the condition"), loop.block():
        L.fill_constant([1], "float32", 1.0)


def test_a_condition_must_be_bool():
    with pytest.raises(TypeError, match="bool"):
        L.While(L.fill_constant([1], "int64", 0))


def test_nested_while_with_arrays():
    """table[i] = sum of 0..i, by a loop in a loop."""
    n = L.fill_constant([1], "int64", 4)
    i = L.fill_constant([1], "int64", 0)
    array = L.create_array("float32")
    outer_cond = L.less_than(i, n)
    outer = L.While(outer_cond)
    with outer.block():
        total = L.fill_constant([1], "float32", 0.0)
        j = L.fill_constant([1], "int64", 0)
        inner_cond = L.less_equal(j, i)
        inner = L.While(inner_cond)
        with inner.block():
            L.assign(L.elementwise_add(total, L.cast(j, "float32")), total)
            L.increment(j)
            L.less_equal(j, i, cond=inner_cond)
        L.array_write(total, i, array)
        L.increment(i)
        L.less_than(i, n, cond=outer_cond)
    values = [L.array_read(array, L.fill_constant([1], "int64", k)) for k in range(4)]
    got = run([*values, L.array_length(array)])
    assert [float(v[0]) for v in got[:4]] == [0, 1, 3, 6] and got[4][0] == 4


def test_reading_beyond_an_array_says_so():
    array = L.array_write(L.fill_constant([1], "float32", 1.0), L.fill_constant([1], "int64", 0))
    value = L.array_read(array, L.fill_constant([1], "int64", 3))
    with pytest.raises((InvalidProgramError, OperatorError), match="index 3 of an array with 1"):
        run([value])


def if_else(label, image):
    limit = L.fill_constant_batch_size_like(input=label, dtype="int64", shape=[1, 1], value=5.0)
    ie = L.IfElse(L.less_than(x=label, y=limit))
    with ie.true_block():
        hidden = L.fc(ie.input(image), 8, act="tanh")
        ie.output(L.fc(hidden, 3, act="softmax"))
    with ie.false_block():
        ie.output(L.fc(ie.input(image), 3, act="softmax"))
    return ie()[0]


@pytest.mark.parametrize("labels", [[1, 7, 3, 9], [1, 2, 3], [8, 9]])
def test_if_else_trains_even_if_one_branch_is_empty(labels):
    image, label = L.data("image", [6]), L.data("label", [1], dtype="int64")
    prob = if_else(label, image)
    loss = L.mean(L.cross_entropy(prob, L.elementwise_mod(label, L.fill_constant([1], "int64", 3))))
    fluid.optimizer.SGD(0.5).minimize(loss)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    feed = {
        "image": np.random.RandomState(0).randn(len(labels), 6).astype("float32"),
        "label": np.array(labels, "int64")[:, None],
    }
    losses = [exe.run(feed=feed, fetch_list=[loss])[0].item() for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def test_if_else_keeps_the_order_of_rows():
    x, flag = L.data("x", [1]), L.data("flag", [1], dtype="bool")
    ie = L.IfElse(flag)
    with ie.true_block():
        ie.output(L.scale(ie.input(x), 10.0))
    with ie.false_block():
        ie.output(L.scale(ie.input(x), -1.0))
    feed = {"x": np.arange(5, dtype="float32")[:, None], "flag": np.array([[1], [0], [0], [1], [1]], bool)}
    (out,) = run([ie()[0]], feed)
    np.testing.assert_allclose(out[:, 0], [0, -1, -2, 30, 40])


@pytest.mark.parametrize("value, want", [(1.0, 10.0), (6.0, 20.0), (11.0, 30.0)])
def test_switch_takes_the_first_case_that_holds(value, want):
    x = L.fill_constant([1], "float32", value)
    out = L.create_global_var([1], 0.0, "float32", persistable=True)
    with L.Switch() as switch:
        for limit, result in ((5.0, 10.0), (10.0, 20.0)):
            with switch.case(L.less_than(x, L.fill_constant([1], "float32", limit))):
                L.assign(L.fill_constant([1], "float32", result), out)
        with switch.default():
            L.assign(L.fill_constant([1], "float32", 30.0), out)
    assert run([out])[0][0] == want


def test_cond_and_its_gradient():
    x = L.data("x", [2])
    x.stop_gradient = False
    flag = L.data("flag", [1], dtype="bool", append_batch_size=False)
    out = L.cond(flag, lambda: L.scale(x, 3.0), lambda: L.square(x))
    (grad,) = fluid.gradients(L.reduce_sum(out), [x])
    data = np.array([[2.0, 5.0]], "float32")
    for chosen, value, slope in ((True, 3 * data, 3 + 0 * data), (False, data**2, 2 * data)):
        got = run([out, grad], {"x": data, "flag": np.array([chosen])})
        np.testing.assert_allclose(got[0], value)
        np.testing.assert_allclose(got[1], slope)


def test_branches_of_cond_must_agree():
    flag = L.fill_constant([1], "bool", 1)
    with pytest.raises(ValueError, match="true_fn gives 2 values"):
        L.cond(flag, lambda: [L.fill_constant([1], "float32", 1.0)] * 2, lambda: L.fill_constant([1], "float32", 1.0))


def test_while_loop_case_switch_case():
    i = L.fill_constant([1], "int64", 0)
    total = L.fill_constant([1], "float32", 0.0)
    ten = L.fill_constant([1], "int64", 10)
    _, total = L.while_loop(lambda i, t: L.less_than(i, ten), lambda i, t: [i + 1, t + 2.0], [i, total])
    index = L.fill_constant([1], "int32", 1)
    five, six = (lambda: L.fill_constant([1], "float32", 5.0)), (lambda: L.fill_constant([1], "float32", 6.0))
    chosen = L.switch_case(index, {0: five, 1: six})
    assert [float(v[0]) for v in run([total, chosen])] == [20.0, 6.0]


def numpy_rnn(x, w, u):
    h = np.zeros((x.shape[0], u.shape[1]), "float32")
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w + h @ u)
    return h


def test_static_rnn_equals_numpy_and_trains():
    x = L.data("x", [4, 5, 3], append_batch_size=False)
    x.stop_gradient = False
    rnn = L.StaticRNN()
    steps = L.transpose(x, [1, 0, 2])
    with rnn.step():
        word = rnn.step_input(steps)
        prev = rnn.memory(shape=[-1, 6], batch_ref=word)
        hidden = L.fc([word, prev], 6, act="tanh", bias_attr=False)
        rnn.update_memory(prev, hidden)
        rnn.step_output(hidden)
    last = L.slice(rnn(), [0], [4], [5])
    loss = L.mean(L.square(last))
    fluid.optimizer.SGD(0.5).minimize(loss)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    data = np.random.RandomState(0).randn(4, 5, 3).astype("float32")
    w, u = (np.array(fluid.global_scope().find_var(f"fc_0.w_{k}").get_tensor()) for k in range(2))
    first = exe.run(feed={"x": data}, fetch_list=[last, loss])
    np.testing.assert_allclose(first[0][0], numpy_rnn(data, w, u), rtol=1e-4, atol=1e-5)
    for _ in range(20):
        final = exe.run(feed={"x": data}, fetch_list=[loss])[0]
    assert final < first[1]


@pytest.mark.parametrize("lengths", [[3, 1, 4], [1], [2, 2], [5, 5, 1, 3]])
def test_dynamic_rnn_equals_numpy_for_unequal_lengths(lengths):
    x = L.data("x", [3], lod_level=1)
    rnn = L.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        prev = rnn.memory(shape=[6])
        hidden = L.fc([word, prev], 6, act="tanh", bias_attr=False)
        rnn.update_memory(prev, hidden)
        rnn.output(hidden)
    last = L.sequence_last_step(rnn())
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    data = np.random.RandomState(1).randn(sum(lengths), 3).astype("float32")
    feed = {"x": fluid.create_lod_tensor(data, [lengths], fluid.CPUPlace())}
    (got,) = exe.run(feed=feed, fetch_list=[last])
    w, u = (np.array(fluid.global_scope().find_var(f"fc_0.w_{k}").get_tensor()) for k in range(2))
    starts = np.cumsum([0, *lengths])
    want = [numpy_rnn(data[None, a:b], w, u)[0] for a, b in pairwise(starts)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_gradient_through_dynamic_rnn_is_that_of_differences():
    x = L.data("x", [2], dtype="float64", lod_level=1)
    x.stop_gradient = False
    rnn = L.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        prev = rnn.memory(shape=[2], dtype="float64")
        new = L.tanh(L.elementwise_add(L.scale(prev, 0.7), L.square(word)))
        rnn.update_memory(prev, new)
        rnn.output(new)
    loss = L.reduce_sum(L.square(rnn()))
    (grad,) = fluid.gradients(loss, [x])
    exe = fluid.Executor()
    data = np.random.RandomState(2).randn(6, 2)

    def value(a):
        return exe.run(feed={"x": fluid.create_lod_tensor(a, [[2, 1, 3]], fluid.CPUPlace())}, fetch_list=[loss])[0].item()

    feed = {"x": fluid.create_lod_tensor(data, [[2, 1, 3]], fluid.CPUPlace())}
    (found,) = exe.run(feed=feed, fetch_list=[grad], return_numpy=False)
    assert found.recursive_sequence_lengths() == [[2, 1, 3]]
    got = np.array(found)
    for index in np.ndindex(*data.shape):
        step = np.zeros_like(data)
        step[index] = 1e-6
        assert abs((value(data + step) - value(data - step)) / 2e-6 - got[index]) < 1e-6


def test_rnn_blocks_are_guarded():
    rnn = L.StaticRNN()
    with pytest.raises(InvalidProgramError, match=r"inside `with rnn\.step"):
        rnn.step_input(L.data("x", [3]))
    with pytest.raises(InvalidProgramError, match="only after"):
        rnn()
    dynamic = L.DynamicRNN()
    with pytest.raises(InvalidProgramError, match="call step_input"), dynamic.block():
        dynamic.memory(shape=[3])


def test_an_array_that_nothing_was_written_to_has_no_elements():
    """As in 1.8.5: its length is 0."""
    program = fluid.Program()
    with fluid.program_guard(program):
        length = fluid.layers.array_length(fluid.layers.create_array("float32"))
    assert fluid.Executor().run(program, fetch_list=[length])[0].tolist() == [0]


@pytest.mark.parametrize("default", [None, 9])
def test_switch_case_builds_the_last_branch_first(default):
    """Names of parameters follow. Without a default the branches are sorted, and the largest index is the default."""
    with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard():
        x = fluid.data("x", [1, 2])

        def branch(width):
            return lambda: L.reduce_sum(L.fc(x, width))

        widths = {1: 3, 7: 4, 5: 2} if default else {5: 3, 7: 4, 1: 2}
        chosen = {index: branch(width) for index, width in widths.items()}
        L.switch_case(fluid.data("i", [1], "int32"), chosen, branch(default) if default else None)
        weights = [p for p in fluid.default_main_program().all_parameters() if ".w_" in p.name]
    by_name = [p.shape[1] for p in sorted(weights, key=lambda p: p.name)]
    assert by_name == ([2, 4, 3, 9] if default else [3, 2, 4])


def test_cond_in_a_static_rnn_sees_its_memory():
    """The memory of a step is read in the branch only; gradients flow through both."""
    x = L.data("x", [3, 2, 2], append_batch_size=False)
    x.stop_gradient = False
    rnn = L.StaticRNN()
    with rnn.step():
        step = rnn.step_input(x)
        memory = rnn.memory(shape=[-1, 2], batch_ref=step)
        hidden = L.cond(L.reduce_mean(step) > 0.0, lambda: memory + step, lambda: memory * 0.5)
        rnn.update_memory(memory, hidden)
        rnn.step_output(hidden)
    out = rnn()
    (grad,) = fluid.gradients([L.reduce_sum(out)], [x])
    data = np.stack([np.full((2, 2), v, "float32") for v in (1.0, -3.0, 2.0)])
    found, grad = run([out, grad], {"x": data})
    np.testing.assert_allclose(found[:, 0, 0], [1.0, 0.5, 2.5])
    np.testing.assert_allclose(grad[:, 0, 0], [2.0, 0.0, 1.0])


def test_a_loop_reads_transposed_operands_and_gives_their_gradient():
    x = L.data("x", [3, 4])
    x.stop_gradient = False
    turned = L.transpose(x, [0, 2, 1])
    i, n = L.fill_constant([1], "int64", 0), L.fill_constant([1], "int64", 3)
    y = L.fill_constant([2, 1, 4], "float32", 1.0)
    y.stop_gradient = False
    cond = L.less_than(i, n)
    loop = L.While(cond)
    with loop.block():
        back = L.transpose(L.matmul(y, turned), [0, 2, 1])
        L.assign(L.transpose(L.matmul(turned, back), [0, 2, 1]), y)
        L.increment(i)
        L.less_than(i, n, cond=cond)
    (grad,) = fluid.gradients(L.reduce_sum(y), [x])
    value = np.random.RandomState(3).rand(2, 3, 4).astype("float32")

    def by_hand(v):
        found = np.ones((2, 1, 4))
        for _ in range(3):
            found = found @ v.transpose(0, 2, 1) @ v
        return found

    out, slope = run([y, grad], {"x": value})
    np.testing.assert_allclose(out, by_hand(value), rtol=1e-5)
    step = np.zeros((2, 3, 4))
    step[1, 2, 1] = 1e-5
    want = (by_hand(value + step).sum() - by_hand(value - step).sum()) / 2e-5
    np.testing.assert_allclose(slope[1, 2, 1], want, rtol=1e-3)
