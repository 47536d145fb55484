"""Shapes, slices, gathers: what moves elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.ir.types import to_var_type
from millstream.onnx.fold import LARGEST
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Dim, Element, Tensor, constant

_END = 2**31 - 1


@reads("Constant")
def constant_(n: Node) -> None:
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32),
                        ("value_ints", np.int64)):  # fmt: skip
        if name in n.given:
            n.set(constant(np.asarray(n.attr(name), dtype)))
            return
    value = n.attr("value")
    if not isinstance(value, np.ndarray):
        n.fail("a constant that is no dense tensor of numbers")
    n.set(constant(value))


@reads("ConstantOfShape")
def constant_of_shape(n: Node) -> None:
    value = n.attr("value")
    value = np.zeros(1, np.float32) if value is None else value
    shape, known = n.x(), n.x().parts()
    if value.size != 1:
        n.fail(f"a value of {value.size} elements")
    attrs = {"value": float(value.reshape(-1)[0]), "str_value": repr(value.reshape(-1)[0].item()),
             "dtype": int(to_var_type(value.dtype.name))}  # fmt: skip
    if value.dtype == np.bool_:
        attrs["str_value"] = ""
    dims = [d if isinstance(d, int) else -1 for d in known] if known is not None else [-1] * max(shape.shape[0], 0)
    if shape.const is not None:
        made = n.op("fill_constant", {}, {**attrs, "shape": dims or [1]})
    else:
        made = n.op("fill_constant", {"ShapeTensor": n.b.cast(shape, np.int32)}, {**attrs, "shape": []})
    made.shape = tuple(dims)
    n.set(made)


@reads("Shape")
def shape(n: Node) -> None:
    x = n.x()
    start, end = int(n.attr("start", 0)), n.attr("end")
    start = max(start + x.rank, 0) if start < 0 else min(start, x.rank)
    stop = x.rank if end is None else (int(end) + x.rank if int(end) < 0 else min(int(end), x.rank))
    dims = x.shape[start:stop]
    if all(d > 0 for d in dims):
        n.set(constant(np.array(dims, np.int64)))
        return
    made = n.b.dims(x)
    if (start, stop) != (0, x.rank):
        made = n.b.op("slice", {"Input": made}, {"axes": [0], "starts": [start], "ends": [stop]})
    made.shape = (stop - start,)
    made.elements = [d if d > 0 else Dim(x.name or "", start + i) for i, d in enumerate(dims)]
    n.set(made)


@reads("Size")
def size(n: Node) -> None:
    made = n.op("size", {"Input": n.x()})
    made.shape = ()
    n.set(made)


@reads("Reshape")
def reshape(n: Node) -> None:
    x, target = n.x(0), n.x(1) if n.has(1) else n.constant(n.attr("shape", []), np.int64)
    parts = target.parts()
    if target.rank != 1:
        n.fail(f"a target shape of {target.rank} dims")
    if parts is None:
        if target.shape[0] < 0:
            n.fail("the number of dims of the result is not known")
        parts = [None] * target.shape[0]
    if n.attr("allowzero", 0) and 0 in parts:
        n.fail("allowzero with a dim of 0")
    n.set(reshaped(n, x, parts, target))


def reshaped(n: Node, x: Tensor, parts: Sequence[Element], target: Tensor) -> Tensor:
    """x in a shape of which some dims are known while importing."""
    dims: list[int] = []
    unsure = []
    for i, p in enumerate(parts):
        if isinstance(p, int):
            dims.append(p)
        elif isinstance(p, Dim) and p.value == x.name and p.axis == i:
            dims.append(0)
        else:
            unsure.append(i)
            dims.append(-1)
    if not dims:
        return n.b.reshape(x, [])
    if x.scalar:
        made = n.op("reshape2", {"X": x}, {"shape": [d or 1 for d in dims]})
        made.shape = (1,) * len(dims)
        return made
    if dims.count(-1) <= 1:
        if x.const is not None:
            return constant(x.const.reshape([x.const.shape[i] if d == 0 else d for i, d in enumerate(dims)]))
        return _spelled(n.op("reshape2", {"X": x}, {"shape": dims}), x, dims)
    made = n.op("reshape2", {"X": x, "Shape": n.b.cast(target, np.int32)}, {"shape": _at_most_one(n, x, dims)})
    made.shape = tuple(x.shape[i] if d == 0 and i < x.rank else d if d > 0 else -1 for i, d in enumerate(dims))
    block = n.b.block
    if made.name is not None:
        block.vars[made.name].shape = made.shape
    return made


def _spelled(made: Tensor, x: Tensor, dims: Sequence[int]) -> Tensor:
    made.shape = tuple(
        m if m > 0 else x.shape[i] if d == 0 and i < x.rank else -1 for i, (m, d) in enumerate(zip(made.shape, dims))
    )
    return made


def _at_most_one(n: Node, x: Tensor, dims: Sequence[int]) -> list[int]:
    """Nothing is said by the attribute where several dims are known only by the tensor."""
    return []


@reads("Flatten")
def flatten(n: Node) -> None:
    x = n.x()
    axis = int(n.attr("axis", 1))
    axis = axis + x.rank if axis < 0 else axis
    n.set(n.op("flatten2", {"X": x}, {"axis": axis}))


@reads("Transpose")
def transpose(n: Node) -> None:
    x = n.x()
    perm = [int(p) for p in n.attr("perm", list(reversed(range(x.rank))))]
    if sorted(perm) != list(range(x.rank)):
        n.fail(f"perm {perm} of a tensor of {x.rank} dims")
    n.set(x if x.rank < 2 else n.op("transpose2", {"X": x}, {"axis": perm}))


@reads("Squeeze")
def squeeze(n: Node) -> None:
    x, axes = n.x(), n.axes()
    if axes is None:
        if min(x.shape, default=1) < 0:
            n.fail("squeeze without axes of a tensor with unknown dims")
        axes = [i for i, d in enumerate(x.shape) if d == 1]
    axes = sorted({a % max(x.rank, 1) for a in axes})
    rest = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    made = n.b.reshape(x, []) if not rest else n.op("squeeze2", {"X": x}, {"axes": axes})
    made.shape = rest
    made.elements = x.parts()
    n.set(made)


@reads("Unsqueeze")
def unsqueeze(n: Node) -> None:
    x, axes = n.x(), n.axes()
    if axes is None:
        n.fail("axes are missing")
    rank = x.rank + len(axes)
    places = sorted(a % rank for a in axes)
    out = list(x.shape)
    for a in places:
        out.insert(a, 1)
    if x.const is not None:
        n.set(constant(x.const.reshape(out)))
        return
    if x.scalar:
        made = Tensor(x.name, x.dtype, (1,)) if rank == 1 else n.b.reshape(x, out)
    else:
        made = n.op("unsqueeze2", {"X": x}, {"axes": places})
    made.shape = tuple(out)
    made.elements = x.parts() if rank == 1 else None
    n.set(made)


@reads("Concat")
def concat(n: Node) -> None:
    xs = n.xs()
    rank = max(x.rank for x in xs)
    axis = n.axis(0, rank)
    xs = [x for x in xs if x.shape != (0,)] or xs[:1]
    made = n.op("concat", {"X": xs}, {"axis": axis})
    parts = [x.parts() for x in xs]
    if rank == 1 and any(p is not None for p in parts):
        found: list[Element] | None = []
        for x, p in zip(xs, parts):
            if p is None and x.shape[0] < 0:
                found = None
                break
            found += p if p is not None else [None] * x.shape[0]  # type: ignore[operator]
        made.elements = found
    n.set(made)


@reads("Split")
def split(n: Node) -> None:
    x, count = n.x(), len(n.node.output)
    axis = n.axis(0, x.rank)
    if "split" in n.given:
        sizes = [int(s) for s in n.attr("split")]
    elif n.has(1):
        sizes = n.ints(1, "split")
    elif x.shape[axis] > 0:
        each = -(-x.shape[axis] // count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    else:
        sizes = []
    if sizes and len(sizes) != count:
        n.fail(f"{len(sizes)} sizes for {count} outputs")
    attrs: dict[str, Any] = {"axis": axis, "sections": sizes} if sizes else {"axis": axis, "num": count}
    for i, part in enumerate(n.b.ops("split", {"X": x}, attrs, {"Out": count}, n.hint)):
        n.set(part, i)


@reads("Gather")
def gather(n: Node) -> None:
    x, index = n.x(0), n.x(1)
    axis = n.axis(0, x.rank)
    parts = x.parts()
    known = index.const
    if known is not None and (known < 0).any():
        if x.shape[axis] > 0:
            known = np.where(known < 0, known + x.shape[axis], known)
            index = constant(known)
        elif not (known.size == 1 and known.reshape(-1)[0] == -1):
            n.fail("negative positions in a dim of unknown size")
    if known is not None and known.size == 1 and (known < 0).all():
        picked = n.b.op("slice", {"Input": x}, {"axes": [axis], "starts": [-1], "ends": [_END]}, hint=n.hint)
    elif axis == 0:
        flat = index if index.rank == 1 else _flattened(n, index)
        picked = n.b.op("gather", {"X": x, "Index": flat}, {"overwrite": False}, hint=n.hint)
    else:
        flat = index if index.rank == 1 else _flattened(n, index)
        picked = n.b.op("index_select", {"X": x, "Index": flat}, {"dim": axis}, hint=n.hint)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    made = picked
    if index.rank != 1:
        if sum(d < 0 for d in shape) > 1:
            made = _as_dims(n, picked, shape, [*_dims_of(n, x, 0, axis), *_dims_of(n, index, 0, index.rank),
                                               *_dims_of(n, x, axis + 1, x.rank)])  # fmt: skip
        else:
            made = n.b.reshape(picked, list(shape))
        made.shape = shape
    if parts is not None and known is not None and x.rank == 1 and index.rank <= 1:
        made.elements = [parts[int(i)] for i in known.reshape(-1)]
    n.set(made)


def _flattened(n: Node, x: Tensor) -> Tensor:
    return constant(x.const.reshape(-1)) if x.const is not None else n.b.reshape(x, [-1])


def _dims_of(n: Node, x: Tensor, start: int, end: int) -> list[Tensor]:
    """Some dims of a value, [1] each."""
    return [n.b.dim(x, i) for i in range(start, end)]


def _as_dims(n: Node, x: Tensor, shape: Sequence[int], dims: list[Tensor]) -> Tensor:
    """x in a shape whose dims are values."""
    target = n.b.op("concat", {"X": dims}, {"axis": 0}) if len(dims) > 1 else dims[0]
    made = n.b.op("reshape2", {"X": x, "Shape": n.b.cast(target, np.int32)}, {"shape": []}, hint=n.hint)
    made.shape = tuple(shape)
    if made.name is not None:
        n.b.block.vars[made.name].shape = list(shape)
    return made


def _counted_from_front(n: Node, index: Tensor, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Positions, of which negative ones count from the end of the dims at `axes` ([…, axes] where there are several)."""
    if index.const is not None and not (index.const < 0).any():
        return index
    sizes = [_size(n, x, a) for a in axes]
    known = [d.const for d in sizes]
    if index.const is not None and all(k is not None for k in known):
        whole = np.concatenate([k for k in known if k is not None])
        return constant(np.where(index.const < 0, index.const + whole, index.const))
    index = n.b.cast(index, np.int64)
    zero = constant(np.array([0], np.int64))
    below = n.b.cast(n.b.op("less_than", {"X": index, "Y": zero}, {"axis": -1}), np.int64)
    whole = n.b.op("concat", {"X": sizes}, {"axis": 0}) if len(sizes) > 1 else sizes[0]
    made = n.b.binary("elementwise_add", index, n.b.binary("elementwise_mul", below, whole))
    made.shape = index.shape
    return made


