"""gru with its input's projection. Plans make it (passes/fuse_projected_gru.py); Programs do not have it."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.kernels.gemm import product
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.recurrent import gru as _gru
from millstream.ops.recurrent._steps import ACTIVATIONS, code, fits, initial, need, sequence_offsets

TILED = 8_000_000  # multiplications up to which register tiles beat a library's product (ops/matmul.py)


@cache
def _kernels() -> tuple[ModuleType, int]:
    from millstream.kernels import gru, tiles

    return gru, tiles.LANES


def _spec(x, h0, wx, bias_x, wh, bias, *, activation, gate_activation, is_reverse, origin_mode):
    code(activation), code(gate_activation)
    d = wh.shape[0]
    need(fits(wh.shape, d, 3 * d), "WeightH must be [D, 3D]", wh)
    depth = -1 if min(x.shape[1:]) < 0 else math.prod(x.shape[1:])
    need(fits(wx.shape, depth, 3 * d), f"X must be [rows, M] and WeightX [M, {3 * d}]", x, wx)
    need(h0 is None or fits(h0.shape, -1, d), f"H0 must be [sequences, {d}]", h0)
    return x.like(shape=(x.shape[0], d))


def few(offsets: np.ndarray, width: int) -> bool:
    """Whether one sequence after another beats a batch of them step by step (the narrower the batch, the likelier).

    The bounds were measured; a wide weight matrix falls out of the cache when each sequence reads it anew.
    """
    bound = 16 if width <= 64 else 8 if width <= 256 else 4
    if len(offsets) <= bound + 1:
        return True
    sizes = np.diff(offsets)
    return int(sizes.sum()) <= bound * int(sizes.max())


@op(
    "projected_gru", slots="X#, H0?, WeightX, BiasX?, WeightH, Bias? -> Hidden#", infer=_spec, grad=False,
    flops=_flops.projected_input,
)  # fmt: skip
def projected_gru(
    x, h0, wx, bias_x, wh, bias, *, activation: str = "tanh", gate_activation: str = "sigmoid", is_reverse: bool = False,
    origin_mode: bool = False,
):  # fmt: skip
    """gru of X WeightX + BiasX.

    X: [rows, M] with LoD (M may be several dims); WeightX: [M, 3D]; BiasX: 3D numbers; the rest as in gru.
    """
    offsets = sequence_offsets(x, "X")
    values = x.values if x.values.dim() == 2 else x.values.flatten(1)
    d, depth = wh.shape[0], wx.shape[0]
    rows = values.shape[0]
    kernels, lanes = _kernels()
    tensors = [t for t in (values, wx, wh, bias_x, bias, h0) if t is not None]
    plain = all(t.dtype is torch.float32 and t.is_cpu and t.is_contiguous() for t in tensors)
    tiled = plain and not d % lanes and depth == values.shape[1] and 0 < rows * depth * 3 * d <= TILED
    if not tiled or not few(offsets, d):
        projected = product(values, wx)
        if bias_x is not None:
            projected = projected + bias_x.reshape(1, -1)
        found = _gru.run(
            projected, offsets, h0, wh, bias,
            activation=activation, gate_activation=gate_activation, reverse=is_reverse, origin=origin_mode,
        )  # fmt: skip
        return Ragged(found.hidden, x.lod)
    first = None if h0 is None else initial(h0, len(offsets) - 1, d, h0, "H0")
    hidden, scratch = wx.new_empty((rows, d)), wx.new_empty((rows + 1, 3 * d))
    kernels.projected(
        values.data_ptr(), wx.data_ptr(), 0 if bias_x is None else bias_x.data_ptr(), wh.data_ptr(),
        0 if bias is None else bias.data_ptr(), 0 if first is None else first.data_ptr(),
        hidden.data_ptr(), scratch.data_ptr(), offsets, depth, d, is_reverse, ACTIVATIONS[gate_activation],
        ACTIVATIONS[activation], origin_mode,
    )  # fmt: skip
    return Ragged(hidden, x.lod)
