"""Updates cut into pieces that stay in the processor's cache.

A formula of five operations over a large tensor would read and write memory five times; over pieces of it, once. The
gradient of a table that names only some rows is spread out piece by piece in the same way, so that there is never a whole
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from millstream.ops._values import SelectedRows

PIECE = 32768  # elements; beyond this number torch's own loops would hand parts to other threads

Columns = list[list[torch.Tensor]]
Step = Callable[..., None]


def in_pieces(step: Step, grads: list[Any], *columns: list[torch.Tensor]) -> None:
    """step(positions, grads, *columns) over pieces of all tensors, in place of one call with the whole lists.

    Args:
        step: changes pieces of `columns` in place; `positions` are the places of the pieces' tensors in the lists.
        grads: tensors, or SelectedRows: rows that they do not name have a gradient of zero.
    """
    small = [k for k, g in enumerate(grads) if isinstance(g, torch.Tensor) and g.numel() <= PIECE]
    if small:
        step(small, [grads[k] for k in small], *([c[k] for k in small] for c in columns))
    for k, grad in enumerate(grads):
        tensors = [c[k] for c in columns]
        if isinstance(grad, SelectedRows):
            parts = _of_rows(grad.merged(), tensors)
        elif grad.numel() > PIECE:
            parts = _of_tensor(grad, tensors)
        else:
            continue
        for piece, others in parts:
            step([k], [piece], *([t] for t in others))


def _of_tensor(grad: torch.Tensor, tensors: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    if not all(t.is_contiguous() for t in tensors):
        yield grad, tensors
        return
    flat = [torch.split(t.view(-1), PIECE) for t in tensors]
    for piece, *others in zip(torch.split(grad.reshape(-1), PIECE), *flat):
        yield piece, others


def _of_rows(grad: SelectedRows, tensors: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Pieces of whole rows; `grad` has each row once, in increasing order."""
    if len(grad.rows) and not 0 <= int(grad.rows[0]) <= int(grad.rows[-1]) < grad.height:
        wrong = grad.rows[0] if grad.rows[0] < 0 else grad.rows[-1]
        raise IndexError(f"row {int(wrong)} of a matrix of {grad.height} rows")
    count = max(1, PIECE // max(1, grad.values[:1].numel()))
    spread = grad.values.new_zeros((min(count, grad.height), *grad.values.shape[1:]))
    bounds = torch.searchsorted(grad.rows, torch.arange(0, grad.height + count, count)).tolist()
    for start, first, last in zip(range(0, grad.height, count), bounds, bounds[1:]):
        piece = spread[: min(count, grad.height - start)]
        rows = grad.rows[first:last] - start
        if last > first:
            piece.index_copy_(0, rows, grad.values[first:last])
        yield piece, [t[start : start + count] for t in tensors]
        if last > first:
            piece.index_fill_(0, rows, 0.0)
