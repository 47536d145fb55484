"""3x3 convolutions in groups of channels by kernels/grouped.py, and their gradients, on the CPU.

Processor ms, one thread, oneDNN -> so, of channels by group x size of the input (all have 58 million multiplications):

| channels, group | output | input gradient | filter gradient |
| --- | --- | --- | --- |
| 128 by 4, 4x56x56 | 5.1 -> 2.5 | 4.5 -> 2.5 | 8.0 -> 2.7 |
| 256 by 8, 4x56x56, stride 2 | 5.5 -> 3.5 | 3.3 -> 3.0 | 7.5 -> 2.9 |
| 256 by 8, 4x28x28 | 2.5 -> 1.6 | 2.4 -> 1.6 | 3.8 -> 1.7 |
| 512 by 16, 4x28x28, stride 2 | 3.9 -> 1.9 | 2.7 -> 1.9 | 2.2 -> 1.9 |
| 1,024 by 32, 4x14x14, stride 2 | 2.4 -> 2.4 | 3.2 -> 2.5 | 2.8 -> 2.2 |

Each function returns None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from millstream.kernels.gemm import tiles, zeros_at
from millstream.kernels.threads import cuts, run_parts

Ints = Sequence[int]

_LEAST = 4_000_000  # multiplications below which the kernels are not worth loading
_ROOM = 384 << 10  # bytes of rows laid out at a time
_FILTERS = 128 << 10  # bytes of filters at a time
_DEEPEST = 32  # channels of a group


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import grouped as module

    return module


class Task(NamedTuple):
    """A convolution: pictures, channels, channels of a group, sizes of input and output, stride, zeros above and left."""

    n: int
    c: int
    group: int
    size: tuple[int, int]
    out: tuple[int, int]
    stride: int
    pads: tuple[int, int]

    @property
    def work(self) -> int:
        return 9 * self.n * self.out[0] * self.out[1] * self.c * self.group

    def cut(self, rows: int, width: int) -> tuple[int, int, int]:
        """(channels of a chunk, rows of a block, group) where a block of `rows` rows lays rows of `width` pixels out."""
        unit = max(tiles().LANES, self.group)
        chunk = self.c
        least = 3 if self.stride == 1 else 5
        while chunk % (2 * unit) == 0 and (chunk * self.group * 36 > _FILTERS or least * width * chunk * 4 > _ROOM):
            chunk //= 2
        deep = max(1, min(rows, (_ROOM // (width * chunk * 4) - 2) // self.stride))
        return chunk, -(-rows // -(-rows // deep)), self.group


def task_of(x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int) -> Task | None:
    """The convolution of these values, if the kernels compute it faster."""
    if (
        groups == 1 or x.dtype is not torch.float32 or w.dtype is not torch.float32 or x.dim() != 4
        or tuple(w.shape[2:]) != (3, 3) or not len(strides) == len(paddings) == len(dilations) == 2
        or max(dilations) != 1 or strides[0] != strides[1] or strides[0] > 2
        or not (x.is_cpu and w.is_cpu) or torch.is_grad_enabled()
        or type(x) is not torch.Tensor or not 0 <= min(paddings) <= max(paddings) <= 2
    ):  # fmt: skip
        return None
    (n, c, height, width), group, stride = x.shape, w.shape[1], strides[0]
    out = (height + 2 * paddings[0] - 3) // stride + 1, (width + 2 * paddings[1] - 3) // stride + 1
    if w.shape[0] != c or group * groups != c or not 1 < group <= _DEEPEST or min(n, *out) < 1:
        return None
    task = Task(n, c, group, (height, width), out, stride, (paddings[0], paddings[1]))
    lanes = tiles().LANES
    if task.work < _LEAST or c % lanes or (lanes % group if group < lanes else group % lanes):
        return None
    return task if group >= lanes or lanes == 16 else None  # narrow groups need AVX-512's shuffle of any 16 lanes


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _map(n: int, size: tuple[int, int], c: int) -> torch.Tensor:
    return torch.empty(n, *size, c, dtype=torch.float32).permute(0, 3, 1, 2)


class _Phase(NamedTuple):
    """Columns of the output that see the same taps: these, the input's column where the first one begins, their number."""

    taps: tuple[int, ...]
    column: int
    outputs: int


