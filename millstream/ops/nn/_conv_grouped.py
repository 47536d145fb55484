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


def takes(channels: int, filters: Ints, strides: Ints, paddings: Ints, dilations: Ints, groups: int) -> bool:
    """Whether the kernels have a form for filters [channels, group, 3, 3] on this processor."""
    group = filters[1]
    if (
        groups == 1 or tuple(filters[2:]) != (3, 3) or not len(strides) == len(paddings) == len(dilations) == 2
        or max(dilations) != 1 or strides[0] != strides[1] or strides[0] > 2 or not 0 <= min(paddings) <= max(paddings) <= 2
        or filters[0] != channels or group * groups != channels or not 1 < group <= _DEEPEST
    ):  # fmt: skip
        return False
    lanes = tiles().LANES
    if channels % lanes or (lanes % group if group < lanes else group % lanes):
        return False
    return group >= lanes or lanes == 16  # narrow groups need AVX-512's shuffle of any 16 lanes


def task_of(x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int) -> Task | None:
    """The convolution of these values, if the kernels compute it."""
    if (
        groups == 1 or x.dtype is not torch.float32 or w.dtype is not torch.float32 or x.dim() != 4
        or not (x.is_cpu and w.is_cpu) or torch.is_grad_enabled() or type(x) is not torch.Tensor
        or not takes(x.shape[1], w.shape, strides, paddings, dilations, groups)
    ):  # fmt: skip
        return None
    (n, c, height, width), stride = x.shape, strides[0]
    out = (height + 2 * paddings[0] - 3) // stride + 1, (width + 2 * paddings[1] - 3) // stride + 1
    if min(n, *out) < 1:
        return None
    return Task(n, c, w.shape[1], (height, width), out, stride, (paddings[0], paddings[1]))


