import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

from millstream.errors import NotSupportedError, ShapeError


def randn(*shape):
    return np.random.RandomState(sum(shape)).randn(*shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.5]))
def test_matmul_against_numpy(x_batch, y_batch, tx, ty, alpha):
    """Either operand may lack batch dims; those that are there are the same."""
    batch = (2, 3)
    if x_batch and y_batch:
        y_batch = x_batch
    x = randn(*batch[:x_batch], *((4, 5) if tx else (5, 4)))
    y = randn(*batch[:y_batch], *((2, 4) if ty else (4, 2)))
    ran = run_op("matmul", {"X": x, "Y": y}, {"transpose_X": tx, "transpose_Y": ty, "alpha": alpha}, wrt=("X", "Y"))
    want = alpha * (x.swapaxes(-1, -2) if tx else x) @ (y.swapaxes(-1, -2) if ty else y)
    np.testing.assert_allclose(ran["Out"], want, rtol=1e-10)
    assert ran.inferred["Out"] == want.shape
    assert ran.grads["X"].shape == x.shape and ran.grads["Y"].shape == y.shape


@pytest.mark.parametrize(
    "x, y, tx, ty",
    [
        ((3, 4), (4, 2), False, False),
        ((4, 3), (2, 4), True, True),
        ((2, 3, 4), (4, 2), False, False),
        ((2, 4, 3), (4, 2), True, False),
        ((3, 4), (2, 5, 4), False, True),
        ((4, 3), (2, 4, 5), True, False),
        ((2, 2, 3, 4), (4, 4, 5), False, False),
        ((4,), (4,), False, False),
        ((3, 4), (4,), False, False),
        ((2, 3, 4), (4,), False, False),
        ((4,), (2, 4, 3), False, False),
    ],
)
def test_matmul_gradients(x, y, tx, ty):
    attrs = {"transpose_X": tx, "transpose_Y": ty, "alpha": 0.5}
    numeric_grad_check("matmul", {"X": randn(*x), "Y": randn(*y)}, attrs, wrt=("X", "Y"))


@pytest.mark.parametrize(
    "x, y, tx, ty, shape",
    [((1,), (1, 5), True, False, (5,)), ((3,), (1, 5), True, False, (3, 5)), ((5, 1), (1,), False, True, (5,)),
     ((1,), (1,), True, True, (1,)), ((3,), (1,), True, True, (3,)), ((1,), (2, 1, 5), True, False, (2, 5))],
)  # fmt: skip
def test_a_vector_of_one_number_leaves_no_dim(x, y, tx, ty, shape):
    attrs = {"transpose_X": tx, "transpose_Y": ty}
    ran = run_op("matmul", {"X": randn(*x), "Y": randn(*y)}, attrs, wrt=("X", "Y"))
    assert ran["Out"].shape == tuple(ran.inferred["Out"]) == shape
    assert ran.grads["X"].shape == x


@pytest.mark.parametrize(
    "x, y, words",
    [
        ((2, 3), (4, 5), "received 3 from X"),
        ((2, 3, 4), (3, 4, 5), "batch dims"),
        ((1, 3, 4), (3, 4, 5), "batch dims"),
    ],
)
def test_matmul_refuses(x, y, words):
    with pytest.raises(ShapeError, match=words):
        run_op("matmul", {"X": randn(*x), "Y": randn(*y)})


@pytest.mark.parametrize(
    "x, y, attrs, out",
    [
        ((2, 3), (3, 4), {}, (2, 4)),
        ((2, 3, 4), (12, 5), {}, (2, 5)),
        ((2, 3, 4), (4, 5), {"x_num_col_dims": 2}, (2, 3, 5)),
        ((2, 6), (2, 3, 4, 2), {"y_num_col_dims": 2}, (2, 4, 2)),
    ],
)
def test_mul(x, y, attrs, out):
    assert run_op("mul", {"X": randn(*x), "Y": randn(*y)}, attrs).inferred["Out"] == out
    numeric_grad_check("mul", {"X": randn(*x), "Y": randn(*y)}, attrs, wrt=("X", "Y"))


def test_mul_refuses_and_keeps_unknown_dims():
    with pytest.raises(ShapeError, match="received 3 from X"):
        run_op("mul", {"X": randn(2, 3), "Y": randn(4, 5)})
    with pytest.raises(ShapeError, match="x_num_col_dims must be in"):
        run_op("mul", {"X": randn(2, 3), "Y": randn(3, 5)}, {"x_num_col_dims": 2})
    ran = run_op("mul", {"X": randn(2, 3), "Y": randn(3, 5)}, shapes={"X": [-1, 3]})
    assert ran.inferred["Out"] == (-1, 5) and ran["Out"].shape == (2, 5)


