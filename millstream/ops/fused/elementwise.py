"""A chain of elementwise operators in one call; after the first, each works in the memory of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError
from millstream.ops._broadcast import align
from millstream.ops._opdef import op

Step = Callable[[torch.Tensor, Any, float, float], torch.Tensor]


def _scale(t: torch.Tensor, _: Any, factor: float, shift: float) -> torch.Tensor:
    t = t if factor == 1 else t * factor
    return t + shift if shift else t


# name -> (into new memory, in place); arguments: value, other operand, two numbers
STEPS: dict[str, tuple[Step, Step]] = {
    "elementwise_add": (lambda t, y, a, b: t + y, lambda t, y, a, b: t.add_(y)),
    "elementwise_sub": (lambda t, y, a, b: t - y, lambda t, y, a, b: t.sub_(y)),
    "elementwise_mul": (lambda t, y, a, b: t * y, lambda t, y, a, b: t.mul_(y)),
    "elementwise_div": (lambda t, y, a, b: t / y, lambda t, y, a, b: t.div_(y)),
    "scale": (_scale, lambda t, y, a, b: t.mul_(a).add_(b) if b else t.mul_(a)),
    "relu": (lambda t, y, a, b: torch.relu(t), lambda t, y, a, b: t.relu_()),
    "relu6": (lambda t, y, a, b: t.clamp(0, a), lambda t, y, a, b: t.clamp_(0, a)),
    "leaky_relu": (lambda t, y, a, b: torch.maximum(t, t * a), lambda t, y, a, b: torch.maximum(t, t * a, out=t)),
    "sigmoid": (lambda t, y, a, b: torch.sigmoid(t), lambda t, y, a, b: t.sigmoid_()),
    "tanh": (lambda t, y, a, b: torch.tanh(t), lambda t, y, a, b: t.tanh_()),
    "exp": (lambda t, y, a, b: torch.exp(t), lambda t, y, a, b: t.exp_()),
    "sqrt": (lambda t, y, a, b: torch.sqrt(t), lambda t, y, a, b: t.sqrt_()),
    "square": (lambda t, y, a, b: t * t, lambda t, y, a, b: t.mul_(t)),
    "swish": (
        lambda t, y, a, b: F.silu(t) if a == 1 else t * torch.sigmoid(t * a),
        lambda t, y, a, b: F.silu(t, inplace=True) if a == 1 else t.mul_(torch.sigmoid(t * a)),
    ),
}


def _spec(xs, *, steps, operands, axes, first, second):
    if len({len(given) for given in (steps, operands, axes, first, second)}) != 1 or not steps:
        raise AttributeTypeError("steps, operands, axes, first and second must be lists of one length, at least 1")
    unknown = sorted(set(steps) - STEPS.keys())
    if unknown or any(not -1 <= k < len(xs) for k in operands):
        raise AttributeTypeError(f"steps must be of {', '.join(STEPS)} over {len(xs)} inputs, received {steps}, {operands}")
    return xs[0]


@op("fused_elementwise", slots="X* -> Out", infer=_spec, lod="X", grad=False)
def fused_elementwise(
    xs, *, steps: list[str], operands: list[int], axes: list[int], first: list[float], second: list[float]
):
    """The operators `steps`, one on the result of the other, from X[0] on; all results have its shape. Passes make it.

    Step i takes X[operands[i]] (-1: nothing), which is broadcast at axes[i], and the numbers first[i] and second[i]
    (scale and bias of scale, alpha, threshold, beta).
    """
    found = xs[0]
    for i, name in enumerate(steps):
        other = None if operands[i] < 0 else xs[operands[i]]
        if other is not None and axes[i] != -1:
            other = align(found, other, axes[i])[1]
        found = STEPS[name][i > 0](found, other, first[i], second[i])
    return found
