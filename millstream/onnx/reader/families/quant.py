"""Quantized models: QuantizeLinear and DequantizeLinear, and the operators that work on integers as pairs of them.

Engines that compute in int8 find the pairs again; kernels of our own compute between them in floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.ir.types import to_var_type
from millstream.onnx._require import onnx_package
from millstream.onnx.reader.families.elementwise import rounded
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


def _along(n: Node, t: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point: one for all, one for each index of `axis` (dims of 1 behind it), or one for each block."""
    if t.scalar or (t.const is not None and t.const.size == 1):
        return constant(t.const.reshape(1)) if t.const is not None else t
    axis = n.axis(1, x.rank)
    if t.rank == 1:
        return n.b.reshape(t, [-1, *[1] * (x.rank - axis - 1)])
    size = int(n.attr("block_size", 0))
    if size < 1 or t.const is None or x.shape[axis] < 1:
        n.fail("scales by blocks that are no constants, or of an axis of unknown size")
    return constant(np.repeat(t.const, size, axis).take(range(x.shape[axis]), axis))


def _operands(n: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    zero = n.maybe(2)
    if zero is not None and zero.const is not None and not zero.const.any():
        return _along(n, n.x(1), x), None
    return _along(n, n.x(1), x), None if zero is None else _along(n, zero, x)


def _by_operator(n: Node, x: Tensor, of: int) -> dict[str, Any] | None:
    """Slots and attributes of quantize_linear and dequantize_linear for input 0; None where they can't say it."""
    scale, zero = n.x(of), n.maybe(of + 1)
    if scale.dtype != np.float32 or "block_size" in n.given or scale.rank > 1 or x.rank < 1:
        return None
    wide = scale.rank == 1 and (scale.const is None or scale.const.size > 1)
    inputs = {"X": x, "Scale": _held(n, scale)}
    if zero is not None and not (zero.const is not None and not zero.const.any()):
        inputs["ZeroPoint"] = _held(n, zero)
    return {"inputs": inputs, "attrs": {"axis": n.axis(1, x.rank) if wide else 0}}


def _held(n: Node, t: Tensor) -> Tensor:
    """A constant as a persistable variable that no training changes."""
    if t.const is None:
        return n.b.reshape(t, [-1])
    if t.name is None:
        t.name = n.b.parameter(t.const.reshape(-1), n.hint, trainable=False)
    return t


@reads("DequantizeLinear")
def dequantize(n: Node) -> None:
    x = n.x()
    said = _by_operator(n, x, 1) if x.dtype in (np.int8, np.uint8, np.int32) else None
    if said is not None:
        if x.const is not None:
            said["inputs"]["X"] = _held_as(n, x)
        made = n.op("dequantize_linear", said["inputs"], said["attrs"])
        made.shape = x.shape
        n.set(made)
        return
    scale, zero = _operands(n, x)
    if x.const is not None and scale.const is not None and (zero is None or zero.const is not None):
        whole = x.const.astype(np.float64)
        if zero is not None and zero.const is not None:
            whole = whole - zero.const
        n.set(constant((whole * scale.const).astype(scale.dtype)))
        return
    value = n.b.cast(x, scale.dtype)
    if zero is not None:
        value = n.b.binary("elementwise_sub", value, n.b.cast(zero, scale.dtype))
    made = n.op("elementwise_mul", {"X": value, "Y": scale}, {"axis": -1})
    made.shape = x.shape
    n.set(made)


def _held_as(n: Node, x: Tensor) -> Tensor:
    """A constant of any shape as a persistable variable."""
    if x.name is None:
        assert x.const is not None
        x.name = n.b.parameter(x.const, n.hint, trainable=False)
    return x


@reads("QuantizeLinear")
def quantize(n: Node) -> None:
    """round(x / scale) + zero, cut to what the type holds; halves to even numbers."""
    x = n.x()
    scale, zero = _operands(n, x)
    given = n.maybe(2)
    kind: Any = np.dtype(np.uint8) if given is None else given.dtype
    if given is None and n.attr("output_dtype", 0):
        kind = n.source.dtype(int(n.attr("output_dtype")), "output_dtype")
    if kind not in (np.uint8, np.int8, np.int16):
        n.fail(f"quantization to {kind}")
    b = n.b
    said = _by_operator(n, x, 1) if x.dtype == np.float32 else None
    if said is not None:
        number = int(to_var_type(np.dtype(kind).name))
        made = n.op("quantize_linear", said["inputs"], said["attrs"] | {"dtype": number})
        made.shape = x.shape
        n.set(made)
        return
    scaled = b.binary("elementwise_div", x, scale)
    scaled.shape = x.shape
    whole = rounded(n, scaled)
    if zero is not None:
        whole = b.binary("elementwise_add", whole, b.cast(zero, x.dtype))
    limits = np.iinfo(kind)
    cut = b.op("clip", {"X": whole}, {"min": float(limits.min), "max": float(limits.max)})
    made = b.cast(cut, kind)
    made.shape = x.shape
    n.set(made)


@reads("DynamicQuantizeLinear")
def dynamic_quantize(n: Node) -> None:
    """To uint8 between the least and the greatest element, 0 among them; scale and zero point go out too."""
    x, b = n.x(), n.b
    everything = {"dim": [0], "keep_dim": False, "reduce_all": True}
    nothing = constant(np.zeros(1, x.dtype))
    high = b.binary("elementwise_max", b.op("reduce_max", {"X": x}, everything), nothing)
    low = b.binary("elementwise_min", b.op("reduce_min", {"X": x}, everything), nothing)
    scale = b.scale(b.binary("elementwise_sub", high, low), 1.0 / 255.0)
    below = b.scale(b.binary("elementwise_div", low, scale), -1.0)
    zero = rounded(n, b.op("clip", {"X": below}, {"min": 0.0, "max": 255.0}))
    scaled = b.binary("elementwise_div", x, scale)
    scaled.shape = x.shape
    whole = b.binary("elementwise_add", rounded(n, scaled), zero)
    made = b.cast(b.op("clip", {"X": whole}, {"min": 0.0, "max": 255.0}), np.uint8)
    made.shape = x.shape
    n.set(made)
    for i, value in ((1, scale), (2, b.cast(zero, np.uint8))):
        value.shape = ()
        n.set(value, i)


# ---- operators on integers ----------------------------------------------------------------------------------
def _node(n: Node, type: str, inputs: list[str], attributes: Any = (), **attrs: Any) -> str:
    """Read a node that this one stands for; the name of its result."""
    name = f"{n.hint}.{type}.{len(n.values.table)}"
    made = onnx_package().helper.make_node(type, inputs, [name], name=str(n.node.name), **attrs)
    made.attribute.extend(attributes)
    n.walker.node(made, n.values)
    return name


def _floats(n: Node, of: int, scale: int, zero: int, **attrs: Any) -> str:
    """Input `of` by its scale and zero point."""
    given = [n.node.input[i] if n.has(i) else "" for i in (of, scale, zero)]
    return _node(n, "DequantizeLinear", given, **attrs)


def _finish(n: Node, result: str, scale: int, zero: int) -> None:
    n.set(n.values.find(_node(n, "QuantizeLinear", [result, n.node.input[scale], n.node.input[zero]])))


@reads("QLinearConv")
def qlinear_conv(n: Node) -> None:
    """In floats: the integers' sums are exact in float32 below 2^24, and then rounded once, as there."""
    inputs = [_floats(n, 0, 1, 2), _floats(n, 3, 4, 5, axis=0)]
    if n.has(8):
        bias = n.b.cast(n.x(8), np.float32)
        factor = n.b.binary("elementwise_mul", _along_first(n, n.x(1)), _along_first(n, n.x(4)))
        name = f"{n.hint}.bias"
        n.values.table[name] = n.b.binary("elementwise_mul", bias, factor)
        inputs.append(name)
    _finish(n, _node(n, "Conv", inputs, n.node.attribute), 6, 7)


def _along_first(n: Node, scale: Tensor) -> Tensor:
    return n.b.reshape(scale, [-1])


@reads("QLinearMatMul")
def qlinear_matmul(n: Node) -> None:
    last = n.x(3).rank - 1
    _finish(n, _node(n, "MatMul", [_floats(n, 0, 1, 2), _floats(n, 3, 4, 5, axis=last)]), 6, 7)


def _shifted(n: Node, of: int, zero: int, shape: list[int]) -> str:
    """Input `of` less its zero point, as floats."""
    value = n.b.cast(n.x(of), np.float32)
    if n.has(zero):
        less = n.b.cast(n.x(zero), np.float32)
        value = n.b.binary("elementwise_sub", value, n.b.reshape(less, shape if less.rank else [1]))
    value.shape = n.x(of).shape
    name = f"{n.hint}.shifted{of}"
    n.values.table[name] = value
    return name


@reads("MatMulInteger", "ConvInteger")
def on_integers(n: Node) -> None:
    """Sums of products of small integers as int32."""
    if n.type == "MatMulInteger":
        made = _node(n, "MatMul", [_shifted(n, 0, 2, [-1, 1]), _shifted(n, 1, 3, [-1])])
    else:
        weights = [-1, *[1] * (n.x(1).rank - 1)]
        made = _node(n, "Conv", [_shifted(n, 0, 2, [1]), _shifted(n, 1, 3, weights)], n.node.attribute)
    value = n.values.find(made)
    n.set(n.b.cast(rounded(n, value) if value.const is None else value, np.int32))
