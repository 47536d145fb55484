"""Optimizer operators against the formulas in numpy; sparse gradients; inputs stay as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.ops import REGISTRY, SelectedRows
from millstream.ops.optim._sparse import searched

RATE = 0.1


def draw(rng, shape, low=-1.0):
    return torch.tensor(rng.uniform(low, 1.0, shape))


def run(name, *args, **attrs):
    """The kernel's outputs as arrays; fails when it changed an input."""
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    found = REGISTRY.get(name).kernel(*args, **attrs)
    for a, b in zip(args, before):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), f"{name} changed an input"
    return [v.numpy() for v in (found if isinstance(found, tuple) else (found,))]


def one(value):
    return torch.tensor([value], dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_formulas(seed, shape):
    rng = np.random.RandomState(seed)
    p, g, a = draw(rng, shape), draw(rng, shape), draw(rng, shape)
    sq, up = draw(rng, shape, 0.1), draw(rng, shape, 0.1)
    lr = one(RATE)
    np_p, np_g, np_a, np_sq, np_up = (t.numpy() for t in (p, g, a, sq, up))
    close = np.testing.assert_allclose

    close(run("sgd", p, lr, g)[0], np_p - RATE * np_g)
    v = 0.9 * np_a + np_g
    for nesterov, step in ((False, v), (True, np_g + 0.9 * v)):
        out = run("momentum", p, g, a, lr, mu=0.9, use_nesterov=nesterov)
        close(out[0], np_p - RATE * step)
        close(out[1], v)
    m = np_sq + np_g**2
    close(run("adagrad", p, g, sq, lr, epsilon=1e-6)[0], np_p - RATE * np_g / (np.sqrt(m) + 1e-6))
    m = 0.95 * np_sq + 0.05 * np_g**2
    close(run("decayed_adagrad", p, g, sq, lr, decay=0.95, epsilon=1e-6)[0], np_p - RATE * np_g / (np.sqrt(m) + 1e-6))
    d = np.sqrt((np_up + 1e-6) / (m + 1e-6)) * np_g
    close(run("adadelta", p, g, sq, up, rho=0.95, epsilon=1e-6)[0], np_p - d)
    new_up = 0.95 * np_up + 0.05 * d**2
    in_place = REGISTRY.get("adadelta").kernel(
        p, g, sq, up.clone(), rho=0.95, epsilon=1e-6, aliased=frozenset({"AvgSquaredUpdateOut"})
    )
    close(in_place[0], np_p - np.sqrt((new_up + 1e-6) / (m + 1e-6)) * np_g)
    close(in_place[2], new_up)
    m1, m2 = 0.9 * np_a + 0.1 * np_g, 0.99 * np_sq + 0.01 * np_g**2
    out = run("adam", p, g, lr, a, sq, one(0.9), one(0.99), None, None, beta1=0.9, beta2=0.99, epsilon=1e-3)
    close(out[0], np_p - RATE * np.sqrt(0.01) / 0.1 * m1 / (np.sqrt(m2) + 1e-3))
    close([out[3][0], out[4][0]], [0.81, 0.9801])
    inf = np.maximum(np.abs(np_g), 0.99 * np_sq + 1e-8)
    out = run("adamax", p, g, lr, a, sq, one(0.5), beta1=0.9, beta2=0.99, epsilon=1e-8)
    close(out[0], np_p - RATE / 0.5 * m1 / inf)
    ratio = m1 / (np.sqrt(m2) + 1e-6) + 0.01 * np_p
    trust = np.linalg.norm(np_p) / np.linalg.norm(ratio)
    out = run("lamb", p, g, lr, a, sq, one(0.9), one(0.99), weight_decay=0.01, beta1=0.9, beta2=0.99, epsilon=1e-6)
    close(out[0], np_p - RATE * trust * ratio)


def test_rmsprop_centered_needs_no_mean_grad_when_it_is_not():
    p, g, s = torch.ones(3), torch.ones(3), torch.ones(3)
    out = run("rmsprop", p, s, None, torch.tensor([0.1]), g, torch.zeros(3), decay=0.5, epsilon=0.0)
    np.testing.assert_allclose(out[0], 1 - 0.1, rtol=1e-6)
    assert out[3].shape == (3,)


@pytest.mark.parametrize("power", [-0.5, -0.3, 0.0])
def test_ftrl_leaves_untouched_elements_at_zero(power):
    z = torch.zeros(4)
    out = run("ftrl", torch.ones(4), z, z, z, torch.tensor([0.1]), l1=0.0, l2=0.0, lr_power=power)
    np.testing.assert_array_equal(out[0], np.zeros(4))


def sparse(rows, height=6, width=2):
    values = torch.arange(1.0, len(rows) * width + 1).reshape(len(rows), width)
    return SelectedRows(torch.tensor(rows), values, height)


def test_sparse_sgd_adds_repeats():
    grad = sparse([1, 4, 1])
    out = run("sgd", torch.zeros(6, 2), torch.tensor([1.0]), grad)[0]
    np.testing.assert_allclose(out, -grad.to_dense().numpy())


def test_sparse_adagrad_moves_only_its_rows():
    param, moment = torch.ones(6, 2), torch.ones(6, 2)
    grad = sparse([1, 4, 1])
    p, m = run("adagrad", param, grad, moment, torch.tensor([1.0]))
    dense_p, dense_m = run("adagrad", param, grad.to_dense(), moment, torch.tensor([1.0]))
    np.testing.assert_allclose(p, dense_p, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(m, dense_m, rtol=1e-6)
    assert (p[[0, 2, 3, 5]] == 1).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_sparse_adam(lazy):
    param, m1, m2 = torch.ones(6, 2), torch.full((6, 2), 0.5), torch.full((6, 2), 0.25)
    lr, b1, b2 = torch.tensor([0.1]), torch.tensor([0.9]), torch.tensor([0.99])
    grad = sparse([1, 4, 1])
    out = run("adam", param, grad, lr, m1, m2, b1, b2, None, None, beta1=0.9, beta2=0.99, lazy_mode=lazy)
    # Fluid's sparse path sees the powers one step further than the dense one
    want = run("adam", param, grad.to_dense(), lr, m1, m2, b1 * 0.9, b2 * 0.99, None, None, beta1=0.9, beta2=0.99)
    rows = [1, 4] if lazy else list(range(6))
    for got, dense in zip(out[:3], want[:3]):
        np.testing.assert_allclose(got[rows], dense[rows], rtol=1e-5)
    if lazy:
        assert (out[0][[0, 2, 3, 5]] == 1).all()


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 11), min_size=1, max_size=12))
def test_rows_that_a_bisection_finds(rows):
    grad = SelectedRows(torch.tensor(rows), torch.ones(len(rows), 1), 12)
    got = searched(grad).to_dense().reshape(-1).tolist()
    if len(set(rows)) < len(rows):
        found = sorted(set(rows))
    else:
        found = [r for r in rows if bisect(rows, r)]
    want = [float(rows.count(r)) if r in found else 0.0 for r in range(12)]
    assert got == want


