"""Element-wise functions of one tensor that only wrap an operator, and the random and cumulative ones beside them."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._build import append, unary
from millstream.fluid.layers._check import ELEMENTS, FLOATS, check_variable_and_dtype
from millstream.fluid.layers.nn.random import uniform_random

__all__ = [
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "cumsum",
    "erf",
    "exp",
    "floor",
    "gelu",
    "hard_shrink",
    "logsigmoid",
    "reciprocal",
    "round",
    "rsqrt",
    "sigmoid",
    "sin",
    "softplus",
    "softshrink",
    "softsign",
    "sqrt",
    "square",
    "tanh",
    "tanh_shrink",
    "thresholded_relu",
    "uniform_random",
]


sigmoid = unary("sigmoid", FLOATS, "1 / (1 + exp(-x))", __name__)
logsigmoid = unary("logsigmoid", FLOATS, "log(1 / (1 + exp(-x)))", __name__)
exp = unary("exp", ELEMENTS, "e ** x", __name__)
tanh = unary("tanh", FLOATS, "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", __name__)
atan = unary("atan", FLOATS, "the arc tangent of x", __name__)
tanh_shrink = unary("tanh_shrink", FLOATS, "x - tanh(x)", __name__)
sqrt = unary("sqrt", FLOATS, "the square root of x", __name__)
rsqrt = unary("rsqrt", FLOATS, "1 / sqrt(x)", __name__)
abs = unary("abs", ELEMENTS, "|x|", __name__)
ceil = unary("ceil", FLOATS, "the least integer not below x", __name__)
floor = unary("floor", FLOATS, "the greatest integer not above x", __name__)
cos = unary("cos", FLOATS, "cos(x), x in radians", __name__)
acos = unary("acos", FLOATS, "the arc cosine of x", __name__)
sin = unary("sin", FLOATS, "sin(x), x in radians", __name__)
asin = unary("asin", FLOATS, "the arc sine of x", __name__)
round = unary("round", FLOATS, "the integer nearest to x", __name__)
reciprocal = unary("reciprocal", FLOATS, "1 / x", __name__)
square = unary("square", ELEMENTS, "x * x", __name__)
softplus = unary("softplus", FLOATS, "log(1 + exp(x))", __name__)
softsign = unary("softsign", FLOATS, "x / (1 + |x|)", __name__)


def softshrink(x: Any, alpha: float | None = None, name: str | None = None) -> Any:
    """x - alpha above `alpha`, x + alpha below -alpha, 0 between; `alpha` 0.5 by default (`name`: of 1.1)."""
    check_variable_and_dtype(x, "x", FLOATS, "softshrink")
    return append("softshrink", "softshrink", {"X": [x]}, {"lambda": alpha}, dtype=x.dtype, name=name)


def hard_shrink(x: Any, threshold: float | None = None) -> Any:
    """x where |x| > `threshold` (0.5 by default), else 0."""
    check_variable_and_dtype(x, "x", FLOATS, "hard_shrink")
    return append("hard_shrink", "hard_shrink", {"X": [x]}, {"threshold": threshold}, dtype=x.dtype)


def thresholded_relu(x: Any, threshold: float | None = None) -> Any:
    """x where x > `threshold` (1.0 by default), else 0."""
    check_variable_and_dtype(x, "x", FLOATS, "thresholded_relu")
    return append("thresholded_relu", "thresholded_relu", {"X": [x]}, {"threshold": threshold}, dtype=x.dtype)


def cumsum(x: Any, axis: int | None = None, exclusive: bool | None = None, reverse: bool | None = None) -> Any:
    """Running sums along `axis` (-1 by default).

    Args:
        exclusive: leave the element itself out of its sum.
        reverse: sum from the end.
    """
    check_variable_and_dtype(x, "x", ELEMENTS, "cumsum")
    attrs = {"axis": axis, "exclusive": exclusive, "reverse": reverse}
    return append("cumsum", "cumsum", {"X": [x]}, attrs, dtype=x.dtype)


def gelu(x: Any, approximate: bool = False) -> Any:
    """x * Phi(x) (Hendrycks and Gimpel, 2016); `approximate` uses the tanh form."""
    check_variable_and_dtype(x, "x", ELEMENTS, "gelu")
    return append("gelu", "gelu", {"X": [x]}, {"approximate": approximate}, dtype=x.dtype)


def erf(x: Any) -> Any:
    """The error function 2 / sqrt(pi) * integral of exp(-t * t) from 0 to x."""
    check_variable_and_dtype(x, "x", FLOATS, "erf")
    return append("erf", "erf", {"X": [x]}, dtype=x.dtype)
