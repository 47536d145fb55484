"""3x3 convolutions with stride 1 by Winograd's minimal filtering (kernels/winograd.py), and their gradients, on the CPU.

Processor ms, one thread, oneDNN -> so; filters are combined anew at each call, but for the last:

| input | output | input gradient | filter gradient |
| --- | --- | --- | --- |
| 8x64x56x56 | 16.4 -> 9.1 | 16.4 -> 6.1 | 18.5 -> 6.1 |
| 4x256x56x56 | 128 -> 62 | 129 -> 40 | 142 -> 48 |
| 8x512x7x7 | 17.2 -> 11 | 18 -> 9 | 24 -> 8 |
| 1x512x14x14, filters combined before | 11.6 -> 3.9 | | |

Errors are half those of direct sums, or a third larger (see there). Each function returns None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels.gemm import tiles, zeros_at
from millstream.kernels.threads import parts, run_parts

Ints = Sequence[int]

_LEAST = 4_000_000  # multiplications of the direct sum below which the kernels are not worth loading
_ROOM = 700 << 10  # bytes of combinations at a time: they shall stay in the second-level cache
_BLOCK, _BLOCK_LARGE = 36, 96  # squares at a time at least: filters are read once for them; once filters leave that cache
_LARGE = 1 << 17  # filters of which this is said
_HELD, _MANY = 5 << 20, 1 << 14  # bytes of combinations of all squares, and filters, for which panels of filters pass by

# Costs in multiplications of a vector register, fitted to 27 shapes with one thread.
_SQUARE = {2: 140, 4: 650}  # combinations of the pixels of a square, or of its results
_FILTER = {2: 300, 4: 500}  # combinations of filters
_READ = {2: 300, 4: 700}  # the same from memory
_DIRECT, _DIRECT_FILTER, _DIRECT_READ = 9.5, 470, 170  # of direct sums: an output; reordering filters; reading them


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import winograd as module

    return module


class Task(NamedTuple):
    """A convolution: pictures, channels in and out, sizes of the input and the output, zeros above and to the left."""

    n: int
    c: int
    k: int
    size: tuple[int, int]
    out: tuple[int, int]
    pads: tuple[int, int]

    def squares(self, m: int) -> int:
        return self.n * -(-self.out[0] // m) * -(-self.out[1] // m)

    def block(self, m: int, squares: int) -> int:
        least = _BLOCK_LARGE if self.c * self.k >= _LARGE else _BLOCK
        return min(squares, max(least, _ROOM // ((m + 2) ** 2 * 4 * (self.c + self.k))))

    def holds_squares(self, m: int) -> bool:
        """Whether squares are so few that the caches hold all of them, and filters so many that these should pass by."""
        combinations = (m + 2) ** 2 * 4 * self.squares(m) * (self.c + _kernels().PANEL)
        return combinations <= _HELD and self.c * self.k >= _MANY

    def cost(self, m: int, kept: bool) -> float:
        """Of squares of size `m`; kept: combinations of filters are there already."""
        lanes, squares = tiles().LANES, self.squares(m)
        products = squares * (m + 2) ** 2 + (_READ if kept else _FILTER)[m]
        return (self.c * self.k * products + squares * (self.c + self.k) * _SQUARE[m]) / lanes

    def best(self, kept: bool, sizes: Ints = (2, 4)) -> int:
        """One of `sizes`; 0: direct sums are faster."""
        costs = {m: self.cost(m, kept) for m in sizes}
        m = min(costs, key=lambda key: costs[key])
        return m if costs[m] < self.direct(self.n * self.out[0] * self.out[1], kept) else 0

    def direct(self, outputs: int, kept: bool) -> float:
        """Cost of direct sums for so many pixels."""
        filters = _DIRECT_READ if kept else _DIRECT_FILTER
        return self.c * self.k / tiles().LANES * (_DIRECT * outputs + filters)


def task_of(
    x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
) -> Task | None:  # fmt: skip
    """The convolution of these values, if kernels for `dtypes`, of maps and filters, can compute it."""
    if (
        (x.dtype, w.dtype) != dtypes or x.dim() != 4 or tuple(w.shape[2:]) != (3, 3)
        or groups != 1 or not len(strides) == len(paddings) == len(dilations) == 2 or max(*strides, *dilations) != 1
        or not (x.is_cpu and w.is_cpu) or torch.is_grad_enabled()
        or type(x) is not torch.Tensor or not 0 <= min(paddings) <= max(paddings) <= 2
    ):  # fmt: skip
        return None
    (n, c, height, width), k = x.shape, w.shape[0]
    out = height + 2 * paddings[0] - 2, width + 2 * paddings[1] - 2
    if w.shape[1] != c or min(n, *out) < 1 or 9 * n * out[0] * out[1] * c * k < _LEAST:
        return None
    if c % tiles().LANES or k % tiles().LANES:
        return None
    return Task(n, c, k, (height, width), out, (paddings[0], paddings[1]))


def last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _map(task: Task) -> torch.Tensor:
    return torch.empty(task.n, *task.out, task.k, dtype=torch.float32).permute(0, 3, 1, 2)


def rooms_of(needed: int, count: int) -> tuple[torch.Tensor, list[int]]:
    """`needed` bytes for each of `count` threads, and where they begin."""
    size = -(-needed // 64) * 16
    room = torch.empty(count * size, dtype=torch.float32)
    return room, [room.data_ptr() + 4 * k * size for k in range(count)]


class Filters(NamedTuple):
    """Combinations of filters for squares of size `m`."""

    m: int
    values: torch.Tensor


def shares_of(work: int, k: int) -> list[tuple[int, int]]:
    """(first, last) channel of the output of each thread; they begin with panels."""
    width = _kernels().PANEL
    count = parts(work, -(-k // width))
    edges = [k // width * i // count * width for i in range(count)] + [k]
    return list(pairwise(edges))


def _filters(m: int, task: Task, w: torch.Tensor, turned: bool) -> Filters:
    """turned: of the gradient of the input, from channels of the output to those of the input."""
    values = torch.empty((m + 2) ** 2, task.c, task.k, dtype=torch.float32)
    w = w.contiguous()
    run_parts(_kernels().filters, [
        (m, w.data_ptr(), turned, values.data_ptr(), task.c, task.k, share)
        for share in shares_of(values.numel() * 4, task.k)
    ])  # fmt: skip
    return Filters(m, values)


class After(NamedTuple):
    """What follows a convolution: a bias [k], a map that is added, then y times slope where y < 0, at most `most`."""

    bias: torch.Tensor | None = None
    beside: torch.Tensor | None = None
    slope: float = 1.0
    most: float = float("inf")


class _Given(NamedTuple):
    """Filters: the values, whether they count as turned round, and their combinations if there are any."""

    w: torch.Tensor
    turned: bool = False
    kept: Filters | None = None


def _after_at(after: After, zeros: int) -> tuple[int, int, np.float32, np.float32]:
    bias = zeros if after.bias is None else after.bias.data_ptr()
    beside = 0 if after.beside is None else after.beside.data_ptr()
    return bias, beside, np.float32(after.slope), np.float32(after.most)


def _by_panels(m: int, task: Task, x: torch.Tensor, given: _Given, after: After, out: torch.Tensor) -> torch.Tensor:
    squares, zeros = task.squares(m), zeros_at(max(task.c, task.k))
    shares = shares_of(squares * (m + 2) ** 2 * task.c * task.k, task.k)
    _room, begins = rooms_of(_kernels().room_of_panels(m, squares, task.c), len(shares))
    w, kept = given.w.contiguous(), 0 if given.kept is None else given.kept.values.data_ptr()
    left = (m, x.data_ptr(), (*task.size, task.c), task.pads, w.data_ptr(), given.turned, kept)
    right = (out.data_ptr(), (*task.out, task.k), squares)
    rest = (*_after_at(after, zeros), zeros)
    run_parts(_kernels().forward_by_panels, [(*left, *right, share, begin, *rest) for share, begin in zip(shares, begins)])
    return out


def _by_squares(m: int, task: Task, x: torch.Tensor, given: _Given, after: After, out: torch.Tensor) -> torch.Tensor:
    filters = given.kept or _filters(m, task, given.w, given.turned)
    squares = task.squares(m)
    count = parts(squares * (m + 2) ** 2 * task.c * task.k, squares)
    block = task.block(m, -(-squares // count))
    _room, begins = rooms_of(_kernels().room_of(m, block, task.c, task.k), count)
    zeros = zeros_at(max(task.c, task.k))
    left = (m, x.data_ptr(), (*task.size, task.c), task.pads, filters.values.data_ptr(), out.data_ptr(), (*task.out, task.k))
    rest = (*_after_at(after, zeros), zeros)
    run_parts(_kernels().forward, [
        (*left, (squares * i // count, squares * (i + 1) // count), block, begin, *rest) for i, begin in enumerate(begins)
    ])  # fmt: skip
    return out


def _run(m: int, task: Task, x: torch.Tensor, given: _Given, after: After, out: torch.Tensor) -> torch.Tensor:
    return (_by_panels if task.holds_squares(m) else _by_squares)(m, task, last(x), given, after, out)


def forward(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a convolution of float32 maps, in squares of 2x2: their errors are the smallest.

    Batch norms of a network in training multiply rounding errors: ResNet-50's third loss moves by 0.01 with these and with
    direct sums, by 0.03 with squares of 4x4, and a step is not shorter by what could be measured. Gradients do not mind.
    """
    task = task_of(x, w, strides, paddings, dilations, groups)
    if task is None or not (m := task.best(False, (2,))):
        return None
    return _run(m, task, x, _Given(w), After(None if bias is None else bias.contiguous()), _map(task))


def backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput: the gradient of the output under the filters turned round."""
    given = task_of(x, w, strides, paddings, dilations, groups)
    if given is None or dout.dtype is not torch.float32:
        return None
    task = Task(given.n, given.k, given.c, given.out, given.size, (2 - given.pads[0], 2 - given.pads[1]))
    return turned(task, dout, w) if task.best(False) else None


def turned(task: Task, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The convolution with the filters turned round, from the channels of their outputs to those of their inputs."""
    m = task.best(False) or 2
    return _run(m, task, x, _Given(w, turned=True), After(), _map(task))


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter: the products' gradient, then that of the filters' combinations."""
    task = task_of(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.float32 or not (m := task.best(False)):
        return None
    c, k, squares, combinations = task.c, task.k, task.squares(m), (m + 2) ** 2
    x, dout, dw, zeros = last(x), last(dout), torch.empty(w.shape, dtype=torch.float32), zeros_at(max(c, k))
    given = (m, x.data_ptr(), (*task.size, c), task.pads, dout.data_ptr(), (*task.out, k))
    shares = shares_of(squares * combinations * c * k, k)
    if task.holds_squares(m):
        _room, begins = rooms_of(_kernels().room_of_panels(m, squares, c), len(shares))
        run_parts(_kernels().filter_gradient_by_panels, [
            (*given, squares, share, begin, dw.data_ptr(), zeros) for share, begin in zip(shares, begins)
        ])  # fmt: skip
        return dw
    count = parts(squares * combinations * c * k, squares)
    block = task.block(m, -(-squares // count))
    _room, begins = rooms_of(_kernels().room_of(m, block, c, k), count)
    sums = torch.empty(count, combinations, c, k, dtype=torch.float32)
    run_parts(_kernels().filter_gradient, [
        (*given, (squares * i // count, squares * (i + 1) // count), block, begin, sums[i].data_ptr(), zeros)
        for i, begin in enumerate(begins)
    ])  # fmt: skip
    total = sums[0]
    for more in sums[1:]:
        total += more
    run_parts(_kernels().taps_gradient, [
        (m, total.data_ptr(), dw.data_ptr(), c, k, zeros, share) for share in shares
    ])  # fmt: skip
    return dw


class _Kept(NamedTuple):
    """What a convolution with filters that stay has prepared, for inputs of one shape."""

    shape: torch.Size
    weight: torch.Tensor
    task: Task | None
    filters: Filters | None


def _prepare(held: _Kept | None, x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, *rest: Any) -> _Kept:
    task = task_of(x, w, strides, paddings, *rest)
    m = task.best(True) if task else 0
    if not task or not m:
        return _Kept(x.shape, w, None, None)
    filters = held.filters if held and held.weight is w else None
    if filters is None or filters.m != m:
        filters = _filters(m, task, w, False)
    return _Kept(x.shape, w, task, filters)


def packed(
    state: dict, x: torch.Tensor, w: torch.Tensor, after: After, paddings: Ints, strides: Ints, dilations: Ints, groups: int,
    reuse: bool,
) -> torch.Tensor | None:  # fmt: skip
    """Output of a convolution whose filters stay: they are combined once, and kept in `state`.

    With `reuse` the result takes the memory of after.beside.
    """
    held = state.get("combinations")
    if held is None or held.weight is not w or held.shape != x.shape or torch.is_grad_enabled():
        held = state["combinations"] = _prepare(held, x, w, strides, paddings, dilations, groups)
    if held.task is None or held.filters is None or type(x) is not torch.Tensor:
        return None
    task, bias, beside = held.task, after.bias, after.beside
    if bias is not None:
        if bias.numel() != task.k or bias.dtype is not torch.float32:
            return None
        bias = bias.contiguous()
    if beside is not None:
        if beside.dtype is not torch.float32 or tuple(beside.shape) != (task.n, task.k, *task.out):
            return None
        beside = last(beside)
    out = beside if reuse and beside is not None else _map(task)
    return _run(held.filters.m, task, x, _Given(w, kept=held.filters), after._replace(bias=bias, beside=beside), out)
