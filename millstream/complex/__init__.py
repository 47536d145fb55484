"""``paddle.complex``: arithmetic of complex variables, each of them a real and an imaginary variable."""

from millstream.complex import helper, tensor
from millstream.complex.tensor import (
    elementwise_add,
    elementwise_div,
    elementwise_mul,
    elementwise_sub,
    kron,
    matmul,
    reshape,
    sum,
    trace,
    transpose,
)

__all__ = [
    "elementwise_add",
    "elementwise_div",
    "elementwise_mul",
    "elementwise_sub",
    "helper",
    "kron",
    "matmul",
    "reshape",
    "sum",
    "tensor",
    "trace",
    "transpose",
]
