"""Operators that rearrange elements: reshape, transpose, squeeze, slice, concat, split, expand, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.conv import channels_back, channels_second
from millstream.onnx.writer.graph import Value


def numbers(e: Emission, list_slot: str, slot: str, given: Sequence[int]) -> list[Any]:
    """Numbers out of a list of one-element tensors, a vector, or an attribute: ints where known, else Values."""
    slots = e.definition.in_slots
    if list_slot in slots and e.xs(list_slot):
        return [_number(v) for v in e.xs(list_slot)]
    if slot in slots and e.has(slot):
        x = e.x(slot)
        if x.const is not None:
            return [int(v) for v in x.const.reshape(-1)]
        count = math.prod(e.shape(slot))
        if count < 1:
            e.refuse(f"the number of elements of {slot} is not known")
        flat = x if e.rank(slot) == 1 else e.g.reshape(x, -1)
        return [e.g.cast(e.g.slice(flat, 0, i, i + 1), np.int64) for i in range(count)]
    return [int(v) for v in given]


def _number(v: Value) -> Any:
    return int(v.const.reshape(-1)[0]) if v.const is not None else v


def rows_lod(e: Emission, slot: str, stays: bool) -> tuple[Value, ...]:
    """X's LoD where its rows stay what they are."""
    return e.lod(slot) if stays else ()


@emits("reshape", "reshape2")
def reshape(e: Emission) -> None:
    x, g, xs = e.x("X"), e.g, e.shape("X")
    dims = numbers(e, "ShapeTensor", "Shape", e["shape"])
    if not dims:
        e.refuse("the target shape is empty")
    first = dims[0]
    stays = first == 0 or (isinstance(first, int) and first == xs[0])
    if first == -1 and min(xs[1:], default=1) > 0 and all(isinstance(d, int) for d in dims):
        rest = math.prod(xs[i] if d == 0 else d for i, d in enumerate(dims) if i)
        stays = rest == math.prod(xs[1:])
    out = g.op("Reshape", x, g.ints(*dims))
    e.set("Out", out, rows_lod(e, "X", bool(stays) and not e.xs("ShapeTensor")))


@emits("squeeze", "squeeze2")
def squeeze(e: Emission) -> None:
    x, xs, axes = e.x("X"), e.shape("X"), [a % e.rank("X") for a in e["axes"]]
    if not axes:
        if min(xs) < 0:
            e.refuse("squeeze without axes of a tensor with unknown dims")
        axes = [i for i, d in enumerate(xs) if d == 1]
    e.set("Out", e.g.squeeze(x, *sorted(set(axes))) if axes else x, rows_lod(e, "X", 0 not in axes))


@emits("unsqueeze", "unsqueeze2")
def unsqueeze(e: Emission) -> None:
    x, rank = e.x("X"), e.rank("X")
    axes = list(e["axes"]) or numbers(e, "AxesTensorList", "AxesTensor", [])
    if any(not isinstance(a, int) for a in axes):
        e.refuse("the axes must be known while exporting")
    kept = list(range(rank))
    for a in axes:  # one after another: each counts the dims that those before it inserted
        kept.insert(a + len(kept) + 1 if a < 0 else a, -1)
    new = [i for i, k in enumerate(kept) if k < 0]
    e.set("Out", e.g.unsqueeze(x, *new) if new else x, rows_lod(e, "X", 0 not in new))


@emits("flatten", "flatten2")
def flatten(e: Emission) -> None:
    e.set("Out", e.g.op("Flatten", e.x("X"), axis=int(e["axis"])), rows_lod(e, "X", e["axis"] == 1))


@emits("transpose", "transpose2")
def transpose(e: Emission) -> None:
    e.set("Out", e.g.transpose(e.x("X"), list(e["axis"])))


@emits("expand")
def expand(e: Emission) -> None:
    x, g = e.x("X"), e.g
    times = numbers(e, "expand_times_tensor", "ExpandTimes", e["expand_times"])
    e.set("Out", g.op("Tile", x, g.ints(*times)), rows_lod(e, "X", list(e["expand_times"])[:1] == [1]))


@emits("expand_as")
def expand_as(e: Emission) -> None:
    x, target, g = e.x("X"), e.x("target_tensor"), e.g
    xs, ts = e.shape("X"), e.shape("target_tensor")
    out = g.op("Tile", x, g.shape(target) / g.shape(x))
    out.shape = tuple(max(a, b) if b > 0 else -1 for a, b in zip(xs, ts))
    e.set("Out", out)


