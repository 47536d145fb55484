"""What stands behind a normalisation, in two numbers: nothing, relu, leaky_relu or relu6."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Bend(NamedTuple):
    """Numbers below 0 are multiplied by `slope`, from 0 to 1; a relu (slope 0) gives at most `most`."""

    slope: float = 1.0
    most: float = math.inf

    def numbers(self) -> tuple[np.float32, np.float32]:
        """As kernels take it."""
        return np.float32(self.slope), np.float32(self.most)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """By torch's operators."""
        if self.slope:
            return z if self.slope == 1 else F.leaky_relu(z, self.slope)
        return torch.relu(z) if self.most == math.inf else z.clamp(0, self.most)

    def backward(self, z: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient before it, from that behind it; z: the numbers before it or behind."""
        if self.slope:
            return gradient if self.slope == 1 else torch.where(z > 0, gradient, gradient * self.slope)
        return gradient * (z > 0 if self.most == math.inf else (z > 0) & (z < self.most))


NONE, RELU = Bend(), Bend(0.0)
