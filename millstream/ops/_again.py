"""Gradients that are differentiated again: what a declaration must say for that, and errors where it does not.

A gradient kernel is differentiated as it is, with the inputs and outputs of its forward as variables. An output whose own
gradient does not come back to the forward (a statistic, a residual) would be left out silently. Hence either the gradient
kernel makes it anew from the inputs where torch.is_grad_enabled(), and says so (`nodiff=`); or the forward has a formula:
`again=`, torch calls in the kernel's call form whose autograd gradient is the declared one (True: the kernel is such), that
is differentiated instead. All else is an error, as is a kernel that leaves autograd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from inspect import signature
from typing import Any

import torch

from millstream.errors import MillstreamError, NotSupportedError
from millstream.ops._opdef import REGISTRY, OpDef


def refusal(forward: str, why: str) -> NotSupportedError:
    """The error where a gradient of the gradient of operator `forward` is asked for."""
    return NotSupportedError(f"{forward}: a gradient of its gradient is not defined: {why}")


@cache
def formula(definition: OpDef) -> Callable[..., Any] | None:
    """The formula of a declaration, which may be called with all attributes of the operator; None where it has none."""
    again = definition.extra.get("again")
    if again is None:
        return None
    call = definition.kernel if again is True else again
    taken = {p.name for p in signature(call).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return lambda *args, **attrs: call(*args, **{k: v for k, v in attrs.items() if k in taken})


@cache
def one_way(forward: OpDef, grad: OpDef) -> tuple[str, ...]:
    """Outputs of `forward` that its gradient reads and takes no gradient of, but for those it says it makes anew."""
    read = {s.name for s in grad.inputs} - {s.name for s in forward.inputs} - grad.nodiff
    return tuple(s.name for s in forward.outputs if s.name in read and f"{s.name}@GRAD" not in grad.in_slots)


class Guard(torch.autograd.Function):
    """A one-way output: an error when a gradient comes to it."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor, forward: str, slot: str) -> torch.Tensor:  # type: ignore[override]
        ctx.names = forward, slot
        return t.view_as(t)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:  # type: ignore[override]
        forward, slot = ctx.names
        raise refusal(forward, f"its gradient reads {slot}")


def linked(forward: OpDef, grad: OpDef, slot: str, aside: Any, graph: Any) -> Any:
    """What a gradient kernel that will be differentiated gets for an output of its forward.

    Args:
        aside, graph: the output apart from autograd, and that of the graph.
    """
    if graph is None or not graph.is_floating_point() or slot in grad.nodiff:
        return aside
    return Guard.apply(graph, forward.name, slot) if slot in one_way(forward, grad) else graph


def checked(grad: OpDef, kernel: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of a gradient kernel, which autograd can differentiate."""
    forward = REGISTRY.forward_type(grad.name) or grad.name
    try:
        results = kernel(*args, **kwargs)
        loose = _loose(results)
        if not any(loose):
            return results
        # They may be constant in the inputs, but a gradient is linear in those of the outputs.
        douts = [k for k, s in enumerate(grad.inputs) if s.name.endswith("@GRAD")]
        if not any(t.requires_grad for k in douts for t in _tensors(args[k])):
            given = [_leaves(a) if k in douts else a for k, a in enumerate(args)]
            loose = _loose(kernel(*given, **kwargs))
    except MillstreamError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        if re.search(r"requires.grad|derivative for|not differentiable", str(error)):
            raise refusal(forward, "its loops are apart from autograd") from error
        raise
    if any(loose):
        raise refusal(forward, "its loops are apart from autograd")
    return results


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _loose(results: Any) -> list[bool]:
    """Of each result whether it has values that autograd knows nothing of; those of a tracing compiler are not looked at."""
    return [type(t) is torch.Tensor and not t.requires_grad and bool(t.count_nonzero()) for t in _tensors(results)]


def _leaves(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().requires_grad_() if value.is_floating_point() else value
    return [_leaves(v) for v in value] if isinstance(value, list) else value
