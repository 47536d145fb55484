"""_conv_winograd.py for bfloat16, where the processor has products of pairs (kernels/winograd_pairs.py).

Processor ms, one thread, oneDNN -> so, with squares of 2x2:

| input | output | input gradient | filter gradient |
| --- | --- | --- | --- |
| 8x64x56x56 | 8.4 -> 5.4 | 8.4 -> 5.4 | 9.8 -> 6.1 |
| 8x128x28x28 | 8.2 -> 4.6 | 8.3 -> 4.6 | 9.0 -> 5.1 |
| 8x256x14x14 | 8.1 -> 4.5 | 8.1 -> 4.6 | 9.3 -> 5.1 |
| 8x512x7x7 | 8.7 -> 7.9 | 9.0 -> 8.6 | 13 -> 7.4 |

Each function returns None where it does not apply.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from millstream.kernels import pair_products
from millstream.kernels.gemm import zeros_at
from millstream.kernels.threads import parts, run_parts
from millstream.ops.nn._conv_winograd import Ints, Task, last, rooms_of, shares_of, task_of

_M = 2  # outputs of 4x4 are faster still, but their combinations lose two bits
_ROOM, _BLOCK, _BLOCK_LARGE, _LARGE = 700 << 10, 36, 96, 1 << 17  # as there
_HELD, _MANY = 8 << 20, 1 << 14  # bytes of combinations of all pixels, and filters, for which filters pass by in panels

# Costs in multiplications of a vector of float32, fitted to four shapes with one thread; products of pairs are two.
_SQUARE, _FILTER = 140, 500
_DIRECT, _DIRECT_GRADIENT = 4.75, 5.3  # of direct sums: an output


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import winograd_pairs as module

    return module


@cache
def _taps() -> ModuleType:
    from millstream.kernels import winograd as module

    return module


def _is_faster(task: Task, direct: float) -> bool:
    """Whether filtering is faster than direct sums, an output of which costs `direct`."""
    squares = task.squares(_M)
    products = squares * (_M + 2) ** 2 / 2 + _FILTER + squares * (task.c + task.k) * _SQUARE / (task.c * task.k)
    return products < direct * task.n * task.out[0] * task.out[1]


def _task(
    x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> Task | None:  # fmt: skip
    if x.dtype is not torch.bfloat16 or not pair_products.takes(9 * x.numel() * w.shape[0], x, parameter=w):
        return None
    return task_of(x, w, strides, paddings, dilations, groups, (torch.bfloat16, w.dtype))


def _block(task: Task, squares: int, bytes_a_square: int) -> int:
    least = _BLOCK_LARGE if task.c * task.k >= _LARGE else _BLOCK
    return min(squares, max(least, _ROOM // ((_M + 2) ** 2 * bytes_a_square)))


def _cuts(squares: int, count: int) -> list[tuple[int, int]]:
    return [(squares * i // count, squares * (i + 1) // count) for i in range(count)]


def _run(task: Task, x: torch.Tensor, w: torch.Tensor, turned: bool) -> torch.Tensor:
    x, w = last(x), w.float().contiguous()
    out = x.new_empty((task.n, *task.out, task.k)).permute(0, 3, 1, 2)
    combined = x.new_empty(((_M + 2) ** 2, task.c, task.k))
    shares = shares_of(combined.numel() * 4, task.k)
    _first_room, begins = rooms_of(_kernels().room_of_filters(_M), len(shares))
    run_parts(_kernels().filters, [
        (_M, w.data_ptr(), turned, combined.data_ptr(), task.c, task.k, share, begin) for share, begin in zip(shares, begins)
    ])  # fmt: skip
    squares = task.squares(_M)
    count = parts(squares * (_M + 2) ** 2 * task.c * task.k // 2, squares)
    block = _block(task, -(-squares // count), 2 * task.c + 4 * task.k)
    _room, begins = rooms_of(_kernels().room_of(_M, block, task.c, task.k), count)
    given = _M, x.data_ptr(), (*task.size, task.c), task.pads, combined.data_ptr(), out.data_ptr(), (*task.out, task.k)
    zeros = zeros_at(max(task.c, task.k))
    run_parts(_kernels().forward, [
        (*given, share, block, begin, zeros) for share, begin in zip(_cuts(squares, count), begins)
    ])  # fmt: skip
    return out


def forward(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a convolution of bfloat16 maps without a bias."""
    task = _task(x, w, strides, paddings, dilations, groups) if bias is None else None
    return _run(task, x, w, False) if task is not None and _is_faster(task, _DIRECT) else None


def backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput: the gradient of the output under the filters turned round."""
    given = _task(x, w, strides, paddings, dilations, groups)
    if given is None or dout.dtype is not torch.bfloat16:
        return None
    task = Task(given.n, given.k, given.c, given.out, given.size, (2 - given.pads[0], 2 - given.pads[1]))
    return _run(task, dout, w, True) if _is_faster(task, _DIRECT) else None


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter: the products' gradient, then that of the filters' combinations."""
    task = _task(x, w, strides, paddings, dilations, groups)
    if task is None or dout.dtype is not torch.bfloat16 or not _is_faster(task, _DIRECT_GRADIENT):
        return None
    x, dout, dw = last(x), last(dout), torch.empty(w.shape, dtype=torch.float32)
    held = task.squares(_M) * (_M + 2) ** 2 * task.c * 2
    (_gradient_by_panels if held <= _HELD and task.c * task.k >= _MANY else _gradient_by_squares)(task, x, dout, dw)
    return dw.to(torch.bfloat16)


def _gradient_by_panels(task: Task, x: torch.Tensor, dout: torch.Tensor, dw: torch.Tensor) -> None:
    """With combinations of all pixels at hand."""
    kernels, squares, zeros = _kernels(), task.squares(_M), zeros_at(max(task.c, task.k))
    pairs, sizes = -(-squares // 2), (*task.out, task.k)
    pixels = torch.empty((_M + 2) ** 2, task.c, pairs, dtype=torch.float32)
    count = parts(pixels.numel() * _SQUARE // 4, pairs)
    _first_room, begins = rooms_of(kernels.room_of_pixels(_M, task.c), count)
    given = _M, x.data_ptr(), (*task.size, task.c), task.pads, sizes
    run_parts(kernels.pixels_in_pairs, [
        (*given, share, squares, begin, pixels.data_ptr(), zeros) for share, begin in zip(_cuts(pairs, count), begins)
    ])  # fmt: skip
    shares = shares_of(squares * (_M + 2) ** 2 * task.c * task.k // 2, task.k)
    _room, begins = rooms_of(kernels.room_of_panels(_M, squares, task.c), len(shares))
    run_parts(kernels.filter_gradient_by_panels, [
        (_M, pixels.data_ptr(), task.c, dout.data_ptr(), sizes, squares, share, begin, dw.data_ptr(), zeros)
        for share, begin in zip(shares, begins)
    ])  # fmt: skip


def _gradient_by_squares(task: Task, x: torch.Tensor, dout: torch.Tensor, dw: torch.Tensor) -> None:
    """Block by block of squares."""
    kernels, c, k, squares = _kernels(), task.c, task.k, task.squares(_M)
    count = parts(squares * (_M + 2) ** 2 * c * k // 2, squares)
    block, zeros = _block(task, -(-squares // count), 2 * c + 2 * k), zeros_at(max(c, k))
    _room, begins = rooms_of(kernels.room_of_gradient(_M, block, c, k), count)
    sums = torch.empty(count, (_M + 2) ** 2, c, k, dtype=torch.float32)
    given = _M, x.data_ptr(), (*task.size, c), task.pads, dout.data_ptr(), (*task.out, k)
    run_parts(kernels.filter_gradient, [
        (*given, share, block, begin, part.data_ptr(), zeros)
        for share, begin, part in zip(_cuts(squares, count), begins, sums)
    ])  # fmt: skip
    total = sums[0]
    for more in sums[1:]:
        total += more
    run_parts(_taps().taps_gradient, [
        (_M, total.data_ptr(), dw.data_ptr(), c, k, zeros, share) for share in shares_of(total.numel(), k)
    ])  # fmt: skip
