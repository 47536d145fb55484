"""Bias, relu and a maximum of windows of 2 x 2 behind a convolution. Plans make it (fuse_bias_relu_pool)."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from millstream.kernels.threads import cuts, numba_is_loaded, run_parts
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation import relu_grad
from millstream.ops.nn.pool import pool2d, pool2d_grad

_MANY = 1 << 18  # numbers of a map for which numba is loaded
_WORK = 4  # what a number costs, in multiplications
_LAST = torch.channels_last


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import pooled as module

    return module


def _spec(x: Spec, bias: Spec) -> Spec:
    return x.like(shape=(*x.shape[:2], *(-1 if size < 0 else size // 2 for size in x.shape[2:])))


@op("bias_relu_pool", slots="X, Bias -> Out", infer=_spec, lod="X", grad_lod="X, Bias")
def bias_relu_pool(x, bias):
    """The maximum of each window of 2 x 2 of relu(X + Bias); X [N, C, H, W], Bias [C], Out [N, C, H // 2, W // 2]."""
    if not _takes(x, bias):
        return _pool(torch.relu_(x + bias.view(-1, 1, 1)))
    n, c, h, w = x.shape
    out = torch.empty((n, c, h // 2, w // 2), dtype=x.dtype, memory_format=_LAST)
    arrays = _pixels(x), bias.numpy(), _pixels(out)
    run_parts(_kernels().forward, [(*arrays, *cut) for cut in cuts(x.numel() * _WORK, n)])
    return out


@op("bias_relu_pool_grad", slots="X, Bias, Out, Out@GRAD -> X@GRAD, Bias@GRAD")
def bias_relu_pool_grad(x, bias, out, dout, *, want):
    """dX: dOut at the first of a window's greatest numbers where Out > 0; dBias: its sums by channel."""
    if not (_takes(x, bias) and out.is_contiguous(memory_format=_LAST) and type(dout) is torch.Tensor):
        y = torch.relu_(x + bias.view(-1, 1, 1))
        dx = relu_grad(y, pool2d_grad(y, _pool(y), dout, pooling_type="max", ksize=[2, 2], strides=[2, 2]))
        return dx if want[0] else None, dx.sum((0, 2, 3)) if want[1] else None
    dx = torch.empty_like(x)
    taken = cuts(2 * x.numel() * _WORK, x.shape[0])
    sums = x.new_empty((len(taken), x.shape[1]))
    arrays = _pixels(x), bias.numpy(), _pixels(out), _pixels(dout.contiguous(memory_format=_LAST)), _pixels(dx)
    run_parts(_kernels().backward, [(*arrays, line, *cut) for line, cut in zip(sums.numpy(), taken)])
    return dx, (sums[0] if len(taken) == 1 else sums.sum(0)) if want[1] else None


def _pool(y):
    return pool2d(y, pooling_type="max", ksize=[2, 2], strides=[2, 2])


def _takes(x, bias):
    """Whether our kernels are there, or worth loading numba, and take the map: float32, channels side by side."""
    return (
        type(x) is type(bias) is torch.Tensor
        and (x.numel() >= _MANY or numba_is_loaded())
        and x.dtype is bias.dtype is torch.float32
        and x.is_cpu
        and bias.is_cpu
        and x.is_contiguous(memory_format=_LAST)
        and bias.is_contiguous()
        and bias.numel() == x.shape[1]
        and min(x.shape[2:]) > 1
        and x.numel() > 0
        and not torch.is_grad_enabled()
    )


def _pixels(x):
    """[N, H, W, C], C-contiguous also where a size is 1."""
    n, c, h, w = x.shape
    return x.as_strided((n, h, w, c), (h * w * c, w * c, c, 1)).numpy()