def _size(n: Node, x: Tensor, axis: int) -> Tensor:
    """One dim, [1]; also of a value of which not even the rank is known (made of a shape that is computed)."""
    if axis < x.rank:
        return n.b.dim(x, axis)
    return n.b.op("slice", {"Input": n.b.dims(x)}, {"axes": [0], "starts": [axis], "ends": [axis + 1]})


@reads("GatherND")
def gather_nd(n: Node) -> None:
    if n.attr("batch_dims", 0):
        n.fail("batch_dims")
    x, index = n.x(0), n.x(1)
    if not 0 < index.shape[-1] <= x.rank:
        n.fail(f"positions of shape {list(index.shape)} in a tensor of {x.rank} dims")
    n.set(n.op("gather_nd", {"X": x, "Index": _counted_from_front(n, index, x, range(index.shape[-1]))}, {}))


@reads("GatherElements")
def gather_elements(n: Node) -> None:
    """Along one axis: the other positions are spelled out, then it is a gather_nd."""
    x, axis = n.x(0), n.axis(0, n.x(0).rank)
    index = _counted_from_front(n, n.b.cast(n.x(1), np.int64), x, [axis])
    if x.rank == 2 and axis == 1:
        n.set(n.op("index_sample", {"X": x, "Index": index}, {}))
        return
    n.set(n.op("gather_nd", {"X": x, "Index": element_places(n, index, axis)}, {}))


