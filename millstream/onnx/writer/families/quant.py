"""Simulated quantization as arithmetic on floats, with Fluid's rounding (halves away from zero); integers as in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.graph import Graph, Value


def _range(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def quantized(g: Graph, x: Value, s: Value, bits: int) -> Value:
    """round(r / s * (X cut to [-s, s]))."""
    cut = g.op("Max", g.op("Min", x, s), -s)
    scaled = cut * (g.const(_range(bits), x.dtype) / g.op("Max", s, g.const(1e-30, x.dtype)))
    return g.op("Sign", scaled) * g.op("Floor", g.op("Abs", scaled) + 0.5)


def _greatest(g: Graph, x: Value) -> Value:
    return g.reduce("ReduceMax", g.op("Abs", x), None)


@emits("fake_quantize_abs_max")
def abs_max(e: Emission) -> None:
    g, x = e.g, e.x("X")
    s = _greatest(g, x)
    e.set("Out", quantized(g, x, s, int(e["bit_length"])))
    e.set("OutScale", g.reshape(s, 1))


@emits("fake_channel_wise_quantize_abs_max")
def channel_wise(e: Emission) -> None:
    g, x, rank = e.g, e.x("X"), e.rank("X")
    s = g.reduce("ReduceMax", g.op("Flatten", g.op("Abs", x), axis=1), [1])
    e.set("Out", quantized(g, x, g.unsqueeze(s, *range(1, rank)) if rank > 1 else s, int(e["bit_length"])))
    e.set("OutScale", s)


@emits(
    "fake_quantize_range_abs_max", "fake_quantize_moving_average_abs_max", "fake_quantize_dequantize_moving_average_abs_max"
)
def with_scale(e: Emission) -> None:
    g, x = e.g, e.x("X")
    if not e["is_test"]:
        e.refuse("scales that are still learned; export the test program (clone(for_test=True))")
    s, bits = g.reshape(e.x("InScale")), int(e["bit_length"])
    out = quantized(g, x, s, bits)
    if e.op.type == "fake_quantize_dequantize_moving_average_abs_max":
        out = out * s / float(_range(bits))
    e.set("Out", out)
    e.set("OutScale", e.x("InScale"))


@emits("moving_average_abs_max_scale")
def scale_only(e: Emission) -> None:
    if e.walker is not None and e.walker.used(e.op.output("OutScale")):
        e.refuse("scales that are still learned")
    e.set("Out", e.x("X"))


@emits("fake_dequantize_max_abs", "dequantize_abs_max")
def dequantize(e: Emission) -> None:
    g, x = e.g, e.x("X")
    x = g.cast(x, np.float32) if e.op.type == "dequantize_abs_max" else x
    e.set("Out", x * g.reshape(e.x("Scale")) / float(e["max_range"]))


@emits("fake_channel_wise_dequantize_max_abs")
def channel_dequantize(e: Emission) -> None:
    g, x, scales, bits = e.g, e.x("X"), e.xs("Scales"), list(e["quant_bits"])
    axis, rank = len(scales) - 1, e.rank("X")
    factor = g.reshape(scales[0], *[-1 if i == axis else 1 for i in range(rank)]) / float(_range(bits[0]))
    if len(scales) == 2:
        factor = factor * (g.reshape(scales[1]) / float(_range(bits[1])))
    e.set("Out", x * factor)


# ---- integers ----------------------------------------------------------------------------------------
def _linear(e: Emission, node: str, x: Value, kind: Any, dtype: Any) -> Value:
    """A node over `x`, Scale and ZeroPoint (of type `kind`), which are single numbers or one for each index of `axis`."""
    g, scale, zero = e.g, e.x("Scale"), e.maybe("ZeroPoint")
    if kind == np.int16 and g.opset < 21:
        e.refuse("int16 values before opset 21")
    one = scale.shape is not None and scale.shape in ((1,), ())
    scale = g.reshape(scale) if one else scale
    if zero is None:
        size = () if one else scale.shape
        if size is None or -1 in size:
            e.refuse("the number of scales is not known")
        zero = g.const(np.zeros(size, kind))
    elif one:
        zero = g.reshape(zero)
    made: Value = g.ops(node, 1, x, scale, zero, dtypes=[dtype], axis=None if one else int(e.attrs.get("axis", 1)))[0]
    made.shape = x.shape
    return made


@emits("quantize_linear")
def quantize_linear(e: Emission) -> None:
    kind = e.dtype()
    e.set("Y", _linear(e, "QuantizeLinear", e.x("X"), kind, kind))


@emits("dequantize_linear")
def dequantize_linear(e: Emission) -> None:
    x = e.x("X")
    e.set("Y", _linear(e, "DequantizeLinear", x, x.dtype, e.x("Scale").dtype))


@emits("quantize_dequantize_linear")
def quantize_dequantize_linear(e: Emission) -> None:
    kind = e.dtype()
    whole = _linear(e, "QuantizeLinear", e.x("X"), kind, kind)
    e.set("Y", _linear(e, "DequantizeLinear", whole, kind, e.x("Scale").dtype))


@emits("dequantize_log")
def dequantize_log(e: Emission) -> None:
    g, code = e.g, e.g.cast(e.x("X"), np.int64)
    negative = code < 0
    value = g.gather(g.reshape(e.x("Dict"), -1), g.where(negative, code + 128, code))
    e.set("Out", g.where(negative, -value, value))
