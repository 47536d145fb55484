"""sequence_pad, sequence_unpad, sequence_mask: between ragged and padded batches."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.kernels.arrays import array
from millstream.ops._opdef import DType, op
from millstream.ops._values import Ragged, Spec, torch_dtype
from millstream.ops.sequence._lod import from_lengths, index, need_rank, one_level


def _pad_spec(x, pad, *, padded_length):
    need_rank(x, "X", 2)
    row = tuple(x.shape[1:])
    if tuple(pad.shape) != (1,) and tuple(pad.shape) != row:
        raise ShapeError(f"PadValue must be [1] or the shape {list(row)} of one row, received {list(pad.shape)}")
    # as in 1.8.5: the time dimension is inferred as 1 when the longest sequence decides
    return Spec((-1, padded_length if padded_length >= 0 else 1, *row), x.dtype), Spec((-1,), VarType.INT64)


def _positions(lengths: np.ndarray, time: int) -> np.ndarray:
    """Rows of [sequences * time, …] that hold the data."""
    offsets = from_lengths(lengths)
    return np.arange(int(offsets[-1])) + np.repeat(np.arange(len(lengths)) * time - offsets[:-1], lengths)


@op("sequence_pad", slots="X#, PadValue -> Out, Length", shares=True, infer=_pad_spec, nodiff="PadValue")
def sequence_pad(x, pad, *, padded_length: int = -1):
    """Sequences padded with PadValue to `padded_length` (-1: the longest), and their lengths.

    X: [rows, …] with LoD; PadValue: [1] or one row's shape; Out: [sequences, time, …]; Length: int64 [sequences].
    """
    lengths = np.diff(one_level(x, "X"))
    longest = int(lengths.max()) if len(lengths) else 0
    time = longest if padded_length < 0 else padded_length
    if time < longest:
        raise EnforceNotMet(f"padded_length must be at least the longest sequence, {longest}, received {padded_length}")
    values, n = x.values, len(lengths)
    row = values.shape[1:]
    out = pad.to(values.dtype).expand(n * time, *row).clone() if pad.numel() > 1 else values.new_empty((n * time, *row))
    if pad.numel() == 1:
        out.copy_(pad.reshape([1] * out.dim()).expand(out.shape))
    out[index(_positions(lengths, time), values)] = values
    return out.reshape(n, time, *row), index(lengths, values)


@op("sequence_pad_grad", slots="X#, Out@GRAD -> X@GRAD")
def sequence_pad_grad(x, dout):
    lengths = np.diff(x.lod[-1])
    rows = _positions(lengths, dout.shape[1])
    return dout.reshape(-1, *x.values.shape[1:])[index(rows, dout)]


def _unpad_spec(x, length):
    need_rank(x, "X", 2)
    if len(length.shape) != 1:
        raise ShapeError(f"Length must be [batch], received {list(length.shape)}")
    row = tuple(x.shape[2:]) or (1,)
    return Spec((-1, *row), x.dtype, 1)


def _lengths(x: torch.Tensor, length: torch.Tensor) -> np.ndarray:
    lengths = array(length.reshape(-1)).astype(np.int64)
    if len(lengths) != x.shape[0] or (len(lengths) and (lengths.min() < 0 or lengths.max() > x.shape[1])):
        n, most = x.shape[:2]
        raise EnforceNotMet(f"Length must hold {n} numbers from 0 to {most}, received {lengths.tolist()[:20]}")
    return lengths


@op("sequence_unpad", slots="X, Length -> Out#", shares=True, infer=_unpad_spec, grad_lod="X", nodiff="Length")
def sequence_unpad(x, length):
    """The first Length[i] steps of each padded sequence, end to end.

    X: [batch, time, …]; Length: int64 [batch]; Out: [rows, …] ([rows, 1] for a two-dimensional X) with LoD.
    """
    lengths = _lengths(x, length)
    row = tuple(x.shape[2:]) or (1,)
    rows = index(_positions(lengths, x.shape[1]), x)
    return Ragged(x.reshape(-1, *row)[rows], (from_lengths(lengths),))


@op("sequence_unpad_grad", slots="X, Length, Out@GRAD -> X@GRAD")
def sequence_unpad_grad(x, length, dout):
    lengths = _lengths(x, length)
    row = tuple(x.shape[2:]) or (1,)
    dx = x.new_zeros((x.shape[0] * x.shape[1], *row))
    dx[index(_positions(lengths, x.shape[1]), x)] = dout.reshape(-1, *row)
    return dx.reshape(x.shape)


def _mask_spec(x, limit, *, maxlen, out_dtype):
    last = maxlen if limit is None and maxlen > 0 else -1
    return Spec((*x.shape, last), to_var_type(out_dtype))


@op("sequence_mask", slots="X, MaxLenTensor? -> Y", infer=_mask_spec, grad=False)
def sequence_mask(x, limit, *, maxlen: int = -1, out_dtype: DType):
    """Y[…, j] = 1 if j < X[…], else 0, for j < maxlen (MaxLenTensor; negative: the largest entry of X)."""
    if limit is not None:
        maxlen = int(limit.reshape(-1)[0])
    if maxlen < 0:
        maxlen = int(x.max()) if x.numel() else 0
    steps = torch.arange(maxlen, device=x.device)
    return (steps < x.unsqueeze(-1)).to(torch_dtype(out_dtype))
