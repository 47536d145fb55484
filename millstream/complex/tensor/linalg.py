"""``paddle.complex.tensor.linalg``."""

from __future__ import annotations

from typing import Any

from millstream.complex.helper import complex_variable_exists
from millstream.complex.tensor.math import bilinear
from millstream.fluid import layers
from millstream.fluid.framework import ComplexVariable

__all__ = ["matmul"]


def matmul(
    x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False, alpha: float = 1.0, name: str | None = None
) -> ComplexVariable:
    """alpha * x @ y; `transpose_x` and `transpose_y` swap the last two dimensions, without conjugating.

    One of `x`, `y` may be real. InvalidProgramError (a ValueError): both are.
    """
    complex_variable_exists([x, y], "matmul")
    return bilinear(lambda a, b: layers.matmul(a, b, transpose_x, transpose_y, alpha, name), x, y)
