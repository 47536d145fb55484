"""QuantizeLinear and DequantizeLinear: integers of 8 bits and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.onnx.reader.families.elementwise import rounded
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


def _along(n: Node, t: Tensor, rank: int, axis: int) -> Tensor:
    """A scale or zero point, one for all or one for each index of `axis`, with dims of 1 behind it."""
    if t.const is None:
        n.fail("scale and zero point must be constants")
    if t.const.size == 1:
        return constant(t.const.reshape(1))
    if t.rank != 1:
        n.fail("scales by blocks")
    return constant(t.const.reshape(-1, *[1] * (rank - axis - 1)))


def _operands(n: Node, rank: int) -> tuple[Tensor, Tensor | None]:
    axis = n.axis(1, rank) if rank else 0
    zero = n.maybe(2)
    return _along(n, n.x(1), rank, axis), None if zero is None else _along(n, zero, rank, axis)


@reads("DequantizeLinear")
def dequantize(n: Node) -> None:
    x = n.x()
    scale, zero = _operands(n, x.rank)
    assert scale.const is not None
    if x.const is not None:
        whole = x.const.astype(np.float64)
        if zero is not None and zero.const is not None:
            whole = whole - zero.const
        n.set(constant((whole * scale.const).astype(scale.dtype)))
        return
    value = n.b.cast(x, scale.dtype)
    if zero is not None and zero.const is not None and zero.const.any():
        value = n.b.binary("elementwise_sub", value, constant(zero.const.astype(scale.dtype)))
    made = n.op("elementwise_mul", {"X": value, "Y": scale}, {"axis": -1})
    made.shape = x.shape
    n.set(made)


@reads("QuantizeLinear")
def quantize(n: Node) -> None:
    """round(x / scale) + zero, cut to what the type holds; halves to even numbers."""
    x = n.x()
    scale, zero = _operands(n, x.rank)
    kind: Any = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind not in (np.uint8, np.int8):
        n.fail(f"quantization to {kind}")
    b = n.b
    scaled = b.binary("elementwise_div", x, scale)
    scaled.shape = x.shape
    whole = rounded(n, scaled)
    if zero is not None and zero.const is not None and zero.const.any():
        whole = b.binary("elementwise_add", whole, constant(zero.const.astype(x.dtype)))
    limits = np.iinfo(kind)
    cut = b.op("clip", {"X": whole}, {"min": float(limits.min), "max": float(limits.max)})
    made = b.cast(cut, kind)
    made.shape = x.shape
    n.set(made)
