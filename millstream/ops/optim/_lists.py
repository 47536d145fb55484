"""Updates of lists of parameters in place, each operation of a formula one call for all of them.

The formulas are in the docstrings of the operators (adam.py, adaptive.py, descent.py). Gradients are not changed; tensors
of one position have one shape and dtype. Gradients may be SelectedRows, but for lamb and lars_momentum: rows that they do
not name are updated with a gradient of zero.
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.ops.optim import _onepass
from millstream.ops.optim._pieces import in_pieces

Tensors = list[torch.Tensor]


def own(aliased: frozenset[str], **tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of these output slots to update in place: copies of those that are no output's own (`aliased`)."""
    return [t if slot in aliased else t.clone() for slot, t in tensors.items()]


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


def adagrad(params: Tensors, grads: list[Any], moments: Tensors, rate: float, epsilon: float) -> None:
    if _onepass.ready(params, grads, moments):
        _onepass.adagrad(params, grads, moments, rate, epsilon)
        return

    def step(at: list[int], g: Tensors, p: Tensors, m: Tensors) -> None:
        torch._foreach_addcmul_(m, g, g)
        torch._foreach_addcdiv_(p, g, _root(m, epsilon), value=-rate)

    in_pieces(step, grads, params, moments)


def decayed_adagrad(
    params: Tensors, grads: list[Any], moments: Tensors, rate: float, decay: float, epsilon: float
) -> None:
    def step(at: list[int], g: Tensors, p: Tensors, m: Tensors) -> None:
        _mixed_square(m, g, decay)
        torch._foreach_addcdiv_(p, g, _root(m, epsilon), value=-rate)

    in_pieces(step, grads, params, moments)


def adadelta(
    params: Tensors, grads: list[Any], squared_grads: Tensors, squared_updates: Tensors, rho: float, epsilon: float,
    new_updates: bool = True,
) -> None:  # fmt: skip
    """`new_updates`: the parameter's step takes U after it took the update in, as Fluid's in-place operator does."""

    def move(u: Tensors, divisors: Tensors, g: Tensors) -> Tensors:
        found = torch._foreach_add(u, epsilon)
        torch._foreach_div_(found, divisors)
        torch._foreach_sqrt_(found)
        torch._foreach_mul_(found, g)
        return list(found)

    def step(at: list[int], g: Tensors, p: Tensors, s: Tensors, u: Tensors) -> None:
        _mixed_square(s, g, rho)
        divisors = list(torch._foreach_add(s, epsilon))
        update = move(u, divisors, g)
        _mixed_square(u, update, rho)
        torch._foreach_sub_(p, move(u, divisors, g) if new_updates else update)

    in_pieces(step, grads, params, squared_grads, squared_updates)


def rmsprop(
    params: Tensors, grads: list[Any], mean_squares: Tensors, mean_grads: Tensors | None, moments: Tensors, rate: float,
    epsilon: float, decay: float, momentum: float,
) -> None:  # fmt: skip
    """`mean_grads` is None where it is not centered."""

    def step(at: list[int], g: Tensors, p: Tensors, s: Tensors, v: Tensors, *means: Tensors) -> None:
        _mixed_square(s, g, decay)
        if means:
            _mixed(means[0], g, decay)
            spread = torch._foreach_addcmul(s, means[0], means[0], value=-1.0)
            torch._foreach_add_(spread, epsilon)
        else:
            spread = torch._foreach_add(s, epsilon)
        torch._foreach_sqrt_(spread)
        torch._foreach_mul_(v, momentum)
        torch._foreach_addcdiv_(v, g, spread, value=rate)
        torch._foreach_sub_(p, v)

    in_pieces(step, grads, params, mean_squares, moments, *([] if mean_grads is None else [mean_grads]))


def adamax(
    params: Tensors, grads: list[Any], moments: Tensors, norms: Tensors, rates: list[float], beta1: float, beta2: float,
    epsilon: float,
) -> None:  # fmt: skip
    """`rates`: one for each parameter."""

    def step(at: list[int], g: Tensors, p: Tensors, m: Tensors, u: Tensors) -> None:
        _mixed(m, g, beta1)
        torch._foreach_mul_(u, beta2)
        torch._foreach_add_(u, epsilon)
        torch._foreach_maximum_(u, torch._foreach_abs(g))
        torch._foreach_addcdiv_(p, m, u, [-rates[k] for k in at])

    in_pieces(step, grads, params, moments, norms)


def momentum(params: Tensors, grads: list[Any], velocity: Tensors, rate: float, mu: float, nesterov: bool) -> None:
    def step(at: list[int], g: Tensors, p: Tensors, v: Tensors) -> None:
        if _onepass.ready(p, g, v):
            _onepass.momentum(p, g, v, rate, mu, nesterov)
            return
        torch._foreach_mul_(v, mu)
        torch._foreach_add_(v, g)
        torch._foreach_add_(p, torch._foreach_add(g, v, alpha=mu) if nesterov else v, alpha=-rate)

    if _onepass.ready(params, grads, velocity):
        _onepass.momentum(params, grads, velocity, rate, mu, nesterov)
    else:
        in_pieces(step, grads, params, velocity)


def adam(
    params: Tensors, grads: list[Any], m1: Tensors, m2: Tensors, rate: float, beta1: float, beta2: float, epsilon: float
) -> None:
    def step(at: list[int], g: Tensors, p: Tensors, m: Tensors, v: Tensors) -> None:
        if _onepass.ready(p, g, m, v):
            _onepass.adam(p, g, m, v, rate, beta1, beta2, epsilon)
            return
        _mixed(m, g, beta1)
        _mixed_square(v, g, beta2)
        torch._foreach_addcdiv_(p, m, _root(v, epsilon), value=-rate)

    if _onepass.ready(params, grads, m1, m2):
        _onepass.adam(params, grads, m1, m2, rate, beta1, beta2, epsilon)
    else:
        in_pieces(step, grads, params, m1, m2)


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
    params: Tensors, grads: list[Any], squared: Tensors, linear: Tensors, rate: float, l1: float, l2: float, power: float
) -> None:
    def raised(tensors: Tensors) -> Tensors:
        return list(torch._foreach_sqrt(tensors) if power == -0.5 else torch._foreach_pow(tensors, -power))

    def step(at: list[int], g: Tensors, p: Tensors, s: Tensors, lines: Tensors) -> None:
        old = raised(s)
        torch._foreach_addcmul_(s, g, g)
        new = raised(s)
        torch._foreach_add_(lines, g)
        torch._foreach_sub_(old, new)
        torch._foreach_addcmul_(lines, old, p, value=1.0 / rate)
        torch._foreach_div_(new, rate)
        torch._foreach_add_(new, 2.0 * l2)
        for param, line, divisor in zip(p, lines, new):
            shrunk = torch.nn.functional.softshrink(line, l1) if l1 > 0 else line
            # a zero divisor belongs to an element that never had a gradient: 0 / 0 would be NaN
            param.copy_(torch.where(line.abs() > l1, -shrunk / divisor, 0.0))

    in_pieces(step, grads, params, squared, linear)
