"""linear_chain_crf and crf_decoding."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.kernels.arrays import array, exact, tensor
from millstream.kernels.threads import parts, run_parts
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import crf as module

    return module


def _check(emission: Spec, transition: Spec, length: Spec | None) -> None:
    rank = 2 if length is None else 3
    form = "[rows, tags]" if length is None else "[batch, time, tags] with Length"
    if len(emission.shape) != rank:
        raise ShapeError(f"Emission must be {form}, received {list(emission.shape)}")
    if len(transition.shape) != 2:
        raise ShapeError(f"Transition must be [tags + 2, tags], received {list(transition.shape)}")
    rows, tags = transition.shape
    if rows >= 0 and tags >= 0 and rows != tags + 2:
        raise ShapeError(f"Transition must be [tags + 2, tags] (two rows for start and stop), received {[rows, tags]}")
    if emission.shape[-1] >= 0 and tags >= 0 and emission.shape[-1] != tags:
        raise ShapeError(f"Emission's last dimension must be the number of tags {tags}, received {list(emission.shape)}")


def _intervals(emission: Ragged, length: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """(first row, number of rows) of each sequence in Emission as [rows, tags]."""
    if length is not None:
        batch, time = emission.values.shape[:2]
        sizes = array(length.reshape(-1)).astype(np.int64)
        if len(sizes) != batch or (len(sizes) and (sizes.min() < 0 or sizes.max() > time)):
            raise EnforceNotMet(f"Length must hold {batch} numbers from 0 to {time}, received {sizes.tolist()[:20]}")
        return np.arange(batch, dtype=np.int64) * time, sizes
    if not emission.lod:
        raise EnforceNotMet("Emission must have a LoD, or be padded and come with Length")
    offsets = emission.lod[-1]
    if int(offsets[-1]) != emission.values.shape[0]:
        raise EnforceNotMet(f"Emission's LoD counts {int(offsets[-1])} rows, the tensor has {emission.values.shape[0]}")
    return offsets[:-1], offsets[1:] - offsets[:-1]


def _labels(label: torch.Tensor, rows: int, tags: int) -> np.ndarray:
    flat = array(label.reshape(-1)).astype(np.int64, copy=False)
    if len(flat) != rows:
        raise EnforceNotMet(f"Label must have {rows} entries, one for each row of Emission, received {list(label.shape)}")
    if rows and (flat.min() < 0 or flat.max() >= tags):
        raise EnforceNotMet(f"Label must lie in [0, {tags}), received values from {flat.min()} to {flat.max()}")
    return flat


def _shares(size: np.ndarray, w: torch.Tensor) -> list[slice]:
    """The sequences cut into what each thread works on."""
    pieces = parts(int(size.sum()) * w.shape[1] ** 2 * 4, len(size))
    return [slice(k, None, pieces) for k in range(pieces)]


def _crf_spec(emission, transition, label, length):
    _check(emission, transition, length)
    inner = emission.like(lod_level=0)
    rows = emission.shape[0] if length is not None else -1
    return inner, inner, transition, Spec((rows, 1), emission.dtype)


def _flat(x: torch.Tensor) -> torch.Tensor:
    x = exact(x)
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


@op(
    "linear_chain_crf",
    slots="Emission#, Transition, Label, Length? -> Alpha~, EmissionExps~, TransitionExps~, LogLikelihood",
    infer=_crf_spec, grad_lod="Emission, Transition", nodiff="Label, Length",
)
def linear_chain_crf(emission, transition, label, length):
    """Negative log-likelihood of the labels under a linear-chain CRF (Lafferty et al. 2001): log Z - score.

    score = start[y_1] + sum_k emission[k, y_k] + sum_k w[y_k-1, y_k] + stop[y_L].
    Emission: [rows, tags] with LoD, or [batch, time, tags] with Length [batch, 1]; Transition: [tags + 2, tags], rows 0
    and 1 the start and stop weights; Label: like Emission without the last dimension; LogLikelihood (the cost):
    [sequences, 1]. Alpha: forward probabilities normalised by row.
    """
    start, size = _intervals(emission, length)
    e, w = _flat(emission.values), exact(transition)
    alpha = np.zeros(tuple(e.shape), array(e).dtype)
    out = np.empty(len(size), alpha.dtype)
    flat, shares = _labels(label, *e.shape), _shares(size, w)
    calls = [(array(e), array(w), flat, start[own], size[own], alpha, np.empty(len(size[own]), out.dtype)) for own in shares]
    run_parts(_kernels().cost, calls)
    for own, call in zip(shares, calls):
        out[own] = call[6]
    shape, dtype = emission.values.shape, emission.values.dtype
    exps = torch.exp(e - e.amax(1, keepdim=True)) if e.shape[0] else e
    return (
        tensor(alpha, e).to(dtype).reshape(shape),
        exps.to(dtype).reshape(shape),
        torch.exp(transition),
        tensor(out, e).to(dtype).reshape(-1, 1),
    )


@op(
    "linear_chain_crf_grad",
    slots="Emission#, Transition, Label, Length?, LogLikelihood@GRAD -> Emission@GRAD, Transition@GRAD",
)
def linear_chain_crf_grad(emission, transition, label, length, dout):
    start, size = _intervals(emission, length)
    e, w = _flat(emission.values), exact(transition)
    de = np.zeros(tuple(e.shape), array(e).dtype)
    flat, d = _labels(label, *e.shape), array(dout.reshape(-1).to(e.dtype))
    calls = [
        (array(e), array(w), flat, start[own], size[own], d[own], de, np.zeros(tuple(w.shape))) for own in _shares(size, w)
    ]
    run_parts(_kernels().cost_back, calls)
    dw = sum(call[7] for call in calls)
    return (
        tensor(de, e).to(emission.values.dtype).reshape(emission.values.shape),
        tensor(dw, w).to(transition.dtype),
    )


def _decoding_spec(emission, transition, label, length):
    _check(emission, transition, length)
    if length is not None:
        return Spec(tuple(emission.shape[:2]), VarType.INT64)
    return Spec((emission.shape[0], 1), VarType.INT64, emission.lod_level)


@op("crf_decoding", slots="Emission#, Transition, Label?, Length? -> ViterbiPath#", infer=_decoding_spec, grad=False)
def crf_decoding(emission, transition, label, length):
    """The best tag sequence of a linear-chain CRF (Viterbi); with Label: 1 where it agrees with the label, else 0.

    Inputs as in linear_chain_crf. ViterbiPath: int64 [rows, 1] with Emission's LoD, or [batch, time] with zeros after
    each sequence's end (and Emission's LoD, if it has one).
    """
    start, size = _intervals(emission, length)
    e, w = _flat(emission.values), exact(transition)
    path = np.zeros(e.shape[0], np.int64)
    _kernels().viterbi(array(e), array(w), start, size, path)
    if label is None and length is None:
        return Ragged(tensor(path.reshape(-1, 1), e), emission.lod)
    if label is not None:
        flat = array(label.reshape(-1))
        if len(flat) != len(path):
            raise EnforceNotMet(f"Label must have {len(path)} entries, received {list(label.shape)}")
        agrees = path == flat
        if length is not None:
            time = emission.values.shape[1]
            agrees &= (np.arange(time) < size[:, None]).reshape(-1)
        path = agrees.astype(np.int64)
    out = tensor(path, e)
    if length is not None:
        return Ragged(out.reshape(emission.values.shape[:2]), emission.lod)
    return Ragged(out.reshape(-1, 1), emission.lod)
