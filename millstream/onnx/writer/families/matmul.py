"""Products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.activation import activate
from millstream.onnx.writer.graph import Graph, Value


def as_matrix(g: Graph, x: Value, rank: int, n: int) -> Value:
    """The first `n` dims as rows, the rest as columns."""
    return x if rank == 2 and n == 1 else g.op("Flatten", x, axis=n)


def linear(e: Emission, x: Value, w: Value, xs: Sequence[int], n: int, bias: Value | None = None) -> Value:
    """X flattened after `n` dims, times a matrix, plus a vector."""
    out = _linear(e, x, w, xs, n, bias)
    if n == 1 and e.walker is not None:
        e.walker.linear[out.name] = (as_matrix(e.g, x, len(xs), 1), w, bias)
    return out


def _linear(e: Emission, x: Value, w: Value, xs: Sequence[int], n: int, bias: Value | None) -> Value:
    g, rank = e.g, len(xs)
    if n == rank - 1:
        if rank == 2 and bias is not None and x.dtype == w.dtype:
            return g.op("Gemm", x, w, bias)
        out = g.op("MatMul", x, w)
        return out if bias is None else out + bias
    out = g.op("MatMul", as_matrix(g, x, rank, n), w)
    if bias is not None:
        out = out + bias
    return out if n == 1 else g.reshape(out, *[g.dim(x, i) for i in range(n)], -1)


@emits("mul")
def mul(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    n, m, ys = int(e["x_num_col_dims"]), int(e["y_num_col_dims"]), e.shape("Y")
    out = linear(e, x, as_matrix(g, y, len(ys), m), e.shape("X"), n)
    if len(ys) - m != 1:
        out = g.reshape(out, *[g.dim(x, i) for i in range(n)], *[g.dim(y, i) for i in range(m, len(ys))])
    e.set("Out", out)


@emits("fc")
def fc(e: Emission) -> None:
    g, x, w = e.g, e.x("Input"), e.x("W")
    if e["padding_weights"]:
        w = g.slice(g.slice(w, 0, 0, -4), 1, 0, -4)
    bias = e.maybe("Bias")
    out = linear(e, x, w, e.shape("Input"), int(e["in_num_col_dims"]), None if bias is None else g.reshape(bias, -1))
    e.set("Out", activate(g, out, e["activation_type"]))


@emits("matmul")
def matmul(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    xs, ys, tx, ty = e.shape("X"), e.shape("Y"), e["transpose_X"], e["transpose_Y"]
    a, b = (g.unsqueeze(x, 0) if len(xs) == 1 else x), (g.unsqueeze(y, 1) if len(ys) == 1 else y)
    ra, rb = max(len(xs), 2), max(len(ys), 2)
    if ra > 2 and rb > 2 and (ra != rb or _differ(xs[:-2], ys[:-2])):
        b = g.reshape(b, *[g.dim(x, i) for i in range(ra - 2)], g.dim(y, rb - 2), g.dim(y, rb - 1))
        rb = ra
    if tx:
        a = g.transpose(a, [*range(ra - 2), ra - 1, ra - 2])
    if ty:
        b = g.transpose(b, [*range(rb - 2), rb - 1, rb - 2])
    out = g.op("MatMul", a, b)
    if len(ys) == 1 and not ty:
        out = g.squeeze(out, -1)
    elif len(xs) == 1 and not tx:
        out = g.squeeze(out, -2)
    e.set("Out", out if e["alpha"] == 1.0 else out * e["alpha"])


def _differ(a: Sequence[int], b: Sequence[int]) -> bool:
    return any(m != n and m > 0 and n > 0 for m, n in zip(a, b))


@emits("bmm")
def bmm(e: Emission) -> None:
    e.set("Out", e.g.op("MatMul", e.x("X"), e.x("Y")))


@emits("conv_shift")
def conv_shift(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    rows, width = e.shape("X")[1], e.shape("Y")[1]
    if min(rows, width) < 0:
        e.refuse("rows of unknown width")
    index = (np.arange(rows)[:, None] + np.arange(width) - (width - 1) // 2) % rows
    e.set("Out", g.squeeze(g.op("MatMul", g.gather(x, index, 1), g.unsqueeze(y, 2)), 2))


@emits("dot")
def dot(e: Emission) -> None:
    e.set("Out", e.g.reduce("ReduceSum", e.x("X") * e.x("Y"), [-1], True))


@emits("addmm")
def addmm(e: Emission) -> None:
    given, product = e.x("Input"), e.g.op("MatMul", e.x("X"), e.x("Y"))
    if e["Alpha"] != 1.0:
        product = product * e["Alpha"]
    e.set("Out", product + (given if e["Beta"] == 1.0 else given * e["Beta"]))


@emits("fusion_repeated_fc_relu")
def repeated_fc_relu(e: Emission) -> None:
    g, x = e.g, e.x("X")
    pairs = list(zip(e.xs("W"), e.xs("Bias")))
    for i, (w, b) in enumerate(pairs):
        x = g.op("Relu", g.op("Gemm", x, w, g.reshape(b, -1)))
        if i < len(pairs) - 1:
            e.set("ReluOut", x, (), index=i)
    e.set("Out", x)


@emits("fusion_squared_mat_sub")
def squared_mat_sub(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    x2, y2, xy = x * x, y * y, g.op("MatMul", x, y)
    squared = xy * xy
    for slot, value in (("SquaredX", x2), ("SquaredY", y2), ("SquaredXY", squared)):
        e.set(slot, value, ())
    e.set("Out", (squared - g.op("MatMul", x2, y2)) * e["scalar"])


@emits("bilinear_tensor_product")
def bilinear_tensor_product(e: Emission) -> None:
    """Out[n, k] = x[n] W[k] y[n] + b[k]."""
    g, x, y, w = e.g, e.x("X"), e.x("Y"), e.x("Weight")
    rows = g.op("MatMul", g.unsqueeze(x, 0), w)  # [k, n, dy]
    out = g.transpose(g.reduce("ReduceSum", rows * g.unsqueeze(y, 0), [2]), [1, 0])
    e.set("Out", out + e.x("Bias") if e.has("Bias") else out)


@emits("fsp")
def fsp(e: Emission) -> None:
    """Products of the channels of two images, averaged over their places."""
    g, x, y = e.g, e.x("X"), e.x("Y")
    flat = [g.reshape(v, 0, 0, -1) for v in (x, y)]
    area = g.cast(g.dim(flat[0], 2), x.dtype)
    e.set("Out", g.op("MatMul", flat[0], g.transpose(flat[1], [0, 2, 1])) / area)
