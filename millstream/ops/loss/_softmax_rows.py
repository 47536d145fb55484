"""The softmax of rows and its loss at labels by the kernels of softmax_loss.py, where these are worth numba's call.

All functions return None where they do not apply: to other than contiguous float32 scores on the CPU with int64 labels, to
few of them, and to labels that are neither a class nor `ignored`, whose error, or what they stand for, is that of torch.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.kernels.threads import cuts, numba_is_loaded, run_parts

_NARROW = 16  # scores from which on our kernel of both is faster than torch's six
_MANY, _WORK = 32_768, 20  # scores from which on our kernel is faster; what one of them costs in multiplications


@cache
def kernels() -> ModuleType:
    from millstream.kernels import softmax_loss as module

    return module


def fits_label(x: torch.Tensor, label: torch.Tensor, axis: int) -> bool:
    """Whether there is one label for each row of classes: feeds may have other sizes than the Program declares."""
    want = [*x.shape]
    want[axis] = 1
    return [*label.shape] == want


def _rows(x: torch.Tensor, label: torch.Tensor, ignored: int, least: int = _MANY) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores, or probabilities, [rows, classes] and labels as the kernels take them."""
    takes = (
        x.numel() >= least
        and numba_is_loaded()
        and x.dtype is torch.float32
        and label.dtype is torch.int64
        and x.is_cpu
        and type(x) is type(label) is torch.Tensor
        and x.is_contiguous()
        and label.is_contiguous()
        and not torch.is_grad_enabled()
        and fits_label(x, label, -1)
    )
    if not takes:
        return None
    at, classes = label.view(-1).numpy(), x.shape[-1]
    return (x.view(-1, classes).numpy(), at) if kernels().outside(at, classes, ignored) < 0 else None


def losses(x: torch.Tensor, label: torch.Tensor, ignored: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(softmax, -log of it at the label or 0 where that is `ignored`) of x [..., C] and label [..., 1]."""
    found = _rows(x, label, ignored)
    if found is None:
        return None
    rows, at = found
    y, loss = torch.empty_like(x), x.new_empty(label.shape)
    arrays = rows, at, ignored, y.view(rows.shape).numpy(), loss.view(-1).numpy()
    run_parts(kernels().losses, [(*arrays, *cut) for cut in cuts(x.numel() * _WORK, len(rows))])
    return y, loss


def losses_back(y: torch.Tensor, label: torch.Tensor, ignored: int | None, dloss: torch.Tensor) -> torch.Tensor | None:
    """dloss * (y - the label as one-hot), 0 where the label is `ignored` (None: no label is)."""
    fits = dloss.dtype is y.dtype and dloss.numel() == label.numel()
    found = _rows(y, label, 0 if ignored is None else ignored) if fits else None
    if found is None:
        return None
    rows, at = found
    d = torch.empty_like(y)
    given = rows, at, -1 if ignored is None else ignored, dloss.reshape(-1).contiguous().numpy(), d.view(rows.shape).numpy()
    run_parts(kernels().losses_back, [(*given, *cut) for cut in cuts(y.numel(), len(rows))])
    return d


def losses_with_gradient(
    x: torch.Tensor, label: torch.Tensor, ignored: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(gradient of x where that of each loss is `scale`, losses)."""
    found = _rows(x, label, ignored, _NARROW)
    if found is None:
        return None
    rows, at = found
    d, loss = torch.empty_like(x), x.new_empty(label.shape)
    arrays = rows, at, ignored, np.float32(scale), d.view(rows.shape).numpy(), loss.view(-1).numpy()
    run_parts(kernels().losses_with_gradient, [(*arrays, *cut) for cut in cuts(x.numel() * _WORK, len(rows))])
    return d, loss
