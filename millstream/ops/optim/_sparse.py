"""What optimizers do with a SelectedRows gradient."""

from __future__ import annotations

from typing import Any

import torch

from millstream.kernels.arrays import array
from millstream.ops._values import SelectedRows


def dense(grad: Any) -> torch.Tensor:
    """The gradient as a full tensor: repeated rows add up, rows that are not named are zero."""
    return grad.to_dense() if isinstance(grad, SelectedRows) else grad


def searched(grad: Any) -> Any:
    """A dense gradient as it is; of SelectedRows those that Fluid 1.8.5's search for rows finds.

    momentum and rmsprop look each row up by bisection. Repeated rows are merged and sorted first; rows without
    repeats are left as they are, and when these are not in order the bisection misses some: those count as zero.
    """
    if not isinstance(grad, SelectedRows):
        return grad
    rows = grad.rows
    if rows.numel() > 1 and not bool((rows[1:] > rows[:-1]).all()) and torch.unique(rows).numel() == rows.numel():
        kept = _bisected(rows)
        grad = SelectedRows(rows[kept], grad.values[kept], grad.height)
    return grad.merged()


def _bisected(rows: torch.Tensor) -> torch.Tensor:
    """Which of `rows` (in any order) a bisection that takes them for sorted finds."""
    low = torch.zeros_like(rows)
    high = torch.full_like(rows, rows.numel() - 1)
    found = torch.zeros_like(rows, dtype=torch.bool)
    for _ in range(int(rows.numel()).bit_length() + 1):
        open_ = low <= high
        middle = (low + high) // 2
        value = rows[middle.clamp(0, rows.numel() - 1)]
        found |= open_ & (value == rows)
        low = torch.where(open_ & (value < rows), middle + 1, low)
        high = torch.where(open_ & (value > rows), middle - 1, high)
    return found


def moved_in_place(grad: SelectedRows, *tensors: torch.Tensor) -> list[Any] | None:
    """Arrays of the tensors, of the gradient's rows and of its values, for a loop over rows; None where torch must do it."""
    if not grad.is_plain() or not all(t.dtype is grad.dtype and t.dim() == 2 and t.is_contiguous() for t in tensors):
        return None
    return [*map(array, tensors), array(grad.rows.long()), array(grad.values)]


def scalar(value: torch.Tensor) -> float:
    """The number in a one-element tensor (learning rates, powers of beta)."""
    return value.item() if value.numel() == 1 else value.reshape(-1)[0].item()
