"""sequence_conv: a convolution over the rows of each sequence."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import EnforceNotMet, NotSupportedError, ShapeError
from millstream.kernels.arrays import array, tensor
from millstream.kernels.gemm import product, product_of_rows
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.sequence._lod import check_rows, known, offsets_of, segment


def _conv_spec(x, padding, weight, *, paddingTrainable, contextLength, contextStart, contextStride):
    if len(x.shape) != 2 or len(weight.shape) != 2:
        raise ShapeError(
            f"X must be [rows, width] and Filter [contextLength * width, filters], received {list(x.shape)} and "
            f"{list(weight.shape)}"
        )
    if contextLength < 1:
        raise ShapeError(f"contextLength must be at least 1, received {contextLength}")
    if contextStride != 1:
        raise NotSupportedError(f"contextStride must be 1, received {contextStride}")
    if known(x.shape[1], weight.shape[0]) and weight.shape[0] != contextLength * x.shape[1]:
        raise ShapeError(
            f"Filter's first dimension must be contextLength * X's width = {contextLength} * {x.shape[1]}, "
            f"received {list(weight.shape)}"
        )
    rows = max(0, -contextStart) + max(0, contextStart + contextLength - 1)
    if paddingTrainable and (padding is None or tuple(padding.shape) != (rows, x.shape[1])):
        raise ShapeError(
            f"PaddingData must be [{rows}, {x.shape[1]}] when paddingTrainable, received "
            f"{None if padding is None else list(padding.shape)}"
        )
    return x.like(shape=(x.shape[0], weight.shape[1]))


def _columns(x: Ragged, padding: torch.Tensor | None, start: int, length: int) -> torch.Tensor:
    offsets = offsets_of(x, "X")
    check_rows(x, "X")
    if len(x.lod) != 1:
        raise EnforceNotMet(f"input X must have 1 LoD level, received {len(x.lod)}")
    source = array(x.values)
    pad = np.empty((0, source.shape[1]), source.dtype) if padding is None else array(padding)
    out = np.empty((source.shape[0], length * source.shape[1]), source.dtype)
    segment().context_gather(source, offsets, start, length, pad, out)
    return tensor(out, x.values)


def _conv_again(x, padding, weight, *, paddingTrainable, contextLength, contextStart):
    pads = [padding] if paddingTrainable else []
    table = torch.cat([x.values.new_zeros((1, x.values.shape[1])), x.values, *pads])
    numbers = torch.arange(table.shape[0], dtype=torch.float64).unsqueeze(1)
    rows = x.values.shape[0] + 1
    at = _columns(Ragged(numbers[1:rows], x.lod), numbers[rows:] if pads else None, contextStart, contextLength)
    return table[at.long().to(table.device)].flatten(1) @ weight


@op(
    "sequence_conv", slots="X#, PaddingData?, Filter -> Out#", infer=_conv_spec, flops=_flops.context_product,
    again=_conv_again,
)  # fmt: skip
def sequence_conv(
    x, padding, weight, *, paddingTrainable: bool = False, contextLength: int, contextStart: int = 0, contextStride: int = 1,
):
    """Rows r + contextStart .. r + contextStart + contextLength - 1 of a sequence, side by side, times Filter.

    Rows outside the sequence are zeros, or rows of PaddingData when `paddingTrainable`.
    X: [rows, D]; Filter: [contextLength * D, M]; Out: [rows, M].
    """
    columns = _columns(x, padding if paddingTrainable else None, contextStart, contextLength)
    return Ragged(product(columns, weight), x.lod)


@op("sequence_conv_grad", slots="X#, PaddingData?, Filter, Out@GRAD -> X@GRAD, PaddingData@GRAD, Filter@GRAD")
def sequence_conv_grad(
    x, padding, weight, dout, *, paddingTrainable: bool = False, contextLength: int, contextStart: int = 0,
    contextStride: int = 1, want,
):
    pad = padding if paddingTrainable else None
    dx = dpad = dweight = None
    if want[2]:
        dweight = product_of_rows(_columns(x, pad, contextStart, contextLength), dout)
    if want[0] or want[1]:
        dx = torch.zeros_like(x.values, memory_format=torch.contiguous_format)
        dpad = torch.zeros_like(pad) if pad is not None else dx.new_zeros((0, dx.shape[1]))
        dcol = array(product(dout, weight.t()))
        dx_array, dpad_array = array(dx), array(dpad)
        segment().context_scatter(dcol, x.lod[-1], contextStart, contextLength, dx_array, dpad_array)
        if dx.device.type != "cpu":
            dx, dpad = tensor(dx_array, dx), tensor(dpad_array, dx)
        if want[1] and pad is None and padding is not None:
            dpad = torch.zeros_like(padding)
    return dx, dpad, dweight
