"""Losses and accuracy, which test Programs often carry along, and the backtrace of beams."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.activation import clip
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import END, scan

_LARGE = 1e20


def _log_loss(g: Graph, p: Value) -> Value:
    """-log p, infinity cut to 1e20."""
    return clip(g, -g.op("Log", p), -_LARGE, _LARGE)


def _at_label(e: Emission, x: Value, label: Value, axis: int) -> tuple[Value, Value]:
    """(x at the labels, which labels are ignored)."""
    g = e.g
    label = g.cast(label, np.int64)
    ignored = g.op("Equal", label, g.const(int(e["ignore_index"]), np.int64))
    return g.op("GatherElements", x, g.where(ignored, g.const(0, np.int64), label), axis=axis), ignored


def _cross_entropy(e: Emission, p: Value, label: Value, axis: int) -> Value:
    g = e.g
    if e.attrs.get("soft_label"):
        return g.reduce("ReduceSum", label * _log_loss(g, p), [axis], True)
    found, ignored = _at_label(e, p, label, axis)
    return g.where(ignored, g.const(0, p.dtype), _log_loss(g, found))


@emits("cross_entropy")
def cross_entropy(e: Emission) -> None:
    e.set("Y", _cross_entropy(e, e.x("X"), e.x("Label"), e.rank("X") - 1))


@emits("cross_entropy2")
def cross_entropy2(e: Emission) -> None:
    g, x = e.g, e.x("X")
    found, ignored = _at_label(e, x, e.x("Label"), e.rank("X") - 1)
    zero = g.const(0, x.dtype)
    e.set("Y", g.where(ignored, zero, _log_loss(g, found)))
    e.set("MatchX", g.where(ignored, zero, found))


@emits("softmax_with_cross_entropy")
def softmax_with_cross_entropy(e: Emission) -> None:
    axis = int(e["axis"]) % e.rank("Logits")
    y = e.g.op("Softmax", e.x("Logits"), axis=axis)
    e.set("Softmax", y, e.lod("Logits"))
    e.set("Loss", _cross_entropy(e, y, e.x("Label"), axis))


@emits("sigmoid_cross_entropy_with_logits")
def sigmoid_cross_entropy(e: Emission) -> None:
    g, x, label = e.g, e.x("X"), e.x("Label")
    whole = g.cast(g.cast(label, np.int64), label.dtype)
    ignored = g.op("Equal", whole, g.const(int(e["ignore_index"]), label.dtype))
    loss = g.op("Softplus", -g.op("Abs", x)) + g.op("Relu", x) - x * label
    loss = g.where(ignored, g.const(0, x.dtype), loss)
    if e["normalize"]:
        count = g.reduce("ReduceSum", g.cast(~ignored, x.dtype), None)
        loss = loss / g.op("Max", count, g.const(1e-5, x.dtype))
    e.set("Out", loss)


@emits("accuracy")
def accuracy(e: Emission) -> None:
    g, index = e.g, e.x("Indices")
    n = g.dim(index, 0)
    same = g.op("Equal", index, g.cast(g.reshape(e.x("Label"), -1, 1), index.dtype))
    right = g.reduce("ReduceMax", g.cast(same, np.int32), [1])
    correct = g.reduce("ReduceSum", right, [0], True)
    e.set("Correct", correct, ())
    e.set("Total", g.cast(n, np.int32), ())
    rows = g.op("Max", g.cast(n, np.float32), g.const([1], np.float32))
    e.set("Accuracy", g.cast(correct, np.float32) / rows)


@emits("huber_loss")
def huber_loss(e: Emission) -> None:
    g, r, delta = e.g, e.x("Y") - e.x("X"), float(e["delta"])
    a = g.op("Abs", r)
    e.set("Residual", r, ())
    e.set("Out", g.where(a <= delta, r * r * 0.5, (a - 0.5 * delta) * delta))


@emits("smooth_l1_loss")
def smooth_l1_loss(e: Emission) -> None:
    g, s = e.g, float(e["sigma"]) ** 2
    d = e.x("X") - e.x("Y")
    if e.has("InsideWeight"):
        d = d * e.x("InsideWeight")
    a = g.op("Abs", d)
    out = g.where(a < 1.0 / s, d * d * (0.5 * s), a - 0.5 / s)
    if e.has("OutsideWeight"):
        out = out * e.x("OutsideWeight")
    e.set("Diff", d, ())
    e.set("Out", g.reduce("ReduceSum", g.op("Flatten", out, axis=1), [1], True))


@emits("log_loss")
def log_loss(e: Emission) -> None:
    g, p, y, eps = e.g, e.x("Predicted"), e.x("Labels"), float(e["epsilon"])
    e.set("Loss", -y * g.op("Log", p + eps) - (1.0 - y) * g.op("Log", 1.0 - p + eps))


@emits("bce_loss")
def bce_loss(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Label")
    low = g.const(-100, x.dtype)
    e.set("Out", -y * g.op("Max", g.op("Log", x), low) - (1.0 - y) * g.op("Max", g.op("Log", 1.0 - x), low))


@emits("hinge_loss")
def hinge_loss(e: Emission) -> None:
    e.set("Loss", e.g.op("Relu", 1.0 - e.x("Logits") * (e.x("Labels") * 2.0 - 1.0)))


@emits("modified_huber_loss")
def modified_huber_loss(e: Emission) -> None:
    g, z = e.g, e.x("X") * (e.x("Y") * 2.0 - 1.0)
    rest = g.op("Relu", 1.0 - z)
    e.set("IntermediateVal", z)
    e.set("Out", g.where(z < -1.0, z * -4.0, rest * rest))


@emits("margin_rank_loss")
def margin_rank_loss(e: Emission) -> None:
    g, label = e.g, e.x("Label")
    out = g.op("Relu", float(e["margin"]) - label * (e.x("X1") - e.x("X2")))
    e.set("Activated", g.cast(out > 0, out.dtype), ())
    e.set("Out", out)


@emits("rank_loss")
def rank_loss(e: Emission) -> None:
    o = e.x("Left") - e.x("Right")
    e.set("Out", e.g.op("Softplus", o) - e.x("Label") * o)


@emits("bpr_loss")
def bpr_loss(e: Emission) -> None:
    g, x, last = e.g, e.x("X"), e.rank("X") - 1
    label = g.cast(e.x("Label"), np.int64)
    loss = g.op("Softplus", x - g.op("GatherElements", x, label, axis=last))
    own = g.op("GatherElements", loss, label, axis=last)
    classes = g.cast(g.dim(x, last), x.dtype) - 1
    e.set("Y", (g.reduce("ReduceSum", loss, [last], True) - own) / classes)


@emits("kldiv_loss")
def kldiv_loss(e: Emission) -> None:
    g, x, target = e.g, e.x("X"), e.x("Target")
    zero = g.const(0, x.dtype)
    loss = g.where(target > 0, target * (g.op("Log", g.op("Max", target, g.const(1e-38, x.dtype))) - x), zero)
    kind = e["reduction"]
    if kind == "none":
        e.set("Loss", loss)
        return
    if kind == "mean":
        total = g.reduce("ReduceMean", loss, None)
    else:
        total = g.reduce("ReduceSum", loss, None)
        if kind == "batchmean":
            total = total / g.cast(g.squeeze(g.dim(x, 0), 0), x.dtype)
    e.set("Loss", g.reshape(total, 1))


@emits("gather_tree")
def gather_tree(e: Emission) -> None:
    """Back along the parents: each step's ids at the beam that the step after it came from."""
    g, ids, parents = e.g, e.x("Ids"), e.x("Parents")
    last_ids, last = g.slice(ids, 0, -1, END), g.squeeze(g.slice(parents, 0, -1, END), 0)

    def back(body: Graph, states: list[Value], now: list[Value]) -> tuple[list[Value], list[Value]]:
        beam = states[0]
        here = body.op("GatherElements", now[0], beam, axis=1)
        return [body.op("GatherElements", now[1], beam, axis=1)], [here]

    rest = [g.slice(v, 0, 0, -1) for v in (ids, parents)]
    _, path = scan(g, [last], rest, back, [2, 2], ranks=[2, 2], reverse=True)
    e.set("Out", g.concat([path, last_ids], 0))