@pytest.mark.parametrize("name, attrs", [("clip", {"min": -9.0, "max": 9.0}), ("clip_by_norm", {"max_norm": 99.0})])
@pytest.mark.parametrize("rows, want", [([4, 0, 2], [4, 0, 2]), ([4, 0, 4], [0, 4])])
def test_rows_without_repeats_keep_their_order(name, attrs, rows, want):
    grad = SelectedRows(torch.tensor(rows), torch.ones(3, 1), 6)
    assert REGISTRY.get("merge_selected_rows").kernel(grad).rows.tolist() == want
    bounds = (None, None) if name == "clip" else ()
    found = REGISTRY.get(name).kernel(grad, *bounds, **attrs)
    assert found.rows.tolist() == want
    assert torch.equal(found.to_dense(), grad.to_dense())


def bisect(rows, wanted):
    low, high = 0, len(rows) - 1
    while low <= high:
        middle = (low + high) // 2
        if rows[middle] == wanted:
            return True
        low, high = (middle + 1, high) if rows[middle] < wanted else (low, middle - 1)
    return False


def test_average_accumulates_starts_a_new_window():
    p, z = torch.full((2,), 2.0), torch.zeros(2)
    state = [z, z, z, *(torch.zeros(1, dtype=torch.int64) for _ in range(3))]
    seen = []
    for _ in range(6):
        out = REGISTRY.get("average_accumulates").kernel(
            p, *state, average_window=1.0, max_average_window=3, min_average_window=2
        )
        state = list(out)
        seen.append((int(out[3]), int(out[4]), int(out[5])))
        total = float((out[0] + out[1] + out[2])[0]) / (int(out[3]) + int(out[4]))
        assert total == 2.0  # the mean of a constant
    assert seen == [(1, 0, 1), (0, 2, 2), (1, 2, 3), (2, 2, 4), (0, 3, 5), (1, 3, 6)]


def test_dpsgd_clips_and_is_repeatable():
    p, g, lr = torch.zeros(3), torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0])
    quiet = run("dpsgd", p, g, lr, clip=1.0, batch_size=4.0, sigma=0.0, rng=torch.Generator().manual_seed(1))[0]
    np.testing.assert_allclose(quiet, [-0.6, -0.8, 0.0], rtol=1e-6)
    noisy = [
        run("dpsgd", p, g, lr, clip=1.0, batch_size=4.0, sigma=1.0, rng=torch.Generator().manual_seed(1))[0] for _ in "ab"
    ]
    np.testing.assert_array_equal(*noisy)
    assert np.abs(noisy[0] - quiet).max() > 0


