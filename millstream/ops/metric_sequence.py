"""Metrics of sequences: chunk_eval, edit_distance, ctc_align."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.kernels.arrays import array, tensor
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec

# position codes of begin, inside, end, single; -1: the scheme has none
SCHEMES = {"IOB": (0, 1, -1, -1), "IOE": (-1, 0, 1, -1), "IOBES": (0, 1, 2, 3), "plain": (-1, -1, -1, -1)}
TAG_TYPES = {"IOB": 2, "IOE": 2, "IOBES": 4, "plain": 1}


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import edit_distance as module

    return module


def _intervals(x: Ragged, length: torch.Tensor | None, slot: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, first entry, number of entries) of each sequence, from LoD or from padding and lengths."""
    ids = array(x.values.reshape(-1)).astype(np.int64, copy=False)
    if length is not None:
        batch = x.values.shape[0]
        time = ids.size // batch if batch else 0
        sizes = array(length.reshape(-1)).astype(np.int64)
        if len(sizes) != batch or (batch and (sizes.min() < 0 or sizes.max() > time)):
            raise EnforceNotMet(f"{slot}'s lengths must be {batch} numbers from 0 to {time}, received {sizes.tolist()[:20]}")
        return ids, np.arange(batch, dtype=np.int64) * time, sizes
    if not x.lod:
        raise EnforceNotMet(f"input {slot} must have a LoD, or be padded and come with its lengths")
    offsets = x.lod[-1]
    if int(offsets[-1]) != ids.size and int(offsets[-1]) != 0:  # ctc_align keeps one row when every sequence is empty
        raise EnforceNotMet(f"input {slot}: its LoD counts {int(offsets[-1])} entries, the tensor has {ids.size}")
    return ids, np.ascontiguousarray(offsets[:-1]), np.diff(offsets)


def _chunk_spec(inference, label, length, *, num_chunk_types, chunk_scheme, excluded_chunk_types):
    if chunk_scheme not in SCHEMES:
        raise AttributeTypeError(f"chunk_scheme must be one of {', '.join(SCHEMES)}, received {chunk_scheme!r}")
    if inference.shape != label.shape and not any(d < 0 for d in (*inference.shape, *label.shape)):
        raise ShapeError(f"Inference and Label must be of one shape, received {list(inference.shape)}, {list(label.shape)}")
    share, count = Spec((1,), VarType.FP32), Spec((1,), VarType.INT64)
    return share, share, share, count, count, count


@op(
    "chunk_eval",
    slots="Inference#, Label#, SeqLength? -> Precision, Recall, F1-Score, NumInferChunks, NumLabelChunks, NumCorrectChunks",
    infer=_chunk_spec, grad=False,
)
def chunk_eval(
    inference, label, length, *, num_chunk_types: int, chunk_scheme: str = "IOB", excluded_chunk_types: list[int] = [],
):
    """Chunks (as in CoNLL-2000) that a tagger found: precision, recall, F1 and the three counts.

    A tag is type * positions + position (IOB: B, I; IOE: I, E; IOBES: B, I, E, S; plain: one), the tag
    num_chunk_types * positions is outside. Inference, Label: int64 [rows, 1] with LoD, or [batch, time] with SeqLength.
    """
    tags, start, size = _intervals(inference, length, "Inference")
    truth, start_label, size_label = _intervals(label, length, "Label")
    if not (np.array_equal(start, start_label) and np.array_equal(size, size_label)):
        raise EnforceNotMet("Inference and Label must have the same sequence lengths")
    types = TAG_TYPES[chunk_scheme]
    for ids, name in ((tags, "Inference"), (truth, "Label")):
        if ids.size and (ids.min() < 0 or ids.max() > num_chunk_types * types):
            raise EnforceNotMet(f"{name} must lie in [0, {num_chunk_types * types}], received {ids.min()} to {ids.max()}")
    left_out = np.zeros(num_chunk_types + 1, np.bool_)
    left_out[[k for k in excluded_chunk_types if 0 <= k < num_chunk_types]] = True
    counts = np.zeros(3, np.int64)
    scheme = np.array(SCHEMES[chunk_scheme], np.int64)
    _kernels().count_chunks(tags, truth, start, size, types, num_chunk_types, scheme, left_out, counts)
    inferred, labelled, correct = counts.tolist()
    precision = correct / inferred if inferred else 0.0
    recall = correct / labelled if labelled else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    device = inference.values.device
    shares = [torch.tensor([v], dtype=torch.float32, device=device) for v in (precision, recall, f1)]
    return (*shares, *(torch.tensor([v], device=device) for v in (inferred, labelled, correct)))


