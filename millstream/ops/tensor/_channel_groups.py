"""Reshapes that end a shuffle of channels, within channels-last memory.

[N, C, H, W] -> [N, g, C/g, H, W] -> transposed -> [N, C, H, W] is two views and a copy, which torch makes in the usual order
of memory: the convolutions around it would reorder what they read, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from millstream.kernels.threads import numba_is_loaded

_MANY = 1 << 14  # numbers for which a kernel is worth its call


def reshape(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """x.reshape(shape); channels stay side by side where two dimensions of turned groups of them become one."""
    if x.dim() == 5 and len(shape) == 4 and type(x) is torch.Tensor and x.is_cpu and not torch.is_grad_enabled():
        n, each, groups, height, width = x.shape
        c = each * groups
        steps = (height * width * c, 1, each, width * c, c)
        turned = x.stride()[n == 1 :] == steps[n == 1 :]
        fits = all(d in (-1, size) for d, size in zip(shape, (n, c, height, width)))
        if turned and fits and min(each, groups) > 1 and x.numel() > 0:
            return _merged(x).permute(0, 3, 1, 2)
    return x.reshape(shape)


def _merged(x: torch.Tensor) -> torch.Tensor:
    """[N, H, W, each * groups]"""
    n, each, groups, height, width = x.shape
    if x.dtype is not torch.float32 or x.numel() < _MANY or not numba_is_loaded():
        return x.permute(0, 3, 4, 1, 2).reshape(n, height, width, -1)
    from millstream.kernels.turn_channels import turn

    out = x.new_empty(n, height, width, each * groups)
    turn(x.permute(0, 3, 4, 2, 1).reshape(-1, groups, each).numpy(), out.view(-1, each, groups).numpy())
    return out