def element_places(n: Node, index: Tensor, axis: int) -> Tensor:
    """[…, rank] positions of the elements that `index` names along `axis`; negative ones are not looked at."""
    b = n.b
    zero = b.op("fill_zeros_like", {"X": index})
    columns = []
    for k in range(index.rank):
        at = index
        if k != axis:
            steps = counted(n, b.dim(index, k))
            spread = b.reshape(steps, [-1 if i == k else 1 for i in range(index.rank)])
            at = b.binary("elementwise_add", zero, spread)
        columns.append(at)
    return b.ops("stack", {"X": columns}, {"axis": index.rank}, ["Y"])[0]


def counted(n: Node, count: Tensor) -> Tensor:
    """0, 1, … below count ([1])."""
    if count.const is not None and int(count.const.reshape(-1)[0]) <= LARGEST:
        return constant(np.arange(int(count.const.reshape(-1)[0]), dtype=np.int64))
    ends = [constant(np.array([v], np.int64)) for v in (0, 1)]
    return n.b.op("range", {"Start": ends[0], "End": count, "Step": ends[1]}, {})


@reads("ScatterElements", "Scatter")
def scatter_elements(n: Node) -> None:
    x, updates, axis = n.x(0), n.x(2), n.axis(0, n.x(0).rank)
    index = _counted_from_front(n, n.b.cast(n.x(1), np.int64), x, [axis])
    places = element_places(n, index, axis)
    kind = n.attr("reduction", "none")
    n.set(scattered(n, x, places, updates, kind))


