"""Activations that are more than one node; the others say theirs in the declaration (``onnx="Relu"``)."""

from __future__ import annotations

import math

import numpy as np

from millstream.onnx.writer.emission import Emission, RefusedError, emits
from millstream.onnx.writer.graph import Graph, Value


def activate(g: Graph, x: Value, kind: str, alpha: float = 0.0, beta: float = 0.0) -> Value:
    """The activation that fused operators name."""
    if kind in ("", "identity"):
        return x
    if kind in ("relu", "sigmoid", "tanh"):
        return g.op(kind.capitalize(), x)
    if kind in ("relu6", "bounded_relu"):
        return clip(g, x, 0.0, alpha or 6.0)
    if kind == "leaky_relu":
        return g.op("LeakyRelu", x, alpha=float(alpha))
    if kind == "swish":
        return x * g.op("Sigmoid", x * (alpha or 1.0))
    if kind == "linear":
        return x * alpha + beta
    raise RefusedError(f"the fused activation {kind!r} is not known")


def clip(g: Graph, x: Value, low: float, high: float) -> Value:
    """min(max(x, low), high)."""
    return g.op("Clip", x, g.const(low, x.dtype), g.const(high, x.dtype))


def _through_double(e: Emission, node: str) -> bool:
    """Integers go through float64 and are cut."""
    x = e.x("X")
    if x.is_float:
        return False
    e.set("Out", e.g.cast(e.g.op(node, e.g.cast(x, np.float64)), x.dtype))
    return True


@emits("exp")
def exp(e: Emission) -> None:
    if not _through_double(e, "Exp"):
        e.set("Out", e.g.op("Exp", e.x("X")))


@emits("logsigmoid")
def logsigmoid(e: Emission) -> None:
    e.set("Out", -e.g.op("Softplus", -e.x("X")))


@emits("log1p")
def log1p(e: Emission) -> None:
    e.set("Out", e.g.op("Log", e.x("X") + 1))


@emits("rsqrt")
def rsqrt(e: Emission) -> None:
    e.set("Out", e.g.op("Reciprocal", e.g.op("Sqrt", e.x("X"))))


@emits("square")
def square(e: Emission) -> None:
    x = e.x("X")
    e.set("Out", x * x)


@emits("pow")
def pow_(e: Emission) -> None:
    x, g = e.x("X"), e.g
    factor = e.maybe("FactorTensor")
    if x.is_float:
        e.set("Out", g.op("Pow", x, g.like(e["factor"], x.dtype) if factor is None else g.cast(factor, x.dtype)))
        return
    whole = g.like(int(e["factor"]), np.float64) if factor is None else g.cast(g.cast(factor, np.int64), np.float64)
    e.set("Out", g.cast(g.op("Pow", g.cast(x, np.float64), whole), x.dtype))


@emits("gelu")
def gelu(e: Emission) -> None:
    x, g = e.x("X"), e.g
    if e["approximate"]:
        inner = (x * x * x * 0.044715 + x) * math.sqrt(2 / math.pi)
        e.set("Out", x * 0.5 * (g.op("Tanh", inner) + 1))
    else:
        # this very order is what ONNX Runtime and OpenVINO fuse to one Gelu
        e.set("Out", x * (g.op("Erf", x / math.sqrt(2)) + 1) * 0.5)


@emits("stanh")
def stanh(e: Emission) -> None:
    e.set("Out", e.g.op("Tanh", e.x("X") * e["scale_a"]) * e["scale_b"])


@emits("tanh_shrink")
def tanh_shrink(e: Emission) -> None:
    e.set("Out", e.x("X") - e.g.op("Tanh", e.x("X")))


@emits("swish")
def swish(e: Emission) -> None:
    x = e.x("X")
    e.set("Out", x * e.g.op("Sigmoid", x if e["beta"] == 1.0 else x * e["beta"]))


@emits("mish")
def mish(e: Emission) -> None:
    x, g = e.x("X"), e.g
    bound = e["threshold"]
    soft = g.where(x > bound, x, g.where(x < -bound, g.op("Exp", x), g.op("Softplus", x)))
    e.set("Out", x * g.op("Tanh", soft))


@emits("leaky_relu")
def leaky_relu(e: Emission) -> None:
    x, alpha = e.x("X"), float(e["alpha"])
    if alpha <= 1.0:
        e.set("Out", e.g.op("LeakyRelu", x, alpha=alpha))
    else:
        e.set("Out", e.g.op("Max", x, e.g.like(x * alpha, x.dtype)))


