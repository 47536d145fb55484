"""Making, copying and joining tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, as_tensors, has_variable, known_part
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    INDICES,
    NUMBERS,
    check_dtype,
    check_one_dtype,
    check_type,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.fluid.layers._former import inserted
from millstream.fluid.layers.array import tensor_array_to_tensor
from millstream.fluid.layers.nn.manipulate import stack
from millstream.fluid.param_attr import ParamAttr
from millstream.ir.types import VarType, dtype_name, to_var_type

__all__ = [
    "argmax",
    "argmin",
    "argsort",
    "assign",
    "cast",
    "concat",
    "create_global_var",
    "create_parameter",
    "create_tensor",
    "diag",
    "eye",
    "fill_constant",
    "fill_constant_batch_size_like",
    "has_inf",
    "has_nan",
    "isfinite",
    "linspace",
    "ones",
    "ones_like",
    "range",
    "reverse",
    "sums",
    "tensor_array_to_tensor",
    "zeros",
    "zeros_like",
]


# ---- declarations ------------------------------------------------------------------------------
def create_tensor(dtype: Any, name: str | None = None, persistable: bool = False) -> Any:
    """A variable of the current Block whose shape is set by the operator that writes it."""
    check_dtype(dtype, "dtype", ELEMENTS, "create_tensor")
    helper = LayerHelper("create_tensor", name=name)
    return helper.create_variable(name=helper.name, dtype=dtype, persistable=persistable)


def create_parameter(
    shape: Any,
    dtype: Any,
    name: str | None = None,
    attr: Any = None,
    is_bias: bool = False,
    default_initializer: Any = None,
) -> Any:
    """A parameter, initialised in the startup Program: Xavier, or zeros when `is_bias`.

    Args:
        name: the parameter's name when `attr` is None; the first half of it (``name.w_0``) when `attr` names none.
    """
    check_type(shape, "shape", (list, tuple, np.ndarray), "create_parameter")
    check_dtype(dtype, "dtype", ELEMENTS, "create_parameter")
    check_type(attr, "attr", (type(None), ParamAttr), "create_parameter")
    helper = LayerHelper("create_parameter", name=name)
    if attr is None:
        attr = ParamAttr(name=name)
    return helper.create_parameter(attr, shape, dtype, is_bias, default_initializer)


def create_global_var(
    shape: Any, value: Any, dtype: Any, persistable: bool = False, force_cpu: bool = False, name: str | None = None
) -> Any:
    """A variable of the global Block, filled with `value` by the startup Program; it gets no gradient."""
    check_type(shape, "shape", (list, tuple), "create_global_var")
    check_dtype(dtype, "dtype", ELEMENTS, "create_global_var")
    helper = LayerHelper("global_var")
    var = helper.create_global_variable(dtype=dtype, shape=shape, persistable=persistable, name=name)
    helper.set_variable_initializer(var, initializer=Constant(value=float(value), force_cpu=force_cpu))
    return var


# ---- constants ---------------------------------------------------------------------------------
def _text(value: Any, dtype: VarType) -> str:
    """`value` as text: exact where float32 is not (int64)."""
    if dtype in (VarType.INT64, VarType.INT32):
        return str(int(value))
    return str(float(value))


def fill(layer: str, shape: Any, dtype: Any, value: Any, force_cpu: bool, out: Any) -> Any:
    """:func:`fill_constant` under another layer's name."""
    dtype = to_var_type(dtype)
    if out is not None:
        check_variable_and_dtype(out, "out", (dtype_name(dtype),), layer)
    helper = LayerHelper(layer)
    return _fill(helper, shape, dtype, value, force_cpu, out)