def _distance_spec(hyps, refs, hyps_length, refs_length, *, normalized):
    if (hyps_length is None) != (refs_length is None):
        raise ShapeError("HypsLength and RefsLength must be given together")
    return Spec((1,), VarType.INT64), Spec(tuple(refs.shape), VarType.FP32)


@op(
    "edit_distance", slots="Hyps#, Refs#, HypsLength?, RefsLength? -> SequenceNum, Out", infer=_distance_spec, grad=False,
)
def edit_distance(hyps, refs, hyps_length, refs_length, *, normalized: bool = False):
    """Levenshtein distance of each hypothesis to its reference, over the reference's length when `normalized`.

    Hyps, Refs: int64 [rows, 1] with LoD, or [batch, time] with lengths; Out: float32 [sequences, 1].
    """
    a, a_start, a_size = _intervals(hyps, hyps_length, "Hyps")
    b, b_start, b_size = _intervals(refs, refs_length, "Refs")
    if len(a_size) != len(b_size):
        raise EnforceNotMet(f"Hyps and Refs must have as many sequences, received {len(a_size)} and {len(b_size)}")
    if normalized and (b_size == 0).any():
        raise EnforceNotMet(f"reference {int(np.flatnonzero(b_size == 0)[0])} is empty: its distance can't be normalized")
    out = np.zeros(len(a_size), np.float32)
    _kernels().distances(a, a_start, a_size, b, b_start, b_size, out)
    if normalized:
        out /= b_size.astype(np.float32)
    device = hyps.values.device
    return torch.tensor([len(out)], device=device), torch.from_numpy(out).to(device).reshape(-1, 1)


def _align_spec(x, length, *, blank, merge_repeated, padding_value):
    if len(x.shape) != 2:
        raise ShapeError(f"Input must be [rows, 1] with LoD or [batch, time] with InputLength, received {list(x.shape)}")
    if length is None:
        return x.like(lod_level=0), None
    return x.like(lod_level=0), Spec((x.shape[0], 1), length.dtype)


@op("ctc_align", slots="Input#, InputLength? -> Output#, OutputLength?", infer=_align_spec, grad=False)
def ctc_align(x, length, *, blank: int = 0, merge_repeated: bool = True, padding_value: int = 0):
    """Removes repeats (with `merge_repeated`), then blanks, from each sequence of ids.

    Input: [rows, 1] with LoD gives Output [rows left, 1] with LoD (one row of -1 when nothing is left); Input
    [batch, time] with InputLength gives Output of the same shape, filled up with `padding_value`, and OutputLength.
    """
    if x.lod and length is not None:  # Fluid goes by the LoD and leaves OutputLength alone
        return ctc_align(x, None, blank=blank, merge_repeated=merge_repeated)[0], length.new_empty(0)
    ids, start, size = _intervals(x, length, "Input")
    found, sizes = np.empty(ids.size, np.int64), np.empty(len(size), np.int64)
    n = _kernels().align(ids, start, size, blank, merge_repeated, found, sizes)
    dtype = x.values.dtype
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if length is None:
        kept = found[:n] if n else np.array([-1])
        return Ragged(tensor(kept, x.values).to(dtype).reshape(-1, 1), (offsets,)), None
    batch, time = x.values.shape
    out = np.full((batch, time), padding_value, np.int64)
    for q in range(batch):
        out[q, : sizes[q]] = found[offsets[q] : offsets[q + 1]]
    return Ragged(tensor(out, x.values).to(dtype), ()), tensor(sizes, x.values).to(length.dtype).reshape(-1, 1)
