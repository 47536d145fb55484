import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

from millstream.errors import InvalidProgramError, ShapeError

SMOOTH = {
    "sigmoid": {},
    "logsigmoid": {},
    "exp": {},
    "tanh": {},
    "tanh_shrink": {},
    "square": {},
    "sin": {},
    "cos": {},
    "atan": {},
    "erf": {},
    "gelu": {},
    "softplus": {},
    "softsign": {},
    "stanh": {"scale_a": 0.5, "scale_b": 2.0},
    "swish": {"beta": 1.5},
    "mish": {},
    "elu": {"alpha": 0.7},
    "selu": {},
    "soft_relu": {},
}
POSITIVE = {"log": {}, "log1p": {}, "sqrt": {}, "rsqrt": {}, "reciprocal": {}, "pow": {"factor": 2.5}}
INSIDE = {"acos": {}, "asin": {}}
PIECES = {
    "relu": {},
    "relu6": {"threshold": 1.0},
    "brelu": {"t_min": -1.0, "t_max": 1.0},
    "leaky_relu": {"alpha": 0.1},
    "abs": {},
    "hard_shrink": {"threshold": 0.7},
    "softshrink": {"lambda": 0.7},
    "thresholded_relu": {"threshold": 0.3},
    "hard_sigmoid": {},
    "ceil": {},
    "floor": {},
    "round": {},
    "sign": {},
    "hard_swish": {},
}


def check(op, attrs, low, high):
    x = np.random.RandomState(5).uniform(low, high, (3, 4))
    numeric_grad_check(op, {"X": x}, attrs, wrt=("X",))


@pytest.mark.parametrize("op", sorted(SMOOTH))
def test_smooth(op):
    check(op, SMOOTH[op], -2, 2)


@pytest.mark.parametrize("op", sorted(POSITIVE))
def test_positive(op):
    check(op, POSITIVE[op], 0.5, 2)


@pytest.mark.parametrize("op", sorted(INSIDE))
def test_inside(op):
    check(op, INSIDE[op], -0.8, 0.8)


@pytest.mark.parametrize("op", sorted(PIECES))
def test_pieces_away_from_their_kinks(op):
    check(op, PIECES[op], -1.9, 1.9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(-4, 3), st.integers(0, 99))
def test_softmax_sums_to_one_and_keeps_shape(shape, axis, seed):
    x = np.random.RandomState(seed).randn(*shape) * 30
    if not -len(shape) <= axis < len(shape):
        with pytest.raises(ShapeError, match="axis must be in"):
            run_op("softmax", {"X": x}, {"axis": axis})
        return
    out = run_op("softmax", {"X": x}, {"axis": axis})["Out"]
    assert out.shape == tuple(shape)
    np.testing.assert_allclose(out.sum(axis), 1.0)
    assert out.min() > 0  # logits are cut at 64 below the greatest


def test_softmax_gradient():
    numeric_grad_check("softmax", {"X": np.random.RandomState(0).randn(2, 3, 2)}, {"axis": 1}, wrt=("X",))


def test_round_of_few_is_away_from_zero_and_exact():
    x = np.array([0.5, 1.5, -0.5, -2.5, 0.49999997, 8388609.0], "float32")
    assert run_op("round", {"X": x})["Out"].tolist() == [1, 2, -1, -3, 0, 8388609]


def test_integers():
    x = np.array([-3, 0, 2])
    assert run_op("abs", {"X": x})["Out"].tolist() == [3, 0, 2]
    assert run_op("square", {"X": x})["Out"].tolist() == [9, 0, 4]
    assert run_op("pow", {"X": x}, {"factor": 2.9})["Out"].tolist() == [9, 0, 4]


def test_pow_factor_tensor_wins():
    x = np.array([2.0, 3.0], "float32")
    got = run_op("pow", {"X": x, "FactorTensor": np.array([3.0], "float32")}, {"factor": 1.0}, wrt=("X",))
    assert got["Out"].tolist() == [8, 27] and got.grads["X"].tolist() == [12, 27]


@pytest.mark.parametrize("axis, shape, out", [(1, (2, 6, 2, 3), (2, 3, 2, 3)), (3, (2, 2, 3, 6), (2, 2, 3, 3))])
def test_maxout(axis, shape, out):
    x = np.random.RandomState(1).permutation(72).reshape(shape).astype("float64")
    ran = run_op("maxout", {"X": x}, {"groups": 2, "axis": axis})
    assert ran["Out"].shape == out == ran.inferred["Out"]
    numeric_grad_check("maxout", {"X": x}, {"groups": 2, "axis": axis}, wrt=("X",))


def test_maxout_refuses():
    with pytest.raises(ShapeError, match="multiple of groups"):
        run_op("maxout", {"X": np.ones((1, 5, 2, 2))}, {"groups": 2})


@pytest.mark.parametrize("mode, alpha", [("all", (1,)), ("channel", (3,)), ("element", (1, 3, 2))])
def test_prelu(mode, alpha):
    rng = np.random.RandomState(2)
    ins = {"X": rng.randn(2, 3, 2), "Alpha": rng.rand(*alpha)}
    numeric_grad_check("prelu", ins, {"mode": mode}, wrt=("X", "Alpha"))


def test_prelu_refuses():
    x = np.ones((2, 3, 2))
    with pytest.raises(ShapeError, match="needs 3 weights"):
        run_op("prelu", {"X": x, "Alpha": np.ones(2)}, {"mode": "channel"})
    with pytest.raises(InvalidProgramError, match="mode must be"):
        run_op("prelu", {"X": x, "Alpha": np.ones(1)}, {"mode": "row"})


def test_batch_of_none_and_lod():
    assert run_op("relu", {"X": np.zeros((0, 3))})["Out"].size == 0
    ran = run_op("gelu", {"X": np.ones((3, 2))}, lods={"X": [[1, 2]]})
    assert ran.lods["Out"] == [[1, 2]]


def test_tanh_of_many_numbers():
    """Where numba is there, a loop of our own takes them."""
    import millstream.kernels.gates  # noqa: F401
    from millstream.ops.activation import tanh

    x = torch.linspace(-20, 20, 40_001)
    x[:5] = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0, 1e-30])
    np.testing.assert_allclose(tanh(x).numpy(), np.tanh(x.numpy().astype("float64")), 3e-6, 0)
    assert x[1] == float("inf")
