import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import ShapeError

FORMULA = {
    "elementwise_add": np.add,
    "elementwise_sub": np.subtract,
    "elementwise_mul": np.multiply,
    "elementwise_div": np.divide,
    "elementwise_max": np.maximum,
    "elementwise_min": np.minimum,
    "elementwise_pow": np.power,
}


def numbers(seed, shape):
    return np.random.RandomState(seed).uniform(0.5, 2.0, shape)


@st.composite
def aligned(draw):
    """Shapes of X and Y and an axis at which Y aligns; some dims of Y are 1."""
    x = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    start = draw(st.integers(0, len(x) - 1))
    end = draw(st.integers(start + 1, len(x)))
    y = [d if draw(st.booleans()) else 1 for d in x[start:end]]
    return tuple(x), tuple(y), start


@settings(max_examples=40, deadline=None)
@given(aligned(), st.sampled_from(sorted(FORMULA)), st.integers(0, 1000))
def test_broadcast_at_axis_is_a_reshape(shapes, op, seed):
    x_shape, y_shape, axis = shapes
    x, y = numbers(seed, x_shape), numbers(seed + 1, y_shape)
    same_rank = len(x_shape) == len(y_shape)
    full = y if same_rank else y.reshape((1,) * axis + y_shape + (1,) * (len(x_shape) - axis - len(y_shape)))
    ran = run_op(op, {"X": x, "Y": y}, {"axis": -1 if same_rank else axis}, wrt=("X", "Y"))
    np.testing.assert_allclose(ran["Out"], FORMULA[op](x, full), rtol=1e-12)
    assert ran.inferred["Out"] == ran["Out"].shape
    assert ran.grads["X"].shape == x_shape and ran.grads["Y"].shape == y_shape


@pytest.mark.parametrize("op", sorted(FORMULA))
@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3), -1), ((2, 3, 2), (3,), 1), ((3,), (2, 3), -1), ((2, 1, 2), (1, 3, 1), -1)]
)
def test_gradients(op, shapes):
    x_shape, y_shape, axis = shapes
    if op == "elementwise_pow" and len(x_shape) < len(y_shape):
        pytest.skip("Fluid computes Y ** X there and keeps the gradient of X ** Y")
    numeric_grad_check(op, {"X": numbers(3, x_shape), "Y": numbers(4, y_shape)}, {"axis": axis}, wrt=("X", "Y"))


def test_integers_truncate_and_keep_their_sign_rules():
    x, y = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    assert run_op("elementwise_div", {"X": x, "Y": y})["Out"].tolist() == [3, -3, -3, 3]
    assert run_op("elementwise_floordiv", {"X": x, "Y": y})["Out"].tolist() == [3, -3, -3, 3]
    assert run_op("elementwise_mod", {"X": x, "Y": y})["Out"].tolist() == [1, -1, 1, -1]
    floats = run_op("elementwise_mod", {"X": x.astype("float64"), "Y": y.astype("float64")})["Out"]
    assert floats.tolist() == [1, 1, -1, -1]


def test_operands_swap_when_y_has_more_dims():
    x, y = np.array([2, 3]), np.array([[5, 7], [9, 10]])
    assert run_op("elementwise_pow", {"X": x, "Y": y})["Out"].tolist() == [[25, 343], [81, 1000]]
    assert run_op("elementwise_mod", {"X": x, "Y": y})["Out"].tolist() == [[1, 1], [1, 1]]
    assert run_op("elementwise_sub", {"X": x, "Y": y})["Out"].tolist() == [[-3, -4], [-7, -7]]


def test_ties_send_the_gradient_to_y():
    x = np.ones(3)
    for op in ("elementwise_max", "elementwise_min"):
        grads = run_op(op, {"X": x, "Y": x}, wrt=("X", "Y")).grads
        assert grads["X"].tolist() == [0, 0, 0] and grads["Y"].tolist() == [1, 1, 1]


