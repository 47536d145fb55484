"""``paddle.complex.helper``: what is complex and what is real."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.framework import ComplexVariable

__all__ = ["complex_variable_exists", "is_complex", "is_real", "parts"]


def is_complex(x: Any) -> bool:
    """Whether `x` is a ComplexVariable."""
    return isinstance(x, ComplexVariable)


def is_real(x: Any) -> bool:
    """Whether `x` is a variable of real numbers."""
    return not is_complex(x) and hasattr(x, "dtype") and hasattr(x, "shape")


def complex_variable_exists(inputs: list[Any], layer_name: str) -> None:
    """Check that one of `inputs` is a ComplexVariable.

    Raises InvalidProgramError (a ValueError): all are real.
    """
    if any(map(is_complex, inputs)):
        return
    which = "At least one inputs" if len(inputs) > 1 else "The input"
    kinds = ", ".join(type(i).__name__ for i in inputs)
    raise InvalidProgramError(
        f"{which} of layer complex.{layer_name}() must be ComplexVariable, received {kinds}; "
        "real variables take fluid.layers' function of this name"
    )


def parts(x: Any) -> tuple[Any, Any]:
    """(real, imaginary) of `x`; the imaginary part of a real variable is None."""
    return (x.real, x.imag) if is_complex(x) else (x, None)
