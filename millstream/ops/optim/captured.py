"""Updates as whole-step capture compiles them: formulas of tensors only, the rate included (``captured=`` in declarations).

The kernels beside read the learning rate on the host to hand it to torch's one-pass kernels, which compiled code can't.
"""

from __future__ import annotations

import torch


def sgd(param, lr, grad, *, aliased=frozenset()):
    return param - lr.reshape(()) * grad


def _decayed(params, grads, rate):
    grads = [g.to(p.dtype) for p, g in zip(params, grads)]  # of bfloat16, too
    return [g + rate * p for p, g in zip(params, grads)] if rate else grads


def fused_sgd(params, grads, lr, *, weight_decay: float = 0.0):
    return [sgd(p, lr, g) for p, g in zip(params, _decayed(params, grads, weight_decay))]


def momentum(param, grad, velocity, lr, *, mu: float, use_nesterov: bool = False, aliased=frozenset()):
    velocity = velocity * mu + grad
    step = grad + mu * velocity if use_nesterov else velocity
    return param - lr.reshape(()) * step, velocity


def fused_momentum(params, grads, velocity, lr, *, mu: float, use_nesterov: bool = False, weight_decay: float = 0.0):
    grads = _decayed(params, grads, weight_decay)
    pairs = [momentum(p, g, v, lr, mu=mu, use_nesterov=use_nesterov) for p, g, v in zip(params, grads, velocity)]
    return [p for p, _ in pairs], [v for _, v in pairs]


def adam(
    param, grad, lr, moment1, moment2, beta1_pow, beta2_pow, beta1_tensor, beta2_tensor, *, beta1: float = 0.9,
    beta2: float = 0.999, epsilon: float = 1e-8, lazy_mode: bool = False, min_row_size_to_use_multithread: int = 1000,
    aliased=frozenset(),
):  # fmt: skip
    beta1 = beta1 if beta1_tensor is None else beta1_tensor.reshape(())
    beta2 = beta2 if beta2_tensor is None else beta2_tensor.reshape(())
    rate = lr.reshape(()) * torch.sqrt(1.0 - beta2_pow.reshape(())) / (1.0 - beta1_pow.reshape(()))
    m1 = moment1 * beta1 + (1.0 - beta1) * grad
    m2 = moment2 * beta2 + (1.0 - beta2) * grad * grad
    return param - rate * m1 / (m2.sqrt() + epsilon), m1, m2, beta1_pow * beta1, beta2_pow * beta2


def fused_adam(
    params, grads, lr, moment1, moment2, beta1_pows, beta2_pows, *, beta1: float = 0.9, beta2: float = 0.999,
    epsilon: float = 1e-8, weight_decay: float = 0.0,
):  # fmt: skip
    grads = _decayed(params, grads, weight_decay)
    rows = [
        adam(p, g, lr, m1, m2, b1, b2, None, None, beta1=beta1, beta2=beta2, epsilon=epsilon)
        for p, g, m1, m2, b1, b2 in zip(params, grads, moment1, moment2, beta1_pows, beta2_pows)
    ]
    return tuple(list(column) for column in zip(*rows))


def adadelta(param, grad, squared_grad, squared_update, *, rho: float = 0.95, epsilon: float = 1e-6, aliased=frozenset()):
    squared_grad = rho * squared_grad + (1.0 - rho) * grad * grad
    update = torch.sqrt((squared_update + epsilon) / (squared_grad + epsilon)) * grad
    squared_update = rho * squared_update + (1.0 - rho) * update * update
    if "AvgSquaredUpdateOut" in aliased:
        update = torch.sqrt((squared_update + epsilon) / (squared_grad + epsilon)) * grad
    return param - update, squared_grad, squared_update


def fused_adadelta(
    params, grads, squared_grads, squared_updates, *, rho: float = 0.95, epsilon: float = 1e-6, weight_decay: float = 0.0
):
    own = frozenset({"AvgSquaredUpdateOut"})
    rows = [
        adadelta(p, g, s, u, rho=rho, epsilon=epsilon, aliased=own)
        for p, g, s, u in zip(params, _decayed(params, grads, weight_decay), squared_grads, squared_updates)
    ]
    return tuple(list(column) for column in zip(*rows))