@emits("relu6")
def relu6(e: Emission) -> None:
    e.set("Out", clip(e.g, e.x("X"), 0.0, e["threshold"]))


@emits("brelu")
def brelu(e: Emission) -> None:
    e.set("Out", clip(e.g, e.x("X"), e["t_min"], e["t_max"]))


@emits("elu")
def elu(e: Emission) -> None:
    x, g = e.x("X"), e.g
    if e["alpha"] > 0:
        e.set("Out", g.op("Elu", x, alpha=float(e["alpha"])))
        return
    zero = g.const(0, x.dtype)
    e.set("Out", g.op("Max", x, zero) + g.op("Min", (g.op("Exp", x) - 1) * e["alpha"], zero))


@emits("selu")
def selu(e: Emission) -> None:
    x, g = e.x("X"), e.g
    alpha = e["alpha"]
    e.set("Out", g.where(x > 0, x, g.op("Exp", x) * alpha - alpha) * e["scale"])


def _masked(g: Graph, x: Value, mask: Value) -> Value:
    return g.where(mask, x, g.const(0, x.dtype))


@emits("hard_shrink")
def hard_shrink(e: Emission) -> None:
    x, bound = e.x("X"), e["threshold"]
    e.set("Out", _masked(e.g, x, (x > bound) | (x < -bound)))


@emits("softshrink")
def softshrink(e: Emission) -> None:
    x, bound = e.x("X"), e["lambda"]
    e.set("Out", _masked(e.g, x - bound, x > bound) + _masked(e.g, x + bound, x < -bound))


@emits("thresholded_relu")
def thresholded_relu(e: Emission) -> None:
    x = e.x("X")
    e.set("Out", _masked(e.g, x, x > e["threshold"]))


@emits("hard_sigmoid")
def hard_sigmoid(e: Emission) -> None:
    e.set("Out", e.g.op("HardSigmoid", e.x("X"), alpha=float(e["slope"]), beta=float(e["offset"])))


@emits("hard_swish")
def hard_swish(e: Emission) -> None:
    x, scale, offset, top = e.x("X"), e["scale"], e["offset"], e["threshold"]
    if top == scale and x.dtype == np.float32:
        # min(max(x + offset, 0), scale) / scale is a HardSigmoid; with the usual numbers, engines have HardSwish itself
        if (scale, offset) == (6.0, 3.0):
            e.set("Out", e.g.op("HardSwish", x))
        else:
            e.set("Out", x * e.g.op("HardSigmoid", x, alpha=1.0 / scale, beta=offset / scale))
        return
    e.set("Out", clip(e.g, x + offset, 0.0, top) * x / scale)


@emits("soft_relu")
def soft_relu(e: Emission) -> None:
    x, bound = e.x("X"), e["threshold"]
    e.set("Out", e.g.op("Log", e.g.op("Exp", clip(e.g, x, -bound, bound)) + 1))


@emits("softmax")
def softmax(e: Emission) -> None:
    e.set("Out", e.g.op("Softmax", e.x("X"), axis=int(e["axis"])))


@emits("maxout")
def maxout(e: Emission) -> None:
    x, g, shape = e.x("X"), e.g, e.shape("X")
    axis, groups = int(e["axis"]) % 4, int(e["groups"])
    dims = [g.dim(x, i) for i in range(4)]
    split = [*dims[:axis], -1, groups, *dims[axis + 1 :]]
    if shape[axis] < 0:
        e.refuse("the number of channels is not known")
    split[axis] = shape[axis] // groups
    e.set("Out", g.reduce("ReduceMax", g.reshape(x, *split), [axis + 1]))


@emits("prelu")
def prelu(e: Emission) -> None:
    x, g, alpha = e.x("X"), e.g, e.x("Alpha")
    rank, mode = e.rank("X"), e["mode"]
    if mode == "all":
        slope = g.reshape(alpha, *[1] * rank)
    elif mode == "channel":
        slope = g.reshape(alpha, -1, *[1] * (rank - 2))
    else:
        slope = g.reshape(alpha, 1, *[g.dim(x, i) for i in range(1, rank)])
    e.set("Out", g.op("PRelu", x, slope))


@emits("round")
def round_(e: Emission) -> None:
    """Halves away from zero; ONNX's Round sends them to even numbers."""
    x, g = e.x("X"), e.g
    e.set("Out", g.op("Sign", x) * g.op("Floor", g.op("Abs", x) + 0.5))
