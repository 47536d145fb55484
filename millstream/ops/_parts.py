"""Parts of one tensor under autograd: their gradients are added into one tensor of its size.

autograd makes of each part's gradient a tensor of the whole's size, zeros around it, and adds these up: a loop over the
steps of a sequence that takes a step at a time (x[:, t]) writes steps times the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WORTH = 16_384  # elements of the whole; for fewer, autograd's own way costs less than two calls of Python


class Whole:
    """A tensor that parts are taken of, and the sum of their gradients while a backward pass runs.

    Attributes:
        tensor: the tensor that it was made of.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self._sum: torch.Tensor | None = None
        self._pass = -1
        self._joined = _Join.apply(tensor, self)

    def part(self, kernel: Callable[..., torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """kernel(tensor, *args, **kwargs): a view of some of its elements."""
        return _Cut.apply(self._joined, self, lambda whole: kernel(whole, *args, **kwargs))

    def add(self, cut: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor) -> None:
        """Add a part's gradient to the sum of the backward pass that runs."""
        if self._sum is None or self._pass != torch._C._current_graph_task_id():  # an earlier pass may have failed midway
            self._sum, self._pass = torch.zeros_like(self.tensor, requires_grad=False), torch._C._current_graph_task_id()
        cut(self._sum).add_(gradient)

    def take(self) -> torch.Tensor | None:
        """The sum of this pass, if parts gave any."""
        found, self._sum = self._sum if self._pass == torch._C._current_graph_task_id() else None, None
        return found


class _Join(torch.autograd.Function):
    """The tensor itself; its gradient is what parts have left."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, whole: Whole) -> torch.Tensor:
        ctx.whole = whole
        ctx.set_materialize_grads(False)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        left = ctx.whole.take()
        (other,) = gradients
        return (other if left is None else left if other is None else left + other), None


class _Cut(torch.autograd.Function):
    """A part. Its gradient goes into the sum; where gradients are differentiated again, to autograd as usual."""

    @staticmethod
    def forward(ctx: Any, joined: torch.Tensor, whole: Whole, cut: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.whole, ctx.cut = whole, cut
        return cut(joined)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        if not torch.is_grad_enabled():
            ctx.whole.add(ctx.cut, gradient)
            return None, None, None
        twin = ctx.whole.tensor.detach().requires_grad_()
        return torch.autograd.grad(ctx.cut(twin), twin, gradient, create_graph=True)[0], None, None