def _worth(task: Task | None) -> Task | None:
    return task if task is not None and task.work >= _LEAST else None


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

    fitting = [p for p in PIXELS if p <= max(outputs, 1)]
    return min(fitting, key=lambda p: -(-outputs // p) * (p + 1 + (3 if p < 4 else 0)))


def _phases_back(task: Task) -> list[_Phase]:
    """Of the input's gradient. Column s * u + r sees column u + (r + pad - tap) / s of the output through a tap."""
    found, s, pad, width = [], task.stride, task.pads[1], task.size[1]
    for r in range(s):
        taps = tuple(tap for tap in (2, 1, 0) if (r + pad - tap) % s == 0)
        found.append(_Phase(taps, (r + pad - taps[0]) // s, -(-(width - r) // s)))
    return found


class Read(NamedTuple):
    """What the kernels read of a map [N, C, H, W]: as it is, or a number for each, by `line` and a kind of activation,
    as grouped_lines.read_pixel says; dz: the second map of such a line."""

    how: int
    kind: int
    x: torch.Tensor
    line: np.ndarray | None = None
    dz: torch.Tensor | None = None

    def given(self) -> tuple[int, int, int, int]:
        """For kernels, while `self` is there."""
        dz = 0 if self.dz is None else self.dz.data_ptr()
        return self.how, self.x.data_ptr(), dz, 0 if self.line is None else self.line.ctypes.data


_SAME: tuple[int, ...] = 0, 1, 0, 0, 0, 0  # results stay as they are


class Sums:
    """Of what is written, for each part, by channel: float64 [parts, C]."""

    def __init__(self, parts: int, channels: int) -> None:
        self.first, self.second = torch.zeros(2, parts, channels, dtype=torch.float64).numpy()

    def made(self, how: int, pixels: int, x: int, line: np.ndarray) -> list[tuple[int, ...]]:
        """What kernels are told of it: the last argument but for those of a part."""
        return [
            (how, pixels, x, line.ctypes.data, a.ctypes.data, b.ctypes.data) for a, b in zip(self.first, self.second)
        ]


def _summed(pixels: int) -> int:
    """How many pixels of a row of that many are summed at a time."""
    from millstream.kernels.grouped_tiles import SUMMED

    return min((p for p in SUMMED if p <= pixels), key=lambda p: pixels // p * p + 3 * (pixels % p) + pixels // p)


class _Columns(NamedTuple):
    """How the rows laid out are read: their first column, and number, and the phases, as kernels take them."""

    left: int
    width: int
    phases: np.ndarray
    filters: torch.Tensor


def _columns(task: Task, w: torch.Tensor, back: bool) -> _Columns:
    phases = _phases_back(task) if back else [_Phase((0, 1, 2), -task.pads[1], task.out[1])]
    step = 1 if back else task.stride
    left = min(p.column for p in phases)
    width = max(p.column + (p.outputs - 1) * step + len(p.taps) for p in phases) - left
    filters, begins = _laid_out(task, w, back, phases)
    rows = [(begin, len(p.taps), step, p.column - left, p.outputs, _pixels(p.outputs)) for begin, p in zip(begins, phases)]
    return _Columns(left, width, np.array(rows), filters)


def read_normal(x: torch.Tensor, line: np.ndarray | None, kind: int) -> Read:
    """x, or what a line [a, b, mean, slope, most] and an activation of that kind make of it."""
    from millstream.kernels.grouped_lines import COPY, NORMAL

    return Read(COPY if line is None else NORMAL + kind, kind, _last(x), line)


def read_given(x: torch.Tensor, dz: torch.Tensor, line: np.ndarray | None, kind: int) -> Read:
    """dz, or the gradient of x by a line [p, q, r] or, with an activation of that kind, [p, q, r, a, b, slope, most]."""
    from millstream.kernels.grouped_lines import COPY, GIVEN

    return Read(COPY, kind, _last(dz)) if line is None else Read(GIVEN + kind, kind, _last(x), line, _last(dz))


def correlate(
    task: Task, read: Read, w: torch.Tensor, bias: torch.Tensor | None, back: bool, shift: np.ndarray | None = None
) -> tuple[torch.Tensor, Sums]:
    """(output, its sums less `shift` where that is given)."""
    size, out = (task.out, task.size) if back else (task.size, task.out)
    columns = _columns(task, w, back)
    made = _map(task.n, out, task.c)
    cut = task.cut(out[0], columns.width)
    items = -(-task.c // cut[0]) * task.n * -(-out[0] // cut[1])
    shares = cuts(task.work, items)
    needed = _kernels().room_bytes(cut, task.stride, columns.width)
    room = torch.empty(len(shares), needed // 4, dtype=torch.float32)
    table = np.empty((len(shares), 3 * max(1, task.group // tiles().LANES), 2), np.int64)
    zeros, sums, told = zeros_at(task.c), Sums(len(shares), 0 if shift is None else task.c), [_SAME] * len(shares)
    if shift is not None:
        told = sums.made(_kernels().COUNT, _summed(out[1]), 0, shift)
    given = (read.given(), (*size, task.c), columns.filters.data_ptr(), zeros if bias is None else bias.data_ptr())
    form = (made.data_ptr(), (*out, task.c), cut, task.stride, task.pads[0], back, columns[:2], columns.phases)
    run_parts(_kernels().correlate, [
        (*given, *form, told[i], share, task.n, room[i].data_ptr(), zeros, table[i]) for i, share in enumerate(shares)
    ])  # fmt: skip
    return made, sums


def forward(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a convolution of float32 maps."""
    task = _worth(task_of(x, w, strides, paddings, dilations, groups))
    if task is None or (bias is not None and bias.dtype is not torch.float32):
        return None
    return correlate(task, read_normal(x, None, 0), w, None if bias is None else bias.contiguous(), False)[0]


def backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput."""
    task = _worth(task_of(x, w, strides, paddings, dilations, groups))
    if task is None or dout.dtype is not torch.float32:
        return None
    return correlate(task, read_given(dout, dout, None, 0), w, None, True)[0]


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter."""
    task = _worth(task_of(x, w, strides, paddings, dilations, groups))
    if task is None or dout.dtype is not torch.float32:
        return None
    return backward(task, read_normal(x, None, 0), w, read_given(dout, dout, None, 0), False)[1]


def backward(
    task: Task, x: Read, w: torch.Tensor, dout: Read, wanted: bool
) -> tuple[torch.Tensor | None, torch.Tensor, Sums]:
    """(dInput where it is wanted, before the activation where x is read by a line; dFilter; sums of that dInput)."""
    lanes, (height, wide) = tiles().LANES, task.out
    width = (wide - 1) * task.stride + 3
    cut = task.cut(height, width)
    columns = _columns(task, w, True) if wanted else _Columns(0, wide, np.empty((0, 6), np.int64), w)
    left = min(columns.left, 0)
    laid = left, max(columns.left + columns.width, wide) - left  # the filters' gradient reads all columns
    columns.phases[:, 3] += columns.left - left
    shares = cuts((1 + wanted) * task.work, -(-task.c // cut[0]) * task.n * -(-height // cut[1]))
    room = torch.empty(len(shares), _kernels().room_bytes(cut, task.stride, width) // 4, dtype=torch.float32)
    beside = torch.empty(
        len(shares), _kernels().plane_bytes(cut[1] + 2, laid[1]) // 4 * (cut[0] // lanes), dtype=torch.float32
    )
    table = np.empty((len(shares), max(cut[1], 3 * max(1, task.group // lanes)), 2), np.int64)
    filters = torch.zeros(len(shares), w.numel(), dtype=torch.float32)
    sums = Sums(len(shares), 0 if x.line is None else task.c)
    dx, zeros, told = _map(task.n, task.size, task.c) if wanted else None, zeros_at(task.c), [_SAME] * len(shares)
    if x.line is not None:
        told = sums.made(_kernels().BACK + x.kind, _summed(task.size[1]), x.x.data_ptr(), x.line)
    read = x.given(), (*task.size, task.c), width, dout.given(), (*task.out, task.c), laid
    form = cut, task.stride, task.pads, _summed(wide), columns.filters.data_ptr(), columns.phases
    made = 0 if dx is None else dx.data_ptr()
    run_parts(_kernels().backward, [
        (*read, *form, made, told[i], share, task.n, room[i].data_ptr(), beside[i].data_ptr(), zeros, table[i],
         filters[i].data_ptr())
        for i, share in enumerate(shares)
    ])  # fmt: skip
    dw = torch.empty(w.shape, dtype=torch.float32)
    flat, every = dw.view(-1).numpy(), filters.numpy()
    run_parts(_kernels().collect_filters, [
        (every, task.group, share, flat) for share in cuts(8 * w.numel(), task.c)
    ])  # fmt: skip
    return dx, dw, sums
