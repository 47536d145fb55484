"""``paddle.complex.tensor.math``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from millstream.complex.helper import complex_variable_exists, parts
from millstream.fluid import layers
from millstream.fluid.framework import ComplexVariable

__all__ = ["elementwise_add", "elementwise_div", "elementwise_mul", "elementwise_sub", "kron", "sum", "trace"]


def bilinear(product: Callable[[Any, Any], Any], x: Any, y: Any) -> ComplexVariable:
    """A product of complex numbers, given that of real ones; a real operand's imaginary part is 0."""
    (a, b), (c, d) = parts(x), parts(y)
    if b is None:
        return ComplexVariable(product(a, c), product(a, d))
    if d is None:
        return ComplexVariable(product(a, c), product(b, c))
    return ComplexVariable(product(a, c) - product(b, d), product(b, c) + product(a, d))


def elementwise_add(x: Any, y: Any, axis: int = -1, name: str | None = None) -> ComplexVariable:
    """x + y; `axis` is where `y`'s dimensions begin in `x`'s. InvalidProgramError (a ValueError): both are real."""
    complex_variable_exists([x, y], "elementwise_add")
    (a, b), (c, d) = parts(x), parts(y)
    imag = b if d is None else d if b is None else layers.elementwise_add(b, d, axis=axis, name=name)
    return ComplexVariable(layers.elementwise_add(a, c, axis=axis, name=name), imag)


def elementwise_sub(x: Any, y: Any, axis: int = -1, name: str | None = None) -> ComplexVariable:
    """x - y; `axis` is where `y`'s dimensions begin in `x`'s. InvalidProgramError (a ValueError): both are real."""
    complex_variable_exists([x, y], "elementwise_sub")
    (a, b), (c, d) = parts(x), parts(y)
    imag = b if d is None else -d if b is None else layers.elementwise_sub(b, d, axis=axis, name=name)
    return ComplexVariable(layers.elementwise_sub(a, c, axis=axis, name=name), imag)


def elementwise_mul(x: Any, y: Any, axis: int = -1, name: str | None = None) -> ComplexVariable:
    """x * y; `axis` is where `y`'s dimensions begin in `x`'s. InvalidProgramError (a ValueError): both are real."""
    complex_variable_exists([x, y], "elementwise_mul")
    return bilinear(lambda a, b: layers.elementwise_mul(a, b, axis=axis, name=name), x, y)


def elementwise_div(x: Any, y: Any, axis: int = -1, name: str | None = None) -> ComplexVariable:
    """x / y; `axis` is where `y`'s dimensions begin in `x`'s. InvalidProgramError (a ValueError): both are real."""
    complex_variable_exists([x, y], "elementwise_div")
    c, d = parts(y)
    if d is None:
        a, b = parts(x)
        return ComplexVariable(
            layers.elementwise_div(a, c, axis=axis, name=name), layers.elementwise_div(b, c, axis=axis, name=name)
        )
    size = c * c + d * d
    return elementwise_mul(x, ComplexVariable(c / size, -d / size), axis, name)


def trace(input: ComplexVariable, offset: int = 0, dim1: int = 0, dim2: int = 1, name: str | None = None) -> ComplexVariable:
    """The sum of the diagonal `offset` above the main one of each matrix of dimensions `dim1`, `dim2`.

    Raises InvalidProgramError (a ValueError): `input` is real.
    """
    complex_variable_exists([input], "trace")
    real, imag = (layers.trace(part, offset, dim1, dim2, name) for part in (input.real, input.imag))
    return ComplexVariable(real, imag)


def sum(
    input: ComplexVariable, dim: int | Sequence[int] | None = None, keep_dim: bool = False, name: str | None = None
) -> ComplexVariable:
    """The sum over `dim` (all dimensions by default). InvalidProgramError (a ValueError): `input` is real."""
    complex_variable_exists([input], "sum")
    real, imag = (layers.reduce_sum(part, dim, keep_dim, name) for part in (input.real, input.imag))
    return ComplexVariable(real, imag)


def kron(x: Any, y: Any, name: str | None = None) -> ComplexVariable:
    """The Kronecker product. InvalidProgramError (a ValueError): both are real."""
    complex_variable_exists([x, y], "kron")
    return bilinear(lambda a, b: layers.kron(a, b, name=name), x, y)