@pytest.mark.parametrize(
    "op, ins, attrs, outs, of",
    [
        ("bmm", {"X": (2, 3, 4), "Y": (2, 4, 2)}, {}, ("Out",), "Out"),
        ("dot", {"X": (3, 4), "Y": (3, 4)}, {}, ("Out",), "Out"),
        ("dot", {"X": (4,), "Y": (4,)}, {}, ("Out",), "Out"),
        ("addmm", {"Input": (3, 2), "X": (3, 4), "Y": (4, 2)}, {"Alpha": 0.5, "Beta": 2.0}, ("Out",), "Out"),
        ("addmm", {"Input": (1, 2), "X": (3, 4), "Y": (4, 2)}, {"Alpha": 0.5, "Beta": 2.0}, ("Out",), "Out"),
        ("kron", {"X": (2, 3), "Y": (2,)}, {}, ("Out",), "Out"),
        ("cross", {"X": (2, 3), "Y": (2, 3)}, {}, ("Out",), "Out"),
        ("cross", {"X": (3, 3), "Y": (3, 3)}, {"dim": 1}, ("Out",), "Out"),
        ("cos_sim", {"X": (3, 4), "Y": (3, 4)}, {}, ("Out", "XNorm", "YNorm"), "Out"),
        ("cos_sim", {"X": (3, 4), "Y": (1, 4)}, {}, ("Out", "XNorm", "YNorm"), "Out"),
        ("conv_shift", {"X": (2, 5), "Y": (2, 3)}, {}, ("Out",), "Out"),
        ("fsp", {"X": (2, 3, 2, 2), "Y": (2, 2, 2, 2)}, {}, ("Out",), "Out"),
        ("bilinear_tensor_product", {"X": (2, 3), "Y": (2, 4), "Weight": (2, 3, 4), "Bias": (1, 2)}, {}, ("Out",), "Out"),
    ],
)
def test_other_products(op, ins, attrs, outs, of):
    numeric_grad_check(op, {s: randn(*shape) for s, shape in ins.items()}, attrs, outs, wrt=tuple(ins), of=of)


def test_fc():
    x, w, b = randn(2, 3, 4), randn(12, 5), randn(5)
    got = run_op("fc", {"Input": x, "W": w, "Bias": b}, {"activation_type": "relu"})["Out"]
    np.testing.assert_allclose(got, np.maximum(x.reshape(2, 12) @ w + b, 0))
    padded = run_op("fc", {"Input": x, "W": np.pad(w, (0, 4)), "Bias": b}, {"padding_weights": True})["Out"]
    np.testing.assert_allclose(padded, x.reshape(2, 12) @ w + b)
    with pytest.raises(ShapeError, match="Bias must have 5"):
        run_op("fc", {"Input": x, "W": w, "Bias": randn(4)})


@pytest.mark.parametrize("tx", (False, True))
@pytest.mark.parametrize("ty", (False, True))
def test_heads_of_a_product(tx, ty):
    """Columns of X and rows of Y in parts, the products side by side; or Y's columns, where it has one head's rows."""

    def product(x, y, heads):
        x, y = (np.ascontiguousarray(v.swapaxes(-1, -2)) if t else v for v, t in ((x, tx), (y, ty)))
        attrs = {"transpose_X": tx, "transpose_Y": ty, "head_number": heads, "alpha": 0.5}
        ran = run_op("matmul", {"X": x, "Y": y}, attrs)
        assert tuple(ran.inferred["Out"]) == ran["Out"].shape
        return ran["Out"]

    x, tall, wide = randn(2, 3, 4), randn(2, 4, 6), randn(2, 6)
    expected = np.concatenate([x[..., :2] @ tall[:, :2], x[..., 2:] @ tall[:, 2:]], -1) / 2
    np.testing.assert_allclose(product(x, tall, 2), expected)
    expected = np.concatenate([x[0, :, :2] @ wide[:, :3], x[0, :, 2:] @ wide[:, 3:]], -1) / 2
    np.testing.assert_allclose(product(x[0], wide, 2), expected)
    with pytest.raises(ShapeError, match="head_number 3 must divide the 4 columns of X"):
        product(x, tall, 3)


def test_heads_have_no_gradient():
    with pytest.raises(NotSupportedError, match="head_number 2 is for inference"):
        run_op("matmul", {"X": randn(2, 4), "Y": randn(4, 6)}, {"head_number": 2}, wrt=("X",))


@pytest.mark.parametrize(("rows", "inner", "columns"), [(40, 1100, 64), (64, 96, 512)])
def test_products_that_come_again(rows, inner, columns):
    """Other kernels take a product whose shape was met some times: the numbers stay, whatever the rows do between."""
    x, w, d = (randn(*s).astype("float32") for s in ((rows, inner), (inner, columns), (rows, columns)))
    for turn in range(12):
        found = run_op("mul", {"X": x, "Y": w}, wrt=("X", "Y"), weights=d)
        for got, want in ((found["Out"], x @ w), (found.grads["X"], d @ w.T), (found.grads["Y"], x.T @ d)):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
        if turn % 3 == 0:
            more = randn(rows + turn, inner).astype("float32")
            np.testing.assert_allclose(run_op("mul", {"X": more, "Y": w})["Out"], more @ w, rtol=1e-4, atol=1e-3)
