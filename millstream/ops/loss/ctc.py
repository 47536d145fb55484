"""warpctc: connectionist temporal classification."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.kernels.arrays import array, exact, tensor
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import ctc as module

    return module


def _spec(logits, label, logits_length, label_length, *, blank, norm_by_times):
    if (logits_length is None) != (label_length is None):
        raise ShapeError("LogitsLength and LabelLength must be given together")
    rank = 2 if logits_length is None else 3
    if len(logits.shape) != rank:
        form = "[rows, classes] with LoD" if rank == 2 else "[time, batch, classes] with LogitsLength"
        raise ShapeError(f"Logits must be {form}, received {list(logits.shape)}")
    classes = logits.shape[-1]
    if blank < 0 or (classes >= 0 and blank >= classes):
        raise AttributeTypeError(f"blank must lie in [0, {classes}), received {blank}")
    return None, Spec((-1, 1), logits.dtype)


def _numbers(length: torch.Tensor, n: int, most: int, slot: str) -> np.ndarray:
    found = array(length.reshape(-1)).astype(np.int64)
    if len(found) != n or (n and (found.min() < 0 or found.max() > most)):
        raise EnforceNotMet(f"{slot} must hold {n} numbers from 0 to {most}, received {found.tolist()[:20]}")
    return found


def _frames(logits: Ragged, length: torch.Tensor | None) -> tuple[np.ndarray, int, np.ndarray]:
    """(row of the first frame, distance of frames, number of frames) by sequence, in Logits as [rows, classes]."""
    if length is not None:
        time, batch = logits.values.shape[:2]
        return np.arange(batch, dtype=np.int64), batch, _numbers(length, batch, time, "LogitsLength")
    if not logits.lod:
        raise EnforceNotMet("Logits must have a LoD, or be padded and come with LogitsLength")
    offsets = logits.lod[-1]
    return np.ascontiguousarray(offsets[:-1]), 1, np.diff(offsets)


def _labels(label: Ragged, length: torch.Tensor | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    if length is not None:
        if label.values.dim() < 2 or label.values.shape[0] != n:
            raise EnforceNotMet(f"Label must be [batch, longest label] with batch {n}, received {list(label.values.shape)}")
        most = label.values.shape[1]
        return np.arange(n, dtype=np.int64) * most, _numbers(length, n, most, "LabelLength")
    if not label.lod or len(label.lod[-1]) - 1 != n:
        raise EnforceNotMet(f"Label must have a LoD with {n} sequences, like Logits")
    return np.ascontiguousarray(label.lod[-1][:-1]), np.diff(label.lod[-1])


@op(
    "warpctc", slots="Logits#, Label#, LogitsLength?, LabelLength? -> WarpCTCGrad~, Loss", infer=_spec,
    nodiff="Label, LogitsLength, LabelLength",
)
def warpctc(logits, label, logits_length, label_length, *, blank: int = 0, norm_by_times: bool = False):
    """CTC loss (Graves et al. 2006) of unnormalised logits; softmax is part of it.

    Logits: [rows, classes] with LoD and Label int32 [rows, 1] with LoD, or Logits [time, batch, classes] and Label
    [batch, longest] with LogitsLength and LabelLength [batch]. Loss: [sequences, 1]; 0 (and no gradient) where a
    sequence has fewer frames than its labels need. `norm_by_times` divides only the gradient by the number of frames.
    WarpCTCGrad: d Loss / d Logits, laid out like Logits.
    """
    values = exact(logits.values)
    flat = values.reshape(-1, values.shape[-1])
    base, stride, size = _frames(logits, logits_length)
    starts, sizes = _labels(label, label_length, len(size))
    labels = array(label.values.reshape(-1)).astype(np.int64)
    used = labels if label_length is None else np.concatenate([labels[a : a + k] for a, k in zip(starts, sizes)] or [labels])
    if len(used) and (used.min() < 0 or used.max() >= flat.shape[1]):
        raise EnforceNotMet(f"Label must lie in [0, {flat.shape[1]}), received values from {used.min()} to {used.max()}")
    source = array(flat)
    grad, out = np.zeros_like(source), np.empty(len(size), source.dtype)
    _kernels().loss(source, base, stride, size, labels, starts, sizes, blank, out, grad)
    dtype = logits.values.dtype
    return tensor(grad, values).reshape(values.shape).to(dtype), tensor(out, values).reshape(-1, 1).to(dtype)


@op("warpctc_grad", slots="Logits#, LogitsLength?, WarpCTCGrad, Loss@GRAD -> Logits@GRAD")
def warpctc_grad(logits, length, grad, dloss, *, norm_by_times: bool = False):
    _, stride, size = _frames(logits, length)
    scale = dloss.reshape(-1)
    if norm_by_times:
        scale = scale / torch.from_numpy(np.maximum(size, 1)).to(scale)
    if length is not None:
        return grad * scale.reshape(1, stride, 1)
    return grad * torch.repeat_interleave(scale, torch.from_numpy(size).to(scale.device)).reshape(-1, 1)
