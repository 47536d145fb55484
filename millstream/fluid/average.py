"""WeightedAverage: the running mean of numbers, outside the Program."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["WeightedAverage"]


class WeightedAverage:
    """The mean of the values added so far, each with its weight."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.numerator: Any = None
        self.denominator: Any = None

    def add(self, value: Any, weight: Any) -> None:
        """Count `value` (a number or an array) `weight` times; ValueError for anything else."""
        if not _is_number(value) and not isinstance(value, np.ndarray):
            raise ValueError(f"WeightedAverage.add: value must be a number or an array, received {type(value).__name__}")
        if not _is_number(weight):
            raise ValueError(f"WeightedAverage.add: weight must be a number, received {type(weight).__name__}")
        if self.numerator is None or self.denominator is None:
            self.numerator, self.denominator = value * weight, weight
        else:
            self.numerator = self.numerator + value * weight
            self.denominator = self.denominator + weight

    def eval(self) -> Any:
        """The mean; ValueError when nothing was added."""
        if self.numerator is None or self.denominator is None:
            raise ValueError("WeightedAverage.eval: nothing was added yet")
        return self.numerator / self.denominator


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.shape == (1,))