def _fill(helper: LayerHelper, shape: Any, dtype: VarType, value: Any, force_cpu: bool, out: Any) -> Any:
    layer = helper.layer_type
    inputs: dict[str, Any] = {}
    attrs: dict[str, Any] = {"dtype": dtype, "force_cpu": force_cpu}
    if is_variable(value):
        inputs["ValueTensor"] = value
    else:
        attrs |= {"value": float(value), "str_value": _text(value, dtype)}
    if is_variable(shape):
        shape.stop_gradient = True
        inputs["ShapeTensor"] = shape
    elif not isinstance(shape, (list, tuple)):
        refuse_type(layer, f"'shape' must be a list, a tuple or a Variable, received {type(shape).__name__}")
    elif has_variable(shape):
        dims = [cast(d, "int32") if is_variable(d) and d.dtype != VarType.INT32 else d for d in shape]
        inputs["ShapeTensorList"] = as_tensors(helper, dims, "int32", "fill_constant")
        attrs["shape"] = known_part(shape)
    else:
        attrs["shape"] = [int(d) for d in shape]
        if any(d < 0 for d in attrs["shape"]):
            refuse(
                layer, f"every dimension of 'shape' must be known, received {list(shape)}; use a Variable for a changing one"
            )
    if out is None:
        out = helper.create_variable_for_type_inference(dtype)
    helper.append_op(type="fill_constant", inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    out.stop_gradient = True
    return out


def fill_constant(shape: Any, dtype: Any, value: Any, force_cpu: bool = False, out: Any = None) -> Any:
    """A tensor of `shape` filled with `value`.

    Args:
        shape: list of ints and int Variables of shape [1], or one 1-D int Variable.
        value: a number, text of one, or a Variable of shape [1].
        force_cpu: keep the result on the CPU.
        out: Variable to write; None: a new one.
    """
    name = check_dtype(dtype, "dtype", ELEMENTS, "fill_constant")
    return fill("fill_constant", shape, name, value, force_cpu, out)


def fill_constant_batch_size_like(
    input: Any,
    shape: Any,
    dtype: Any,
    value: Any,
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    force_cpu: bool = False,
) -> Any:
    """A constant of `shape`, whose dimension `output_dim_idx` is dimension `input_dim_idx` of `input`.

    For an `input` with LoD and `input_dim_idx` 0, that is the number of sequences.
    """
    layer = "fill_constant_batch_size_like"
    check_variable(input, "input", layer)
    dtype = to_var_type(dtype)
    attrs = {
        "shape": [int(d) for d in shape],
        "dtype": dtype,
        "value": float(value),
        "str_value": _text(value, dtype),
        "input_dim_idx": input_dim_idx,
        "output_dim_idx": output_dim_idx,
        "force_cpu": force_cpu,
    }
    out = append(layer, layer, {"Input": input}, attrs, dtype=dtype)
    out.stop_gradient = True
    return out


def ones(shape: Any, dtype: Any, force_cpu: bool = False) -> Any:
    """A tensor of ones; see :func:`fill_constant`."""
    check_dtype(dtype, "dtype", ("bool", *NUMBERS), "ones")
    return fill_constant(shape, dtype, 1.0, force_cpu)


def zeros(shape: Any, dtype: Any, force_cpu: bool = False) -> Any:
    """A tensor of zeros; see :func:`fill_constant`."""
    check_dtype(dtype, "dtype", ("bool", *NUMBERS), "zeros")
    return fill_constant(shape, dtype, 0.0, force_cpu)


def zeros_like(x: Any, out: Any = None) -> Any:
    """Zeros of the shape and dtype of `x`."""
    check_variable_and_dtype(x, "x", ELEMENTS, "zeros_like")
    out = append("zeros_like", "fill_zeros_like", {"X": [x]}, dtype=x.dtype, out=out)
    out.stop_gradient = True
    return out


def ones_like(x: Any, out: Any = None) -> Any:
    """Ones of the shape and dtype of `x`."""
    check_variable_and_dtype(x, "x", ELEMENTS, "ones_like")
    return append("ones_like", "fill_any_like", {"X": [x]}, {"value": 1.0}, dtype=x.dtype, out=out)


def eye(num_rows: int, num_columns: int | None = None, batch_shape: Any = None, dtype: Any = "float32") -> Any:
    """The identity matrix [num_rows, num_columns], repeated to [*batch_shape, num_rows, num_columns]."""
    check_dtype(dtype, "dtype", ELEMENTS, "eye")
    columns = num_rows if num_columns is None else num_columns
    for value, argument in ((num_rows, "num_rows"), (columns, "num_columns")):
        check_type(value, argument, int, "eye")
        if value < 0:
            refuse("eye", f"'{argument}' must not be negative, received {value}")
    attrs = {"num_rows": num_rows, "num_columns": columns, "dtype": to_var_type(dtype)}
    out = append("eye", "eye", {}, attrs, dtype=dtype)
    out.stop_gradient = True
    if batch_shape is not None:
        check_type(batch_shape, "batch_shape", (list, tuple), "eye")
        if any(not isinstance(n, int) or n <= 0 for n in batch_shape):
            refuse_type("eye", f"'batch_shape' must hold positive ints, received {batch_shape!r}")
        for n in reversed(batch_shape):
            out = stack([out] * n, axis=0)
    return out


def _scalar(value: Any, dtype: Any) -> Any:
    return value if is_variable(value) else fill_constant([1], dtype, value)


def linspace(start: Any, stop: Any, num: Any, dtype: Any) -> Any:
    """`num` equally spaced values from `start` to `stop` inclusive; numbers or Variables of shape [1]."""
    check_dtype(dtype, "dtype", ("float32", "float64", "int32", "int64"), "linspace")
    helper = LayerHelper("linspace")
    inputs = {"Start": _scalar(start, dtype), "Stop": _scalar(stop, dtype), "Num": _scalar(num, "int32")}
    out = helper.create_variable_for_type_inference(dtype)
    helper.append_op(type="linspace", inputs=inputs, outputs={"Out": [out]}, attrs={})
    return out


def range(start: Any, end: Any, step: Any, dtype: Any) -> Any:
    """start, start + step, … below `end` (above it for a negative step); numbers or Variables of shape [1]."""
    return named_range(start, end, step, dtype, None)


def named_range(start: Any, end: Any, step: Any, dtype: Any, name: str | None) -> Any:
    """:func:`range`, whose operator goes by `name`."""
    check_dtype(dtype, "dtype", ("float32", "float64", "int32", "int64"), "range")
    helper = LayerHelper("range", name=name)
    inputs = {"Start": _scalar(start, dtype), "End": _scalar(end, dtype), "Step": _scalar(step, dtype)}
    out = helper.create_variable_for_type_inference(dtype)
    helper.append_op(type="range", inputs=inputs, outputs={"Out": [out]}, attrs={})
    out.stop_gradient = True
    return out


def diag(diagonal: Any) -> Any:
    """The square matrix with this diagonal: a vector Variable or numpy array."""
    check_type_of_value(diagonal, "diagonal", "diag")
    helper = LayerHelper("diag")
    if not is_variable(diagonal):
        diagonal = assign(diagonal)
    out = helper.create_variable_for_type_inference(diagonal.dtype)
    helper.append_op(type="diag", inputs={"Diagonal": [diagonal]}, outputs={"Out": [out]}, attrs={})
    out.stop_gradient = True
    return out


def check_type_of_value(value: Any, argument: str, layer: str) -> None:
    """TypeError unless `value` is a Variable or a numpy array."""
    if not is_variable(value) and not isinstance(value, np.ndarray):
        refuse_type(layer, f"'{argument}' must be a Variable or a numpy array, received {type(value).__name__}")


# ---- copies and conversions --------------------------------------------------------------------
_VALUES = {
    VarType.BOOL: "bool_values",
    VarType.FP32: "fp32_values",
    VarType.INT32: "int32_values",
    VarType.INT64: "int64_values",
}


def assign(input: Any, output: Any = None) -> Any:
    """A copy of a Variable, or a numpy array (bool, float32, int32, int64; at most a million values) as a Variable.

    Args:
        output: Variable to write; None: a new one.
    """
    check_type_of_value(input, "input", "assign")
    if is_variable(input):
        check_variable_and_dtype(input, "input", ELEMENTS, "assign")
        return append("assign", "assign", {"X": [input]}, dtype=input.dtype, out=output)
    dtype = to_var_type(input.dtype)
    if dtype not in _VALUES:
        refuse_type("assign", f"a numpy 'input' must be bool, float32, int32 or int64, received {dtype_name(dtype)}")
    if input.size > 1024 * 1024:
        refuse("assign", f"{input.size} values are too many to keep in a Program (limit 1048576); feed them instead")
    convert: Any = float if dtype is VarType.FP32 else int
    attrs = {"dtype": dtype, "shape": list(input.shape), _VALUES[dtype]: [convert(v) for v in input.flat]}
    return append("assign", "assign_value", {}, attrs, dtype=dtype, out=output)


def cast(x: Any, dtype: Any) -> Any:
    """`x` with another element type; floats truncate toward zero, anything but 0 is True."""
    check_variable_and_dtype(x, "x", ELEMENTS, "cast")
    try:
        target = to_var_type(dtype)
    except TypeError:
        refuse("cast", f"'dtype' must be one of {', '.join(ELEMENTS)}; received {dtype!r}")
    return append("cast", "cast", {"X": [x]}, {"in_dtype": x.dtype, "out_dtype": target}, dtype=target)


# ---- joining -----------------------------------------------------------------------------------
def concat(input: Any, axis: Any = 0, name: str | None = None) -> Any:
    """The tensors of a list one after the other along `axis` (an int, or an int32 Variable of shape [1])."""
    values = check_variables(input, "input", ELEMENTS, "concat")
    if values[0].type is VarType.LOD_TENSOR_ARRAY:
        return tensor_array_to_tensor(values[0], axis, name)[0]
    check_one_dtype(values, "input", "concat")
    inputs, attrs = {"X": values}, {}
    if is_variable(axis):
        check_variable_and_dtype(axis, "axis", INDICES, "concat")
        axis.stop_gradient = True
        inputs["AxisTensor"] = axis
    else:
        check_type(axis, "axis", (int, np.integer), "concat")
        attrs["axis"] = int(axis)
    return append("concat", "concat", inputs, attrs, dtype=values[0].dtype, name=name)


def sums(input: Any, out: Any = None) -> Any:
    """The sum of a list of tensors, element by element; written to `out` when it is given."""
    values = check_variables(input, "input", NUMBERS, "sums")
    if out is not None:
        check_variable_and_dtype(out, "out", NUMBERS, "sums")
    return append("sum", "sum", {"X": values}, dtype=values[0].dtype, out=out)


# ---- order and tests ---------------------------------------------------------------------------
def _arg(op_type: str, x: Any, axis: int) -> Any:
    check_variable_and_dtype(x, "x", (*FLOATS, "uint8", "int8", "int16", *INDICES), op_type)
    out = append(op_type, op_type, {"X": x}, {"axis": axis}, dtype="int64")
    out.stop_gradient = True
    return out


def argmax(x: Any, axis: int = 0) -> Any:
    """int64 indices of the greatest elements along `axis`, which is dropped."""
    return _arg("arg_max", x, axis)


def argmin(x: Any, axis: int = 0) -> Any:
    """int64 indices of the least elements along `axis`, which is dropped."""
    return _arg("arg_min", x, axis)


@inserted(2, str, False)
def argsort(input: Any, axis: int = -1, descending: bool = False, name: str | None = None) -> tuple[Any, Any]:
    """(`input` sorted along `axis`, int64 indices of its elements). A str third argument is `name`, as in 1.1."""
    if isinstance(descending, str):
        descending, name = False, descending
    check_variable_and_dtype(input, "input", (*FLOATS, "uint8", "int16", *INDICES), "argsort")
    helper = LayerHelper("argsort", name=name)
    out = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    indices = helper.create_variable_for_type_inference("int64", stop_gradient=True)
    helper.append_op(
        type="argsort",
        inputs={"X": input},
        outputs={"Out": out, "Indices": indices},
        attrs={"axis": axis, "descending": descending},
    )
    return out, indices


def reverse(x: Any, axis: Any) -> Any:
    """`x` with its elements in reverse order along `axis` (an int or a list)."""
    check_variable_and_dtype(x, "x", (*NUMBERS, "uint8"), "reverse")
    if isinstance(axis, int):
        axis = [axis]
    check_type(axis, "axis", (list, tuple), "reverse")
    return append("reverse", "reverse", {"X": x}, {"axis": list(axis)}, dtype=x.dtype)


def has_inf(x: Any) -> Any:
    """Whether any element is infinite: shape [1]."""
    check_variable_and_dtype(x, "x", (*FLOATS, *INDICES), "has_inf")
    return append("isinf", "isinf", {"X": x}, dtype=x.dtype)


def has_nan(x: Any) -> Any:
    """Whether any element is not a number: shape [1]."""
    check_variable_and_dtype(x, "x", (*FLOATS, *INDICES), "has_nan")
    return append("isnan", "isnan", {"X": x}, dtype=x.dtype)


def isfinite(x: Any) -> Any:
    """Whether all elements are finite: bool, shape [1]."""
    check_variable_and_dtype(x, "x", (*FLOATS, *INDICES), "isfinite")
    return append("isfinite", "isfinite", {"X": x}, dtype="bool")


# ---- files -------------------------------------------------------------------------------------
def save(x: Any, file_path: str, overwrite: bool = True) -> None:
    """Write the tensor `x` to a file each time the Program runs; an existing one is an error unless `overwrite`."""
    check_variable(x, "x", "save")
    attrs = {"file_path": file_path, "overwrite": overwrite}
    LayerHelper("save").append_op(type="save", inputs={"X": [x]}, outputs={}, attrs=attrs)


def save_combine(x: Any, file_path: str, overwrite: bool = True) -> None:
    """:func:`save` of a list of tensors, one after the other in one file."""
    values = check_variables(x, "x", ELEMENTS, "save_combine")
    attrs = {"file_path": file_path, "overwrite": overwrite}
    LayerHelper("save_combine").append_op(type="save_combine", inputs={"X": values}, outputs={}, attrs=attrs)


def load_combine(out: Any, file_path: str) -> None:
    """Read the tensors of a file written by :func:`save_combine` into the list `out`, in that order."""
    values = check_variables(out, "out", ELEMENTS, "load_combine")
    LayerHelper("load_combine").append_op(
        type="load_combine", inputs={}, outputs={"Out": values}, attrs={"file_path": file_path}
    )