@emits("concat")
def concat(e: Emission) -> None:
    g, xs = e.g, e.xs("X")
    axis = int(e["axis"])
    if e.has("AxisTensor"):
        axis = int(e.constant("AxisTensor").reshape(-1)[0])
    axis %= e.rank("X")
    names = e.op.input("X")
    lods = [e.env.lod(n) for n in names]
    lod: Sequence[Value] = lods[0]
    if axis == 0 and all(lods) and len(lods) > 1:
        lod = [_joined(e, [each[k] for each in lods]) for k in range(len(lods[0]))]
    e.set("Out", g.concat(xs, axis), lod)


def _joined(e: Emission, offsets: list[Value]) -> Value:
    """Offsets of sequences laid one after another."""
    out = offsets[0]
    for more in offsets[1:]:
        last = e.g.slice(out, 0, -1, 2**31)
        out = e.g.concat([out, e.g.slice(more, 0, 1, 2**31) + last], 0)
    return out


@emits("split", "split_byref")
def split(e: Emission) -> None:
    g, x = e.g, e.x("X")
    axis = int(e.attrs.get("axis", 0))
    if "AxisTensor" in e.definition.in_slots and e.has("AxisTensor"):
        axis = int(e.constant("AxisTensor").reshape(-1)[0])
    axis %= e.rank("X")
    dim, num = e.shape("X")[axis], int(e["num"])
    sections = numbers(e, "SectionsTensorList", "", e["sections"])
    given = "SectionsTensorList" in e.definition.in_slots and bool(e.xs("SectionsTensorList"))
    count = num if num > 0 and not given else len(sections)
    if num > 0 and not given:
        size = g.const([dim // num], np.int64) if dim > 0 else g.dim(x, axis) / num
        sizes = g.op("Tile", size, g.ints(num))
    elif -1 in [s for s in sections if isinstance(s, int)]:
        total = g.dim(x, axis)
        for s in sections:
            if not (isinstance(s, int) and s == -1):
                total = total - (g.const([s], np.int64) if isinstance(s, int) else g.cast(s, np.int64))
        sizes = g.ints(*[total if isinstance(s, int) and s == -1 else s for s in sections])
    else:
        sizes = g.ints(*sections)
    parts = [x] if count == 1 else g.ops("Split", count, x, sizes, axis=axis)
    lod = e.lod("X") if axis and e.op.type == "split" else ()
    for i, part in enumerate(parts):
        e.set("Out", part, lod, index=i)


@emits("stack")
def stack(e: Emission) -> None:
    g, axis = e.g, int(e["axis"])
    rank = e.rank("X")
    axis = axis + rank + 1 if axis < 0 else axis
    e.set("Y", g.concat([g.unsqueeze(x, axis) for x in e.xs("X")], axis), e.lod("X"))


@emits("unstack", "unbind")
def unstack(e: Emission) -> None:
    g, x = e.g, e.x("X")
    slot = e.definition.outputs[0].name
    axis = int(e["axis"]) % e.rank("X")
    count = len(e.op.output(slot))
    for i, part in enumerate(g.split(x, [1] * count, axis)):
        e.set(slot, g.squeeze(part, axis), index=i)


# ---- slices --------------------------------------------------------------------------------------------
def _bounds(e: Emission, what: str) -> list[Any]:
    return numbers(e, f"{what.capitalize()}TensorList", f"{what.capitalize()}Tensor", e[what])


def _decreased(e: Emission, out: Value, rank: int, axes: Sequence[int]) -> Value:
    """`out` without the dims of `axes`; [1] when none is left."""
    if not axes:
        return out
    return e.g.reshape(out, 1) if len(set(axes)) == rank else e.g.squeeze(out, *axes)


@emits("slice")
def slice_(e: Emission) -> None:
    if e.xs("Input") and e.xs("Input")[0].sort != "tensor":
        e.refuse("a slice of an array of tensors")
    g, x, axes = e.g, e.x("Input"), list(e["axes"])
    out = g.op("Slice", x, g.ints(*_bounds(e, "starts")), g.ints(*_bounds(e, "ends")), g.ints(*axes))
    e.set("Out", _decreased(e, out, e.rank("Input"), e["decrease_axis"]), rows_lod(e, "Input", axes[0] != 0))


@emits("strided_slice")
def strided_slice(e: Emission) -> None:
    g, x, axes = e.g, e.x("Input"), list(e["axes"])
    starts, ends, strides = (_bounds(e, w) for w in ("starts", "ends", "strides"))
    out = x
    for axis, start, end, stride in zip(axes, starts, ends, strides):
        if not isinstance(stride, int):
            e.refuse("the strides must be known while exporting")
        if stride > 0:
            out = g.slice(out, axis, start, end, stride)
            continue
        dim = e.shape("Input")[axis]
        if dim < 0 or not isinstance(start, int) or not isinstance(end, int):
            e.refuse("a negative stride over an unknown dim or between unknown bounds")
        first, last = (v + dim if v < 0 else v for v in (start, end))
        where = list(range(max(last, -1) + 1, min(first, dim - 1) + 1, -stride))[::-1]
        out = g.gather(out, np.array(where, np.int64), axis)
    e.set("Out", _decreased(e, out, e.rank("Input"), e["decrease_axis"]), rows_lod(e, "Input", axes[0] != 0))


@emits("crop", "crop_tensor")
def crop(e: Emission) -> None:
    g, x, rank = e.g, e.x("X"), e.rank("X")
    offsets = numbers(e, "OffsetsTensor", "Offsets", list(e["offsets"]) or [0] * rank)
    if "Y" in e.definition.in_slots and e.has("Y"):
        dims: list[Any] = [g.dim(e.x("Y"), i) for i in range(rank)]
    else:
        dims = numbers(e, "ShapeTensor", "Shape", e["shape"])
    ends: list[Any] = []
    for i, (o, d) in enumerate(zip(offsets, dims)):
        if isinstance(d, int) and d < 0:
            whole = e.op.type == "crop"  # there, X's whole dim; in crop_tensor, the rest of it
            ends.append(g.ints(o) + g.dim(x, i) if whole else 2**31)
        elif isinstance(o, int) and isinstance(d, int):
            ends.append(o + d)
        else:
            ends.append(g.ints(o) + g.ints(d))
    e.set("Out", g.op("Slice", x, g.ints(*offsets), g.ints(*ends), g.ints(*range(rank))))


# ---- pad -----------------------------------------------------------------------------------------------
@emits("pad")
def pad(e: Emission) -> None:
    x, g, pads = e.x("X"), e.g, list(e["paddings"])
    out = g.op("Pad", x, g.ints(*pads[::2], *pads[1::2]), g.const(e["pad_value"], x.dtype))
    e.set("Out", out, rows_lod(e, "X", pads[0] + pads[1] == 0))


@emits("pad2d")
def pad2d(e: Emission) -> None:
    x, g = e.x("X"), e.g
    top, bottom, left, right = numbers(e, "", "Paddings", e["paddings"])
    last = e["data_format"] == "NHWC"
    if last:
        x = channels_second(g, x, 4)
    pads = g.ints(0, 0, top, left, 0, 0, bottom, right)
    if e["mode"] == "constant":
        out = g.op("Pad", x, pads, g.const(e["pad_value"], x.dtype))
    else:
        out = g.op("Pad", x, pads, mode=e["mode"])
    out = channels_back(g, out, 4) if last else out
    if e.has("Paddings"):  # the declared dims are those before padding
        out.shape = (-1, -1, -1, -1)
    e.set("Out", out)


@emits("pad_constant_like")
def pad_constant_like(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    rank = e.rank("X")
    pads = g.concat([g.const([0] * rank, np.int64), g.shape(x) - g.shape(y)], 0)
    e.set("Out", g.op("Pad", y, pads, g.const(e["pad_value"], y.dtype)))


@emits("partial_concat", "partial_sum")
def partial(e: Emission) -> None:
    g = e.g
    start, length = int(e["start_index"]), int(e["length"])
    width = e.shape("X")[1]
    if start < 0:
        if width < 0:
            e.refuse("a negative start over matrices of unknown width")
        start += width
    end = start + length if length >= 0 else 2**31
    parts = [g.slice(x, 1, start, end) for x in e.xs("X")]
    if e.op.type == "partial_concat":
        e.set("Out", g.concat(parts, 1))
        return
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    e.set("Out", out)


@emits("meshgrid")
def meshgrid(e: Emission) -> None:
    g, xs = e.g, e.xs("X")
    sizes = [g.dim(x, 0) for x in xs]
    for i, x in enumerate(xs):
        column = g.reshape(x, *[-1 if k == i else 1 for k in range(len(xs))])
        e.set("Out", g.expand(column, *sizes), index=i)


@emits("reverse", "flip")
def reverse(e: Emission) -> None:
    x, g = e.x("X"), e.g
    axes = [int(a) % e.rank("X") for a in (e["axis"] if e.op.type == "reverse" else e["dims"])]
    n = len(axes)
    e.set("Out", g.op("Slice", x, g.ints(*[-1] * n), g.ints(*[-(2**31)] * n), g.ints(*axes), g.ints(*[-1] * n)))
