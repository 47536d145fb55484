"""Time steps of a ragged batch, and what the recurrent operators share: activations, initial states, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from millstream.config import flag
from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ops._values import Ragged, Spec

ACTIVATIONS = {"identity": 0, "sigmoid": 1, "tanh": 2, "relu": 3}
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


class Steps(NamedTuple):
    """A ragged batch unrolled over time without padding.

    Attributes:
        rows: row numbers, step after step; within a step the longest sequence comes first.
        counts: number of sequences in each step (never grows).
        order: the sequences by decreasing length (stable).
        back: distance from a row to the row of the step before (-1, or +1 in reverse).
    """

    rows: np.ndarray
    counts: list[int]
    order: np.ndarray
    back: int


def steps_of(offsets: np.ndarray, reverse: bool) -> Steps:
    """The time steps of sequences given by offsets."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max()) if len(lengths) else 0
    ended = np.cumsum(np.bincount(lengths, minlength=longest + 1))
    counts = len(lengths) - ended[:longest]
    begins = np.cumsum(counts) - counts
    times = np.repeat(np.arange(longest), counts)
    which = order[np.arange(len(times)) - np.repeat(begins, counts)]
    rows = offsets[1:][which] - 1 - times if reverse else offsets[:-1][which] + times
    return Steps(np.ascontiguousarray(rows), counts.tolist(), order, 1 if reverse else -1)


def few(offsets: np.ndarray, width: int) -> bool:
    """Whether whole sequences in one kernel beat a matrix product per step (the narrower the batch, the likelier).

    The bounds were measured; a wide weight matrix falls out of the cache when each sequence reads it anew.
    """
    bound = 16 if width <= 64 else 8 if width <= 256 else 4
    if len(offsets) <= bound + 1:
        return True
    sizes = np.diff(offsets)
    return int(sizes.sum()) <= bound * int(sizes.max())


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


def initial(state: torch.Tensor | None, n: int, width: int, like: torch.Tensor, slot: str) -> torch.Tensor:
    """A fresh copy of the initial state [sequences, width], zeros when there is none."""
    if state is None:
        return like.new_zeros((n, width))
    if tuple(state.shape) != (n, width):
        raise EnforceNotMet(f"input {slot} must be [sequences, width] = [{n}, {width}], received {list(state.shape)}")
    return state.clone(memory_format=torch.contiguous_format)


def hidden_before(hidden: torch.Tensor, first: torch.Tensor, offsets: np.ndarray, reverse: bool) -> torch.Tensor:
    """The state before each row: `hidden` shifted within its sequence, `first` (by sequence) at the start."""
    out = torch.empty_like(hidden)
    full = np.flatnonzero(np.diff(offsets))
    if reverse:
        out[:-1] = hidden[1:]
        starts = offsets[1:][full] - 1
    else:
        out[1:] = hidden[:-1]
        starts = offsets[:-1][full]
    out[torch.from_numpy(starts)] = first[torch.from_numpy(full)]
    return out


def unsort(state: torch.Tensor, order: np.ndarray) -> torch.Tensor:
    """Rows back in the order of the sequences."""
    out = torch.empty_like(state)
    out[torch.from_numpy(order)] = state
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
