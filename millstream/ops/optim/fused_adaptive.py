"""adagrad, rmsprop and the like over many parameters in one operator, in place. Plans make them (passes/fuse_optimizers.py).

Gradients are dense. `weight_decay` * Param is added to them (L2 decay).
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.ops._opdef import op
from millstream.ops.optim import _lists, captured
from millstream.ops.optim._sparse import scalar


def _columns(count: int) -> Any:
    """Inference: the first `count` lists that come beside the gradients, unchanged."""
    return lambda p, g, *rest, **_: (p, *rest[: count - 1])


def decayed(params, grads, rate):
    """Gradients with L2 decay."""
    return list(torch._foreach_add(grads, params, alpha=rate)) if rate else grads


@op(
    "fused_adagrad", slots="Param*, Grad*, Moment*, LearningRate -> ParamOut*, MomentOut*", infer=_columns(2), grad=False,
)  # fmt: skip
def fused_adagrad(params, grads, moments, lr, *, epsilon: float = 1e-6, weight_decay: float = 0.0):
    """adagrad of each Param."""
    _lists.adagrad(params, decayed(params, grads, weight_decay), moments, scalar(lr), epsilon)
    return params, moments


@op(
    "fused_decayed_adagrad", slots="Param*, Grad*, Moment*, LearningRate -> ParamOut*, MomentOut*", infer=_columns(2),
    grad=False,
)  # fmt: skip
def fused_decayed_adagrad(
    params, grads, moments, lr, *, decay: float = 0.95, epsilon: float = 1e-6, weight_decay: float = 0.0
):
    """decayed_adagrad of each Param."""
    _lists.decayed_adagrad(params, decayed(params, grads, weight_decay), moments, scalar(lr), decay, epsilon)
    return params, moments


@op(
    "fused_adadelta",
    slots="Param*, Grad*, AvgSquaredGrad*, AvgSquaredUpdate* -> ParamOut*, AvgSquaredGradOut*, AvgSquaredUpdateOut*",
    infer=_columns(3), grad=False, captured=captured.fused_adadelta,
)  # fmt: skip
def fused_adadelta(
    params, grads, squared_grads, squared_updates, *, rho: float = 0.95, epsilon: float = 1e-6, weight_decay: float = 0.0
):
    """adadelta of each Param."""
    grads = decayed(params, grads, weight_decay)
    _lists.adadelta(params, grads, squared_grads, squared_updates, rho, epsilon)
    return params, squared_grads, squared_updates


@op(
    "fused_rmsprop",
    slots="Param*, Grad*, MeanSquare*, MeanGrad*, Moment*, LearningRate "
    "-> ParamOut*, MeanSquareOut*, MeanGradOut*, MomentOut*",
    infer=_columns(4), grad=False,
)  # fmt: skip
def fused_rmsprop(
    params, grads, mean_squares, mean_grads, moments, lr, *, epsilon: float = 1e-10, decay: float = 0.9,
    momentum: float = 0.0, centered: bool = False, weight_decay: float = 0.0,
):  # fmt: skip
    """rmsprop of each Param."""
    grads, means = decayed(params, grads, weight_decay), mean_grads if centered else None
    _lists.rmsprop(params, grads, mean_squares, means, moments, scalar(lr), epsilon, decay, momentum)
    return params, mean_squares, mean_grads, moments


@op(
    "fused_ftrl",
    slots="Param*, Grad*, SquaredAccumulator*, LinearAccumulator*, LearningRate "
    "-> ParamOut*, SquaredAccumOut*, LinearAccumOut*",
    infer=_columns(3), grad=False,
)  # fmt: skip
def fused_ftrl(
    params, grads, squared, linear, lr, *, l1: float = 0.0, l2: float = 0.0, lr_power: float = -0.5,
    weight_decay: float = 0.0,
):  # fmt: skip
    """ftrl of each Param."""
    _lists.ftrl(params, decayed(params, grads, weight_decay), squared, linear, scalar(lr), l1, l2, lr_power)
    return params, squared, linear


@op(
    "fused_adamax",
    slots="Param*, Grad*, Moment*, InfNorm*, Beta1Pow*, LearningRate -> ParamOut*, MomentOut*, InfNormOut*",
    infer=_columns(3), grad=False,
)  # fmt: skip
def fused_adamax(
    params, grads, moments, norms, beta1_pows, lr, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
    weight_decay: float = 0.0,
):  # fmt: skip
    """adamax of each Param."""
    rate = scalar(lr)
    rates = [rate / (1.0 - power) for power in torch.cat([b.reshape(-1) for b in beta1_pows]).tolist()]
    _lists.adamax(params, decayed(params, grads, weight_decay), moments, norms, rates, beta1, beta2, epsilon)
    return params, moments, norms


@op(
    "fused_lamb",
    slots="Param*, Grad*, Moment1*, Moment2*, LearningRate -> ParamOut*, Moment1Out*, Moment2Out*", infer=_columns(3),
    grad=False,
)  # fmt: skip
def fused_lamb(
    params, grads, m1, m2, lr, *, lamb_decay: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6,
    weight_decay: float = 0.0,
):  # fmt: skip
    """lamb of each Param, whose own decay is `lamb_decay`."""
    _lists.lamb(params, decayed(params, grads, weight_decay), m1, m2, scalar(lr), lamb_decay, beta1, beta2, epsilon)
    return params, m1, m2


@op(
    "fused_lars_momentum", slots="Param*, Grad*, Velocity*, LearningRate -> ParamOut*, VelocityOut*", infer=_columns(2),
    grad=False,
)  # fmt: skip
def fused_lars_momentum(
    params, grads, velocity, lr, *, mu: float, lars_coeff: float = 0.001, lars_weight_decay: float = 0.0005,
    weight_decay: float = 0.0,
):  # fmt: skip
    """lars_momentum of each Param."""
    grads = decayed(params, grads, weight_decay)
    _lists.lars_momentum(params, grads, velocity, scalar(lr), mu, lars_coeff, lars_weight_decay)
    return params, velocity
