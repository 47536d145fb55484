"""ComplexVariable: two variables that are one complex number by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import ShapeError

__all__ = ["ComplexVariable"]


class ComplexVariable:
    """A variable of complex numbers, for ``paddle.complex``; ``fluid.dygraph.to_variable`` makes one of a complex array.

    Args:
        real, imag: variables of one shape and one floating dtype.

    Raises ShapeError: the shapes or dtypes differ.
    """

    def __init__(self, real: Any, imag: Any) -> None:
        if tuple(real.shape) != tuple(imag.shape) or real.dtype != imag.dtype:
            raise ShapeError(
                f"ComplexVariable: the real part is {real.dtype.name}{list(real.shape)}, the imaginary part "
                f"{imag.dtype.name}{list(imag.shape)}; they must be alike"
            )
        self.real = real
        self.imag = imag
        self._shape = real.shape

    @property
    def dtype(self) -> str:
        """"complex64" for float32 parts, "complex128" for float64."""
        return "complex128" if self.real.dtype.name == "FP64" else "complex64"

    @property
    def shape(self) -> Any:
        return self.real.shape

    @property
    def name(self) -> dict[str, str]:
        """The names of the parts, under "real" and "imag"."""
        return {"real": self.real.name, "imag": self.imag.name}

    @name.setter
    def name(self, new: str) -> None:
        self.real.name, self.imag.name = f"{new}.real", f"{new}.imag"

    def numpy(self) -> np.ndarray:
        """The values of an eager variable."""
        return self.real.numpy() + 1j * self.imag.numpy()

    def __str__(self) -> str:
        return f"REAL: {self.real}IMAG: {self.imag}"
