"""Shape and order: reshape, transpose, split, stack, slice, pad."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, as_tensors, has_variable, known_part
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    INDICES,
    NUMBERS,
    check_choice,
    check_type,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    is_variable,
    refuse,
    refuse_type,
)

__all__ = [
    "crop",
    "crop_tensor",
    "expand",
    "expand_as",
    "flatten",
    "one_hot",
    "pad",
    "pad2d",
    "pad_constant_like",
    "reshape",
    "shape",
    "size",
    "slice",
    "split",
    "squeeze",
    "stack",
    "strided_slice",
    "transpose",
    "unsqueeze",
    "unstack",
]


def with_xshape(layer: str, op_type: str, inputs: dict[str, Any], attrs: dict[str, Any], x: Any, name: str | None) -> Any:
    """Append an operator that also keeps the shape of its input for its gradient."""
    helper = LayerHelper(layer, name=name)
    return _with_xshape(helper, op_type, inputs, attrs, x, None)


def _with_xshape(helper: LayerHelper, op_type: str, inputs: dict[str, Any], attrs: dict[str, Any], x: Any, out: Any) -> Any:
    if out is None:
        out = helper.create_variable_for_type_inference(x.dtype)
    xshape = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=op_type, inputs=inputs, outputs={"Out": out, "XShape": xshape}, attrs=attrs)
    return out


_ONLY_INT = frozenset({int})


def reshape(
    x: Any, shape: Any, actual_shape: Any = None, act: Any = None, inplace: bool = False, name: str | None = None
) -> Any:
    """The elements of `x` in another shape.

    Args:
        shape: list of ints (one may be -1: the rest; 0: the same dimension of `x`) and int32 Variables of shape [1],
            or one 1-D int32 Variable.
        actual_shape: (form of 1.1) a 1-D int32 Variable that overrides `shape` at run time.
        inplace: the result takes the name of `x`.
    """
    layer = "reshape"
    check_variable_and_dtype(x, "x", ELEMENTS, layer)
    helper = LayerHelper("reshape2", act=act, name=name)
    inputs: dict[str, Any] = {"X": x}
    attrs: dict[str, Any] = {}
    if is_variable(shape):
        shape.stop_gradient = True
        inputs["Shape"] = shape
    elif not isinstance(shape, (list, tuple)):
        refuse_type(layer, f"'shape' must be a list, a tuple or a Variable, received {type(shape).__name__}")
    else:
        if not shape:
            refuse(layer, "'shape' must not be empty")
        attrs["shape"] = _reshape_dims(x, shape)
        if has_variable(shape):
            inputs["ShapeTensor"] = as_tensors(helper, shape)
        elif actual_shape is not None:
            check_variable(actual_shape, "actual_shape", layer)
            actual_shape.stop_gradient = True
            inputs["Shape"] = actual_shape
    out = _with_xshape(helper, "reshape2", inputs, attrs, x, x if inplace else None)
    return helper.append_activation(out)


def _reshape_dims(x: Any, shape: Any) -> list[int]:
    if _ONLY_INT.issuperset(map(type, shape)) and min(shape) >= -1 and 0 not in shape and list(shape).count(-1) < 2:
        return list(shape)  # nothing to ask: most are so, and an eager program pays for each question at every step
    dims = known_part(shape)
    fixed = [d for d in shape if not is_variable(d)]
    if sum(int(d) == -1 for d in fixed) > 1:
        refuse("reshape", f"'shape' can have only one -1, received {dims}")
    for i, d in enumerate(shape):
        if is_variable(d):
            continue
        if int(d) == 0 and i >= len(x.shape):
            refuse("reshape", f"0 in 'shape' keeps a dimension of x, but {x.describe()} has no dimension {i}")
        if int(d) < -1:
            refuse("reshape", f"dimensions of 'shape' must be positive, 0 or -1; received {dims}")
    return dims


def transpose(x: Any, perm: Any, name: str | None = None) -> Any:
    """`x` with its dimensions in the order `perm`."""
    check_variable_and_dtype(x, "x", ELEMENTS, "transpose")
    check_type(perm, "perm", (list, tuple), "transpose")
    rank_of_x = len(x.shape)
    if len(perm) != rank_of_x:
        refuse("transpose", f"'perm' must have {rank_of_x} elements for {x.describe()}, received {list(perm)}")
    if sorted(int(p) % max(rank_of_x, 1) for p in perm) != list(range(rank_of_x)):
        refuse("transpose", f"'perm' must be a permutation of {list(range(rank_of_x))}, received {list(perm)}")
    return with_xshape("transpose", "transpose2", {"X": [x]}, {"axis": list(perm)}, x, name)


def squeeze(input: Any, axes: Any, name: str | None = None) -> Any:
    """`input` without its dimensions `axes`, where they are 1; an empty list drops every 1."""
    check_variable_and_dtype(input, "input", ELEMENTS, "squeeze")
    check_type(axes, "axes", (list, tuple), "squeeze")
    return with_xshape("squeeze", "squeeze2", {"X": input}, {"axes": list(axes)}, input, name)


def unsqueeze(input: Any, axes: Any, name: str | None = None) -> Any:
    """`input` with dimensions of size 1 put in at `axes`: an int, a list of ints and Variables, or a Variable."""
    check_variable_and_dtype(input, "input", ELEMENTS, "unsqueeze")
    helper = LayerHelper("unsqueeze2", name=name)
    inputs: dict[str, Any] = {"X": input}
    attrs: dict[str, Any] = {}
    if is_variable(axes):
        axes.stop_gradient = True
        inputs["AxesTensor"] = axes
    elif has_variable(axes):
        inputs["AxesTensorList"] = as_tensors(helper, axes)
    else:
        check_type(axes, "axes", (int, list, tuple), "unsqueeze")
        attrs["axes"] = [axes] if isinstance(axes, int) else list(axes)
    return _with_xshape(helper, "unsqueeze2", inputs, attrs, input, None)


def flatten(x: Any, axis: int = 1, name: str | None = None) -> Any:
    """A matrix: the dimensions before `axis` are its rows, the others its columns."""
    check_variable_and_dtype(x, "x", ELEMENTS, "flatten")
    if not isinstance(axis, int) or not 0 <= axis <= len(x.shape):
        refuse("flatten", f"'axis' must be an int in [0, {len(x.shape)}], received {axis!r}")
    return with_xshape("flatten", "flatten2", {"X": x}, {"axis": axis}, x, name)


def split(input: Any, num_or_sections: Any, dim: Any = -1, name: str | None = None) -> list[Any]:
    """`input` cut along `dim` into equal parts (an int) or parts of the given sizes (a list; one may be -1: the rest).

    Sizes and `dim` may be int32 Variables of shape [1].
    """
    layer = "split"
    check_variable_and_dtype(input, "input", ELEMENTS, layer)
    check_type(num_or_sections, "num_or_sections", (int, list, tuple), layer)
    helper = LayerHelper(layer, name=name)
    inputs: dict[str, Any] = {"X": input}
    attrs: dict[str, Any] = {}
    length = -1
    if is_variable(dim):
        check_variable_and_dtype(dim, "dim", INDICES, layer)
        dim.stop_gradient = True
        inputs["AxisTensor"] = dim
    else:
        rank_of_x = len(input.shape)
        if not -rank_of_x <= dim < rank_of_x:
            refuse(layer, f"'dim' must be in [{-rank_of_x}, {rank_of_x}) for {input.describe()}, received {dim}")
        attrs["axis"] = int(dim) % rank_of_x
        length = input.shape[attrs["axis"]]
    if isinstance(num_or_sections, int):
        parts = num_or_sections
        if parts < 1 or (length > 0 and length % parts):
            refuse(layer, f"{input.describe()} can't be cut into {parts} equal parts along dimension {dim}")
        attrs["num"] = parts
    else:
        parts = len(num_or_sections)
        if length > 0 and parts > length:
            refuse(layer, f"{input.describe()} can't be cut into {parts} parts along dimension {dim}")
        attrs["sections"] = known_part(num_or_sections)
        if sum(1 for s in num_or_sections if not is_variable(s) and int(s) == -1) > 1:
            refuse(layer, f"'num_or_sections' can have only one -1, received {attrs['sections']}")
        if has_variable(num_or_sections):
            inputs["SectionsTensorList"] = as_tensors(helper, num_or_sections)
    outs = [helper.create_variable_for_type_inference(input.dtype) for _ in range(parts)]
    helper.append_op(type=layer, inputs=inputs, outputs={"Out": outs}, attrs=attrs)
    return outs


def stack(x: Any, axis: int = 0) -> Any:
    """The tensors of a list, all of one shape, along a new dimension `axis`."""
    values = check_variables(x, "x", ELEMENTS, "stack")
    return append("stack", "stack", {"X": values}, {"axis": axis}, dtype=values[0].dtype, slot="Y")


def unstack(x: Any, axis: int = 0, num: int | None = None) -> list[Any]:
    """The list of the slices of `x` along `axis`; `num` is their number, needed when it is unknown."""
    check_variable_and_dtype(x, "x", ELEMENTS, "unstack")
    if num is None:
        num = x.shape[axis]
    if num is None or num <= 0:
        refuse("unstack", f"'num' must be given: dimension {axis} of {x.describe()} is unknown")
    helper = LayerHelper("unstack")
    outs = [helper.create_variable_for_type_inference(x.dtype) for _ in range(num)]
    helper.append_op(type="unstack", inputs={"X": [x]}, outputs={"Y": outs}, attrs={"axis": axis, "num": num})
    return outs


def expand(x: Any, expand_times: Any, name: str | None = None) -> Any:
    """`x` repeated `expand_times[i]` times along dimension i; ints and int32 Variables of shape [1], or one Variable."""
    layer = "expand"
    check_variable_and_dtype(x, "x", ELEMENTS, layer)
    helper = LayerHelper(layer, name=name)
    inputs: dict[str, Any] = {"X": [x]}
    attrs: dict[str, Any] = {}
    if is_variable(expand_times):
        expand_times.stop_gradient = True
        inputs["ExpandTimes"] = expand_times
    else:
        check_type(expand_times, "expand_times", (list, tuple), layer)
        attrs["expand_times"] = known_part(expand_times)
        if has_variable(expand_times):
            inputs["expand_times_tensor"] = as_tensors(helper, expand_times)
        elif any(t <= 0 for t in attrs["expand_times"]):
            refuse(layer, f"each of 'expand_times' must be positive, received {attrs['expand_times']}")
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=layer, inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return out


def expand_as(x: Any, target_tensor: Any, name: str | None = None) -> Any:
    """`x` repeated to the shape of `target_tensor`, whose dimensions are multiples of those of `x`."""
    check_variable_and_dtype(x, "x", ELEMENTS, "expand_as")
    check_variable_and_dtype(target_tensor, "target_tensor", ELEMENTS, "expand_as")
    inputs = {"X": x, "target_tensor": target_tensor}
    return append("expand_as", "expand_as", inputs, dtype=x.dtype, name=name)


# ---- cutting -----------------------------------------------------------------------------------
def _bounds(
    helper: LayerHelper, values: Any, argument: str, slots: tuple[str, str]
) -> tuple[dict[str, Any], Any, list[int]]:
    """(inputs, attribute or None, flags) of one bound of a slice."""
    if is_variable(values):
        values.stop_gradient = True
        return {slots[0]: values}, None, []
    if not isinstance(values, (list, tuple)):
        refuse_type(
            helper.layer_type, f"'{argument}' must be a list, a tuple or a Variable, received {type(values).__name__}"
        )
    flags = [-1 if is_variable(v) else 1 for v in values]
    inputs = {slots[1]: as_tensors(helper, values)} if -1 in flags else {}
    return inputs, known_part(values), flags


def slice(input: Any, axes: Any, starts: Any, ends: Any) -> Any:
    """Elements `starts[i]` … `ends[i]` - 1 along `axes[i]`; negative ones count from the end.

    Bounds are ints and int32 Variables of shape [1], or one 1-D int32 Variable.
    """
    layer = "slice"
    check_variable(input, "input", layer)
    check_type(axes, "axes", (list, tuple), layer)
    helper = LayerHelper(layer)
    inputs: dict[str, Any] = {"Input": input}
    attrs: dict[str, Any] = {"axes": list(axes)}
    flags = [1] * len(axes)
    for values, key, slots in (
        (starts, "starts", ("StartsTensor", "StartsTensorList")),
        (ends, "ends", ("EndsTensor", "EndsTensorList")),
    ):
        more, known, found = _bounds(helper, values, key, slots)
        inputs |= more
        if known is None:
            flags = [-1] * len(axes)
        else:
            if len(known) != len(axes):
                refuse(layer, f"'{key}' must have {len(axes)} elements, as many as 'axes'; received {len(known)}")
            attrs[key] = known
            flags = [min(a, b) for a, b in zip(flags, found)]
    attrs["infer_flags"] = flags
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type=layer, inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return out


def strided_slice(input: Any, axes: Any, starts: Any, ends: Any, strides: Any) -> Any:
    """:func:`slice` that takes every `strides[i]`-th element; negative strides go backward."""
    layer = "strided_slice"
    check_variable_and_dtype(input, "input", ELEMENTS, layer)
    for value, argument in ((axes, "axes"),):
        check_type(value, argument, (list, tuple), layer)
    helper = LayerHelper(layer)
    inputs: dict[str, Any] = {"Input": input}
    attrs: dict[str, Any] = {"axes": list(axes)}
    flags = [1] * len(axes)
    for values, key, slots in (
        (starts, "starts", ("StartsTensor", "StartsTensorList")),
        (ends, "ends", ("EndsTensor", "EndsTensorList")),
        (strides, "strides", ("StridesTensor", "StridesTensorList")),
    ):
        more, known, found = _bounds(helper, values, key, slots)
        inputs |= more
        if known is not None:
            if len(known) != len(axes):
                refuse(layer, f"'{key}' must have {len(axes)} elements, as many as 'axes'; received {len(known)}")
            attrs[key] = known
            flags = [min(a, b) for a, b in zip(flags, found)]
    attrs["infer_flags"] = flags
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type=layer, inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return out


def crop(x: Any, shape: Any = None, offsets: Any = None, name: str | None = None) -> Any:
    """The part of `x` of `shape` (a list, or a Variable of that shape) that begins at `offsets` (a list or a Variable)."""
    layer = "crop"
    check_variable_and_dtype(x, "x", ("float32", "float64"), layer)
    if not isinstance(shape, (list, tuple)) and not is_variable(shape):
        refuse(layer, f"'shape' must be a list, a tuple or a Variable, received {shape!r}")
    inputs: dict[str, Any] = {"X": x}
    attrs: dict[str, Any] = {}
    if is_variable(shape):
        inputs["Y"] = shape
    else:
        attrs["shape"] = list(shape)
    if is_variable(offsets):
        inputs["Offsets"] = offsets
    else:
        attrs["offsets"] = [0] * len(x.shape) if offsets is None else list(offsets)
    return append(layer, layer, inputs, attrs, dtype=x.dtype, name=name)


def crop_tensor(x: Any, shape: Any = None, offsets: Any = None, name: str | None = None) -> Any:
    """:func:`crop` whose `shape` and `offsets` may hold int32 Variables of shape [1]; -1 in `shape`: to the end."""
    layer = "crop_tensor"
    check_variable_and_dtype(x, "x", (*NUMBERS,), layer)
    helper = LayerHelper(layer, name=name)
    if offsets is None:
        offsets = [0] * len(x.shape)
    out = helper.create_variable_for_type_inference(x.dtype)
    inputs: dict[str, Any] = {"X": x}
    attrs: dict[str, Any] = {}
    for value, key, slots, unknown in (
        (offsets, "offsets", ("Offsets", "OffsetsTensor"), -1),
        (shape, "shape", ("Shape", "ShapeTensor"), 0),
    ):
        if is_variable(value):
            value.stop_gradient = True
            inputs[slots[0]] = value
            if key == "offsets":
                attrs[key] = [-1] * len(x.shape)
            continue
        if not isinstance(value, (list, tuple)):
            refuse_type(layer, f"'{key}' must be a list, a tuple or a Variable, received {type(value).__name__}")
        attrs[key] = known_part(value, unknown)
        if has_variable(value):
            inputs[slots[1]] = as_tensors(helper, value)
        elif key == "offsets" and any(v < 0 for v in attrs[key]):
            refuse(layer, f"'offsets' must not be negative, received {attrs[key]}")
        elif key == "shape" and any(v == 0 or v < -1 for v in attrs[key]):
            refuse(layer, f"'shape' must hold positive ints or -1, received {attrs[key]}")
    helper.append_op(type=layer, inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return out


# ---- padding -----------------------------------------------------------------------------------
def pad(x: Any, paddings: Any, pad_value: float = 0.0, name: str | None = None) -> Any:
    """`x` with `paddings[2i]` elements put before and `paddings[2i + 1]` after dimension i."""
    check_variable_and_dtype(x, "x", ELEMENTS, "pad")
    if len(paddings) != 2 * len(x.shape):
        refuse("pad", f"'paddings' must have {2 * len(x.shape)} elements for {x.describe()}, received {list(paddings)}")
    attrs = {"paddings": [int(p) for p in paddings], "pad_value": float(pad_value)}
    return append("pad", "pad", {"X": x}, attrs, dtype=x.dtype, name=name)


def pad2d(
    input: Any,
    paddings: Any = [0, 0, 0, 0],
    mode: str = "constant",
    pad_value: float = 0.0,
    data_format: str = "NCHW",
    name: str | None = None,
) -> Any:
    """Images with borders [top, bottom, left, right] (a list or an int32 Variable).

    Args:
        mode: "constant" (`pad_value`), "reflect" (mirrored without the edge) or "edge" (the edge repeated).
    """
    layer = "pad2d"
    check_variable_and_dtype(input, "input", (*FLOATS, *INDICES), layer)
    check_choice(mode, "mode", ("constant", "reflect", "edge"), layer)
    check_choice(data_format, "data_format", ("NCHW", "NHWC"), layer)
    inputs = {"X": input}
    attrs: dict[str, Any] = {"mode": mode, "pad_value": float(pad_value), "data_format": data_format}
    if is_variable(paddings):
        inputs["Paddings"] = paddings
    else:
        if len(paddings) != 4:
            refuse(layer, f"'paddings' must be [top, bottom, left, right], received {list(paddings)}")
        attrs["paddings"] = [int(p) for p in paddings]
    return append(layer, layer, inputs, attrs, dtype=input.dtype, name=name)


def pad_constant_like(x: Any, y: Any, pad_value: float = 0.0, name: str | None = None) -> Any:
    """`y` with `pad_value` put after each dimension up to the shape of `x`."""
    check_variable(x, "x", "pad_constant_like")
    check_variable_and_dtype(y, "y", NUMBERS, "pad_constant_like")
    attrs = {"pad_value": float(pad_value)}
    return append("pad_constant_like", "pad_constant_like", {"X": x, "Y": y}, attrs, dtype=y.dtype, name=name)


# ---- shapes as tensors -------------------------------------------------------------------------
def shape(input: Any) -> Any:
    """The shape as an int32 vector, known when the Program runs."""
    check_variable_and_dtype(input, "input", ELEMENTS, "shape")
    return append("shape", "shape", {"Input": input}, dtype="int32")


def size(input: Any) -> Any:
    """The number of elements, int64, shape [1]."""
    check_variable(input, "input", "size")
    return append("size", "size", {"Input": input}, dtype="int64")


def one_hot(input: Any, depth: Any, allow_out_of_range: bool = False) -> Any:
    """float32 [..., depth] from indices [..., 1]; see ``fluid.one_hot``, which takes [...]."""
    check_variable_and_dtype(input, "input", INDICES, "one_hot")
    inputs = {"X": input}
    attrs: dict[str, Any] = {"allow_out_of_range": allow_out_of_range}
    if is_variable(depth):
        depth.stop_gradient = True
        inputs["depth_tensor"] = depth
    else:
        attrs["depth"] = int(depth)
    out = append("one_hot", "one_hot", inputs, attrs, dtype="float32")
    out.stop_gradient = True
    return out
