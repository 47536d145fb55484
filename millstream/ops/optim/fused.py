"""Updates of many parameters in one operator. Plans make them (passes/fuse_optimizers.py); Programs do not have them."""

from __future__ import annotations

from collections import defaultdict

import torch

from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows
from millstream.ops.optim import _onepass, captured
from millstream.ops.optim._sparse import scalar
from millstream.ops.optim.adam import adam, adam_rate
from millstream.ops.optim.descent import momentum, sgd


def _decayed(params, grads, rate):
    """Gradients with L2 decay, in the parameters' type; the pass fuses it only where they are dense."""
    if _onepass.is_half(grads):
        grads = [g.to(p.dtype) for p, g in zip(params, grads)]
    return list(torch._foreach_add(grads, params, alpha=rate)) if rate else grads


@op("fused_sgd", slots="Param*, Grad*, LearningRate -> ParamOut*", infer=lambda p, g, lr, **_: p, grad=False,
    captured=captured.fused_sgd)  # fmt: skip
def fused_sgd(params, grads, lr, *, weight_decay: float = 0.0):
    """sgd of each Param with Grad + weight_decay * Param, in place."""
    if weight_decay or _onepass.is_half(grads):
        if _onepass.ready(params, grads):
            rate = scalar(lr)
            walk = _onepass.Walk("sgd", (rate, weight_decay))
            _onepass.singly(lambda g, p: _onepass.sgd(p, g, rate, weight_decay), walk, grads, params)
            return params
        grads = _decayed(params, grads, weight_decay)
    if any(isinstance(g, SelectedRows) for g in grads):
        return [sgd(p, lr, g, aliased=frozenset({"ParamOut"})) for p, g in zip(params, grads)]
    torch._foreach_add_(params, grads, alpha=-scalar(lr))
    return params


@op(
    "fused_momentum", slots="Param*, Grad*, Velocity*, LearningRate -> ParamOut*, VelocityOut*",
    infer=lambda p, g, v, lr, **_: (p, v), grad=False, captured=captured.fused_momentum,
)  # fmt: skip
def fused_momentum(params, grads, velocity, lr, *, mu: float, use_nesterov: bool = False, weight_decay: float = 0.0):
    """momentum of each Param with Grad + weight_decay * Param, in place."""
    if _onepass.ready(params, grads, velocity):
        rate = scalar(lr)

        def update(g, p, v):
            _onepass.momentum(p, g, v, rate, mu, use_nesterov, weight_decay)

        walk = _onepass.Walk("momentum", (rate, mu, bool(use_nesterov), weight_decay))
        _onepass.singly(update, walk, grads, params, velocity)
    else:
        grads = _decayed(params, grads, weight_decay)
        both = frozenset({"ParamOut", "VelocityOut"})
        for p, g, v in zip(params, grads, velocity):
            momentum(p, g, v, lr, mu=mu, use_nesterov=use_nesterov, aliased=both)
    return params, velocity


@op(
    "fused_adam",
    slots="Param*, Grad*, LearningRate, Moment1*, Moment2*, Beta1Pow*, Beta2Pow* "
    "-> ParamOut*, Moment1Out*, Moment2Out*, Beta1PowOut*, Beta2PowOut*",
    infer=lambda p, g, lr, m1, m2, b1, b2, **_: (p, m1, m2, b1, b2), grad=False, captured=captured.fused_adam,
)  # fmt: skip
def fused_adam(
    params, grads, lr, moment1, moment2, beta1_pows, beta2_pows, *,
    beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0,
):  # fmt: skip
    """adam of each Param with Grad + weight_decay * Param, in place."""
    if not _onepass.ready(params, grads, moment1, moment2):
        grads = _decayed(params, grads, weight_decay)
        both = frozenset({"ParamOut", "Moment1Out", "Moment2Out"})
        rows = [
            adam(p, g, lr, m, v, b1, b2, None, None, beta1=beta1, beta2=beta2, epsilon=epsilon, aliased=both)
            for p, g, m, v, b1, b2 in zip(params, grads, moment1, moment2, beta1_pows, beta2_pows)
        ]
        return tuple(list(column) for column in zip(*rows))
    groups = defaultdict(list)  # parameters that joined later have other powers of beta
    first, second = (torch.cat([b if b.dim() == 1 else b.reshape(-1) for b in c]).tolist() for c in (beta1_pows, beta2_pows))
    for k, powers in enumerate(zip(first, second)):
        groups[powers].append(k)
    for powers, members in groups.items():
        rate = adam_rate(scalar(lr), *powers)

        def update(g, p, m1, m2, rate=rate):
            _onepass.adam(p, g, m1, m2, rate, beta1, beta2, epsilon, weight_decay)

        walk = _onepass.Walk("adam", (rate, beta1, 1 - beta1, beta2, 1 - beta2, epsilon, weight_decay))
        _onepass.singly(update, walk, *([c[k] for k in members] for c in (grads, params, moment1, moment2)))
    torch._foreach_mul_(beta1_pows, beta1)
    torch._foreach_mul_(beta2_pows, beta2)
    return params, moment1, moment2, beta1_pows, beta2_pows
