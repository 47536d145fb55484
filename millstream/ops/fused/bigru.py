"""Both directions of a gru in one operator. Plans make them (passes/recurrent/fuse_bigru.py); Programs do not have them."""

from __future__ import annotations

import itertools
import math
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from millstream.errors import EnforceNotMet
from millstream.kernels.threads import parts, run_parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.fused.projected import TILED, projected_gru
from millstream.ops.recurrent import gru as _gru
from millstream.ops.recurrent._steps import ACTIVATIONS, code, fits, need, sequence_offsets


@cache
def _kernels() -> tuple[ModuleType, int]:
    from millstream.kernels import bigru, tiles

    return bigru, tiles.LANES


def _rows_spec(
    x, wx, bias_x, wh, bias, wx2, bias_x2, wh2, bias2, *digits, activation, gate_activation, is_reverse, origin_mode
):
    code(activation), code(gate_activation)
    d = wh.shape[0]
    depth = -1 if min(x.shape[1:]) < 0 else math.prod(x.shape[1:])
    for one, other in ((wx, wh), (wx2, wh2)):
        need(fits(other.shape, d, 3 * d), f"both WeightH must be [{d}, {3 * d}]", other)
        need(fits(one.shape, depth, 3 * d), f"X must be [rows, M] and WeightX [M, {3 * d}]", x, one)
    return x.like(shape=(x.shape[0], 2 * d))


