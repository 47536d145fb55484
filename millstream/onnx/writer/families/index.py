"""Lookups, gathers and scatters, and what orders or counts elements."""

from __future__ import annotations

import numpy as np

from millstream.ir.types import VarType
from millstream.onnx.writer.emission import Emission, emits, numpy_dtype
from millstream.onnx.writer.families.shape import numbers
from millstream.onnx.writer.graph import Value


@emits("lookup_table", "lookup_table_v2")
def lookup_table(e: Emission) -> None:
    g, w, ids = e.g, e.x("W"), e.x("Ids")
    if e.op.type == "lookup_table":
        ids = g.squeeze(ids, -1)
    out = g.gather(w, ids)
    padding = int(e["padding_idx"])
    if padding != -1:
        pad = g.unsqueeze(g.op("Equal", ids, g.const(padding, ids.dtype)), -1)
        out = g.where(pad, g.const(0, out.dtype), out)
    e.set("Out", out)


@emits("one_hot", "one_hot_v2")
def one_hot(e: Emission) -> None:
    g, x, kind = e.g, e.x("X"), e.dtype()
    if e.op.type == "one_hot":
        x = g.squeeze(x, -1)
    depth = e.maybe("depth_tensor")
    count = g.const([int(e["depth"])], np.int64) if depth is None else g.reshape(g.cast(depth, np.int64), 1)
    # negative ids count from the end in ONNX's OneHot, in Fluid they are out of range: a comparison is exact
    e.set("Out", g.cast(g.op("Equal", g.unsqueeze(g.cast(x, np.int64), -1), g.arange(count)), kind))


@emits("gather")
def gather(e: Emission) -> None:
    g, x, index = e.g, e.x("X"), e.x("Index")
    e.set("Out", g.gather(x, g.reshape(index, -1) if e.rank("Index") != 1 else index))


@emits("tdm_child")
def tdm_child(e: Emission) -> None:
    g, node, count = e.g, e.g.cast(e.x("X"), np.int64), int(e["child_nums"])
    child = g.cast(g.slice(g.gather(e.x("TreeInfo"), node), -1, 3, 3 + count), np.int64)
    zero = g.const(0, np.int64)
    has = g.unsqueeze(~g.op("Equal", node, zero), -1) & ~g.op("Equal", g.slice(child, -1, 0, 1), zero)
    child = g.where(has, child, zero)
    item = g.squeeze(g.slice(g.gather(e.x("TreeInfo"), child), -1, 0, 1), -1)
    leaf = has & ~g.op("Equal", item, g.const(0, item.dtype))
    e.set("Child", g.cast(child, e.dtype()))
    e.set("LeafMask", g.cast(leaf, e.dtype()))


@emits("gather_nd")
def gather_nd(e: Emission) -> None:
    e.set("Out", e.g.op("GatherND", e.x("X"), e.g.cast(e.x("Index"), np.int64)))


@emits("index_select")
def index_select(e: Emission) -> None:
    e.set("Out", e.g.gather(e.x("X"), e.x("Index"), int(e["dim"])))


@emits("index_sample")
def index_sample(e: Emission) -> None:
    e.set("Out", e.g.op("GatherElements", e.x("X"), e.x("Index"), axis=1))


@emits("scatter")
def scatter(e: Emission) -> None:
    g, x, ids, updates = e.g, e.x("X"), e.x("Ids"), e.x("Updates")
    at = g.unsqueeze(g.cast(g.reshape(ids, -1), np.int64), -1)
    if e["overwrite"]:
        e.set("Out", g.op("ScatterND", x, at, updates))
        return
    # rows that are named start from zero, then all updates are added
    zeros = updates * 0
    e.set("Out", g.op("ScatterND", g.op("ScatterND", x, at, zeros), at, updates, reduction="add"))


@emits("scatter_nd_add")
def scatter_nd_add(e: Emission) -> None:
    g = e.g
    e.set("Out", g.op("ScatterND", e.x("X"), g.cast(e.x("Index"), np.int64), e.x("Updates"), reduction="add"))


@emits("multiplex")
def multiplex(e: Emission) -> None:
    g, xs = e.g, e.xs("X")
    which = g.cast(g.reshape(e.x("Ids"), -1), np.int64)
    at = g.concat([g.unsqueeze(which, 1), g.unsqueeze(g.arange(g.dim(xs[0], 0)), 1)], 1)
    e.set("Out", g.op("GatherND", g.concat([g.unsqueeze(x, 0) for x in xs], 0), at))


@emits("where")
def where(e: Emission) -> None:
    e.set("Out", e.g.where(e.x("Condition"), e.x("X"), e.x("Y")))


@emits("where_index")
def where_index(e: Emission) -> None:
    e.set("Out", e.g.transpose(e.g.op("NonZero", e.x("Condition")), [1, 0]))


@emits("top_k")
def top_k(e: Emission) -> None:
    g, x = e.g, e.x("X")
    k = e.maybe("K")
    count = g.const([int(e["k"])], np.int64) if k is None else g.reshape(g.cast(k, np.int64), 1)
    values, index = g.ops("TopK", 2, x, count, dtypes=[x.dtype, np.int64], axis=-1)
    e.set("Out", values)
    e.set("Indices", index)


@emits("argsort")
def argsort(e: Emission) -> None:
    g, x, axis = e.g, e.x("X"), int(e["axis"]) % e.rank("X")
    values, index = g.ops(
        "TopK", 2, x, g.dim(x, axis), dtypes=[x.dtype, np.int64], axis=axis, largest=int(e["descending"])
    )
    e.set("Out", values)
    e.set("Indices", index)


