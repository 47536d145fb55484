"""Time steps of a ragged batch, and what the recurrent operators share: activations, initial states, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from millstream.config import flag
from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.kernels.arrays import array, tensor
from millstream.kernels.threads import parts
from millstream.ops._values import Ragged, Spec

ACTIVATIONS = {"identity": 0, "sigmoid": 1, "tanh": 2, "relu": 3}


@cache
def panel_kernels() -> ModuleType:
    """Products with laid-out matrices; imported at first use because numba takes long to load."""
    from millstream.kernels import panels as module

    return module


def code(name: str) -> int:
    """The kernel's code of an activation.

    Raises:
        AttributeTypeError: no such activation.
    """
    found = ACTIVATIONS.get(name)
    if found is None:
        raise AttributeTypeError(f"an activation must be one of {', '.join(ACTIVATIONS)}, received {name!r}")
    return found


def codes(*names: str) -> np.ndarray:
    """Codes of several activations."""
    return np.array([code(n) for n in names], dtype=np.int64)


class Batch(NamedTuple):
    """Some sequences of a ragged batch, the longest first.

    Attributes:
        order: their numbers in the whole batch.
        starts, lengths: where they begin and their numbers of rows.
    """

    order: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @property
    def size(self) -> int:
        """The number of sequences."""
        return len(self.order)

    def state(self, first: torch.Tensor | None, width: int, like: torch.Tensor) -> np.ndarray:
        """A copy of the initial state [sequences of the whole batch, width], or zeros, in this order."""
        if first is None:
            return np.zeros((self.size, width), array(like[:0]).dtype)
        return array(first)[self.order]


def batches(offsets: np.ndarray, work: int) -> list[Batch]:
    """The sequences given by offsets, in so many batches as there should be threads for `work` multiplications a row."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    pieces = parts(work * int(offsets[-1]), len(order))
    shares = [order[k::pieces] for k in range(pieces)]
    return [Batch(own, offsets[:-1][own], lengths[own]) for own in shares]


def by_sequence(states: list[np.ndarray], shares: list[Batch], width: int, like: torch.Tensor) -> torch.Tensor:
    """One state from those of the batches, in the order of the sequences; rows may be followed by others, and be wider."""
    out = np.empty((sum(b.size for b in shares), width), states[0].dtype)
    for state, share in zip(states, shares):
        out[share.order] = state[: share.size, :width]
    return tensor(out, like)


def sequence_offsets(x: Ragged, slot: str) -> np.ndarray:
    """The offsets of the sequences to run over.

    Raises:
        EnforceNotMet: no LoD, or one that does not fit the rows.
    """
    if not x.lod:
        raise EnforceNotMet(
            f"input {slot} must have a LoD (sequence lengths), received a plain tensor of shape {tuple(x.values.shape)}"
        )
    offsets = x.lod[-1]
    if int(offsets[-1]) != x.values.shape[0]:
        raise EnforceNotMet(f"input {slot}: its LoD counts {int(offsets[-1])} rows, the tensor has {x.values.shape[0]}")
    return offsets


def check_state(state: torch.Tensor | None, n: int, width: int, slot: str) -> None:
    """EnforceNotMet unless the initial state, where there is one, is [sequences, width]."""
    if state is not None and tuple(state.shape) != (n, width):
        raise EnforceNotMet(f"input {slot} must be [sequences, width] = [{n}, {width}], received {list(state.shape)}")


def initial(state: torch.Tensor | None, n: int, width: int, like: torch.Tensor, slot: str) -> torch.Tensor:
    """A fresh copy of the initial state [sequences, width], zeros when there is none."""
    check_state(state, n, width, slot)
    if state is None:
        return like.new_zeros((n, width))
    return state.clone(memory_format=torch.contiguous_format)


def hidden_before(hidden: torch.Tensor, first: torch.Tensor | None, offsets: np.ndarray, reverse: bool) -> torch.Tensor:
    """The state before each row: `hidden` shifted within its sequence, `first` (by sequence; None: zeros) at the start."""
    out = torch.empty_like(hidden)
    full = np.flatnonzero(np.diff(offsets))
    if reverse:
        out[:-1] = hidden[1:]
        starts = offsets[1:][full] - 1
    else:
        out[1:] = hidden[:-1]
        starts = offsets[:-1][full]
    out[torch.from_numpy(starts)] = 0 if first is None else first[torch.from_numpy(full)]
    return out


def need(ok: bool, what: str, *shapes: Spec | None) -> None:
    """ShapeError unless `ok`."""
    if not ok:
        raise ShapeError(f"{what}, received {', '.join('none' if s is None else str(list(s.shape)) for s in shapes)}")


def fits(actual: Sequence[int], *expected: int) -> bool:
    """Whether a shape is the expected one, -1 standing for anything on either side."""
    return len(actual) == len(expected) and all(a == e or a < 0 or e < 0 for a, e in zip(actual, expected))


def drops_state_gradient(hidden: torch.Tensor, width: int) -> bool:
    """Whether the gradient through the cell state is left out, as 1.8.5 does on every CPU with AVX.

    Its vectorised float32 kernels (cell widths divisible by 8) send a gradient to the output gate only: candidate,
    input and forget gates, peepholes of these and C0 get zeros. FLAGS_lstm_state_gradient asks for the derivative.
    """
    return width % 8 == 0 and hidden.dtype is torch.float32 and not flag("lstm_state_gradient")
