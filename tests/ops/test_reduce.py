import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import ShapeError

FORMULA = {"reduce_sum": np.sum, "reduce_mean": np.mean, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod}


@st.composite
def reductions(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rank = len(shape)
    dims = draw(st.lists(st.integers(-rank, rank - 1), min_size=1, max_size=rank))
    return tuple(shape), dims, draw(st.booleans()), draw(st.sampled_from(sorted(FORMULA)))


@settings(max_examples=60, deadline=None)
@given(reductions(), st.integers(0, 99))
def test_against_numpy(case, seed):
    shape, dims, keep, op = case
    x = np.random.RandomState(seed).uniform(0.5, 2, shape)
    ran = run_op(op, {"X": x}, {"dim": dims, "keep_dim": keep}, wrt=("X",))
    want = FORMULA[op](x, axis=tuple({d % len(shape) for d in dims}), keepdims=keep)
    assert ran["Out"].shape == (want.shape or (1,)) == ran.inferred["Out"]
    np.testing.assert_allclose(ran["Out"], want.reshape(ran["Out"].shape))
    assert ran.grads["X"].shape == shape


@pytest.mark.parametrize("op", sorted(FORMULA))
@pytest.mark.parametrize("attrs", [{"dim": [1]}, {"dim": [-1, 0], "keep_dim": True}, {"reduce_all": True}])
def test_gradients(op, attrs):
    numeric_grad_check(op, {"X": np.random.RandomState(0).uniform(0.5, 2, (2, 3, 2))}, attrs, wrt=("X",))


def test_ties_all_get_the_gradient():
    ran = run_op("reduce_max", {"X": np.array([[1.0, 1.0, 0.0]])}, {"dim": [1]}, wrt=("X",))
    assert ran.grads["X"].tolist() == [[1, 1, 0]]


def test_integers_and_out_dtype():
    x = np.array([[1, -4], [2, 2]], "int32")
    assert run_op("reduce_mean", {"X": x}, {"dim": [1]})["Out"].tolist() == [-1, 2]
    summed = run_op("reduce_sum", {"X": x}, {"dim": [1], "out_dtype": 6})["Out"]
    assert summed.dtype == np.float64 and summed.tolist() == [-3, 4]
    assert run_op("reduce_sum", {"X": x}, {"dim": [1]})["Out"].dtype == np.int32


def test_lod_goes_with_dim_0():
    x = np.ones((3, 2))
    assert run_op("reduce_sum", {"X": x}, {"dim": [1]}, lods={"X": [[1, 2]]}).lods["Out"] == [[1, 2]]
    assert run_op("reduce_sum", {"X": x}, {"dim": [0]}, lods={"X": [[1, 2]]}).lods["Out"] == []


@pytest.mark.parametrize("dims, words", [([2], "dim must be in"), ([], "at least one dim")])
def test_refused(dims, words):
    with pytest.raises(ShapeError, match=words):
        run_op("reduce_sum", {"X": np.ones((2, 3))}, {"dim": dims})


def test_mean():
    numeric_grad_check("mean", {"X": np.random.RandomState(0).randn(2, 3)}, wrt=("X",))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(exclusive, reverse):
    x = np.random.RandomState(0).randn(3, 4)
    attrs = {"axis": 1, "exclusive": exclusive, "reverse": reverse}
    y = x[:, ::-1] if reverse else x
    want = np.cumsum(y, 1) - (y if exclusive else 0)
    np.testing.assert_allclose(run_op("cumsum", {"X": x}, attrs)["Out"], want[:, ::-1] if reverse else want, atol=1e-12)
    numeric_grad_check("cumsum", {"X": x}, attrs, wrt=("X",))


@pytest.mark.parametrize(
    "op, attrs, outs, of",
    [
        ("norm", {"axis": 1, "epsilon": 1e-6}, ("Norm", "Out"), "Out"),
        ("p_norm", {"porder": 3.0, "axis": 0}, ("Out",), "Out"),
        ("p_norm", {"porder": 1.0, "axis": 1, "keepdim": True}, ("Out",), "Out"),
        ("frobenius_norm", {"dim": [1]}, ("Out",), "Out"),
        ("l1_norm", {}, ("Out",), "Out"),
        ("squared_l2_norm", {}, ("Out",), "Out"),
    ],
)
def test_norms(op, attrs, outs, of):
    numeric_grad_check(op, {"X": np.random.RandomState(3).randn(3, 4)}, attrs, outs, wrt=("X",), of=of)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.5, float("inf"), float("-inf")])
@pytest.mark.parametrize("y", [(3, 4), (4,), (3, 1)])
def test_dist(p, y):
    rng = np.random.RandomState(4)
    numeric_grad_check("dist", {"X": rng.randn(3, 4), "Y": rng.randn(*y)}, {"p": p}, wrt=("X", "Y"))


def test_squared_l2_distance_with_one_row():
    rng = np.random.RandomState(4)
    ins = {"X": rng.randn(3, 4), "Y": rng.randn(1, 4)}
    numeric_grad_check("squared_l2_distance", ins, outs=("sub_result", "Out"), wrt=("X", "Y"), of="Out")
    with pytest.raises(ShapeError, match="1 row or as many"):
        run_op("squared_l2_distance", {"X": rng.randn(3, 4), "Y": rng.randn(2, 4)}, outs=("sub_result", "Out"))


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_mean"])
@pytest.mark.parametrize(
    "attrs, found",
    [
        ({}, "float32"),
        ({"out_dtype": 6}, "float64"),
        ({"in_dtype": 5, "out_dtype": 6}, "float32"),
        ({"in_dtype": 6}, "float64"),
    ],
)
def test_the_dtype_of_the_gradient(op, attrs, found):
    """in_dtype's if that is given, else Out's, as in 1.8.5."""
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        x = fluid.data("x", [2, 3])
        x.stop_gradient = False
        out = program.global_block().create_var(name="out")
        program.global_block().append_op(op, inputs={"X": x}, outputs={"Out": out}, attrs={"dim": [1], **attrs})
        grads = fluid.gradients([out], [x])
    grad = fluid.Executor().run(program, feed={"x": np.ones((2, 3), "float32")}, fetch_list=grads)[0]
    assert grad.dtype == found and np.allclose(grad, 1 if op == "reduce_sum" else 1 / 3)
