"""Between torch tensors and the numpy arrays that numba kernels take."""

from __future__ import annotations

import numpy as np
import torch


def array(t: torch.Tensor) -> np.ndarray:
    """The C-contiguous numpy array of a tensor (no copy for a contiguous CPU tensor)."""
    if not t.is_cpu:
        t = t.cpu()
    if t.requires_grad:
        t = t.detach()
    return t.numpy() if t.is_contiguous() else t.contiguous().numpy()


def tensor(a: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """A tensor on `like`'s device that shares the array's memory where it can."""
    t = torch.from_numpy(a)
    return t if like.device.type == "cpu" else t.to(like.device)


def exact(t: torch.Tensor) -> torch.Tensor:
    """The tensor in a dtype that kernels are compiled for (float32 or float64)."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()