def test_lod_is_that_of_x():
    x = numbers(0, (3, 2))
    ran = run_op("elementwise_add", {"X": x, "Y": x}, lods={"X": [[1, 2]], "Y": [[2, 1]]})
    assert ran.lods["Out"] == [[1, 2]] and ran.inferred["Out"] == (-1, 2)


@pytest.mark.parametrize(
    "shapes, expected",
    [
        (((-1, 4), (4,)), (-1, 4)),
        (((-1, 1), (5, 1)), (5, 1)),
        (((-1, -1), (-1, 4)), (-1, 4)),
        (((1, 1), (-1, 1)), (-1, 1)),
        (((2, 0), (2, 1)), (2, -1)),
    ],
)
def test_inference_with_unknown_dims(shapes, expected):
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        block = fluid.default_main_program().global_block()
        x, y = (block.create_var(name=n, shape=s, dtype="float32") for n, s in zip("xy", shapes))
        out = block.create_var(name="out")
        block.append_op(type="elementwise_add", inputs={"X": x, "Y": y}, outputs={"Out": out})
        assert out.shape == expected


@pytest.mark.parametrize(
    "x, y, axis, words",
    [
        (np.ones((2, 3)), np.ones((2, 4)), -1, "received 3 and 4"),
        (np.ones((2, 3)), np.ones(2), -1, "axis says where"),
        (np.ones((2, 3, 4)), np.ones((3, 4)), 2, "leave room"),
        (np.ones((2, 3, 4)), np.ones(3), 5, "axis must be in"),
        (np.ones((2, 3)), np.ones((2, 3)), -2, "at least -1"),
        (np.ones((2, 3)), np.ones((2, 3), "int64"), -1, "FP64 and INT64"),
    ],
)
def test_what_does_not_fit_is_refused_at_build_time(x, y, axis, words):
    with pytest.raises(ShapeError, match=words):
        run_op("elementwise_add", {"X": x, "Y": y}, {"axis": axis})


def test_minus():
    numeric_grad_check("minus", {"X": numbers(0, (2, 2)), "Y": numbers(1, (2, 2))}, wrt=("X", "Y"))


@pytest.mark.parametrize(
    "op, formula",
    [
        ("less_than", np.less),
        ("less_equal", np.less_equal),
        ("greater_than", np.greater),
        ("equal", np.equal),
        ("greater_equal", np.greater_equal),
        ("not_equal", np.not_equal),
    ],
)
def test_comparison(op, formula):
    x, y = np.random.RandomState(0).randint(0, 3, (2, 3, 4)), np.random.RandomState(1).randint(0, 3, (3,))
    ran = run_op(op, {"X": x, "Y": y}, {"axis": 1})
    assert (ran["Out"] == formula(x, y[:, None])).all() and ran["Out"].dtype == bool
    with pytest.raises(ShapeError, match="at least as many dims"):
        run_op(op, {"X": y, "Y": x})


def test_whole_tensor_questions():
    x = np.array([1.0, np.inf, np.nan])
    assert run_op("isinf", {"X": x})["Out"].tolist() == [True]
    assert run_op("isnan", {"X": x[:2]})["Out"].tolist() == [False]
    assert run_op("isfinite", {"X": x[:1]})["Out"].tolist() == [True]
    assert run_op("is_empty", {"X": np.zeros((0, 3))})["Out"].tolist() == [True]
    assert run_op("equal_reduce", {"X": x[:2], "Y": x[:2]})["Out"].tolist() == [True]
    assert run_op("allclose", {"Input": x, "Other": x}, {"equal_nan": True})["Out"].tolist() == [True]
    assert run_op("allclose", {"Input": x, "Other": x})["Out"].tolist() == [False]
    flags = np.array([True, False])
    assert run_op("logical_xor", {"X": flags, "Y": ~flags})["Out"].tolist() == [True, True]
    with pytest.raises(ShapeError, match="as many elements"):
        run_op("logical_and", {"X": flags, "Y": np.ones(3, bool)})
