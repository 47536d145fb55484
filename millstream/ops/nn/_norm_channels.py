"""What a batch normalisation knows of each channel, by the kernels of normed_vectors.py: lines, statistics, gradients."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.ops.nn._bend import Bend


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import normed_vectors as module

    return module


class Running(NamedTuple):
    """Statistics over many steps, of which a share `rate` is kept, and the epsilon of the normalisation."""

    mean: torch.Tensor
    variance: torch.Tensor
    rate: float
    epsilon: float


Measured = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def measured(sums: tuple[np.ndarray, ...], running: Running) -> Measured:
    """(mean, variance, saved mean, saved inverse deviation); sums: as batch_norm.sums in the kernels gives them."""
    made, old = _four(running.mean), (array(running.mean), array(running.variance))
    _kernels().measure(*sums, running.rate, running.epsilon, *old, *(t.numpy() for t in made))
    return made


def _four(like: torch.Tensor) -> Measured:
    return torch.empty_like(like), torch.empty_like(like), torch.empty_like(like), torch.empty_like(like)


def line_of(scale: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor, bend: Bend) -> np.ndarray:
    """[5, C]: a, b, mean, slope and most; a * x + b is the normalised x. Forward and backward must round alike, as both
    decide where relu is 0."""
    out = scale.new_empty(5, scale.shape[0]).numpy()
    _kernels().lay_line(array(scale), array(bias), array(mean), array(inverse), bend.numbers(), out)
    return out


def give_back(
    scale: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor, total: np.ndarray, dot: np.ndarray, each: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dScale, dBias, Line) of a normalisation from the sums of its dz, float64 [parts, group * channels]; `each`: numbers a
    channel."""
    made = torch.empty_like(scale), torch.empty_like(scale), scale.new_empty(3, scale.shape[0])
    given = array(scale), array(mean), array(inverse)
    _kernels().give_back(*given, total, dot, each, *(t.numpy() for t in made))
    return made
