"""Floating-point operations of the kernels that do many for each number they read or write.

A declaration's ``flops=`` takes (ins, outs, attrs): slots with the shapes of their values, and the operator's attributes.
A multiplication and an addition are two. Everything else counts one operation for each element of its outputs; gradients
of what is declared here cost once more the forward for each of two operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

Shapes = Mapping[str, list[tuple[int, ...]]]
Flops = Callable[[Shapes, Shapes, Mapping[str, Any]], int]


def product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """mul: X and Y flattened to matrices."""
    columns = attrs.get("y_num_col_dims", 1)
    return 2 * prod(outs["Out"][0]) * prod(ins["Y"][0][:columns])


def batched_product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """matmul, bmm: the dimension of X that is summed over."""
    x = ins["X"][0]
    inner = x[-2] if attrs.get("transpose_X", False) and len(x) > 1 else x[-1]
    return 2 * prod(outs["Out"][0]) * inner


def dense_layer(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fc: W is [in, out]."""
    return 2 * prod(outs["Out"][0]) * ins["W"][0][0]


def convolution(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """Each output element sums over one filter [in / groups, *kernel]."""
    return 2 * prod(outs["Output"][0]) * prod(ins["Filter"][0][1:])


def transposed_convolution(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """Each input element spreads over one filter [out / groups, *kernel]."""
    return 2 * prod(ins["Input"][0]) * prod(ins["Filter"][0][1:])


def recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """lstm, gru, their units: each step multiplies a state by Weight [states, gates]."""
    rows = ins["Input"][0][0]
    return 2 * rows * prod(ins["Weight"][0])


def projected_recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """lstmp: the projection [cells, states] comes on top."""
    return recurrence(ins, outs, attrs) + 2 * ins["Input"][0][0] * prod(ins["ProjWeight"][0])


def projected_input(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """projected_gru and its kin: X [rows, width] times WeightX, and the recurrence over WeightH."""
    return 2 * ins["X"][0][0] * (prod(ins["WeightX"][0]) + prod(ins["WeightH"][0]))