@reads("ScatterND")
def scatter_nd(n: Node) -> None:
    x, places = n.x(0), n.b.cast(n.x(1), np.int64)
    if not 0 < places.shape[-1] <= x.rank:
        n.fail(f"positions of shape {list(places.shape)} in a tensor of {x.rank} dims")
    places = _counted_from_front(n, places, x, range(places.shape[-1]))
    n.set(scattered(n, x, places, n.x(2), n.attr("reduction", "none")))


def scattered(n: Node, x: Tensor, places: Tensor, updates: Tensor, kind: str) -> Tensor:
    """x with updates put, or added, at places ([…, k] positions in its first k dims)."""
    if kind not in ("none", "add"):
        n.fail(f"reduction {kind}")
    if kind == "add":
        made = n.op("scatter_nd_add", {"X": x, "Index": places, "Updates": updates}, {})
        made.shape = x.shape
        return made
    depth = places.shape[-1]
    if depth < 1 or updates.rank != places.rank - 1 + x.rank - depth:
        n.fail(f"positions of shape {list(places.shape)} and updates of {updates.rank} dims for {x.rank} dims")
    if x.dtype == np.bool_:
        return n.b.cast(scattered(n, n.b.cast(x, np.int32), places, n.b.cast(updates, np.int32), kind), np.bool_)
    b = n.b
    tail = [b.dim(x, i) for i in range(depth, x.rank)]
    rows = _as_dims(n, x, (-1,) * (1 + len(tail)), [constant(np.array([-1], np.int64)), *tail])
    flat = _as_dims(n, updates, (-1,) * (1 + len(tail)), [constant(np.array([-1], np.int64)), *tail])
    ids = _row_numbers(n, x, places, depth)
    made = b.op("scatter", {"X": rows, "Ids": ids, "Updates": flat}, {"overwrite": True}, hint=n.hint)
    return _as_dims(n, made, x.shape, [b.dim(x, i) for i in range(x.rank)])