def test_dgc_holds_back_the_small_ones():
    grad = torch.tensor([0.1, -3.0, 0.2, 2.0])
    z, zero, ranks = torch.zeros(4), torch.zeros(1), torch.ones(1)
    u, v, _, out, k, _ = REGISTRY.get("dgc").kernel(z, z, grad, None, zero, ranks, m=0.5, use_nesterov=False, sparsity=[0.5])
    assert out.tolist() == [0.0, -3.0, 0.0, 2.0] and int(k) == 2
    u, v, _, out, k, _ = REGISTRY.get("dgc").kernel(u, v, grad, None, zero, ranks, m=0.5, use_nesterov=False, sparsity=[0.5])
    np.testing.assert_allclose(v.numpy()[[0, 2]], [0.1 + 0.15, 0.2 + 0.3], rtol=1e-6)
    before = REGISTRY.get("dgc").kernel(z, z, grad, None, zero, ranks, sparsity=[0.5], rampup_begin_step=3.0)
    assert before[3] is grad


@pytest.mark.parametrize("sparse", [False, True])
def test_adagrad_in_place_is_the_same(sparse):
    param, moment = torch.rand(6, 3), torch.rand(6, 3)
    grad = SelectedRows(torch.tensor([4, 1, 4]), torch.randn(3, 3), 6) if sparse else torch.randn(6, 3)
    expected = run("adagrad", param.clone(), grad, moment.clone(), torch.tensor([0.5]))
    kernel = REGISTRY.get("adagrad").kernel
    found = kernel(param, grad, moment, torch.tensor([0.5]), aliased=frozenset({"ParamOut", "MomentOut"}))
    assert found[0] is param and found[1] is moment
    for mine, other in zip(found, expected):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def _state(rng, height, width):
    """Parameter, learning rate and states of the operators below, as tensors."""
    return {k: torch.tensor(rng.uniform(0.1, 1.0, (height, width))) for k in ("p", "a", "b", "c")}


ROW_UPDATES = {
    "momentum": (("p", None, "a", "lr"), {"mu": 0.9}),
    "nesterov": (("p", None, "a", "lr"), {"mu": 0.9, "use_nesterov": True}),
    "adam": (("p", None, "lr", "a", "b", "b1", "b2", None, None), {"beta1": 0.9, "beta2": 0.99}),
    "adamax": (("p", None, "lr", "a", "b", "b1"), {}),
    "rmsprop": (("p", "a", "b", "lr", None, "c"), {"centered": True, "momentum": 0.5}),
    "ftrl": (("p", "a", "b", None, "lr"), {"l1": 0.01}),
    "adadelta": (("p", None, "a", "b"), {}),
    "decayed_adagrad": (("p", None, "a", "lr"), {}),
}


@pytest.mark.parametrize("name", sorted(ROW_UPDATES))
@pytest.mark.parametrize(("height", "width"), [(7, 3), (9000, 5), (5, 40000)])
def test_rows_that_are_not_named_are_updated_with_zero(name, height, width):
    """Pieces of a table (kernels see no whole gradient) against the whole one, in place and not."""
    slots, attrs = ROW_UPDATES[name]
    rng = np.random.RandomState(height)
    rows = np.sort(rng.choice(height, min(height, 6), replace=False))
    rows = torch.tensor(np.concatenate([rows, rows[:2]]))
    grad = SelectedRows(rows, torch.tensor(rng.standard_normal((len(rows), width))), height)
    scalars = {"lr": one(0.1), "b1": one(0.9), "b2": one(0.99)}
    kernel = REGISTRY.get("momentum" if name == "nesterov" else name).kernel
    place = slots.index(None)
    every = frozenset({
        "ParamOut", "VelocityOut", "Moment1Out", "Moment2Out", "MomentOut", "InfNormOut", "MeanSquareOut", "MeanGradOut",
        "SquaredAccumOut", "LinearAccumOut", "AvgSquaredGradOut", "AvgSquaredUpdateOut",
    })  # fmt: skip
    state, found = _state(rng, height, width), []
    for gradient, aliased in ((grad, frozenset()), (grad, every), (grad.to_dense(), every)):
        if name == "adam" and not isinstance(gradient, SelectedRows):  # Fluid's sparse path has the powers advanced
            scalars.update(b1=one(0.81), b2=one(0.9801))
        if name == "adadelta" and not aliased:
            aliased = frozenset({"AvgSquaredUpdateOut"})
        values = {k: v.clone() for k, v in state.items()} | scalars
        args = [gradient if k == place else values.get(s) for k, s in enumerate(slots)]
        out = kernel(*args, **attrs, aliased=aliased)
        if aliased is every:
            assert out[0] is values["p"]
        elif not aliased:
            assert torch.equal(values["p"], state["p"])
        found.append(out[:3] if len(out) > 2 else out)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_a_row_that_the_table_does_not_have():
    grad = SelectedRows(torch.tensor([2, 9]), torch.ones(2, 3), 7)
    velocity, param = torch.zeros(7, 3), torch.ones(7, 3)
    with pytest.raises(IndexError, match="row 9 of a matrix of 7 rows"):
        own = frozenset({"ParamOut", "VelocityOut"})
        REGISTRY.get("momentum").kernel(param, grad, velocity, one(0.1), mu=0.9, aliased=own)
    assert not velocity.any() and (param == 1).all()
