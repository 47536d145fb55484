"""Piecewise activations of many numbers, which take one pass, against what the same numbers give in few."""

import numba  # noqa: F401 - the loops are used where it is loaded
import numpy as np
import pytest
import torch

from millstream.ops import REGISTRY, activation_pieces

FORMS = {"relu6": {"threshold": 5.0}, "brelu": {"t_min": -1.0, "t_max": 4.0}, "hard_sigmoid": {}, "hard_swish": {}}
KINKS = [float("nan"), 0.0, -0.0, 5.0, -3.0, 3.0, 4.0, -1.0, 6.0, float("inf"), -float("inf")]


def results(name, x, dout):
    forward = REGISTRY.get(name).kernel(x, **FORMS[name])
    taken = forward if name in ("relu6", "hard_sigmoid") else x
    return forward, REGISTRY.get(name + "_grad").kernel(taken, dout, **FORMS[name])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", FORMS)
def test_many_numbers_as_few(name, order, monkeypatch):
    x, dout = (torch.from_numpy(np.random.randn(2, 16, 41, 37).astype("float32")) * 4 for _ in range(2))
    x.view(-1)[: len(KINKS)] = torch.tensor(KINKS)
    dout.view(-1)[5:8] = torch.tensor([float("nan"), float("inf"), -0.0])
    x = x.contiguous(memory_format=order)
    many = results(name, x, dout)
    monkeypatch.setattr(activation_pieces, "_MANY", x.numel() + 1)
    for found, expected in zip(many, results(name, x, dout)):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        assert found.shape == x.shape


def test_strided_and_other_types():
    x = torch.randn(512, 200)[:, ::2]
    for given in (x, x.double()):
        forward, grad = results("hard_swish", given, torch.ones_like(given))
        assert forward.dtype is given.dtype and grad.shape == given.shape
        torch.testing.assert_close(forward, torch.nn.functional.hardswish(given))
