"""What is known of an ONNX value on its way into a Program."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Dim(NamedTuple):
    """A dim of a value, known when it runs."""

    value: str
    axis: int


Element = int | Dim | None  # of a small integer vector: a number, somebody's dim, or anything


class Tensor:
    """A value: its Fluid variable (None: a constant nobody has asked for yet), dtype, dims (-1: unknown), array if constant.

    A Fluid tensor has at least one dim: an ONNX scalar has shape () here and its variable has shape [1].

    Attributes:
        elements: of an integer vector, what is known of each number.
    """

    __slots__ = ("const", "dtype", "elements", "name", "shape", "sort")

    def __init__(self, name: str | None, dtype: Any, shape: tuple[int, ...], const: Any = None) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.const: np.ndarray[Any, Any] | None = const
        self.elements: list[Element] | None = None
        self.sort = "tensor"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def scalar(self) -> bool:
        return not self.shape

    def parts(self) -> list[Element] | None:
        """What is known of the numbers of a small integer vector (or scalar)."""
        if self.const is not None and self.dtype.kind in "iu" and self.const.size <= 64 and self.const.ndim <= 1:
            return [int(v) for v in self.const.reshape(-1)]
        return self.elements


def constant(array: Any) -> Tensor:
    """A value that is known."""
    array = np.asarray(array)
    return Tensor(None, array.dtype, array.shape, array)
