"""What optimizers do with a SelectedRows gradient."""

from __future__ import annotations

from typing import Any

import torch

from millstream.ops._values import SelectedRows


def dense(grad: Any) -> torch.Tensor:
    """The gradient as a full tensor: repeated rows add up, rows that are not named are zero."""
    return grad.to_dense() if isinstance(grad, SelectedRows) else grad


def scalar(value: torch.Tensor) -> float:
    """The number in a one-element tensor (learning rates, powers of beta)."""
    return value.item() if value.numel() == 1 else value.reshape(-1)[0].item()


def put_rows(whole: torch.Tensor, rows: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """`whole` with `rows` replaced by `part`."""
    return whole.index_copy(0, rows, part)