@emits("nll_loss")
def nll_loss(e: Emission) -> None:
    """Over dim 1; the mean divides by the sum of the weights that were used."""
    g, x = e.g, e.x("X")
    label = g.cast(e.x("Label"), np.int64)
    ignored = g.op("Equal", label, g.const(int(e["ignore_index"]), np.int64))
    safe = g.where(ignored, g.const(0, np.int64), label)
    zero = g.const(0, x.dtype)
    found = g.squeeze(g.op("GatherElements", x, g.unsqueeze(safe, 1), axis=1), 1)
    weight = g.gather(e.x("Weight"), safe) if e.has("Weight") else g.full(g.shape(safe), 1, x.dtype)
    weight = g.where(ignored, zero, weight)
    loss, kind = -found * weight, e["reduction"]
    total = g.reshape(g.reduce("ReduceSum", weight, None), 1)
    if kind == "none":
        e.set("Out", loss)
        total = zero * total  # Fluid leaves it at 0 then
    else:
        whole = g.reshape(g.reduce("ReduceSum", loss, None), 1)
        e.set("Out", whole / total if kind == "mean" else whole)
    e.set("Total_weight", total)


@emits("sigmoid_focal_loss")
def sigmoid_focal_loss(e: Emission) -> None:
    g, x, classes = e.g, e.x("X"), e.shape("X")[1]
    if classes < 0:
        e.refuse("the number of classes must be known")
    label = g.cast(g.reshape(e.x("Label"), -1, 1), np.int64)
    mine = g.op("Equal", label, g.const(np.arange(1, classes + 1), np.int64))
    others = ~mine & (label >= 0)
    gamma, alpha = float(e["gamma"]), float(e["alpha"])
    count = g.op("Max", g.cast(g.reshape(e.x("FgNum"), 1), x.dtype), g.const([1], x.dtype))
    p = g.op("Sigmoid", x)
    power = g.const(gamma, x.dtype)
    near = g.op("Pow", 1.0 - p, power) * g.op("Softplus", -x) * alpha
    far = g.op("Pow", p, power) * g.op("Softplus", x) * (1.0 - alpha)
    zero = g.const(0, x.dtype)
    e.set("Out", (g.where(mine, near, zero) + g.where(others, far, zero)) / count)


@emits("cvm")
def cvm(e: Emission) -> None:
    g, x = e.g, e.x("X")
    rest = g.slice(x, 1, 2, END)
    if not e["use_cvm"]:
        e.set("Y", rest)
        return
    shows, clicks = (g.op("Log", g.slice(x, 1, k, k + 1) + 1) for k in (0, 1))
    e.set("Y", g.concat([shows, clicks - shows, rest], 1))
