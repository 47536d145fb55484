"""What stands behind a normalisation, in two numbers: nothing, relu, leaky_relu, relu6, swish or hard_swish."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

SWISH, HARD_SWISH = -1.0, -2.0  # as in kernels/curves.py


class Bend(NamedTuple):
    """Numbers below 0 are multiplied by `slope`, from 0 to 1; a relu (slope 0) gives at most `most`.

    Or `slope` is one of the two numbers above: z * sigmoid(z), or z * min(max(z + 3, 0), 6) / 6.
    """

    slope: float = 1.0
    most: float = math.inf

    @property
    def curved(self) -> bool:
        """Whether what is behind it does not tell what was before it."""
        return self.slope < 0

    def numbers(self) -> tuple[np.float32, np.float32]:
        """As kernels take it."""
        return _numbers(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """By torch's operators."""
        if self.slope < 0:
            return F.silu(z) if self.slope == SWISH else F.hardswish(z)
        if self.slope:
            return z if self.slope == 1 else F.leaky_relu(z, self.slope)
        return torch.relu(z) if self.most == math.inf else z.clamp(0, self.most)

    def backward(self, z: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient before it, from that behind it; z: the numbers before it or, unless it is `curved`, behind."""
        if self.slope == SWISH:
            gate = torch.sigmoid(z)
            return gradient * (gate + z * (gate - gate * gate))
        if self.slope == HARD_SWISH:
            return gradient * torch.where(z > -3, (z / 3 + 0.5).where(z < 3, 1.0), 0.0)
        if self.slope:
            return gradient if self.slope == 1 else torch.where(z > 0, gradient, gradient * self.slope)
        return gradient * (z > 0 if self.most == math.inf else (z > 0) & (z < self.most))


@cache
def _numbers(bend: Bend) -> tuple[np.float32, np.float32]:
    return np.float32(bend.slope), np.float32(bend.most)


NONE, RELU = Bend(), Bend(0.0)
