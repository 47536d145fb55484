"""Convolutions between two batch normalisations by the kernels of normed_rows.py, normed_depthwise.py and grouped.py.

Both functions return None where those do not apply: they take 1x1 filters of stride 1, and 3x3 ones of stride 1 or 2 that
are depthwise or take groups of channels (_conv_grouped.py), over float32 maps with channels for a vector or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.threads import cuts, parts, run_parts
from millstream.ops.nn import _conv_grouped
from millstream.ops.nn._bend import HARD_SWISH, NONE, Bend
from millstream.ops.nn._conv_rows import Ints, is_plain
from millstream.ops.nn._norm_channels import Measured, Running, measured

CHANNELS = 16  # a map has at least as many: a vector
_LONG = 256  # numbers that loops over columns should have
_FEW, _LARGE = 1024, 1 << 17  # rows of a map, and filters, that are laid out on the way (kernels/laid.py)
_EMPTY, _EMPTY_LINES, _NO_MEAN = (np.empty((0,) * n, np.float32) for n in (2, 3, 1))


def is_pointwise(filters: Sequence[int], strides: Ints, paddings: Ints, groups: int) -> bool:
    """Whether a filter [out, in, 1, 1] only multiplies the rows of a map."""
    return groups == 1 and tuple(filters[2:]) == (1, 1) and tuple(strides) == (1, 1) and not any(paddings)


def is_depthwise(filters: Sequence[int], strides: Ints, paddings: Ints, dilations: Ints, groups: int) -> bool:
    """Whether the kernels take a depthwise filter [out, 1, 3, 3], the size of a map kept or halved."""
    if groups != filters[0] or tuple(filters[1:]) != (1, 3, 3) or tuple(paddings) != tuple(dilations):
        return False
    return len(set(dilations)) == 1 and (tuple(strides) == (1, 1) or (tuple(strides), dilations[0]) == ((2, 2), 1))


class Work(NamedTuple):
    """A convolution: what it reads, and its form.

    x [N, C, H, W]; line [5, C]: a, b, mean, slope and most; a * x + b is the normalised x, and the last two are a Bend; None
    where x is taken as it is; w: filters.
    """

    x: torch.Tensor
    line: np.ndarray | None
    w: torch.Tensor
    strides: Ints
    paddings: Ints
    dilations: Ints
    groups: int


def takes_curve(slope: float, filters: Sequence[int], groups: int) -> bool:
    """Whether a convolution with filters [out, in, ...] can read what a curve (a slope below 0) makes.

    Depthwise filters read each number three times: too often for sigmoids. Groups know none of them.
    """
    return slope >= 0 or groups == 1 or (slope == HARD_SWISH and filters[1] == 1)


def _applies(work: Work, *others: torch.Tensor) -> bool:
    x, w = work.x, work.w
    if not is_plain((torch.float32,), x, w, *others) or x.dim() != 4 or x.numel() == 0:
        return False
    if x.shape[1] < CHANNELS or w.shape[0] < CHANNELS:
        return False
    if work.line is not None and not takes_curve(work.line[3, 0], w.shape, work.groups):
        return False
    form = work.strides, work.paddings
    if is_pointwise(w.shape, *form, work.groups) or is_depthwise(w.shape, *form, work.dilations, work.groups):
        return True
    return _conv_grouped.task_of(x, w, *form, work.dilations, work.groups) is not None


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """`x` with the channels of a pixel side by side, [N, H, W, C]."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def group_of(channels: int, pixels: int) -> int:
    """How many pixels of `pixels` in a row loops over columns take at a time."""
    group = 1
    while group * channels < _LONG and pixels % (2 * group) == 0:
        group *= 2
    return group


def _empty(*shape: int) -> np.ndarray:
    """A float32 array that begins with a line of the cache: vectors that stand across two of them take twice as long."""
    return torch.empty(shape, dtype=torch.float32).numpy()


def tiled(line: np.ndarray | None, group: int) -> np.ndarray:
    if line is None:
        return _EMPTY
    if group == 1:
        return line
    out = _empty(line.shape[0], group * line.shape[1])
    out.reshape(line.shape[0], group, -1)[:] = line[:, None]
    return out


def room_for_sums(count: int, columns: int) -> tuple[np.ndarray, ...]:
    return np.zeros((count, columns), np.float32), np.zeros((count, columns)), np.zeros((count, columns))