def _laid_out(task: Task, w: torch.Tensor, back: bool, phases: Sequence[_Phase]) -> tuple[torch.Tensor, list[int]]:
    """Filters for tiles, and where those of each phase begin, in bytes."""
    lines, begins, at = [(0, 0, 0)] * 3, list[int](), 0
    for phase in phases:
        begins.append(4 * at)
        for place, tap in enumerate(phase.taps):
            lines[tap] = (at, len(phase.taps), place)
        at += w.numel() // 3 * len(phase.taps)
    filters = torch.empty_like(w).view(-1)
    given = w.contiguous().view(-1).numpy(), task.group, back, tuple(lines)
    run_parts(_kernels().lay_out_filters, [
        (*given, (a * task.group, b * task.group), filters.numpy()) for a, b in cuts(8 * w.numel(), task.c // task.group)
    ])  # fmt: skip
    return filters, begins


def _pixels(outputs: int) -> int:
    """Of a tile, so that the fewest are computed twice."""
    from millstream.kernels.grouped_tiles import PIXELS

    return min((p for p in PIXELS if p <= outputs), key=lambda p: -(-outputs // p) * (p + 1 + (3 if p < 4 else 0)))


def _phases_back(task: Task) -> list[_Phase]:
    """Of the input's gradient. Column s * u + r sees column u + (r + pad - tap) / s of the output through a tap."""
    found, s, pad, width = [], task.stride, task.pads[1], task.size[1]
    for r in range(s):
        taps = tuple(tap for tap in (2, 1, 0) if (r + pad - tap) % s == 0)
        found.append(_Phase(taps, (r + pad - taps[0]) // s, -(-(width - r) // s)))
    return found


def _correlate(task: Task, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, back: bool) -> torch.Tensor:
    size, out = (task.out, task.size) if back else (task.size, task.out)
    phases = _phases_back(task) if back else [_Phase((0, 1, 2), -task.pads[1], out[1])]
    step = 1 if back else task.stride
    left = min(p.column for p in phases)
    width = max(p.column + (p.outputs - 1) * step + len(p.taps) for p in phases) - left
    filters, begins = _laid_out(task, w, back, phases)
    columns = [
        (begin, len(p.taps), step, p.column - left, p.outputs, _pixels(p.outputs)) for begin, p in zip(begins, phases)
    ]
    made = _map(task.n, out, task.c)
    cut = task.cut(out[0], width)
    items = -(-task.c // cut[0]) * task.n * -(-out[0] // cut[1])
    shares = cuts(task.work, items)
    needed = _kernels().room_bytes(cut, task.stride, width)
    room = torch.empty(len(shares), needed // 4, dtype=torch.float32)
    table = np.empty((len(shares), 3 * max(1, task.group // tiles().LANES), 2), np.int64)
    x, zeros = _last(x), zeros_at(task.c)
    given = (x.data_ptr(), (*size, task.c), filters.data_ptr(), zeros if bias is None else bias.data_ptr())
    form = (made.data_ptr(), (*out, task.c), cut, task.stride, task.pads[0], back, (left, width), np.array(columns))
    run_parts(_kernels().correlate, [
        (*given, *form, share, task.n, room[i].data_ptr(), zeros, table[i]) for i, share in enumerate(shares)
    ])  # fmt: skip
    return made


def forward(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a convolution of float32 maps."""
    task = task_of(x, w, strides, paddings, dilations, groups)
    if task is None or (bias is not None and bias.dtype is not torch.float32):
        return None
    return _correlate(task, x, w, None if bias is None else bias.contiguous(), False)


def backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput."""
    task = task_of(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.float32:
        return None
    return _correlate(task, dout, w, None, True)


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter."""
    task = task_of(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.float32:
        return None
    from millstream.kernels.grouped_tiles import SUMMED

    lanes, (height, wide) = tiles().LANES, task.out
    width = (wide - 1) * task.stride + 3
    cut = task.cut(height, width)
    shares = cuts(task.work, -(-task.c // cut[0]) * task.n * -(-height // cut[1]))
    room = torch.empty(len(shares), _kernels().room_bytes(cut, task.stride, width) // 4, dtype=torch.float32)
    beside = torch.empty(len(shares), _kernels().plane_bytes(cut[1], wide) // 4 * (cut[0] // lanes), dtype=torch.float32)
    table = np.empty((len(shares), cut[1], 2), np.int64)
    sums = torch.zeros(len(shares), w.numel(), dtype=torch.float32)
    pixels = min((p for p in SUMMED if p <= wide), key=lambda p: wide // p * p + 3 * (wide % p) + wide // p)
    x, dout, zeros = _last(x), _last(dout), zeros_at(task.c)
    given = (x.data_ptr(), (*task.size, task.c), dout.data_ptr(), (*task.out, task.c))
    form = (cut, task.stride, task.pads, width, pixels)
    run_parts(_kernels().filter_gradient, [
        (*given, *form, share, task.n, room[i].data_ptr(), beside[i].data_ptr(), zeros, table[i], sums[i].data_ptr())
        for i, share in enumerate(shares)
    ])  # fmt: skip
    dw = torch.empty(w.shape, dtype=torch.float32)
    flat, every = dw.view(-1).numpy(), sums.numpy()
    run_parts(_kernels().collect_filters, [
        (every, task.group, share, flat) for share in cuts(8 * w.numel(), task.c)
    ])  # fmt: skip
    return dw
