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


@pytest.mark.parametrize("channels", [1, 16, 20, 33, 80])
@pytest.mark.parametrize(
    "shape, kernel",
    [
        (((1, 1), (2, 2), (1, 1)), (5, 5)),
        (((2, 2), (3, 3), (1, 1)), (7, 7)),
        (((3, 2), (1, 4), (2, 1)), (1, 11)),
        (((1, 1), (5, 5), (1, 1)), (2, 2)),
        (((1, 1), (12, 12), (12, 12)), (3, 3)),
        (((1, 1), (0, 0), (1, 1)), (1, 1)),
    ],
)
def test_gradients_of_filters_of_any_size(shape, kernel, channels):
    stride, padding, dilation = shape
    x = RNG.randn(2, 13, 14, channels).astype("float32")
    leaf = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float64)
    filters = torch.zeros(channels, 1, *kernel, dtype=torch.float64, requires_grad=True)
    wanted = torch.conv2d(leaf, filters, None, stride, padding, dilation, channels)
    dy = RNG.randn(*wanted.permute(0, 2, 3, 1).shape).astype("float32")
    wanted.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2)).double())
    dw = kernels.backward_filter(x, dy, shape, kernel)
    np.testing.assert_allclose(dw, filters.grad.numpy()[:, 0].transpose(1, 2, 0), 1e-4, 1e-4)


def test_gradients_of_filters_by_several_threads():
    x, dy = (RNG.randn(2, 40, 40, 72).astype("float32") for _ in range(2))
    shape, found = ((1, 1), (2, 2), (1, 1)), []
    held = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(kernels.backward_filter(x, dy, shape, (5, 5)))
        finally:
            torch.set_num_threads(held)
    np.testing.assert_allclose(found[1], found[0], 1e-4, 1e-3)
