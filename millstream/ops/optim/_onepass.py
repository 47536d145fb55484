"""Updates in place that read and write each number once, through torch's fused optimizer kernels.

They take lists; each is of the formulas in adam.py and descent.py with equal rounding but for the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Bias correction is in our rate: with this many steps torch's own powers of beta are 0, and its corrections 1.
_ENDLESS = torch.tensor(1e30)


def ready(*columns: Sequence[torch.Tensor]) -> bool:
    """Whether the kernels can take these tensors: contiguous, float32 or float64, of one shape, in main memory."""
    dtype = columns[0][0].dtype
    # unlike columns of tensors, gradients may be SelectedRows
    if dtype is not torch.float32 and dtype is not torch.float64:
        return False
    return all(
        isinstance(t, torch.Tensor) and t.dtype is dtype and t.shape == p.shape and t.is_cpu and t.is_contiguous()
        for c in columns
        for p, t in zip(columns[0], c)
    )


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
