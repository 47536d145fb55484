"""Eager variables: values, operators, gradients."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError, OperatorError, ShapeError

dy, layers = fluid.dygraph, fluid.layers


@pytest.fixture(autouse=True)
def eager():
    with dy.guard(), fluid.unique_name.guard():
        yield


def var(value, grad=False):
    v = dy.to_variable(np.array(value, "float32"))
    v.stop_gradient = not grad
    return v


def test_values_and_facts():
    x = var([[1, 2, 3], [4, 5, 6]])
    assert x.shape == [2, 3] and x.stop_gradient and not x.persistable and len(x) == 2
    assert dy.to_variable(x) is x
    assert x.name == "generated_var_0"
    assert dy.to_variable(x.numpy(), name="given").name == "given"
    x.numpy()[:] = 0  # a copy
    assert x.numpy().sum() == 21
    assert "[2, 3]" in str(x)
    assert float(layers.mean(x)) == 3.5 and int(layers.mean(x)) == 3 and bool(layers.mean(x))
    assert list(range(9))[dy.to_variable(np.array([2], "int32"))] == 2


def test_zero_copy_shares_memory():
    a = np.zeros(2, "float32")
    x = dy.to_variable(a, zero_copy=True)
    a[0] = 7
    assert x.numpy()[0] == 7


@pytest.mark.parametrize("value", [3, [1, 2], np.float32(3), "a", None])
def test_to_variable_refuses(value):
    with pytest.raises(TypeError, match="to_variable"):
        dy.to_variable(value)


@pytest.mark.parametrize(
    "code,want",
    [
        ("x + 1", [[2, 3], [4, 5]]),
        ("1 - x", [[0, -1], [-2, -3]]),
        ("x * x", [[1, 4], [9, 16]]),
        ("2 / x", [[2, 1], [2 / 3, 0.5]]),
        ("x ** 2", [[1, 4], [9, 16]]),
        ("2 ** x", [[2, 4], [8, 16]]),
        ("-x", [[-1, -2], [-3, -4]]),
        ("x % 2", [[1, 0], [1, 0]]),
        ("x > 2", [[False, False], [True, True]]),
        ("x == x", [[True, True], [True, True]]),
        ("x[0]", [1, 2]),
        ("x[-1]", [3, 4]),
        ("x[:, 1]", [2, 4]),
        ("x[0, 1]", [2]),
        ("x[::-1]", [[3, 4], [1, 2]]),
        ("x[0:9]", [[1, 2], [3, 4]]),
        ("x.astype('int64')", [[1, 2], [3, 4]]),
    ],
)
def test_operators(code, want):
    np.testing.assert_allclose(eval(code, {"x": var([[1, 2], [3, 4]])}).numpy(), want, rtol=1e-6)


def test_iteration_and_bounds():
    x = var([[1, 2], [3, 4]])
    assert [v.numpy().tolist() for v in x] == [[1, 2], [3, 4]]
    with pytest.raises(IndexError, match="index 2"):
        x[2]


def test_identity_in_dicts_and_lists():
    x, y = var([1, 2]), var([1, 2])
    assert {x: 1}[x] == 1 and x in [x]
    with pytest.raises(InvalidProgramError, match="one element"):
        assert x in [y]


def test_set_value():
    x = var([[1, 2]])
    x.set_value(np.array([[3, 4]], "float32"))
    assert x.numpy().tolist() == [[3, 4]]
    with pytest.raises(InvalidProgramError, match=r"expected shape \[1, 2\]"):
        x.set_value(np.zeros((2, 2), "float32"))
    with pytest.raises(InvalidProgramError, match="float32, received float64"):
        x.set_value(np.zeros((1, 2)))
    x.value().get_tensor().set(np.array([[8, 9]], "float32"), fluid.CPUPlace())
    assert x.numpy().tolist() == [[8, 9]]


def test_gradients_replace_earlier_ones():
    x = var([1, 2], grad=True)
    for factor in (3.0, 5.0):
        layers.reduce_sum(x * factor).backward()
        assert x.gradient().tolist() == [factor, factor]
    x.clear_gradient()
    assert x.gradient().tolist() == [0, 0]
    assert var([1]).gradient() is None


def test_gradients_of_results():
    x = var([1, 2], grad=True)
    y = x * 2
    z = layers.reduce_sum(y * y)
    z.backward()
    assert y.gradient().tolist() == [4, 8] and z.gradient().tolist() == [1] and x.gradient().tolist() == [8, 16]


def test_sparse_gradient():
    table = dy.Embedding([5, 2], is_sparse=True)
    layers.reduce_sum(table(dy.to_variable(np.array([1, 3, 1])))).backward()
    values, rows = table.weight.gradient()
    assert rows.tolist() == [1, 3, 1] and values.tolist() == [[1, 1]] * 3
    before = table.weight.numpy()
    fluid.optimizer.Adam(0.1, parameter_list=table.parameters(), lazy_mode=True).minimize(var([0]))
    changed = (table.weight.numpy() != before).any(1)
    assert changed.tolist() == [False, True, False, True, False]


def test_backward_without_graph_warns():
    with pytest.warns(UserWarning, match="stop_gradient"):
        layers.mean(var([1, 2])).backward()


def test_backward_twice():
    x = var([1.0], grad=True)
    y = layers.square(x)
    y.backward(retain_graph=True)
    y.backward()
    y.backward()  # nothing is left of the graph, and nothing happens, as in 1.8.5
    np.testing.assert_allclose(x.gradient(), [2.0])
    with pytest.raises(OperatorError, match="retain_graph"):
        (y * 2).backward()
    with pytest.raises(TypeError, match="BackwardStrategy"):
        layers.square(x).backward(3)


def test_no_grad_as_context_decorator_and_generator():
    x = var([1.0], grad=True)
    with dy.no_grad():
        assert (x * 2).stop_gradient

    @dy.no_grad
    def double(v):
        return v * 2

    @dy.no_grad()
    def items():
        yield x * 2

    assert double(x).stop_gradient
    for item in items():
        assert item.stop_gradient and not (x * 2).stop_gradient


def test_grad():
    x = var([1, 2], grad=True)
    w = x * 3
    y = w * x
    assert dy.grad(y, x, retain_graph=True)[0].numpy().tolist() == [6, 12]
    assert dy.grad(y, x, no_grad_vars=[w], retain_graph=True)[0].numpy().tolist() == [3, 6]
    assert dy.grad(y, [x, w], grad_outputs=[var([2, 2])])[1].numpy().tolist() == [2, 4]
    assert x.gradient() is None
    cube = x * x * x
    first = dy.grad(cube, x, create_graph=True)[0]
    assert dy.grad(first, x)[0].numpy().tolist() == [6, 12]


def test_second_derivative_through_a_declared_gradient():
    x = var([0.3, 0.7], grad=True)
    first = dy.grad(layers.elu(x * -1.0), x, create_graph=True)[0]
    second = dy.grad(first, x)[0]
    np.testing.assert_allclose(second.numpy(), np.exp([-0.3, -0.7]), rtol=1e-5)


def test_grad_refuses():
    x, other = var([1], grad=True), var([1], grad=True)
    y = x * 2
    with pytest.raises(InvalidProgramError, match="allow_unused"):
        dy.grad(y, other, retain_graph=True)
    assert dy.grad(y, other, allow_unused=True) == [None]
    with pytest.raises(TypeError, match="outputs"):
        dy.grad(y.numpy(), x)
    with pytest.raises(InvalidProgramError, match="only_inputs"):
        dy.grad(y, x, only_inputs=False)
    with pytest.raises(InvalidProgramError, match="2 grad_outputs"):
        dy.grad(y, x, grad_outputs=[None, None])


def test_errors_name_operator_inputs_and_line():
    with pytest.raises(OperatorError, match=r"(?s)matmul.*linear_0\.w_0.*test_variables\.py"):
        dy.Linear(2, 3)(var([[1, 2, 3]]))


def test_control_flow_and_arrays_are_python():
    one = var([1])
    assert layers.cond(one > 0, lambda: one, lambda: one * 2) is one
    found = layers.while_loop(lambda i, s: i < 3, lambda i, s: [i + 1, s + i], [var([0]), var([0])])
    assert [float(v) for v in found] == [3, 3]
    assert float(layers.case([(one < 0, lambda: one)], lambda: one * 5)) == 5
    assert float(layers.switch_case(dy.to_variable(np.array([1])), {0: lambda: one, 1: lambda: one * 4})) == 4
    array = layers.array_write(one, layers.zeros([1], "int64"))
    array = layers.array_write(one * 2, layers.array_length(array), array)
    assert float(layers.array_read(array, layers.ones([1], "int64"))) == 2
    assert layers.tensor_array_to_tensor(array, axis=0)[0].numpy().tolist() == [1, 2]


def test_modes():
    assert dy.enabled() and fluid.in_dygraph_mode()
    assert layers.dropout(var([1.0] * 50), 0.5).numpy().tolist() != [0.5] * 50
    with dy.no_grad():
        assert layers.dropout(var([1.0] * 50), 0.5).numpy().tolist() == [0.5] * 50


def test_random_seed_repeats():
    def draw():
        with dy.guard():
            fluid.default_main_program().random_seed = fluid.default_startup_program().random_seed = 7
            return dy.Linear(3, 3).weight.numpy(), layers.uniform_random([4]).numpy()

    for a, b in zip(draw(), draw()):
        np.testing.assert_array_equal(a, b)


def test_variables_of_programs_are_refused():
    static = fluid.default_main_program().global_block().create_var(name="s", shape=[2], dtype="float32")
    with pytest.raises(InvalidProgramError, match="not an eager variable"):
        layers.relu(static)


def test_layers_with_states_of_their_own():
    image = var(np.ones((2, 3, 8, 8)))
    assert layers.random_crop(image, [3, 6, 6]).shape == [2, 3, 6, 6]
    zeros = layers.fill_constant([1, 2, 4], "float32", 0.0)
    assert layers.lstm(var(np.ones((5, 2, 4))), zeros, zeros, 20, 4, 1)[0].shape == [5, 2, 4]
    with pytest.raises(ShapeError, match=r"InitH must have shape \[1, 5, 4\]"):
        layers.lstm(var(np.ones((2, 5, 4))), zeros, zeros, 20, 4, 1)
    scores = layers.fc(var([[1, 2, 3]]), 4)
    scores._lod = (np.array([0, 1]),)
    weight = layers.create_parameter([6, 4], "float32", name="transitions")
    assert layers.crf_decoding(scores, fluid.ParamAttr(name="transitions")).shape == [1, 1]
    assert weight.name == "transitions"


def test_ints_beside_a_step_keep_their_dimension():
    x = var(np.arange(24).reshape(2, 3, 4).astype("float32"))
    assert x[0, ::2].shape == [1, 2, 4] and x[1, ::2, 1].numpy().ravel().tolist() == [13, 21]
    assert x[0, 1].shape == [4] and x[::-1, 0].shape == [2, 1, 4]
    assert str([x.dtype]) == "[VarType.FP32]"


def test_a_variable_cannot_be_asked_for_and_excluded():
    x = var([1.0], grad=True)
    with pytest.raises(RuntimeError, match="no_grad_vars"):
        dy.grad(x * 2, x, no_grad_vars=[x])
    assert dy.grad(x * 2, x, no_grad_vars=[x], allow_unused=True) == [None]


def test_layers_of_1_5_build_at_the_first_call():
    class Lazy(dy.Layer):
        def _build_once(self, x):
            self.w = self.create_parameter([x.shape[-1], 2])

        def forward(self, x):
            return layers.matmul(x, self.w)

    net = Lazy()
    assert net.parameters() == []
    net(var(np.ones((2, 3), "float32")))
    first = net.w
    net(var(np.ones((2, 3), "float32")))
    assert net.w is first and [p.name for p in net.parameters()] == ["lazy_0.w_0"]


def test_a_parameter_that_is_not_trained_has_a_gradient_all_the_same():
    """1.8.5: `trainable` is for optimizers, `stop_gradient` for autograd."""
    net = dy.Linear(2, 2, param_attr=fluid.ParamAttr(trainable=False))
    net.bias.trainable = False
    assert [(p.trainable, p.stop_gradient) for p in net.parameters()] == [(False, False)] * 2
    before = [p.numpy() for p in net.parameters()]
    loss = layers.mean(net(var(np.ones((1, 2), "float32"))))
    loss.backward()
    fluid.optimizer.SGD(0.1, parameter_list=net.parameters()).minimize(loss)
    assert net.weight.gradient().shape == (2, 2) and net.bias.gradient() is not None
    for was, p in zip(before, net.parameters()):
        np.testing.assert_array_equal(was, p.numpy())
