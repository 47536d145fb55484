"""Python's operators and indices on Variables mean what they mean in numpy."""

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers


def run(build, **feed):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        made = {}
        for name, value in feed.items():
            made[name] = fluid.data(name, [None, *value.shape[1:]], str(value.dtype))
        out = build(**made)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        return exe.run(main, feed=feed, fetch_list=[out])[0]


X = np.arange(1, 13, dtype="float32").reshape(3, 4) / 2
Y = np.arange(12, 0, -1).astype("float32").reshape(3, 4)

ARITHMETIC = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / y,
    lambda x, y: x**y,
    lambda x, y: x % y,
    lambda x, y: x + 1,
    lambda x, y: 1 - x,
    lambda x, y: x * 2.5,
    lambda x, y: x / 2,
    lambda x, y: 2 / x,
    lambda x, y: x**2,
    lambda x, y: 2**x,
    lambda x, y: -x,
    lambda x, y: x < y,
    lambda x, y: x >= 3,
    lambda x, y: x == 2,
    lambda x, y: x != y,
    lambda x, y: np.float32(2) * x,
    lambda x, y: x + np.array([1.0], "float32"),
]


@pytest.mark.parametrize("f", ARITHMETIC, ids=range(len(ARITHMETIC)))
def test_arithmetic(f):
    np.testing.assert_allclose(run(f, x=X, y=Y), f(X, Y), rtol=1e-6)


def test_integers_divide_toward_zero():
    a = np.array([[7, -7, 6, 1]], "int64")
    np.testing.assert_array_equal(run(lambda a: a / 2, a=a), [[3, -3, 3, 0]])
    np.testing.assert_array_equal(run(lambda a: a // 2, a=a), [[3, -3, 3, 0]])


def test_other_operand_takes_the_left_ones_type():
    a = np.array([[1, 2]], "int64")
    b = np.array([[1.5, 2.5]], "float32")
    np.testing.assert_allclose(run(lambda a, b: b + a, a=a, b=b), [[2.5, 4.5]])


T = np.arange(60, dtype="float32").reshape(3, 4, 5)
INDICES = [
    lambda t: t[0],
    lambda t: t[-1],
    lambda t: t[:, 1],
    lambda t: t[1:3],
    lambda t: t[:, -1],
    lambda t: t[:, 1:3, 2],
    lambda t: t[0, 1, 2:3],
    lambda t: t[:, ::2],
    lambda t: t[:, 3:0:-1],
    lambda t: t[::-1],
    lambda t: t[:, ::-1],
    lambda t: t[1, ::-1],
    lambda t: t[..., 0],
    lambda t: t[0, ..., 1:],
    lambda t: t[:-1, -2:],
    lambda t: t[0:2, ::2, 1],
]


@pytest.mark.parametrize("f", INDICES, ids=range(len(INDICES)))
def test_index(f):
    np.testing.assert_array_equal(run(f, t=T), f(T))


def test_index_by_a_variable():
    def build(t):
        i = L.fill_constant([1], "int32", 2)
        return L.concat([L.reshape(t[i], [-1]), L.reshape(t[0:i, 1], [-1]), L.reshape(t[:, i, 0], [-1])])

    want = np.concatenate([T[2].ravel(), T[0:2, 1].ravel(), T[:, 2, 0].ravel()])
    np.testing.assert_array_equal(run(build, t=T), want)


def test_everything_is_the_variable_itself():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        x = fluid.data("x", [None, 2])
        assert x[:] is x


def test_variables_stay_usable_as_keys():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        x, y = fluid.data("x", [None, 2]), fluid.data("y", [None, 2])
        assert {x: 1, y: 2}[y] == 2


def test_gradient_through_operators():
    def build(x):
        x.stop_gradient = False
        out = L.reduce_sum((x * x - 2 * x)[:, 1:3] / 4)
        return fluid.gradients(out, x)[0]

    want = np.zeros_like(X)
    want[:, 1:3] = (2 * X - 2)[:, 1:3] / 4
    np.testing.assert_allclose(run(build, x=X), want, rtol=1e-6)
