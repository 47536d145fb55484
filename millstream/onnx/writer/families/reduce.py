"""Reductions, means, running sums, norms and distances."""

from __future__ import annotations

import numpy as np

from millstream.ir.types import VarType
from millstream.onnx.writer.emission import Emission, emits, numpy_dtype
from millstream.onnx.writer.graph import Value

_KINDS = {"reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
          "reduce_prod": "ReduceProd", "reduce_all": "ReduceMin", "reduce_any": "ReduceMax"}  # fmt: skip


def _axes(e: Emission) -> list[int]:
    rank = e.rank("X")
    return list(range(rank)) if e["reduce_all"] else sorted({int(d) % rank for d in e["dim"]})


def reduced(e: Emission, x: Value, kind: str) -> Value:
    """X reduced as reduce_* says: [1] where no dim is left."""
    axes, rank = _axes(e), e.rank("X")
    full = len(axes) == rank
    out = e.g.reduce(kind, x, axes, bool(e["keep_dim"]))
    return e.g.reshape(out, 1) if full and not e["keep_dim"] else out


def _lod(e: Emission) -> tuple[Value, ...]:
    return () if 0 in _axes(e) else e.lod("X")


@emits(*_KINDS)
def reduce(e: Emission) -> None:
    x, g = e.x("X"), e.g
    if int(e.attrs.get("out_dtype", -1)) >= 0:
        x = g.cast(x, numpy_dtype(VarType(e["out_dtype"])))
    kind = _KINDS[e.op.type]
    if x.dtype == np.bool_:
        out = g.cast(reduced(e, g.cast(x, np.int32), kind), np.bool_)
    elif kind == "ReduceMean" and not x.is_float:
        total = reduced(e, x, "ReduceSum")
        out = total / g.cast(g.op("Size", x) / g.op("Size", total), x.dtype)
    else:
        out = reduced(e, x, kind)
    e.set("Out", out, _lod(e))


@emits("mean")
def mean(e: Emission) -> None:
    e.set("Out", e.g.reshape(e.g.reduce("ReduceMean", e.x("X"), None), 1))


@emits("cumsum")
def cumsum(e: Emission) -> None:
    axis = e.g.const(int(e["axis"]), np.int64)
    e.set("Out", e.g.op("CumSum", e.x("X"), axis, exclusive=int(e["exclusive"]) or None, reverse=int(e["reverse"]) or None))


@emits("norm")
def norm(e: Emission) -> None:
    x, g = e.x("X"), e.g
    n = g.op("Sqrt", g.reduce("ReduceSum", x * x, [int(e["axis"])], True) + e["epsilon"])
    e.set("Norm", n)
    e.set("Out", x / n)


@emits("p_norm")
def p_norm(e: Emission) -> None:
    x, g, p, axis, keep = e.x("X"), e.g, float(e["porder"]), int(e["axis"]), bool(e["keepdim"])
    if p in (1.0, 2.0):
        out = g.reduce("ReduceL1" if p == 1.0 else "ReduceL2", x, [axis], keep)
    else:
        powers = g.op("Pow", g.op("Abs", x), g.const(p, x.dtype))
        out = g.op("Pow", g.reduce("ReduceSum", powers, [axis], keep), g.const(1 / p, x.dtype))
    e.set("Out", g.reshape(out, 1) if e.rank("X") == 1 and not keep else out)


@emits("frobenius_norm")
def frobenius_norm(e: Emission) -> None:
    e.set("Out", e.g.op("Sqrt", reduced(e, e.x("X") * e.x("X"), "ReduceSum")), _lod(e))


@emits("l1_norm", "squared_l2_norm")
def whole_norm(e: Emission) -> None:
    x, g = e.x("X"), e.g
    parts = g.op("Abs", x) if e.op.type == "l1_norm" else x * x
    e.set("Out", g.reshape(g.reduce("ReduceSum", parts, None), 1))


@emits("squared_l2_distance")
def squared_l2_distance(e: Emission) -> None:
    g = e.g
    sub = g.op("Flatten", e.x("X"), axis=1) - g.op("Flatten", e.x("Y"), axis=1)
    e.set("sub_result", sub, ())
    e.set("Out", g.reduce("ReduceSum", sub * sub, [1], True))


@emits("dist")
def dist(e: Emission) -> None:
    g, p = e.g, float(e["p"])
    d = g.op("Abs", e.x("X") - e.x("Y"))
    if p == 0:
        out = g.reduce("ReduceSum", g.cast(d > 0, d.dtype), None)
    elif np.isinf(p):
        out = g.reduce("ReduceMax" if p > 0 else "ReduceMin", d, None)
    else:
        out = g.op("Pow", g.reduce("ReduceSum", g.op("Pow", d, g.const(p, d.dtype)), None), g.const(1 / p, d.dtype))
    e.set("Out", g.reshape(out, 1))


@emits("is_empty", "size")
def size(e: Emission) -> None:
    g = e.g
    n = g.reshape(g.op("Size", e.x(e.definition.inputs[0].name)), 1)
    e.set("Out", n if e.op.type == "size" else g.op("Equal", n, g.const([0], np.int64)))


@emits("equal_reduce")
def equal_reduce(e: Emission) -> None:
    from millstream.onnx.writer.families.elementwise import operands

    x, y = operands(e)
    same = e.g.cast(e.g.op("Equal", x, y), np.int32)
    e.set("Out", e.g.cast(e.g.reshape(e.g.reduce("ReduceMin", same, None), 1), np.bool_))


@emits("allclose")
def allclose(e: Emission) -> None:
    g, x, y = e.g, e.x("Input"), e.x("Other")
    close = g.op("Abs", x - y) <= g.op("Abs", y) * float(e["rtol"]) + float(e["atol"])
    close = close | g.op("Equal", x, y)
    if e["equal_nan"]:
        close = close | (g.op("IsNaN", x) & g.op("IsNaN", y))
    e.set("Out", g.cast(g.reshape(g.reduce("ReduceMin", g.cast(close, np.int32), None), 1), np.bool_))
