"""Shuffles of channels by reshape2, transpose2 and reshape2: numbers of torch's, within channels-last memory."""

import pytest
import torch

import millstream.kernels.turn_channels  # noqa: F401 - loads numba, without which torch copies
from millstream.ops._opdef import REGISTRY


def kernel(name):
    return REGISTRY.get(name).kernel


def shuffled(x, groups):
    _, c, h, w = x.shape
    parts = kernel("reshape2")(x, None, [], shape=[-1, groups, c // groups, h, w])[0]
    turned = kernel("transpose2")(parts, axis=[0, 2, 1, 3, 4])[0]
    return kernel("reshape2")(turned, None, [], shape=[0, -1, h, w])[0]


def usual(x, groups):
    n, c, h, w = x.shape
    return x.contiguous().view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize(
    "size, groups", [((3, 58, 13, 14), 2), ((2, 24, 20, 21), 12), ((2, 30, 17, 16), 5), ((1, 6, 3, 2), 2)]
)
def test_channels_last(size, groups, dtype):
    x = torch.randn(size).mul(100).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out = shuffled(x, groups)
        assert torch.equal(out, usual(x, groups)) and out.is_contiguous(memory_format=torch.channels_last)
        back = kernel("reshape2_grad")(
            torch.empty(0, size[0], groups, size[1] // groups, *size[2:]),
            kernel("reshape2_grad")(torch.empty(0, size[0], size[1] // groups, groups, *size[2:]), out).transpose(1, 2),
        )
        back = kernel("reshape2_grad")(torch.empty(0, *size), back)
        assert torch.equal(back, x) and back.is_contiguous(memory_format=torch.channels_last)


def test_several_threads():
    x = torch.randn(2, 64, 60, 61).contiguous(memory_format=torch.channels_last)
    held = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.no_grad():
            assert torch.equal(shuffled(x, 2), usual(x, 2)) and torch.equal(shuffled(x, 32), usual(x, 32))
    finally:
        torch.set_num_threads(held)


@pytest.mark.parametrize(
    "size, groups", [((2, 8, 5, 6), 2), ((2, 8, 1, 1), 4), ((1, 8, 1, 7), 2), ((0, 8, 5, 6), 2), ((2, 1, 5, 6), 1)]
)
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_other_maps(size, groups, memory):
    x = torch.randn(size).contiguous(memory_format=memory)
    with torch.no_grad():
        n, c, h, w = size
        parts = x.view(n, groups, c // groups, h, w).transpose(1, 2)
        assert torch.equal(kernel("reshape2")(parts, None, [], shape=[n, c, h, w])[0], usual(x, groups))
        flat = kernel("reshape2")(parts, None, [], shape=[n, h, c, w])[0]
        assert torch.equal(flat, parts.contiguous().view(n, h, c, w))


def test_with_gradients():
    x = torch.randn(2, 8, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = shuffled(x, 2)
    out.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
