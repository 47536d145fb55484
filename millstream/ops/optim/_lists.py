"""Updates of lists of parameters in place, each operation of a formula one call for all of them.

The formulas are in the docstrings of the operators (adam.py, adaptive.py, descent.py). Gradients are not changed; tensors
of one position have one shape and dtype. A rate is one number, or one for each parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from millstream.ops.optim import _onepass

Tensors = list[torch.Tensor]


def own(aliased: frozenset[str], **tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of these output slots to update in place: copies of those that are no output's own (`aliased`)."""
    return [t if slot in aliased else t.clone() for slot, t in tensors.items()]


def _stepped(params: Tensors, numerators: Tensors, denominators: Tensors, rate: Any) -> None:
    """params -= rate * numerators / denominators."""
    if isinstance(rate, Sequence):
        torch._foreach_addcdiv_(params, numerators, denominators, [-r for r in rate])
    else:
        torch._foreach_addcdiv_(params, numerators, denominators, value=-rate)


def _mixed(state: Tensors, new: Tensors, keep: float) -> None:
    """state = keep * state + (1 - keep) * new."""
    torch._foreach_mul_(state, keep)
    torch._foreach_add_(state, new, alpha=1.0 - keep)


def _mixed_square(state: Tensors, new: Tensors, keep: float) -> None:
    """state = keep * state + (1 - keep) * new^2."""
    torch._foreach_mul_(state, keep)
    torch._foreach_addcmul_(state, new, new, value=1.0 - keep)


def _root(squares: Tensors, epsilon: float) -> Tensors:
    """sqrt(squares) + epsilon."""
    found = torch._foreach_sqrt(squares)
    torch._foreach_add_(found, epsilon)
    return list(found)


def adagrad(params: Tensors, grads: Tensors, moments: Tensors, rate: float, epsilon: float) -> None:
    if _onepass.ready(params, grads, moments):
        _onepass.adagrad(params, grads, moments, rate, epsilon)
        return
    torch._foreach_addcmul_(moments, grads, grads)
    _stepped(params, grads, _root(moments, epsilon), rate)


def decayed_adagrad(
    params: Tensors, grads: Tensors, moments: Tensors, rate: float, decay: float, epsilon: float
) -> None:
    _mixed_square(moments, grads, decay)
    _stepped(params, grads, _root(moments, epsilon), rate)


def _adadelta_move(squared_updates: Tensors, divisors: Tensors, grads: Tensors, epsilon: float) -> Tensors:
    move = torch._foreach_add(squared_updates, epsilon)
    torch._foreach_div_(move, divisors)
    torch._foreach_sqrt_(move)
    torch._foreach_mul_(move, grads)
    return list(move)


def adadelta(
    params: Tensors, grads: Tensors, squared_grads: Tensors, squared_updates: Tensors, rho: float, epsilon: float,
    new_updates: bool = True,
) -> None:  # fmt: skip
    """`new_updates`: the parameter's step takes U after it took the update in, as Fluid's in-place operator does."""
    _mixed_square(squared_grads, grads, rho)
    divisors = list(torch._foreach_add(squared_grads, epsilon))
    move = _adadelta_move(squared_updates, divisors, grads, epsilon)
    _mixed_square(squared_updates, move, rho)
    torch._foreach_sub_(params, _adadelta_move(squared_updates, divisors, grads, epsilon) if new_updates else move)


def rmsprop(
    params: Tensors, grads: Tensors, mean_squares: Tensors, mean_grads: Tensors | None, moments: Tensors, rate: float,
    epsilon: float, decay: float, momentum: float,
) -> None:  # fmt: skip
    """`mean_grads` is None where it is not centered."""
    _mixed_square(mean_squares, grads, decay)
    if mean_grads is not None:
        _mixed(mean_grads, grads, decay)
        spread = torch._foreach_addcmul(mean_squares, mean_grads, mean_grads, value=-1.0)
        torch._foreach_add_(spread, epsilon)
    else:
        spread = torch._foreach_add(mean_squares, epsilon)
    torch._foreach_sqrt_(spread)
    torch._foreach_mul_(moments, momentum)
    torch._foreach_addcdiv_(moments, grads, spread, value=rate)
    torch._foreach_sub_(params, moments)


def adamax(
    params: Tensors, grads: Tensors, moments: Tensors, norms: Tensors, rates: list[float], beta1: float, beta2: float,
    epsilon: float,
) -> None:  # fmt: skip
    _mixed(moments, grads, beta1)
    torch._foreach_mul_(norms, beta2)
    torch._foreach_add_(norms, epsilon)
    torch._foreach_maximum_(norms, torch._foreach_abs(grads))
    _stepped(params, moments, norms, rates)


def _norms(tensors: Tensors) -> list[float]:
    return torch.stack(list(torch._foreach_norm(tensors))).tolist()


def lamb(
    params: Tensors, grads: Tensors, m1: Tensors, m2: Tensors, rate: float, weight_decay: float, beta1: float,
    beta2: float, epsilon: float,
) -> None:  # fmt: skip
    _mixed(m1, grads, beta1)
    _mixed_square(m2, grads, beta2)
    ratios = list(torch._foreach_div(m1, _root(m2, epsilon)))
    torch._foreach_add_(ratios, params, alpha=weight_decay)
    trust = [p / r if p > 0 and r > 0 else 1.0 for p, r in zip(_norms(params), _norms(ratios))]
    torch._foreach_mul_(ratios, [rate * t for t in trust])
    torch._foreach_sub_(params, ratios)


def lars_momentum(
    params: Tensors, grads: Tensors, velocity: Tensors, rate: float, mu: float, coefficient: float, decay: float
) -> None:
    rates = [
        rate * coefficient * p / (g + decay * p) if p > 0 and g > 0 else rate
        for p, g in zip(_norms(params), _norms(grads))
    ]
    steps = torch._foreach_add(grads, params, alpha=decay)
    torch._foreach_mul_(steps, rates)
    torch._foreach_mul_(velocity, mu)
    torch._foreach_add_(velocity, steps)
    torch._foreach_sub_(params, velocity)


def ftrl(
    params: Tensors, grads: Tensors, squared: Tensors, linear: Tensors, rate: float, l1: float, l2: float, power: float
) -> None:
    def raised(tensors: Tensors) -> Tensors:
        return list(torch._foreach_sqrt(tensors) if power == -0.5 else torch._foreach_pow(tensors, -power))

    old = raised(squared)
    torch._foreach_addcmul_(squared, grads, grads)
    new = raised(squared)
    torch._foreach_add_(linear, grads)
    torch._foreach_sub_(old, new)
    torch._foreach_addcmul_(linear, old, params, value=1.0 / rate)
    torch._foreach_div_(new, rate)
    torch._foreach_add_(new, 2.0 * l2)
    for param, line, divisor in zip(params, linear, new):
        shrunk = torch.nn.functional.softshrink(line, l1) if l1 > 0 else line
        # a zero divisor belongs to an element that never had a gradient: 0 / 0 would be NaN
        param.copy_(torch.where(line.abs() > l1, -shrunk / divisor, 0.0))
