"""Batch normalisation by rows against float64."""

import numpy as np
import pytest
import torch

from millstream.kernels import batch_norm as kernels
from millstream.ops.nn import _norm_rows
from millstream.ops.nn._bend import NONE, RELU, Bend
from millstream.ops.nn._norm_channels import Running
from millstream.ops.nn._norm_rows import Norm

RNG = np.random.RandomState(8)


def statistics(x):
    blank = torch.zeros(x.shape[1])
    return [t.numpy() for t in _norm_rows.statistics(torch.from_numpy(x), Running(blank, blank, 0.0, 0.0))[:2]]


@pytest.mark.parametrize("shape", [(3, 5), (1000, 3), (4096, 32), (257, 300), (2, 1024)])
@pytest.mark.parametrize("center", [0.0, 1000.0])
def test_statistics(shape, center):
    x = (RNG.randn(*shape) * RNG.uniform(0.5, 3, shape[1]) + center).astype("float32")
    mean, variance = statistics(x)
    np.testing.assert_allclose(mean, x.astype("float64").mean(0), 1e-6, 1e-6)
    np.testing.assert_allclose(variance, x.astype("float64").var(0), 2e-6)


def test_a_channel_that_never_changes():
    mean, variance = statistics(np.full((640, 8), 0.1, "float32"))
    np.testing.assert_allclose(mean, np.float32(0.1), 1e-7)
    assert (variance < 1e-14).all()


def reference(x, scale, bias, bend):
    leaf = [t.double().requires_grad_() for t in (x, scale, bias)]
    y = torch.nn.functional.batch_norm(leaf[0], None, None, leaf[1], leaf[2], True, 0.0, 1e-5)
    return leaf, torch.nn.functional.leaky_relu(y, bend.slope).clamp(max=bend.most)


@pytest.mark.parametrize("bend", [RELU, Bend(0.1), NONE, Bend(0.0, 0.75)])
@pytest.mark.parametrize("shape", [(3, 24, 27, 27), (44000, 24)])
def test_forward_and_backward(shape, bend):
    x = torch.from_numpy(RNG.randn(*shape).astype("float32") * 2 + 3)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    scale, bias = (torch.from_numpy(RNG.uniform(0.5, 2, 24).astype("float32")) for _ in range(2))
    dy = torch.from_numpy(RNG.randn(*shape).astype("float32"))  # in another order than x
    leaf, wanted = reference(x, scale, bias, bend)
    wanted.backward(dy.double())
    norm = Norm(scale, bias, 1e-5, "NCHW", bend)
    y, mean_out, var_out, saved_mean, saved_inv = _norm_rows.forward(x, norm, torch.zeros(24), torch.ones(24), 0.9)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, wanted.detach().float(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(mean_out, saved_mean * 0.1, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(var_out, 0.9 + 0.1 * (saved_inv.pow(-2) - 1e-5), rtol=1e-5, atol=1e-6)
    found = _norm_rows.backward(x, norm, saved_mean, saved_inv, dy)
    for mine, other in zip(found, leaf):
        torch.testing.assert_close(mine, other.grad.float(), rtol=1e-5, atol=2e-5)


def test_relu_of_what_has_no_bound():
    x = torch.tensor([[-float("inf"), -1.0, 0.0, float("inf")]] * 4000).repeat(1, 4)
    y = torch.empty_like(x)
    kernels.forward(x.numpy(), np.ones(16, "float32"), np.zeros(16, "float32"), RELU.numbers(), None, y.numpy())
    assert torch.equal(y, torch.relu(x)) and not torch.signbit(y).any()
    kernels.forward(x.numpy(), np.ones(16, "float32"), np.zeros(16, "float32"), Bend(0.0, 6.0).numbers(), None, y.numpy())
    assert torch.equal(y, torch.nn.functional.relu6(x)) and not torch.signbit(y).any()


def test_nan_stays():
    x = torch.randn(66000, 16)
    x[3, 2] = float("nan")
    norm = Norm(torch.ones(16), torch.zeros(16), 1e-5, "NCHW", RELU)
    y = _norm_rows.forward(x, norm, torch.zeros(16), torch.ones(16), 0.9)[0]
    assert y[:, 2].isnan().all() and not y[:, 3:].isnan().any()


def test_other_orders_and_small_maps_are_left_to_torch():
    norm = Norm(torch.ones(16), torch.zeros(16), 1e-5, "NCHW", RELU)
    for x in (torch.randn(4, 16, 32, 32), torch.randn(8, 16), torch.randn(2000, 16), torch.randn(66000, 16).half()):
        assert _norm_rows.forward(x, norm, torch.zeros(16), torch.ones(16), 0.9) is None


@pytest.mark.parametrize(("residual", "most"), [(False, float("inf")), (True, float("inf")), (False, 0.75)])
def test_bfloat16(residual, most):
    order = {"memory_format": torch.channels_last}
    x, other, dy = (torch.randn(3, 24, 27, 27).bfloat16().contiguous(**order) for _ in range(3))
    norm = Norm(torch.rand(24) + 0.5, torch.randn(24), 1e-5, "NCHW", Bend(0.0, most))
    leaves = [t.double().requires_grad_() for t in (x, norm.scale, norm.bias, other)]
    wanted = torch.nn.functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, 0.0, 1e-5)
    wanted = (wanted + leaves[3] if residual else wanted).clamp(0, most)
    wanted.backward(dy.double())
    given = torch.zeros(24), torch.ones(24), 0.9, other if residual else None
    y, _, _, saved_mean, saved_inv = _norm_rows.forward(x, norm, *given)
    assert (y.dtype, saved_mean.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.double(), wanted.detach(), rtol=1e-2, atol=1e-6)
    found = _norm_rows.backward(x, norm, saved_mean, saved_inv, dy, y if residual else None)
    for mine, leaf in zip(found[: 4 if residual else 3], leaves):
        torch.testing.assert_close(mine.double(), leaf.grad, rtol=1e-2, atol=2e-2)