def _row_numbers(n: Node, x: Tensor, places: Tensor, depth: int) -> Tensor:
    """Positions in the first dims as numbers of the rows that these dims flattened make."""
    b = n.b
    ids: Tensor | None = None
    for i in range(depth):
        last = places.rank - 1
        at = places
        if depth > 1:
            at = b.op("slice", {"Input": places}, {"axes": [last], "starts": [i], "ends": [i + 1]})
        ids = at if ids is None else b.binary("elementwise_add", b.binary("elementwise_mul", ids, b.dim(x, i)), at)
    assert ids is not None
    return b.reshape(ids, [-1])


@reads("Expand")
def expand(n: Node) -> None:
    """x plus zeros of the wanted shape."""
    x, target = n.x(0), n.x(1)
    parts = target.parts()
    if parts is not None and all(isinstance(p, int) for p in parts):
        dims = [int(p) for p in parts]  # type: ignore[arg-type]
        rank = max(len(dims), x.rank)
        own = (1,) * (rank - x.rank) + x.shape
        dims = [1] * (rank - len(dims)) + dims
        if min(own) > 0:
            times = [d if s == 1 else 1 for s, d in zip(own, dims)]
            base = n.b.reshape(x, own) if rank != x.rank or x.scalar else x
            n.set(n.op("expand", {"X": base}, {"expand_times": times}))
            return
    kind = x.dtype if x.dtype != np.bool_ else np.dtype(np.int32)
    zeros = n.b.op("fill_constant", {"ShapeTensor": n.b.cast(target, np.int32)},
                   {"value": 0.0, "dtype": int(to_var_type(kind.name)), "shape": []})  # fmt: skip
    zeros.shape = tuple(p if isinstance(p, int) and p > 0 else -1 for p in parts or [None] * target.shape[0])
    if zeros.name is not None:
        n.b.block.vars[zeros.name].shape = zeros.shape
    made = n.b.cast(n.b.binary("elementwise_add", zeros, n.b.cast(x, kind)), x.dtype)
    n.set(made)


@reads("Tile")
def tile(n: Node) -> None:
    x, times = n.x(0), n.x(1)
    if times.const is not None:
        n.set(n.op("expand", {"X": x}, {"expand_times": [int(t) for t in times.const.reshape(-1)]}))
        return
    made = n.op("expand", {"X": x, "ExpandTimes": n.b.cast(times, np.int32)}, {"expand_times": [-1] * x.rank})
    n.set(made)


@reads("Range")
def range_(n: Node) -> None:
    ends = [n.b.reshape(t, [1]) if t.scalar and t.const is not None else t for t in n.xs()]
    if ends[0].dtype.kind == "i" and ends[2].const is not None and int(ends[2].const[0]) > 0:
        n.set(_counted(n, ends[0], ends[1], int(ends[2].const[0])))
        return
    n.set(n.op("range", dict(zip(("Start", "End", "Step"), ends)), {}))


