"""Updates in place that read and write each number once, through torch's fused optimizer kernels.

They take lists; each is of the formulas in adam.py and descent.py with equal rounding but for the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels.threads import numba_is_loaded, run_many

# Bias correction is in our rate: with this many steps torch's own powers of beta are 0, and its corrections 1.
_ENDLESS = torch.tensor(1e30)


# Numbers of a bfloat16 gradient that are read at a time, as float32 that stays in the cache.
_PIECE = 1 << 18
# Those of a tensor from which a kernel of our own is worth its call, and those that a thread takes at a time.
_WALK, _PART = 1 << 15, 1 << 18


def ready(*columns: Sequence[torch.Tensor]) -> bool:
    """Whether the kernels can take these tensors: contiguous, float32 or float64, of one shape, in main memory.

    The second column, gradients, may be bfloat16: see :func:`singly`.
    """
    dtype = columns[0][0].dtype
    # unlike columns of tensors, gradients may be SelectedRows
    if dtype is not torch.float32 and dtype is not torch.float64:
        return False
    for k, column in enumerate(columns):
        for p, t in zip(columns[0], column):
            if not (isinstance(t, torch.Tensor) and t.shape == p.shape and t.is_cpu and t.is_contiguous()):
                return False
            if t.dtype is not dtype and (k != 1 or t.dtype is not torch.bfloat16):
                return False
    return True


def is_half(grads: Sequence[Any]) -> bool:
    return any(isinstance(g, torch.Tensor) and g.dtype is torch.bfloat16 for g in grads)


class Walk(NamedTuple):
    """A kernel of kernels/updates.py with its numbers: an update that reads bfloat16 gradients itself."""

    kernel: str
    numbers: tuple[Any, ...]

    def run(self, grads: Sequence[torch.Tensor], *columns: Sequence[torch.Tensor]) -> None:
        from millstream.kernels import brain, updates

        numbers = [n if isinstance(n, bool) else np.float32(n) for n in self.numbers]
        calls = []
        for grad, param, *rest in zip(grads, *columns):
            arrays = param.view(-1).numpy(), brain.numbers(grad.view(-1)), *(t.view(-1).numpy() for t in rest)
            edges = [*range(0, grad.numel(), _PART), grad.numel()]
            calls += [(*arrays, *numbers, *ends) for ends in pairwise(edges)]
        run_many(getattr(updates, self.kernel), calls)


def singly(
    update: Callable[..., None], walk: Walk, grads: Sequence[torch.Tensor], *columns: Sequence[torch.Tensor]
) -> None:
    """update(grads, *columns) with gradients in the type of the first column.

    Large ones of bfloat16 take `walk`, or go piece by piece where it is not worth loading numba.
    """
    walks = columns[0][0].dtype is torch.float32 and numba_is_loaded()
    least = _WALK if walks else _PIECE
    near = [k for k, (g, p) in enumerate(zip(grads, columns[0])) if g.dtype is p.dtype or g.numel() <= least]
    if near:
        if len(near) == len(grads) and not is_half(grads):
            update(list(grads), *map(list, columns))
            return
        update([grads[k].to(columns[0][k].dtype) for k in near], *([c[k] for k in near] for c in columns))
    far = sorted(set(range(len(grads))).difference(near))
    if walks and far:
        walk.run([grads[k] for k in far], *([c[k] for k in far] for c in columns))
        return
    for k in far:
        flat, rest = grads[k].view(-1), [c[k].view(-1) for c in columns]
        piece = torch.empty(_PIECE, dtype=rest[0].dtype)
        for at in range(0, flat.numel(), _PIECE):
            part = flat[at : at + _PIECE]
            update([piece[: part.numel()].copy_(part)], *([c[at : at + _PIECE]] for c in rest))


def adam(
    params: list[torch.Tensor], grads: list[torch.Tensor], m: list[torch.Tensor], v: list[torch.Tensor], rate: float,
    beta1: float, beta2: float, epsilon: float, decay: float = 0.0,
) -> None:
    """params -= rate * m / (sqrt(v) + epsilon) after m and v took in the gradients + decay * params; all :func:`ready`."""
    torch._fused_adam_(
        params, grads, m, v, [], [_ENDLESS] * len(params), lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay,
        eps=epsilon, amsgrad=False, maximize=False,
    )  # fmt: skip


def momentum(
    params: list[torch.Tensor], grads: list[torch.Tensor], velocity: list[torch.Tensor], rate: float, mu: float,
    nesterov: bool, decay: float = 0.0,
) -> None:
    """velocity = mu * velocity + grad + decay * params; params -= rate * velocity (or Nesterov's step); all ready."""
    torch._fused_sgd_(
        params, grads, velocity, weight_decay=decay, momentum=mu, lr=rate, dampening=0.0, nesterov=nesterov,
        maximize=False, is_first_step=False,
    )  # fmt: skip


def sgd(params: list[torch.Tensor], grads: list[torch.Tensor], rate: float, decay: float) -> None:
    """params -= rate * (grad + decay * params); all :func:`ready`."""
    torch._fused_sgd_(
        params, grads, [], weight_decay=decay, momentum=0.0, lr=rate, dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False,
    )  # fmt: skip


def adagrad(
    params: list[torch.Tensor], grads: list[torch.Tensor], moments: list[torch.Tensor], rate: float, epsilon: float
) -> None:
    """moments += grads^2; params -= rate * grads / (sqrt(moments) + epsilon); all :func:`ready`."""
    torch._fused_adagrad_(
        params, grads, moments, [_ENDLESS] * len(params), lr=rate, lr_decay=0.0, weight_decay=0.0, eps=epsilon,
        maximize=False,
    )  # fmt: skip
