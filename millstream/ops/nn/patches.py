"""Images cut into patches, and convolutions over sequences: im2sequence, unfold, row_conv, var_conv_2d."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.nn._window import conv_size, positive


# ---- unfold --------------------------------------------------------------------------------------------
def _infer_unfold(x: Spec, *, kernel_sizes, strides, paddings, dilations) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    for name, values in (("kernel_sizes", kernel_sizes), ("strides", strides), ("dilations", dilations)):
        positive(name, values, 2)
    pairs = _trbl(paddings)
    sizes = [conv_size(*a) for a in zip(x.shape[2:], kernel_sizes, pairs, strides, dilations)]
    c = -1 if x.shape[1] < 0 else x.shape[1] * kernel_sizes[0] * kernel_sizes[1]
    return Spec((x.shape[0], c, -1 if min(sizes) < 0 else sizes[0] * sizes[1]), x.dtype, x.lod_level)


def _trbl(paddings: list[int]) -> list[tuple[int, int]]:
    """[top, left, bottom, right] as pairs by dimension."""
    if len(paddings) != 4:
        raise ShapeError(f"paddings must have 4 numbers (top, left, bottom, right), received {paddings}")
    return [(paddings[0], paddings[2]), (paddings[1], paddings[3])]


@op("unfold", slots="X -> Y", infer=_infer_unfold)
def unfold(x, *, kernel_sizes: list[int], strides: list[int], paddings: list[int], dilations: list[int]):
    """Every window as a column: X [N, C, H, W] -> Y [N, C * kh * kw, positions]; paddings (top, left, bottom, right)."""
    (top, bottom), (left, right) = _trbl(paddings)
    return F.unfold(F.pad(x, (left, right, top, bottom)), tuple(kernel_sizes), tuple(dilations), 0, tuple(strides))


@op("unfold_grad", slots="X, Y@GRAD -> X@GRAD")
def unfold_grad(x, dy, *, kernel_sizes: list[int], strides: list[int], paddings: list[int], dilations: list[int]):
    (top, bottom), (left, right) = _trbl(paddings)
    h, w = x.shape[2:]
    padded = F.fold(dy, (h + top + bottom, w + left + right), tuple(kernel_sizes), tuple(dilations), 0, tuple(strides))
    return padded[:, :, top : top + h, left : left + w]


# ---- im2sequence ---------------------------------------------------------------------------------------
def _infer_im2sequence(x: Spec, y: Spec | None, *, kernels, strides, paddings, out_stride) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    positive("kernels", kernels, 2)
    positive("strides", strides, 2)
    _trbl(paddings)
    return Spec((x.shape[0], x.shape[1] * kernels[0] * kernels[1]), x.dtype, 1)


@op("im2sequence", slots="X, Y? -> Out#", infer=_infer_im2sequence, nodiff="Y")
def im2sequence(
    x,
    y,
    *,
    kernels: list[int],
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0, 0, 0],
    out_stride: list[int] = [1, 1],
):
    """Each image's windows, row by row, as one sequence: X [N, C, H, W] -> Out [windows, C * kh * kw] with LoD.

    paddings (top, left, bottom, right). Y [N, 2]: real (height, width) of each image before it was shrunk by
    `out_stride`: only windows of that part are taken. Like Fluid, Y is not looked at when there is one image.
    """
    pairs = _trbl(paddings)

    def count(size: int, axis: int) -> int:
        return (size + sum(pairs[axis]) - kernels[axis]) // strides[axis] + 1

    oh, ow = count(x.shape[2], 0), count(x.shape[3], 1)
    if min(oh, ow) <= 0:
        raise EnforceNotMet(
            f"im2sequence: kernels {kernels} do not fit into images {list(x.shape)} with paddings {paddings}"
        )
    padded = F.pad(x, (*pairs[1], *pairs[0]))
    rows = F.unfold(padded, tuple(kernels), 1, 0, tuple(strides)).transpose(1, 2)
    n, total, width = rows.shape
    if y is None or n == 1:
        return Ragged(rows.reshape(-1, width), (np.arange(n + 1, dtype=np.int64) * total,))
    grid = rows.reshape(n, oh, ow, width)
    parts, ends = [], [0]
    for image, (height, breadth) in zip(grid, y.tolist()):
        real = [-(-int(s) // o) for s, o in zip((height, breadth), out_stride)]
        part = image[: count(real[0], 0), : count(real[1], 1)].reshape(-1, width)
        parts.append(part)
        ends.append(ends[-1] + part.shape[0])
    return Ragged(torch.cat(parts), (np.array(ends, dtype=np.int64),))


# ---- row_conv ------------------------------------------------------------------------------------------
def _infer_row_conv(x: Spec, w: Spec) -> Spec:
    if len(w.shape) != 2 or len(x.shape) not in (2, 3):
        raise ShapeError(f"Filter must have 2 dimensions and X 2 or 3, received {list(w.shape)} and {list(x.shape)}")
    if min(x.shape[-1], w.shape[1]) >= 0 and x.shape[-1] != w.shape[1]:
        raise ShapeError(f"Filter {list(w.shape)} must be as wide as X {list(x.shape)}")
    return x


def _row_ends(x: Ragged) -> torch.Tensor:
    """For each row, the end of its sequence."""
    offsets = x.offsets
    return torch.from_numpy(np.repeat(offsets[1:], np.diff(offsets)))


@op("row_conv", slots="X#, Filter -> Out", infer=_infer_row_conv, lod="X", grad_lod="")
def row_conv(x, w):
    """Lookahead convolution (Wang et al. 2016): Out[t] = sum over k of X[t + k] * Filter[k], within the sequence.

    X [rows, D] with LoD, or [B, T, D]; Filter [future + 1, D].
    """
    values = x.values
    if values.dim() == 3:
        t = values.shape[1]
        padded = F.pad(values, (0, 0, 0, w.shape[0] - 1))
        return sum(padded[:, k : k + t] * w[k] for k in range(w.shape[0]))
    ends = _row_ends(x)
    at = torch.arange(values.shape[0])
    padded = F.pad(values, (0, 0, 0, w.shape[0] - 1))
    total: Any = 0
    for k in range(w.shape[0]):
        inside = (at + k < ends).unsqueeze(1).to(values.dtype)
        total = total + padded[k : k + values.shape[0]] * w[k] * inside
    return total


# ---- var_conv_2d -----------------------------------------------------------------------------------------
def _infer_var_conv(x: Spec, row: Spec, column: Spec, w: Spec, *, InputChannel, OutputChannel, KernelH, KernelW, **_: Any):
    want = (OutputChannel, InputChannel * KernelH * KernelW)
    if w.shape != want:
        raise ShapeError(
            f"W must have shape {list(want)} (OutputChannel, InputChannel * KernelH * KernelW), received {list(w.shape)}"
        )
    if len(x.shape) != 2:
        raise ShapeError(f"X must have 2 dimensions [elements, 1], received {list(x.shape)}")
    return Spec((-1, 1), x.dtype), Spec((-1, 1), x.dtype)


@op("var_conv_2d", slots="X#, ROW#, COLUMN#, W -> Out#, Col#", infer=_infer_var_conv, nodiff="ROW, COLUMN")
def var_conv_2d(
    x,
    row,
    column,
    w,
    *,
    InputChannel: int = 1,
    OutputChannel: int = 1,
    StrideH: int = 1,
    StrideW: int = 1,
    KernelH: int = 1,
    KernelW: int = 1,
):
    """2-D convolution of images of different sizes: image i is [InputChannel, len(ROW_i), len(COLUMN_i)] in X's LoD.

    Windows are centred (kernel // 2 before) on every stride-th element, zeros outside. W
    [OutputChannel, InputChannel * KernelH * KernelW]; Out holds [OutputChannel, ceil(h/StrideH), ceil(w/StrideW)] each;
    Col the patches.
    """
    outs, cols, ends, col_ends = [], [], [0], [0]
    heights, widths = np.diff(row.offsets), np.diff(column.offsets)
    pad = (KernelW // 2, KernelW - 1 - KernelW // 2, KernelH // 2, KernelH - 1 - KernelH // 2)
    for i, (h, width) in enumerate(zip(heights.tolist(), widths.tolist())):
        if h and width:
            image = x.values[int(x.offsets[i]) : int(x.offsets[i + 1])].reshape(1, InputChannel, h, width)
            col = F.unfold(F.pad(image, pad), (KernelH, KernelW), 1, 0, (StrideH, StrideW))[0]
            outs.append((w @ col).reshape(-1))
            cols.append(col.reshape(-1))
            ends.append(ends[-1] + outs[-1].numel())
            col_ends.append(col_ends[-1] + cols[-1].numel())
        else:
            ends.append(ends[-1])
            col_ends.append(col_ends[-1])
    empty = x.values.new_zeros(0)
    out = torch.cat(outs) if outs else empty
    col = torch.cat(cols) if cols else empty
    return (
        Ragged(out.reshape(-1, 1), (np.array(ends, dtype=np.int64),)),
        Ragged(col.reshape(-1, 1), (np.array(col_ends, dtype=np.int64),)),
    )
