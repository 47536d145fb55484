"""``paddle.complex.tensor``: the functions by theme."""

from millstream.complex.tensor import linalg, manipulation, math
from millstream.complex.tensor.linalg import matmul
from millstream.complex.tensor.manipulation import reshape, transpose
from millstream.complex.tensor.math import (
    elementwise_add,
    elementwise_div,
    elementwise_mul,
    elementwise_sub,
    kron,
    sum,
    trace,
)

__all__ = [
    "elementwise_add",
    "elementwise_div",
    "elementwise_mul",
    "elementwise_sub",
    "kron",
    "linalg",
    "manipulation",
    "math",
    "matmul",
    "reshape",
    "sum",
    "trace",
    "transpose",
]