def _counted(n: Node, start: Tensor, end: Tensor, step: int) -> Tensor:
    """start, start + step, … as a running sum of ones: Fluid's range refuses to be empty."""
    b = n.b
    span = b.binary("elementwise_sub", end, start)
    if step > 1:
        by = constant(np.array([step], start.dtype))
        span = b.binary("elementwise_floordiv", b.scale(span, 1.0, step - 1.0), by)
    count = b.binary("elementwise_max", span, constant(np.zeros(1, start.dtype)))
    attrs = {"shape": [], "dtype": int(to_var_type(start.dtype.name)), "value": 1.0}
    ones = b.op("fill_constant", {"ShapeTensor": b.cast(count, np.int32)}, attrs)
    at = b.scale(b.op("cumsum", {"X": ones}, {"axis": 0}), float(step), float(-step))
    made = b.op("elementwise_add", {"X": at, "Y": start}, {"axis": -1}, hint=n.hint)
    made.shape = (-1,)
    return made


@reads("Compress")
def compress(n: Node) -> None:
    x, mask = n.x(0), n.x(1)
    if "axis" not in n.given:
        x, axis = n.b.reshape(x, [-1]), 0
    else:
        axis = n.axis(0, x.rank)
    at = n.b.op("where_index", {"Condition": mask}, {})
    rows = n.b.reshape(at, [-1])
    if axis == 0:
        n.set(n.op("gather", {"X": x, "Index": rows}, {"overwrite": False}))
    else:
        n.set(n.op("index_select", {"X": x, "Index": rows}, {"dim": axis}))


@reads("NonZero")
def non_zero(n: Node) -> None:
    x = n.x()
    flag = x if x.dtype == np.bool_ else n.b.cast(x, np.bool_)
    n.set(n.b.transpose(n.b.op("where_index", {"Condition": flag}, {}), [1, 0]))


@reads("OneHot")
def one_hot(n: Node) -> None:
    index, values = n.x(0), n.const(2, "values").reshape(-1)
    depth = int(n.const(1, "depth").reshape(-1)[0])
    axis = n.axis(-1, index.rank + 1)
    attrs = {"depth": depth, "dtype": int(to_var_type("float32")), "allow_out_of_range": True}
    index = n.b.cast(index, np.int64)
    zero = constant(np.array([0], np.int64))
    below = n.b.scale(n.b.cast(n.b.op("less_than", {"X": index, "Y": zero}, {"axis": -1}), np.int64), depth)
    hot = n.b.op("one_hot_v2", {"X": n.b.binary("elementwise_add", index, below)}, attrs)
    hot.shape = (*index.shape, depth)
    off, on = (float(v) for v in values)
    out = n.b.cast(n.b.scale(hot, on - off, off), values.dtype)
    out.shape = hot.shape
    last = index.rank
    perm = [*range(axis), last, *range(axis, last)]
    n.set(out if axis == last else n.b.transpose(out, perm))


@reads("Trilu")
def trilu(n: Node) -> None:
    k = int(n.const(1, "k").reshape(-1)[0]) if n.has(1) else 0
    n.set(n.op("tril_triu", {"X": n.x()}, {"diagonal": k, "lower": not n.attr("upper", 1)}))


@reads("SpaceToDepth")
def space_to_depth(n: Node) -> None:
    x, b = n.x(), int(n.need("blocksize"))
    if x.rank != 4 or min(x.shape[1:]) <= 0:
        n.fail(f"an input of shape {list(x.shape)}")
    _, c, h, w = x.shape
    cut = n.b.reshape(x, [-1, c, h // b, b, w // b, b])
    moved = n.b.transpose(cut, [0, 3, 5, 1, 2, 4])
    n.set(n.b.reshape(moved, [-1, c * b * b, h // b, w // b]))


@reads("EyeLike")
def eye_like(n: Node) -> None:
    x = n.x()
    if x.rank != 2 or min(x.shape) <= 0 or x.shape[0] * x.shape[1] > LARGEST:
        n.fail(f"an input of shape {list(x.shape)}")
    kind = n.source.dtype(int(n.attr("dtype", 0)), "dtype") if n.attr("dtype") else x.dtype
    n.set(constant(np.eye(x.shape[0], x.shape[1], k=int(n.attr("k", 0)), dtype=kind)))