@emits("arg_max", "arg_min")
def arg(e: Emission) -> None:
    g, x = e.g, e.x("X")
    out = g.op("ArgMax" if e.op.type == "arg_max" else "ArgMin", x, axis=int(e["axis"]), keepdims=int(e["keepdims"]))
    e.set("Out", out if int(e["dtype"]) < 0 else g.cast(out, e.dtype()))


@emits("unique", "unique_with_counts")
def unique(e: Emission) -> None:
    """ONNX gives the values in the order of first appearance when they are not sorted, as Fluid does."""
    g, x, kind = e.g, e.x("X"), e.dtype()
    values, _, index, counts = g.ops("Unique", 4, x, dtypes=[x.dtype, np.int64, np.int64, np.int64], sorted=0)
    e.set("Out", values)
    e.set("Index", g.cast(index, kind))
    if e.op.type == "unique_with_counts":
        e.set("Count", g.cast(counts, kind))


@emits("shard_index")
def shard_index(e: Emission) -> None:
    g, x = e.g, e.x("X")
    size = -(-int(e["index_num"]) // int(e["nshards"]))
    mine = g.op("Equal", x / size, g.const(int(e["shard_id"]), x.dtype))
    e.set("Out", g.where(mine, g.op("Mod", x, g.const(size, x.dtype)), g.const(int(e["ignore_value"]), x.dtype)))


# ---- made from constants ---------------------------------------------------------------------------------
def filled(e: Emission, dims: list[object], value: Value) -> Value:
    """A tensor of dims (numbers or Values) with one value everywhere."""
    g = e.g
    if all(isinstance(d, int) and d >= 0 for d in dims) and value.const is not None:
        array = np.broadcast_to(value.const.reshape(()), [int(d) for d in dims])  # type: ignore[call-overload]
        if array.size <= 4096:
            return g.const(np.ascontiguousarray(array))
        return g.full(g.ints(*dims), value.const.reshape(()), value.dtype)
    made = g.expand(g.reshape(value, *[1] * len(dims)), *dims)
    made.shape = tuple(d if isinstance(d, int) else -1 for d in dims)
    return made


def _value(e: Emission, kind: np.dtype) -> Value:  # type: ignore[type-arg]
    from millstream.ops._values import torch_dtype
    from millstream.ops.tensor.fill import number

    return e.g.const(number(e["value"], e["str_value"], torch_dtype(int(e["dtype"]))), kind)


@emits("fill_constant")
def fill_constant(e: Emission) -> None:
    kind = np.dtype(e.dtype())
    given = e.maybe("ValueTensor")
    value = _value(e, kind) if given is None else e.g.cast(given, kind)
    e.set("Out", filled(e, numbers(e, "ShapeTensorList", "ShapeTensor", e["shape"]), value))


@emits("fill_constant_batch_size_like")
def fill_constant_batch_size_like(e: Emission) -> None:
    g, x, dims = e.g, e.x("Input"), [int(d) for d in e["shape"]]
    lod, at = e.lod("Input"), int(e["input_dim_idx"])
    size = g.dim(lod[-1], 0) - 1 if lod and at == 0 else g.dim(x, at)
    shape: list[object] = [*dims]
    shape[int(e["output_dim_idx"])] = int(size.const[0]) if size.const is not None else size
    e.set("Out", filled(e, shape, _value(e, np.dtype(e.dtype()))))


@emits("fill_any_like", "fill_zeros_like", "fill_zeros_like2")
def fill_like(e: Emission) -> None:
    g, x = e.g, e.x("X")
    kind = x.dtype if int(e.attrs.get("dtype", -1)) < 0 else np.dtype(numpy_dtype(VarType(e["dtype"])))
    value = e.attrs.get("value", 0.0)
    e.set("Out", g.full(g.shape(x), value if kind.kind == "f" else int(value), kind))


@emits("fill", "assign_value", "eye")
def constant(e: Emission) -> None:
    """Operators without inputs: the kernel says what they are."""
    given: dict[str, object] = {"device": "cpu", "state": {}}
    reserved = {name: value for name, value in given.items() if name in e.definition.reserved}
    value = e.definition.kernel(**e.attrs, **reserved)
    e.set("Out", e.g.const(value.numpy()))


@emits("shape")
def shape(e: Emission) -> None:
    e.set("Out", e.g.cast(e.g.shape(e.x("Input")), np.int32))


@emits("range")
def range_(e: Emission) -> None:
    g = e.g
    e.set("Out", g.op("Range", *[g.reshape(e.x(s)) for s in ("Start", "End", "Step")]))


@emits("linspace")
def linspace(e: Emission) -> None:
    g, start, stop = e.g, e.x("Start"), e.x("Stop")
    count = g.reshape(g.cast(e.x("Num"), np.int64), 1)
    steps = g.cast(g.op("Max", count - 1, g.const([1], np.int64)), start.dtype)
    at = g.cast(g.arange(count), start.dtype)
    e.set("Out", start + at * ((stop - start) / steps))


@emits("diag")
def diag(e: Emission) -> None:
    g, x = e.g, e.x("Diagonal")
    n = g.arange(g.dim(x, 0))
    same = g.op("Equal", g.unsqueeze(n, 0), g.unsqueeze(n, 1))
    e.set("Out", g.where(same, g.unsqueeze(x, 0), g.const(0, x.dtype)))