@op(
    "projected_bigru",
    slots="X#, WeightX, BiasX?, WeightH, Bias?, WeightX2, BiasX2?, WeightH2, Bias2?, "
    "DigitsX?, DigitsH?, DigitsX2?, DigitsH2? -> Hidden#",
    infer=_rows_spec, grad=False, flops=_flops.projected_both_ways,
)  # fmt: skip
def projected_bigru(
    x, wx, bias_x, wh, bias, wx2, bias_x2, wh2, bias2, digits_x=None, digits_h=None, digits_x2=None, digits_h2=None, *,
    activation: str = "tanh", gate_activation: str = "sigmoid", is_reverse: bool = False, origin_mode: bool = False,
):  # fmt: skip
    """projected_gru twice over X, the second one the other way round; their results side by side.

    X: [rows, M] with LoD (M may be several dims); the first direction runs backwards with `is_reverse`; Hidden: [rows, 2D].
    DigitsX, DigitsH: weights as kernels/digits.py has them, for X and states in [-1, 1]; beside the weights themselves.
    """
    offsets = sequence_offsets(x, "X")
    values = x.values if x.values.dim() == 2 else x.values.flatten(1)
    d, (rows, depth) = wh.shape[0], values.shape
    kernels, lanes = _kernels()
    weights = (wx, bias_x, wh, bias, digits_x, digits_h, wx2, bias_x2, wh2, bias2, digits_x2, digits_h2)
    small = alone(offsets)
    tiled = not d % lanes and depth == wx.shape[0] and rows and depth and (not small or rows * depth * 3 * d <= TILED)
    if not tiled or not all_plain(values, wx, bias_x, wh, bias, wx2, bias_x2, wh2, bias2):
        acts = {"activation": activation, "gate_activation": gate_activation, "origin_mode": origin_mode}
        one = projected_gru(x, None, wx, bias_x, wh, bias, is_reverse=is_reverse, **acts)
        two = projected_gru(x, None, wx2, bias_x2, wh2, bias2, is_reverse=not is_reverse, **acts)
        return Ragged(torch.cat([one.values, two.values], 1), x.lod)
    hidden = values.new_empty((rows, 2 * d))
    inputs = (values.data_ptr(), _addresses(weights), hidden.data_ptr())
    how = (is_reverse, ACTIVATIONS[gate_activation], ACTIVATIONS[activation], origin_mode)
    line = 3 * d if digits_x is None else 3 * d + -(-depth // 2)
    if small:
        _directions(kernels.from_rows, rows * line + 3 * d, rows * (depth + d) * 3 * d, inputs, offsets, depth, d, *how)
    else:
        _batches(kernels.batch_from_rows, offsets, d, inputs, line, depth, d, *how)
    return Ragged(hidden, x.lod)


def _ids_spec(ids, table, wh, bias, wh2, bias2, *digits, activation, gate_activation, is_reverse, origin_mode):
    code(activation), code(gate_activation)
    d = wh.shape[0]
    need(fits(wh.shape, d, 3 * d) and fits(wh2.shape, d, 3 * d), f"both WeightH must be [{d}, {3 * d}]", wh, wh2)
    need(fits(table.shape, -1, 6 * d), f"Table must be [ids, {6 * d}]", table)
    return Spec((ids.shape[0], 2 * d), table.dtype, ids.lod_level)


@op(
    "embedded_bigru", slots="Ids#, Table, WeightH, Bias?, WeightH2, Bias2?, DigitsH?, DigitsH2? -> Hidden#",
    infer=_ids_spec, grad=False, flops=_flops.embedded_recurrence,
)  # fmt: skip
def embedded_bigru(
    ids, table, wh, bias, wh2, bias2, digits_h=None, digits_h2=None, *, activation: str = "tanh",
    gate_activation: str = "sigmoid", is_reverse: bool = False, origin_mode: bool = False,
):  # fmt: skip
    """gru twice over the rows of Table, the second one the other way round; their results side by side.

    Ids: int64 [rows, 1] or [rows] with LoD; Table: [ids, 6D], the projections of both directions; else as projected_bigru.
    """
    offsets = sequence_offsets(ids, "Ids")
    flat = ids.values if ids.values.is_contiguous() else ids.values.contiguous()
    d, rows = wh.shape[0], flat.numel()
    kernels, lanes = _kernels()
    plain = flat.dtype is torch.int64 and flat.is_cpu
    if rows and (not plain or kernels.outside(flat.data_ptr(), rows, table.shape[0])):
        least, most = int(flat.min()), int(flat.max())
        if least < 0 or most >= table.shape[0]:
            raise EnforceNotMet(f"Ids must lie in [0, {table.shape[0]}), received {least} to {most}")
    weights = (wh, bias, digits_h, wh2, bias2, digits_h2)
    if d % lanes or not rows or not plain or not all_plain(table, wh, bias, wh2, bias2):
        both = torch.index_select(table, 0, flat.reshape(-1).long())
        acts: Any = {"activation": activation, "gate_activation": gate_activation, "origin": origin_mode}
        halves = [both[:, : 3 * d].contiguous(), both[:, 3 * d :].contiguous()]
        one = _gru.run(halves[0], offsets, None, wh, bias, reverse=is_reverse, **acts)
        two = _gru.run(halves[1], offsets, None, wh2, bias2, reverse=not is_reverse, **acts)
        return Ragged(torch.cat([one.hidden, two.hidden], 1), ids.lod)
    hidden = table.new_empty((rows, 2 * d))
    inputs = (flat.data_ptr(), table.data_ptr(), _addresses(weights), hidden.data_ptr())
    how = (is_reverse, ACTIVATIONS[gate_activation], ACTIVATIONS[activation], origin_mode)
    if alone(offsets):
        _directions(kernels.from_ids, (rows + 1) * 3 * d, rows * 3 * d * d, inputs, offsets, d, *how)
    else:
        _batches(kernels.batch_from_ids, offsets, d, inputs, 0, d, *how)
    return Ragged(hidden, ids.lod)


def alone(offsets: np.ndarray) -> bool:
    """Whether nearly all rows are of one sequence: of two that are as long, steps together cost less already."""
    return len(offsets) == 2 or int(offsets[-1]) * 4 <= 5 * int((offsets[1:] - offsets[:-1]).max())


# Requests come one by one: the other thread sleeps by then, or waits awake on this thread's core. jieba's sentences of 17
# characters with two threads took 0.48 ms each, or 1.5 in every third process; with one 0.45.
RARELY = 4


def _directions(kernel, size: int, work: int, inputs: tuple[Any, ...], *rest) -> None:
    """Both directions, each of `work` multiplications with room for `size` numbers: in two threads where that pays."""
    scratch = torch.empty(2 * size, dtype=torch.float32)
    begin = scratch.data_ptr()
    scratches = (begin, begin + size * 4)
    if parts(work // RARELY, 2) == 2:
        run_parts(kernel, [(k, k + 1, *inputs, scratches, *rest) for k in (0, 1)])
    else:
        kernel(0, 2, *inputs, scratches, *rest)


def _batches(kernel, offsets: np.ndarray, d: int, inputs: tuple[Any, ...], line: int, *rest) -> None:
    """Both directions over many sequences; more than two threads share those of a direction.

    line: numbers that the kernel's scratch has for each row.
    """
    lengths = offsets[1:] - offsets[:-1]
    work = int(offsets[-1]) * 6 * d * d
    pieces = parts(work, 2 * len(lengths))
    shares = max(1, pieces // 2)
    edges = [len(lengths) * k // shares for k in range(shares + 1)]
    calls, kept = [], []
    for begin, end in itertools.pairwise(edges):
        order = np.argsort(-lengths[begin:end], kind="stable") + begin
        first = int(offsets[begin])
        size = (int(offsets[end]) - first) * line + 3 * d
        for k in (0, 1):
            scratch = torch.empty(size + 6 * len(order) * d, dtype=torch.float32)
            kept.append(scratch)
            at = scratch.data_ptr()
            rooms = (at, at + size * 4)
            calls.append((k, first, *inputs, *rooms, offsets[:-1][order] - first, lengths[order], *rest))
    if pieces > 1:
        run_parts(kernel, calls)
        return
    for call in calls:
        kernel(*call)


def all_plain(*tensors) -> bool:
    for t in tensors:  # a generator takes three times as long
        if t is None:
            continue
        if t.dtype is not torch.float32 or not t.is_cpu or not t.is_contiguous():
            return False
    return True


def _addresses(tensors) -> np.ndarray:
    return array_of(tuple([0 if t is None else t.data_ptr() for t in tensors]))


@lru_cache(maxsize=1024)
def array_of(addresses: tuple[int, ...]) -> np.ndarray:
    """To be read only."""
    return np.array(addresses)
