"""Normalisation within a sample, and other per-channel maps."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.graph import Value
from millstream.ops.nn._window import CHANNELS_LAST


@emits("layer_norm")
def layer_norm(e: Emission) -> None:
    g, x, axis, rank = e.g, e.x("X"), int(e["begin_norm_axis"]), e.rank("X")
    scale, bias = e.maybe("Scale"), e.maybe("Bias")
    shape = e.shape("X")
    flat = x
    if axis != rank - 1:
        flat = g.reshape(x, *[g.dim(x, i) for i in range(axis)], -1)
    if scale is None:
        if shape[axis:] and min(shape[axis:]) <= 0:
            e.refuse("the normalised size must be known where there is no Scale")
        scale = g.const(np.ones(int(np.prod(shape[axis:])), x.dtype))
    y = g.ops("LayerNormalization", 1, flat, scale, bias, axis=-1, epsilon=float(e["epsilon"]))[0]
    if axis != rank - 1:
        y = g.op("Reshape", y, g.shape(x))
    y.shape = x.shape
    e.set("Y", y)


@emits("instance_norm")
def instance_norm(e: Emission) -> None:
    g, x = e.g, e.x("X")
    channels = e.shape("X")[1]
    scale, bias = e.maybe("Scale"), e.maybe("Bias")
    if scale is None or bias is None:
        if channels < 0:
            e.refuse("the number of channels must be known where there is no Scale or Bias")
        scale = scale if scale is not None else g.const(np.ones(channels, x.dtype))
        bias = bias if bias is not None else g.const(np.zeros(channels, x.dtype))
    e.set("Y", g.op("InstanceNormalization", x, scale, bias, epsilon=float(e["epsilon"])))


@emits("group_norm")
def group_norm(e: Emission) -> None:
    g, x, groups, rank = e.g, e.x("X"), int(e["groups"]), e.rank("X")
    last = e["data_layout"] == "NHWC" and rank > 2
    if last:
        x = g.transpose(x, [0, rank - 1, *range(1, rank - 1)])
    flat = g.reshape(x, 0, groups, -1)
    mean = g.reduce("ReduceMean", flat, [2], True)
    centred = flat - mean
    variance = g.reduce("ReduceMean", centred * centred, [2], True)
    y = g.op("Reshape", centred / g.op("Sqrt", variance + e["epsilon"]), g.shape(x))
    tail = [1] * (rank - 2)
    if e.has("Scale"):
        y = y * g.reshape(e.x("Scale"), -1, *tail)
    if e.has("Bias"):
        y = y + g.reshape(e.x("Bias"), -1, *tail)
    e.set("Y", g.transpose(y, [0, *range(2, rank), 1]) if last else y)
    e.set("Mean", g.squeeze(mean, 2), ())
    e.set("Variance", g.squeeze(variance, 2), ())


@emits("lrn")
def lrn(e: Emission) -> None:
    g, x, n = e.g, e.x("X"), int(e["n"])
    last = e["data_format"] in CHANNELS_LAST
    if last:
        x = g.transpose(x, [0, 3, 1, 2])
    # ONNX divides alpha by the size of the window
    out = g.op("LRN", x, size=n, alpha=float(e["alpha"] * n), beta=float(e["beta"]), bias=float(e["k"]))
    e.set("Out", g.transpose(out, [0, 2, 3, 1]) if last else out)


@emits("affine_channel")
def affine_channel(e: Emission) -> None:
    g, rank = e.g, e.rank("X")
    tail = [] if e["data_layout"] in CHANNELS_LAST else [1] * (rank - 2)
    scale, bias = (g.reshape(e.x(s), -1, *tail) for s in ("Scale", "Bias"))
    e.set("Out", e.x("X") * scale + bias)


@emits("data_norm")
def data_norm(e: Emission) -> None:
    g, x = e.g, e.x("X")
    means = e.x("BatchSum") / e.x("BatchSize")
    scales = g.op("Sqrt", e.x("BatchSize") / e.x("BatchSquareSum"))
    y = (x - means) * scales
    if e["enable_scale_and_shift"]:
        y = y * e.x("scale_w") + e.x("bias")
    elif int(e["slot_dim"]) > 0:
        y = y * _shown(e, x, int(e["slot_dim"]))
    e.set("Y", y)
    e.set("Means", means, ())
    e.set("Scales", scales, ())


def _shown(e: Emission, x: Value, slot: int) -> Value:
    """1 where the first column of a slot is not 0."""
    g, width = e.g, e.shape("X")[1]
    if width < 0:
        e.refuse("the width of X must be known with slot_dim")
    first = g.op("Abs", g.gather(x, np.arange(width) // slot * slot, 1))
    return g.cast(first >= 1e-7, x.dtype)


@emits("spectral_norm")
def spectral_norm(e: Emission) -> None:
    g, weight, dim = e.g, e.x("Weight"), int(e["dim"])
    rank, size = e.rank("Weight"), e.shape("Weight")
    moved = [dim, *[i for i in range(rank) if i != dim]]
    matrix = g.reshape(g.transpose(weight, moved), size[dim], -1)
    u, v = g.reshape(e.x("U"), -1, 1), g.reshape(e.x("V"), -1, 1)
    turned = g.transpose(matrix, [1, 0])

    def unit(x: Value) -> Value:
        return x / (g.op("Sqrt", g.reduce("ReduceSum", x * x, None)) + float(e["eps"]))

    for _ in range(int(e["power_iters"])):
        v = unit(g.op("MatMul", turned, u))
        u = unit(g.op("MatMul", matrix, v))
    sigma = g.reshape(g.op("MatMul", g.transpose(u, [1, 0]), g.op("MatMul", matrix, v)))
    e.set("Out", weight / sigma)
