"""3x3 convolutions of stride 1 with dilations, by minimal filtering (_conv_winograd.py), and their gradients, on the CPU.

A result at row i has to do with rows i, i + d and i + 2 d alone. So rows whose numbers leave the same rest by d, and columns
likewise, are maps of their own without dilation: d * d smaller pictures for each one. Processor ms, one thread, old -> new:

| input, filters, dilation | output | input gradient | filter gradient |
| --- | --- | --- | --- |
| 1x128x28x52, 128, 2 | 3.5 -> 2.7 | 3.7 -> 2.9 | 5.0 -> 1.8 |
| 1x256x16x28, 128, 2 | 2.2 -> 1.6 | 2.3 -> 1.9 | 3.1 -> 1.4 |
| 1x256x14x20, 256, 4 | 1.8 -> 1.5 | 1.7 (3.1: left out) | 2.8 -> 1.5 |

Each function returns None where it does not apply or is not faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from millstream.kernels.gemm import tiles
from millstream.ops.nn import _conv_winograd
from millstream.ops.nn._conv_winograd import Task, last

Ints = Sequence[int]
_ONE, _NONE = (1, 1), (0, 0)
_MOVED = 90  # cost of a vector of a map that is put in another order (see _conv_winograd.py)
_MOST, _MOST_TURNED = 0.85, 0.55  # costs as computed, in those of direct sums; with few squares turned filters take longer


def _split(x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int) -> Task | None:
    """The convolution of the smaller pictures, if its kernels can compute it."""
    if len(dilations) != 2 or max(dilations) < 2 or x.dim() != 4 or len(paddings) != 2:
        return None
    if any(p > 2 * d for p, d in zip(paddings, dilations)):
        return None
    sizes = _size(x, paddings, dilations)
    if min(sizes) < 1:
        return None
    whole = _conv_winograd.task_of(x, w, strides, _ONE, _ONE, groups)
    if whole is None:
        return None
    out = -(-sizes[0] // dilations[0]), -(-sizes[1] // dilations[1])
    n = whole.n * dilations[0] * dilations[1]
    return Task(n, whole.c, whole.k, (out[0] + 2, out[1] + 2), out, _NONE)


def _worth(task: Task, moved: int, outputs: int, sizes: Ints, most: float) -> bool:
    """Whether squares of one of `sizes` cost less than `most` of direct sums for `outputs` pixels; moved: numbers copied."""
    more = moved * _MOVED / tiles().LANES
    return min(task.cost(m, False) for m in sizes) + more < most * task.direct(outputs, False)


def _pictures(x: torch.Tensor, dilations: Ints, before: Ints, size: tuple[int, int]) -> torch.Tensor:
    """[N * dh * dw, C, *size]: picture (n, r, s) has x[n, :, dh * i + r - before[0], dw * j + s - before[1]], or zeros."""
    rows, (n, c, height, width), (dh, dw) = last(x).permute(0, 2, 3, 1), x.shape, dilations
    behind = size[0] * dh - before[0] - height, size[1] * dw - before[1] - width
    padded = F.pad(rows, (0, 0, before[1], behind[1], before[0], behind[0]))
    split = padded.reshape(n, size[0], dh, size[1], dw, c).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(n * dh * dw, *size, c).permute(0, 3, 1, 2)


def _joined(y: torch.Tensor, dilations: Ints, size: tuple[int, int]) -> torch.Tensor:
    """The map of `size` whose pictures these are."""
    (_, k, height, width), (dh, dw) = y.shape, dilations
    split = last(y).permute(0, 2, 3, 1).reshape(-1, dh, dw, height, width, k).permute(0, 3, 1, 4, 2, 5)
    whole = split.reshape(-1, height * dh, width * dw, k)
    return last(whole[:, : size[0], : size[1]].permute(0, 3, 1, 2))


def forward(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output [N, K, H', W']."""
    task = _split(x, w, strides, paddings, dilations, groups)
    if task is None:
        return None
    size = _size(x, paddings, dilations)
    outputs = x.shape[0] * size[0] * size[1]
    if not _worth(task, x.numel() + outputs * task.k, outputs, (2,), _MOST):
        return None
    pictures = _pictures(x, dilations, paddings, task.size)
    y = _conv_winograd.forward(pictures, w, bias, _ONE, _NONE, _ONE, 1)
    return None if y is None else _joined(y, dilations, size)


def _size(x: torch.Tensor, paddings: Ints, dilations: Ints) -> tuple[int, int]:
    height, width = (n + 2 * p - 2 * d for n, p, d in zip(x.shape[2:], paddings, dilations))
    return height, width


def backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput: pictures of the output's gradient under the filters turned round."""
    task = _split(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.float32:
        return None
    height, width = x.shape[2:]
    out = -(-height // dilations[0]), -(-width // dilations[1])
    back = Task(task.n, task.k, task.c, (out[0] + 2, out[1] + 2), out, _NONE)
    if not _worth(back, x.numel() + dout.numel(), x.shape[0] * height * width, (2, 4), _MOST_TURNED):
        return None
    before = [2 * d - p for p, d in zip(paddings, dilations)]
    pictures = _pictures(dout, dilations, before, back.size)
    return _joined(_conv_winograd.turned(back, pictures, w), dilations, (height, width))


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter: of all pictures together."""
    task = _split(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.float32:
        return None
    if not _worth(task, x.numel() + dout.numel(), dout.numel() // task.k, (2, 4), _MOST):
        return None
    pictures = _pictures(x, dilations, paddings, task.size)
    given = _pictures(dout, dilations, _NONE, task.out)
    return _conv_winograd.filter_gradient(pictures, w, given, _ONE, _NONE, _ONE, 1)
