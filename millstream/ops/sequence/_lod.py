"""Reading and making LoD for the sequence operators."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ops._values import LoD, Ragged, Spec


@cache
def segment() -> ModuleType:
    """The numba loops over sequences; imported at first use because numba takes long to load."""
    from millstream.kernels import segment as module

    return module


def offsets_of(x: Ragged, slot: str) -> np.ndarray:
    """Offsets of the innermost level.

    Raises:
        EnforceNotMet: `x` has no LoD.
    """
    if not x.lod:
        raise EnforceNotMet(
            f"input {slot} must have a LoD (sequence lengths), received a plain tensor of shape {tuple(x.values.shape)}; "
            "feed it as a LoDTensor (fluid.create_lod_tensor)"
        )
    return x.lod[-1]


def check_rows(x: Ragged, slot: str) -> None:
    """The last offset must be the number of rows."""
    if x.lod and int(x.lod[-1][-1]) != x.values.shape[0]:
        raise EnforceNotMet(f"input {slot}: its LoD counts {int(x.lod[-1][-1])} rows, the tensor has {x.values.shape[0]}")


def from_lengths(lengths: np.ndarray) -> np.ndarray:
    """Offsets from sequence lengths."""
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def index(rows: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Row numbers as a tensor on `like`'s device."""
    return torch.from_numpy(np.ascontiguousarray(rows)).to(like.device)


def blocks(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Row numbers of consecutive intervals: starts[0], starts[0]+1, …, starts[1], …"""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


def dense(x: torch.Tensor) -> torch.Tensor:
    """[rows, everything else]."""
    return x.reshape(x.shape[0], x[0].numel() if x.shape[0] else int(np.prod(x.shape[1:])))


def unknown_rows(x: Spec, level: int | None = None) -> Spec:
    """Like `x` with an unknown number of rows."""
    return x.like(shape=(-1, *x.shape[1:]), lod_level=x.lod_level if level is None else level)


def need_rank(x: Spec, slot: str, least: int) -> None:
    """ShapeError when `x` has fewer than `least` dimensions."""
    if len(x.shape) < least:
        raise ShapeError(f"input {slot} must have at least {least} dimensions, received shape {list(x.shape)}")


def known(*dims: int) -> bool:
    """Whether no dimension is -1."""
    return all(d >= 0 for d in dims)


def deeper(lod: LoD, offsets: np.ndarray) -> LoD:
    """`lod` with one more level."""
    return (*lod, offsets)


def first_level(x: Ragged, slot: str) -> np.ndarray:
    """Offsets of the first LoD level, which must count rows: what some of 1.8.5's operators take of several levels.

    Raises:
        EnforceNotMet: no LoD, or a first level that does not end at the last row.
    """
    offsets_of(x, slot)
    offsets = x.lod[0]
    if offsets[-1] != x.values.shape[0]:
        raise EnforceNotMet(
            f"the first LoD level of input {slot} must end at its {x.values.shape[0]} rows, received {offsets.tolist()}"
        )
    return offsets


def one_level(x: Ragged, slot: str) -> np.ndarray:
    """Offsets of an input with exactly one LoD level that fits its rows.

    Raises:
        EnforceNotMet: no LoD, several levels, or a wrong number of rows.
    """
    offsets = offsets_of(x, slot)
    if len(x.lod) != 1:
        raise EnforceNotMet(f"input {slot} must have 1 LoD level, received {len(x.lod)}")
    check_rows(x, slot)
    return offsets
