"""Depthwise convolutions against torch in float64."""

import numpy as np
import pytest
import torch

from millstream.kernels import depthwise as kernels

RNG = np.random.RandomState(5)


@pytest.mark.parametrize("shape", [((1, 1), (2, 2), (2, 2)), ((2, 1), (0, 3), (1, 3)), ((1, 1), (9, 9), (9, 9))])
def test_against_torch(shape):
    stride, padding, dilation = shape
    x, w = RNG.randn(2, 8, 9, 20).astype("float32"), RNG.randn(3, 2, 20).astype("float32")
    leaf = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    filters = torch.tensor(w.transpose(2, 0, 1)[:, None], dtype=torch.float64, requires_grad=True)
    wanted = torch.conv2d(leaf, filters, None, stride, padding, dilation, 20)
    dy = RNG.randn(*wanted.permute(0, 2, 3, 1).shape).astype("float32")
    wanted.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2)).double())
    y, dx = np.empty_like(dy), np.empty_like(x)
    kernels.forward(x, w, shape, y)
    kernels.backward_input(dy, w, shape, dx)
    dw = kernels.backward_filter(x, dy, shape, (3, 2))
    for mine, other in ((y, wanted), (dx, leaf.grad)):
        np.testing.assert_allclose(mine, other.detach().numpy().transpose(0, 2, 3, 1), 1e-4, 1e-5)
    np.testing.assert_allclose(dw, filters.grad.numpy()[:, 0].transpose(1, 2, 0), 1e-4, 1e-4)
