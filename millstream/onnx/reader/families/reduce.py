"""Reductions, running sums, and what orders elements."""

from __future__ import annotations

import numpy as np

from millstream.ir.types import to_var_type
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant

_KINDS = {"ReduceSum": "reduce_sum", "ReduceMean": "reduce_mean", "ReduceMax": "reduce_max", "ReduceMin": "reduce_min",
          "ReduceProd": "reduce_prod"}  # fmt: skip
_BEFORE = {"ReduceL1": "abs", "ReduceL2": "square", "ReduceSumSquare": "square", "ReduceLogSumExp": "exp"}
_AFTER = {"ReduceL2": "sqrt", "ReduceLogSum": "log", "ReduceLogSumExp": "log"}


@reads(*_KINDS, "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def reduce(n: Node) -> None:
    x, axes, keep = n.x(), n.axes(), bool(n.attr("keepdims", 1))
    if (axes is not None and not axes) or (axes is None and n.attr("noop_with_empty_axes", 0)):
        if n.attr("noop_with_empty_axes", 0):  # sums of one
            y = n.b.op(_BEFORE[n.type], {"X": x}) if n.type in _BEFORE else x
            made = n.b.op(_AFTER[n.type], {"X": y}) if n.type in _AFTER else y
            made.shape = x.shape
            n.set(made)
            return
        axes = None
    wanted = sorted({a % max(x.rank, 1) for a in axes}) if axes is not None else list(range(x.rank))
    n.set(reduced(n, x, n.type, wanted, keep))


def reduced(n: Node, x: Tensor, kind: str, axes: list[int], keep: bool) -> Tensor:
    """A reduction over some axes; without any left, a scalar."""
    b = n.b
    y = x
    if kind == "ReduceLogSumExp":
        top = b.op("reduce_max", {"X": x}, {"dim": axes or [0], "keep_dim": True, "reduce_all": len(axes) == x.rank})
        y = b.binary("elementwise_sub", x, top)
    if kind in _BEFORE:
        y = b.op(_BEFORE[kind], {"X": y})
    attrs = {"dim": axes or [0], "keep_dim": keep, "reduce_all": len(axes) == x.rank}
    made = b.op(_KINDS.get(kind, "reduce_sum"), {"X": y}, attrs, hint=n.hint)
    if kind in _AFTER:
        made = b.op(_AFTER[kind], {"X": made}, hint=n.hint)
    if kind == "ReduceLogSumExp":
        if not keep:
            top = b.op("reduce_max", {"X": x}, {"dim": axes or [0], "keep_dim": False, "reduce_all": len(axes) == x.rank})
        made = b.binary("elementwise_add", made, top)
    rest = tuple(1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes)
    made.shape = rest
    return made


@reads("CumSum")
def cumsum(n: Node) -> None:
    x, axis = n.x(), int(n.const(1, "axis").reshape(-1)[0])
    attrs = {"axis": axis, "exclusive": bool(n.attr("exclusive", 0)), "reverse": bool(n.attr("reverse", 0))}
    n.set(n.op("cumsum", {"X": x}, attrs))


@reads("ArgMax", "ArgMin")
def arg(n: Node) -> None:
    x = n.x()
    if n.attr("select_last_index", 0):
        n.fail("select_last_index")
    axis, keep = n.axis(0, x.rank), bool(n.attr("keepdims", 1))
    made = n.op("arg_max" if n.type == "ArgMax" else "arg_min", {"X": x}, {"axis": axis, "keepdims": keep})
    if x.rank == 1 and not keep:
        made.shape = ()
    n.set(made)


@reads("TopK")
def top_k(n: Node) -> None:
    """The largest by top_k along the last axis, the smallest as the largest negatives."""
    x, axis = n.x(), n.axis(-1, n.x().rank)
    count = n.x(1) if n.has(1) else n.constant([int(n.need("k"))], np.int64)
    largest = bool(n.attr("largest", 1))
    last = x.rank - 1
    perm = list(range(x.rank))
    perm[axis], perm[last] = perm[last], perm[axis]
    moved = x if axis == last else n.b.transpose(x, perm)
    if count.const is None:
        values, index = _sorted_part(n, moved, count, largest)
    else:
        source = moved if largest else n.b.scale(moved, -1.0)
        attrs = {"k": int(count.const.reshape(-1)[0])}
        values, index = n.b.ops("top_k", {"X": source}, attrs, ["Out", "Indices"], n.hint)
        if not largest:
            values = n.b.scale(values, -1.0)
    if axis != last:
        values, index = n.b.transpose(values, perm), n.b.transpose(index, perm)
    n.set(values)
    n.set(index, 1)


@reads("Unique")
def unique(n: Node) -> None:
    """By first appearance only; where each value was first (the second output) has no operator."""
    if n.attr("sorted", 1) or "axis" in n.given:
        n.fail("sorted values, or along an axis")
    x = n.x()
    flat = x if x.rank == 1 else n.b.reshape(x, [-1])
    attrs = {"dtype": int(to_var_type("int64"))}
    outs = n.b.ops("unique_with_counts", {"X": flat}, attrs, ["Out", "Index", "Count"], n.hint)
    for i, value in zip((0, 2, 3), outs):
        value.shape = (-1,)
        n.set(value, i)


def _sorted_part(n: Node, x: Tensor, count: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """The first `count` of everything sorted, for a count that is computed."""
    both = n.b.ops("argsort", {"X": x}, {"axis": -1, "descending": largest}, ["Out", "Indices"], n.hint)
    last = x.rank - 1
    end = n.b.cast(count, np.int32)
    parts = []
    for v in both:
        inputs = {"Input": v, "StartsTensorList": [constant(np.array([0], np.int32))], "EndsTensorList": [end]}
        attrs = {"axes": [last], "starts": [0], "ends": [0], "infer_flags": [-1]}
        made = n.b.op("slice", inputs, attrs)
        made.shape = (*x.shape[:-1], -1)
        parts.append(made)
    return parts[0], parts[1]
