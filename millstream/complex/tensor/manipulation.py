"""``paddle.complex.tensor.manipulation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.complex.helper import complex_variable_exists
from millstream.fluid import layers
from millstream.fluid.framework import ComplexVariable

__all__ = ["reshape", "transpose"]


def reshape(x: ComplexVariable, shape: Sequence[Any], inplace: bool = False, name: str | None = None) -> ComplexVariable:
    """`x` in another shape; -1 is computed, 0 keeps the dimension. With `inplace` the result is `x` itself.

    Raises InvalidProgramError (a ValueError): `x` is real.
    """
    complex_variable_exists([x], "reshape")
    real, imag = (layers.reshape(part, shape, inplace=inplace, name=name) for part in (x.real, x.imag))
    if inplace:
        x.real, x.imag = real, imag
        return x
    return ComplexVariable(real, imag)


def transpose(x: ComplexVariable, perm: Sequence[int], name: str | None = None) -> ComplexVariable:
    """`x` with its dimensions in the order `perm`. InvalidProgramError (a ValueError): `x` is real."""
    complex_variable_exists([x], "transpose")
    return ComplexVariable(layers.transpose(x.real, perm, name), layers.transpose(x.imag, perm, name))