def measured_parts(sums: tuple[np.ndarray, ...], counts: list[int], running: Running | None) -> Measured | None:
    """What the output's normalisation is told; counts: how many rows each part summed."""
    return None if running is None else measured((*sums, np.array(counts)), running)


def cut_rows(work: int, rows: int, unit: int) -> list[tuple[int, int]]:
    """(first, last) row of each part, multiples of `unit`."""
    count = parts(work, rows // unit)
    return list(pairwise([rows // unit * k // count * unit for k in range(count)] + [rows]))


def forward(work: Work, running: Running | None) -> tuple[torch.Tensor, Measured | None] | None:
    """(output, what its normalisation is told of it)."""
    if not _applies(work):
        return None
    run = _pointwise if work.groups == 1 else _depthwise if work.w.shape[1] == 1 else _grouped
    return run(work, running)


def bend_of(line: np.ndarray | None) -> tuple[np.float32, np.float32]:
    return NONE.numbers() if line is None else (line[3, 0], line[4, 0])


def _panels(w: torch.Tensor, rows: int, columns: int, turned: bool) -> torch.Tensor:
    """Filters as normed_rows.lay_out lays them out."""
    from millstream.kernels import normed_rows, tiles
    from millstream.kernels.panels import padded

    width = tiles.LANES * tiles.VECTORS
    panels = torch.empty(rows * padded(columns), dtype=w.dtype)
    shares = [(a * width, min(b * width, columns)) for a, b in cuts(16 * w.numel(), -(-columns // width))]
    to = panels.data_ptr()
    run_parts(normed_rows.lay_out, [(w.data_ptr(), rows, columns, turned, *share, to) for share in shares])
    return panels


def _pointwise(work: Work, running: Running | None) -> Any:
    from millstream.kernels import normed_rows
    from millstream.kernels.gemm import zeros_at

    x, w = channels_last(work.x), work.w.contiguous()
    n, height, width, c = x.shape
    k, rows = w.shape[0], n * height * width
    if is_few(rows, c, k):
        return _pointwise_few(work, x, w, running)
    near, far = group_of(c, rows), group_of(k, rows)
    out = torch.empty((n, height, width, k), dtype=x.dtype)
    filters = _panels(w, c, k, True)
    ends = cut_rows(rows * c * k, rows, max(near, far))
    sums = room_for_sums(len(ends), 0 if running is None else far * k)
    given = x.reshape(-1, near * c).numpy(), near, tiled(work.line, near), bend_of(work.line), filters.data_ptr()
    made = zeros_at(k), out.view(-1, far * k).numpy(), far
    run_parts(normed_rows.forward, [(*given, *made, *e, *(s[i] for s in sums)) for i, e in enumerate(ends)])
    return out.permute(0, 3, 1, 2), measured_parts(sums, [(b - a) // far for a, b in ends], running)


def is_few(rows: int, c: int, k: int) -> bool:
    """Whether filters [k, c] take longer to be laid out beforehand than rows to come from farther away."""
    return c * k >= _LARGE and rows <= max(_FEW, c * k >> 10)


def normalised(x: torch.Tensor, work: Work) -> torch.Tensor:
    """The rows of `x` [N, H, W, C] as the convolution takes them."""
    from millstream.kernels.batch_norm import apply_line
    from millstream.kernels.brain import numbers

    if work.line is None:
        return x
    y, c = torch.empty(x.shape, dtype=x.dtype), x.shape[3]
    rows = x.numel() // c
    near = group_of(c, rows)
    given = numbers(x.reshape(-1, near * c)), *tiled(work.line, near)[:2], bend_of(work.line)
    made = numbers(y.view(-1, near * c))
    run_parts(apply_line, [(*given, a // near, b // near, made) for a, b in cut_rows(8 * x.numel(), rows, near)])
    return y


def _pointwise_few(work: Work, x: torch.Tensor, w: torch.Tensor, running: Running | None) -> Any:
    from millstream.kernels import batch_norm, laid
    from millstream.kernels.gemm import column_shares, zeros_at

    c, k = x.shape[3], w.shape[0]
    rows, y = x.numel() // c, normalised(x, work)
    out = torch.empty((*x.shape[:3], k), dtype=x.dtype)
    to, filters, at = out.data_ptr(), w.data_ptr(), y.data_ptr()
    run_parts(laid.product_laid_at, [
        (at, c, filters + a * c * 4, c, 1, zeros_at(k), 0, to + a * 4, k, rows, c, b - a, 0, 0)
        for a, b in column_shares(rows * c * k, k, laid.PANEL)
    ])  # fmt: skip
    found = None if running is None else measured(batch_norm.sums(out.view(rows, k).numpy(), np.float32), running)
    return out.permute(0, 3, 1, 2), found


def _filters(work: Work) -> tuple[np.ndarray, int, np.ndarray]:
    """(line, mode, taps) of a depthwise convolution as the kernels take them."""
    w, line, bend = work.w, work.line, bend_of(work.line)
    if line is None:
        line = _empty(5, w.shape[0])
        line[:] = np.array([[1.0], [0.0], [0.0], [bend[0]], [bend[1]]])
    taps = w.view(w.shape[0], 9).t().contiguous().numpy()
    return _spread(line, work), _kind(*bend), _spread(taps, work)


def _kind(slope: float | np.float32, most: float | np.float32) -> int:
    """Of an activation, as the kernels for 3x3 filters take it."""
    from millstream.kernels.depthwise_sweeps import CAPPED, HARD, LEAKY, PLAIN, RELU

    if slope == HARD_SWISH:
        return HARD
    return PLAIN if slope == 1 else LEAKY if slope else RELU if most == np.inf else CAPPED


def _spread(rows: np.ndarray, work: Work) -> np.ndarray:
    """`rows` as far apart as the pixels that a sweep of dilated filters steps over."""
    dilation, width = work.dilations[0], rows.shape[1]
    if dilation == 1:
        return rows
    out = _empty(rows.shape[0], dilation * width)  # most of it is never touched
    out[:, :width] = rows
    return out


def _depthwise(work: Work, running: Running | None) -> Any:
    from millstream.kernels import normed_depthwise

    x, stride = channels_last(work.x), work.strides[0]
    n, tall, wide, c = x.shape
    size = (n, (tall - 1) // stride + 1, (wide - 1) // stride + 1, c)
    out = torch.empty(size, dtype=x.dtype)
    ends = cut_rows(9 * out.numel(), n * size[1], 1)
    sums = room_for_sums(len(ends), 0 if running is None else c)
    given = x.reshape(n * tall, wide, c).numpy(), *_filters(work), out.view(-1, size[2], c).numpy()
    form = stride, work.dilations[0], (tall, size[1])
    run_parts(normed_depthwise.forward, [(*given, *form, *e, *(s[i] for s in sums)) for i, e in enumerate(ends)])
    return out.permute(0, 3, 1, 2), measured_parts(sums, [(b - a) * size[2] for a, b in ends], running)


def _grouped(work: Work, running: Running | None) -> Any:
    task = _conv_grouped.task_of(work.x, *work[2:])
    if task is None:
        return None
    read = _conv_grouped.read_normal(work.x, work.line, _kind(*bend_of(work.line)))
    if running is None:
        return _conv_grouped.correlate(task, read, work.w, None, False)[0], None
    shift = _an_output(work, task)
    out, sums = _conv_grouped.correlate(task, read, work.w, None, False, shift)
    whole = [part.sum(0, keepdims=True) for part in (sums.first, sums.second)]
    return out, measured_parts((shift[None], *whole), [out.numel() // task.c], running)


def _an_output(work: Work, task: _conv_grouped.Task) -> np.ndarray:
    """The pixel in the middle of the first output: what all are taken less of before squares are summed."""
    rows, columns = (_seen(*axis, task.stride) for axis in zip(task.size, task.out, task.pads))
    window = channels_last(work.x)[0, rows[0], columns[0]]
    if work.line is not None:
        a, b = torch.from_numpy(work.line[:2])
        window = Bend(*map(float, bend_of(work.line))).forward(window * a + b)
    whole = torch.zeros(3, 3, task.c)
    whole[rows[1], columns[1]] = window
    taps = task.group * 9
    pixels = whole.permute(2, 0, 1).reshape(-1, 1, taps)  # rows: as columns products take ten times as long
    return torch.bmm(pixels, work.w.reshape(-1, task.group, taps).transpose(1, 2)).view(-1).numpy()


def _seen(size: int, out: int, pad: int, stride: int) -> tuple[slice, slice]:
    """(Those of `size` pixels that the middle one of `out` sees, the taps through which it does.)"""
    first = out // 2 * stride - pad
    begin, end = max(first, 0), min(first + 3, size)
    return slice(begin, end), slice(begin - first, end - first)


class Gradients(NamedTuple):
    """Of a convolution; where x is normalised, `dx` is dz of its normalisation, and total and dot are the sums of dz and of
    dz * (x - mean) that _norm_channels.give_back takes."""

    dx: torch.Tensor | None
    dw: torch.Tensor
    total: np.ndarray
    dot: np.ndarray


class End(NamedTuple):
    """Where the output's gradient is p * dz + q * out + r: line [3, out channels], p, q and r.

    [3, N, ...] where those of each picture differ (1x1 filters alone).
    [5, ...], with a and b: dz is `dout` before what `bend` says of a * out + b; else it is `dout`.
    """

    line: np.ndarray
    bend: Bend


class Summed(NamedTuple):
    """Where what a convolution reads is relu(batch_norm(x) + something): x and the batch's mean."""

    x: torch.Tensor
    mean: torch.Tensor


def fits(work: Work, wanted: bool, added: torch.Tensor | None, summed: Summed | None) -> bool:
    """Whether the kernels take what is added to a gradient."""
    if added is None:
        return summed is None
    plain = added.shape == work.x.shape and work.line is None
    return plain and (summed is None or (wanted and summed.x.shape == added.shape))


def backward(
    work: Work, out: torch.Tensor | None, dout: torch.Tensor, end: End | None, wanted: bool,
    added: torch.Tensor | None = None, summed: Summed | None = None,
) -> Gradients | None:
    """Gradients; wanted: whether dx is; added: what is added to it, where x is not normalised.

    With `summed` dx is the gradient of the sum, and total and dot are those of its normalisation.
    """
    more = out, added, None if summed is None else summed.x
    if not _applies(work, dout, *(t for t in more if t is not None)) or not fits(work, wanted, added, summed):
        return None
    if work.groups == 1:
        return _pointwise_back(work, dout if out is None else out, dout, end, wanted, added, summed)
    if added is not None or (end is not None and end.line.ndim == 3):
        return None
    if end is not None and end.bend.curved and work.w.shape[1] > 1:
        return None
    back = _depthwise_back if work.w.shape[1] == 1 else _grouped_back
    return back(work, dout if out is None else out, dout, end, wanted)


def _given(end: End | None, group: int) -> tuple[np.ndarray, tuple[np.float32, np.float32]]:
    return (_EMPTY, NONE.numbers()) if end is None else (tiled(end.line, group), end.bend.numbers())


def picture_lines(end: End | None, group: int, rows: int) -> tuple[np.ndarray, int, tuple[np.float32, np.float32]]:
    """(lines, each of as many of `rows` rows, taken `group` at a time; how many; bend)."""
    if end is None:
        return _EMPTY_LINES, 1, NONE.numbers()
    given = end.line if end.line.ndim == 3 else end.line[:, None]
    lines = np.stack([tiled(given[:, n], group) for n in range(given.shape[1])])
    return lines, rows // group // len(lines), end.bend.numbers()


def _pointwise_back(
    work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool, added: torch.Tensor | None,
    summed: Summed | None,
) -> Gradients:
    from millstream.kernels import normed_rows, tiles
    from millstream.kernels.gemm import zeros_at

    x, w, given = channels_last(work.x), work.w.contiguous(), channels_last(dout)
    c, k, rows, normed = x.shape[3], w.shape[0], x.numel() // x.shape[3], work.line is not None
    if is_few(2 * rows if normed else rows, c, k):
        return _pointwise_back_few(work, out, dout, end, wanted, added, summed)
    near, far = group_of(c, rows), group_of(k, rows if end is None or end.line.ndim == 2 else rows // len(x))
    dx = torch.empty(x.shape if wanted else (0, c), dtype=x.dtype)
    ends = cut_rows(2 * rows * c * k, rows, max(near, far))
    filters = _panels(w, k, c, False)
    left = c % tiles.LANES
    dw, tail = (_empty(len(ends), k, n) for n in (c - left, tiles.LANES if left else 0))
    _, total, dot = room_for_sums(len(ends), near * c if normed or summed is not None else 0)
    read = x.reshape(-1, near * c).numpy(), near, tiled(work.line, near), bend_of(work.line), filters.data_ptr()
    after = zeros_at(max(c, k)), channels_last(out).reshape(-1, far * k).numpy(), far, given.reshape(-1, far * k).numpy()
    made, line = dx.view(-1, near * c if wanted else c).numpy(), picture_lines(end, far, rows)
    more = added_rows(added, summed, near * c, _EMPTY)
    run_parts(
        normed_rows.backward,
        [(*read, *after, *line, *more, *e, made, dw[i], tail[i], total[i], dot[i]) for i, e in enumerate(ends)],
    )
    gradient = torch.from_numpy(dw[0]).view(w.shape) if len(ends) == 1 and not left else _joined(dw, tail, w)
    return Gradients(dx.permute(0, 3, 1, 2) if wanted else None, gradient, total, dot)


def behind_line(out: torch.Tensor, dout: torch.Tensor, end: End | None) -> torch.Tensor:
    """The gradient of a convolution's output, [N, H, W, C]."""
    from millstream.kernels import normed_rows
    from millstream.kernels.brain import numbers

    x, given = channels_last(out), channels_last(dout)
    if end is None:
        return given
    k = x.shape[3]
    rows = x.numel() // k
    far = group_of(k, rows if end.line.ndim == 2 else rows // len(x))
    made = torch.empty(x.shape, dtype=x.dtype)
    flat = [numbers(t.reshape(-1, far * k)) for t in (x, given, made)]
    line = picture_lines(end, far, rows)
    run_parts(normed_rows.give_pictures, [
        (flat[0], flat[1], *line, a // far, b // far, flat[2][a // far :]) for a, b in cut_rows(8 * x.numel(), rows, far)
    ])  # fmt: skip
    return made


def _pointwise_back_few(
    work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool, added: torch.Tensor | None,
    summed: Summed | None,
) -> Gradients:
    from millstream.kernels import laid, normed_rows
    from millstream.kernels.gemm import column_shares, zeros_at

    x, w, g = channels_last(work.x), work.w.contiguous(), behind_line(out, dout, end)
    c, k, rows = x.shape[3], w.shape[0], x.numel() // x.shape[3]
    y = normalised(x, work)
    dx, dw = torch.empty(x.shape if wanted else (0, c), dtype=x.dtype), torch.empty(w.shape, dtype=w.dtype)
    more = None if added is None else channels_last(added)
    given = column_shares(2 * rows * c * k, c, laid.PANEL)
    count = max(len(given), parts(2 * rows * c * k, k))  # filters, or panels of columns, may be few
    read = g.data_ptr(), y.data_ptr(), w.data_ptr(), zeros_at(c), 0 if more is None else more.data_ptr(), rows, k, c
    run_parts(normed_rows.back_at, [
        (*read, dx.data_ptr() if wanted and i < len(given) else 0, given[min(i, len(given) - 1)], dw.data_ptr(),
         (k * i // count, k * (i + 1) // count))
        for i in range(count)
    ])  # fmt: skip
    if work.line is not None:
        return through_norm(work, x, dx, dw)
    if summed is not None:
        return before_sum(work, dx.permute(0, 3, 1, 2), dw, summed)
    return Gradients(dx.permute(0, 3, 1, 2) if wanted else None, dw, *room_for_sums(0, 0)[1:])


def added_rows(added: torch.Tensor | None, summed: Summed | None, width: int, nothing: np.ndarray) -> tuple[np.ndarray, ...]:
    """What is added, what was summed and its mean, as the kernels over rows take them; `nothing` where there is none."""
    from millstream.kernels.brain import numbers

    if added is None:
        return nothing, nothing, _NO_MEAN
    more = numbers(channels_last(added).reshape(-1, width))
    if summed is None:
        return more, nothing, _NO_MEAN
    mean = array(summed.mean)
    return more, numbers(channels_last(summed.x).reshape(-1, width)), tiled(mean[None], width // len(mean))[0]


def before_sum(work: Work, dy: torch.Tensor, dw: torch.Tensor, summed: Summed) -> Gradients:
    """With the gradient of the sum that x is the relu of, from that of x."""
    from millstream.kernels import batch_norm
    from millstream.kernels.brain import numbers

    y, mean = channels_last(work.x), array(summed.mean)
    dz = torch.empty(y.shape, dtype=y.dtype)
    before, given, above, made = (
        numbers(t.reshape(-1, len(mean))) for t in (channels_last(summed.x), channels_last(dy), y, dz)
    )
    sums = batch_norm.back_sums(before, given, mean, mean, NONE.numbers(), mean, above, made)
    return Gradients(dz.permute(0, 3, 1, 2), dw, *sums)


def through_norm(work: Work, x: torch.Tensor, dy: torch.Tensor, dw: torch.Tensor) -> Gradients:
    """With dz of x's normalisation; x, and dy of the normalised x, [N, H, W, C]."""
    from millstream.kernels import normed_rows
    from millstream.kernels.brain import numbers

    assert work.line is not None
    rows, c = x.numel() // x.shape[3], x.shape[3]
    near = group_of(c, rows)
    ends = cut_rows(8 * x.numel(), rows, near)
    _, total, dot = room_for_sums(len(ends), near * c)
    a, b, mean = tiled(work.line, near)[:3]
    made = torch.empty(x.shape, dtype=x.dtype)
    before, given, dz = (numbers(t.reshape(-1, near * c)) for t in (x, dy, made))
    run_parts(normed_rows.relu_back, [
        (before, given[first // near :], a, b, bend_of(work.line), mean, first // near, last // near, dz, total[i], dot[i])
        for i, (first, last) in enumerate(ends)
    ])  # fmt: skip
    return Gradients(made.permute(0, 3, 1, 2), dw, total, dot)


def _joined(shares: np.ndarray, tails: np.ndarray, w: torch.Tensor) -> torch.Tensor:
    """The filters' gradient of all parts."""
    from millstream.kernels import normed_vectors

    out = torch.empty(w.shape, dtype=w.dtype)
    to = out.view(w.shape[:2]).numpy()
    run_parts(normed_vectors.join, [(shares, tails, *ends, to) for ends in cuts(8 * shares.size, w.shape[0])])
    return out


def _depthwise_back(work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool) -> Gradients:
    from millstream.kernels import normed_depthwise as kernels

    x, given, normed = channels_last(work.x), channels_last(dout), work.line is not None
    n, tall, wide, c = x.shape
    tall_out, wide_out = given.shape[1:3]
    group = group_of(c, wide_out)
    dx = torch.empty(x.shape, dtype=x.dtype)
    ends = cut_rows(18 * given.numel(), n * tall_out, 1)
    dw, (_, total, dot) = np.zeros((len(ends), 9, c)), room_for_sums(len(ends), c if normed else 0)
    after = (t.reshape(n * tall_out, wide_out // group, group * c).numpy() for t in (channels_last(out), given))
    read = x.reshape(n * tall, wide, c).numpy(), *_filters(work), *after, *_given(end, group)
    made, whole = dx.view(n * tall, wide, c).numpy(), work.strides[0] == 1
    form = (work.dilations[0], (tall, tall_out)) if whole else ((tall, tall_out),)
    run_parts(
        kernels.backward if whole else kernels.backward_2,
        [(*read, *form, *e, made, dw[i], total[i], dot[i]) for i, e in enumerate(ends)],
    )
    gradient = torch.from_numpy(dw.sum(0).T.astype(np.float32, order="C")).view(work.w.shape)
    return Gradients(dx.permute(0, 3, 1, 2) if wanted else None, gradient, total, dot)


def _grouped_back(work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool) -> Gradients | None:
    task, line, kind = _conv_grouped.task_of(work.x, *work[2:]), None, 0
    if task is None:
        return None
    if end is not None:
        line, kind = np.ascontiguousarray(end.line), _kind(*NONE)
        if len(line) == 5:
            bend = np.array(end.bend, np.float32)[:, None].repeat(task.c, 1)
            line, kind = np.concatenate([line, bend]), _kind(*end.bend)
    read = _conv_grouped.read_normal(work.x, work.line, _kind(*bend_of(work.line)))
    dx, dw, sums = _conv_grouped.backward(task, read, work.w, _conv_grouped.read_given(out, dout, line, kind), wanted)
    return Gradients(dx, dw, sums.first, sums.second)


def finish(x: torch.Tensor, dz: torch.Tensor, line: torch.Tensor) -> torch.Tensor | None:
    """p * dz + q * x + r with `line` [3, C] = p, q, r: the gradient of a normalised x; None for maps of other types than
    float32 and bfloat16."""
    if not is_plain((torch.float32, torch.bfloat16), x, dz) or x.dim() != 4 or x.numel() == 0:
        return None
    from millstream.kernels import normed_rows
    from millstream.kernels.brain import numbers

    rows, given = channels_last(x), channels_last(dz)
    n, c = x.numel() // x.shape[1], x.shape[1]
    group = group_of(c, n)
    out = torch.empty(rows.shape, dtype=x.dtype)
    flat = [numbers(t.reshape(-1, group * c)) for t in (rows, given, out)]
    vectors = tiled(array(line), group)
    run_parts(normed_rows.back, [
        (flat[0], flat[1], *vectors, a // group, b // group, flat[2][a // group :])
        for a, b in cut_rows(8 * x.numel(), n, group)
    ])  # fmt: skip
    return out.permute(0, 3, 1, 2)
