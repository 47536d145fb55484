"""Layer normalisation of bfloat16 by rows against float64."""

import numba  # noqa: F401  the kernels are taken when it is there
import pytest
import torch

from millstream.kernels import layer_norm as kernels
from millstream.ops import REGISTRY
from millstream.ops.nn import _layer_norm_rows

FORWARD, BACK = (REGISTRY.get(name).kernel for name in ("layer_norm", "layer_norm_grad"))
ALL = (True, True, True)


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.WORTH", 1000)
    monkeypatch.setattr(_layer_norm_rows, "_LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def expected(x, scale, bias, dy, columns, epsilon):
    """(y, mean, variance, dx, dscale, dbias) in float64."""
    rows = x.double().reshape(-1, columns).requires_grad_()
    a, b = (None if v is None else v.double().requires_grad_() for v in (scale, bias))
    with torch.enable_grad():
        y = torch.nn.functional.layer_norm(rows, (columns,), a, b, epsilon)
        wanted = [v for v in (rows, a, b) if v is not None]
        found = iter(torch.autograd.grad(y, wanted, dy.double().reshape(-1, columns)))
    grads = [None if v is None else next(found) for v in (rows, a, b)]
    return y.detach(), rows.detach().mean(1), rows.detach().var(1, correction=0), *grads


@pytest.mark.parametrize(("shape", "axis"), [((3, 40, 64), 2), ((70, 100), 1), ((5, 3, 17), 1), ((1, 33), 1), ((40, 1), 1)])
@pytest.mark.parametrize("given", ["both", "scale", "none"])
def test_values_and_gradients(shape, axis, given):
    columns = torch.Size(shape[axis:]).numel()
    x, dy = (torch.randn(shape) * 3 + 1).bfloat16(), torch.randn(shape).bfloat16()
    scale = torch.rand(columns) + 0.5 if given != "none" else None
    bias = torch.randn(columns) if given == "both" else None
    y, mean, variance, dx, dscale, dbias = expected(x, scale, bias, dy, columns, 1e-3)
    got = FORWARD(x, scale, bias, want=ALL, begin_norm_axis=axis, epsilon=1e-3)
    assert got[0].dtype is torch.bfloat16 and got[0].shape == x.shape
    torch.testing.assert_close(got[0].double().reshape(-1, columns), y, rtol=2**-8, atol=1e-5)
    torch.testing.assert_close(got[1].double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[2].double(), variance, rtol=1e-5, atol=1e-5)
    want = (True, scale is not None, bias is not None)
    back = BACK(x, scale, bias, *got[1:], dy, want=want, begin_norm_axis=axis, epsilon=1e-3)
    torch.testing.assert_close(back[0].double().reshape(-1, columns), dx, rtol=2**-8, atol=1e-3)
    for found, right in zip(back[1:], (dscale, dbias)):
        assert (found is None) == (right is None)
        if found is not None:
            torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-3)
    assert kernels.forward.signatures and kernels.backward.signatures


def test_gradients_of_parameters_are_summed_up_in_float32():
    x, dy, scale = torch.randn(2000, 32).bfloat16(), torch.rand(2000, 32).bfloat16(), torch.ones(32)
    _, mean, variance = FORWARD(x, scale, scale, want=ALL)
    _, _, dbias = BACK(x, scale, scale, mean, variance, dy, want=ALL)
    torch.testing.assert_close(dbias.double(), dy.double().sum(0), rtol=1e-6, atol=0)


def test_what_is_no_number_stays_in_its_row():
    x = torch.randn(64, 64).bfloat16()
    x[3, 5], x[7, 0] = float("nan"), float("inf")
    y = FORWARD(x, None, None, want=ALL)[0]
    lost = y.isnan().any(1)
    assert lost[[3, 7]].all() and lost.sum() == 2


def test_strided_rows_and_what_is_not_taken(monkeypatch):
    whole = torch.randn(64, 200).bfloat16()
    torch.testing.assert_close(FORWARD(whole[:, 8:72], None, None, want=ALL)[0],
                               FORWARD(whole[:, 8:72].contiguous(), None, None, want=ALL)[0])  # fmt: skip
    monkeypatch.setattr(_layer_norm_rows, "_LONGEST", 32)
    assert _layer_norm_rows.forward(whole, 200, None, None, 1e-5) is None
    assert _layer_norm_rows.forward(whole.float(), 200, None, None, 1e-5) is None
    assert FORWARD(whole, None, None, want=ALL)[0].shape == whole.shape
