"""Tensors made from constants."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, Long, Longs, op
from millstream.ops._values import SelectedRows, Spec, TensorArray, torch_dtype
from millstream.ops.tensor._dims import ints, ints_of, product


def shape_spec(shape, shape_tensor, shape_list, dtype):
    """Spec of a tensor made with `shape` (attribute), or a shape that is known when it runs."""
    if not shape and shape_tensor is not None:
        shape = [-1] * abs(product(shape_tensor.shape))
    elif not shape and shape_list:
        shape = [-1] * len(shape_list)
    return Spec(tuple(shape), to_var_type(dtype))


def given_shape(shape, shape_tensor, shape_list):
    """The shape to make: the list of tensors goes before the tensor, the tensor before the attribute."""
    if shape_list:
        return ints_of(shape_list)
    return ints(shape_tensor) if shape_tensor is not None else shape


_INTEGER = re.compile(r"\s*[+-]?\d+")
_REAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def number(value, str_value, dtype):
    """`value`, or `str_value` with all its digits, as a Python number that fits `dtype`.

    Fluid reads the text as C++ streams do: the number at its start counts, and 0 when there is none ("inf", "nan").
    """
    if str_value:
        found = (_INTEGER if dtype is torch.int64 else _REAL).match(str_value)
        value = 0 if found is None else (int if dtype is torch.int64 else float)(found.group())
    if dtype.is_floating_point or dtype is torch.bool:
        return value
    return int(value) if math.isfinite(value) else torch.iinfo(dtype).min


# ---- fill_constant -------------------------------------------------------------------------------
def _fill_constant_spec(value_tensor, shape_tensor, shape_list, *, dtype, shape, value, str_value, force_cpu):
    return shape_spec(shape, shape_tensor, shape_list, dtype)


@op(
    "fill_constant",
    slots="ValueTensor?, ShapeTensor?, ShapeTensorList* -> Out",
    infer=_fill_constant_spec,
    grad=False,
    amp="gray",
)
def fill_constant(
    value_tensor,
    shape_tensor,
    shape_list,
    *,
    dtype: DType = 5,
    shape: Longs = [],
    value: float = 0.0,
    str_value: str = "",
    force_cpu: bool = False,
    device,
):
    """A tensor of `shape` filled with `value` (or with `str_value`, which keeps all digits, or ValueTensor)."""
    kind = torch_dtype(dtype)
    shape = given_shape(shape, shape_tensor, shape_list)
    if value_tensor is not None:
        return value_tensor.reshape(()).to(kind).expand(shape).clone()
    return torch.full(shape, number(value, str_value, kind), dtype=kind, device="cpu" if force_cpu else device)


def like_spec(x, shape, input_dim_idx, output_dim_idx, dtype):
    """Spec of a *_batch_size_like output: `shape` with one dim taken from the input."""
    if not 0 <= output_dim_idx < len(shape):
        raise ShapeError(f"output_dim_idx must be in [0, {len(shape)}) for shape {list(shape)}, received {output_dim_idx}")
    if not 0 <= input_dim_idx < len(x.shape):
        raise ShapeError(f"input_dim_idx must be in [0, {len(x.shape)}) for Input {list(x.shape)}, received {input_dim_idx}")
    out = list(shape)
    out[output_dim_idx] = x.shape[input_dim_idx]
    return Spec(tuple(out), to_var_type(dtype))


def _batch_like_spec(x, *, shape, input_dim_idx, output_dim_idx, dtype, value, str_value, force_cpu):
    return like_spec(x, shape, input_dim_idx, output_dim_idx, dtype)


@op("fill_constant_batch_size_like", slots="Input# -> Out", infer=_batch_like_spec, grad=False)
def fill_constant_batch_size_like(
    x,
    *,
    shape: list[int],
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    dtype: DType = 5,
    value: float = 0.0,
    str_value: str = "",
    force_cpu: bool = False,
    device,
):
    """A constant tensor whose dim `output_dim_idx` is Input's dim `input_dim_idx`: the number of sequences with LoD."""
    shape = list(shape)
    sequences = x.lod and input_dim_idx == 0
    shape[output_dim_idx] = len(x.lod[-1]) - 1 if sequences else x.values.shape[input_dim_idx]
    kind = torch_dtype(dtype)
    return torch.full(shape, number(value, str_value, kind), dtype=kind, device="cpu" if force_cpu else device)


# ---- like another tensor ---------------------------------------------------------------------------
def _fill_like_spec(x, *, value, dtype):
    return x if dtype < 0 else x.like(dtype=to_var_type(dtype))


@op("fill_any_like", slots="X -> Out", infer=_fill_like_spec, lod="X", grad=False)
def fill_any_like(x, *, value: float = 0.0, dtype: DType = -1):
    """A tensor of X's shape filled with `value`."""
    kind = x.dtype if dtype < 0 else torch_dtype(dtype)
    return torch.full(x.shape, number(value, "", kind), dtype=kind, device=x.device)


def _zeros(x):
    if isinstance(x, TensorArray):
        return TensorArray(None if v is None else v._replace(values=torch.zeros_like(v.values)) for v in x)
    if isinstance(x, SelectedRows):
        return SelectedRows(x.rows, torch.zeros_like(x.values), x.height)
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device)


@op("fill_zeros_like", slots="X -> Out", infer="X", lod="X", grad=False)
def fill_zeros_like(x):
    """Zeros of X's shape and dtype."""
    return _zeros(x)


def _zeros2_spec(x, *, dtype):
    return x if dtype < 0 else x.like(dtype=to_var_type(dtype))


@op("fill_zeros_like2", slots="X -> Out", infer=_zeros2_spec, lod="X", grad=False)
def fill_zeros_like2(x, *, dtype: DType = 5):
    """Zeros of X's shape in `dtype`."""
    if isinstance(x, torch.Tensor):
        return torch.zeros(x.shape, dtype=x.dtype if dtype < 0 else torch_dtype(dtype), device=x.device)
    return _zeros(x)


# ---- from lists ------------------------------------------------------------------------------------
def _fill_spec(*, value, shape, dtype, force_cpu):
    if product(shape) != len(value):
        raise ShapeError(f"shape {list(shape)} has {product(shape)} elements, value has {len(value)}")
    return Spec(tuple(shape), to_var_type(dtype))


@op("fill", slots="-> Out", infer=_fill_spec, grad=False)
def fill(*, value: list[float], shape: list[int], dtype: DType = 5, force_cpu: bool = False, device):
    """The numbers of `value` in `shape`."""
    return torch.tensor(value, device="cpu" if force_cpu else device).to(torch_dtype(dtype)).reshape(shape)


_VALUES = {VarType.BOOL: "bool_values", VarType.INT32: "int32_values", VarType.INT64: "int64_values"}


def _assign_value_spec(*, shape, dtype, bool_values, fp32_values, int32_values, int64_values):
    lists = {"bool_values": bool_values, "int32_values": int32_values, "int64_values": int64_values}
    name = _VALUES.get(VarType(dtype), "fp32_values")
    count = len(lists.get(name, fp32_values))
    if count != product(shape):
        raise ShapeError(f"shape {list(shape)} has {product(shape)} elements, {name} has {count}")
    return Spec(tuple(shape), to_var_type(dtype))


def _assign_value_captured(
    *, shape, dtype, bool_values=(), fp32_values=(), int32_values=(), int64_values=(), device, state=None
):  # fmt: skip
    return _listed(shape, dtype, bool_values, fp32_values, int32_values, int64_values, device)  # a constant of the code


@op("assign_value", slots="-> Out", infer=_assign_value_spec, grad=False, captured=_assign_value_captured)
def assign_value(
    *,
    shape: list[int],
    dtype: DType,
    bool_values: list[int] = [],
    fp32_values: list[float] = [],
    int32_values: list[int] = [],
    int64_values: Longs = [],
    device,
    state,
):
    """The numbers given for `dtype` in `shape`."""
    # Within a loop the list is read once: a word list's mask of thousands of numbers takes as long as a product.
    if "value" not in state:
        state["value"] = _listed(shape, dtype, bool_values, fp32_values, int32_values, int64_values, device)
    return state["value"].clone()


def _listed(shape, dtype, bool_values, fp32_values, int32_values, int64_values, device):
    lists = {VarType.BOOL: bool_values, VarType.INT32: int32_values, VarType.INT64: int64_values}
    values = lists.get(VarType(dtype), fp32_values)
    return torch.tensor(values, dtype=torch_dtype(dtype), device=device).reshape(shape)


# ---- matrices ----------------------------------------------------------------------------------------
def _eye_spec(*, num_rows, num_columns, dtype):
    return Spec((num_rows, num_rows if num_columns == -1 else num_columns), to_var_type(dtype))


@op("eye", slots="-> Out", infer=_eye_spec, grad=False)
def eye(*, num_rows: Long, num_columns: Long = -1, dtype: DType = 5, device):
    """Ones on the diagonal of [num_rows, num_columns] (square when num_columns is -1)."""
    columns = num_rows if num_columns == -1 else num_columns
    return torch.eye(num_rows, columns, dtype=torch_dtype(dtype), device=device)


def _diag_spec(x):
    if len(x.shape) != 1:
        raise ShapeError(f"Diagonal must be a vector, received shape {list(x.shape)}")
    return Spec((x.shape[0], x.shape[0]), x.dtype)


@op("diag", slots="Diagonal -> Out", infer=_diag_spec, grad=False)
def diag(x):
    """A square matrix with the vector on its diagonal."""
    return torch.diag(x)


# ---- sequences of numbers ------------------------------------------------------------------------------
def _range_spec(start, end, step):
    return Spec((-1,), start.dtype)


@op("range", slots="Start, End, Step -> Out", infer=_range_spec, grad=False)
def range_(start, end, step):
    """Start, Start + Step, … up to End, which is left out; ceil((End - Start) / Step) numbers."""
    first, last, by = start.item(), end.item(), step.item()
    if by == 0:
        raise ShapeError("range: Step must not be 0")
    if first == last:
        return start.new_empty(0)
    if (by > 0) != (first < last):
        raise ShapeError(f"range: from {first} in steps of {by} never reaches {last}")
    if not start.is_floating_point():
        return torch.arange(first, last, by, dtype=start.dtype, device=start.device)
    terms = np.full(math.ceil(abs((last - first) / by)), by, dtype=start.cpu().numpy().dtype)
    terms[0] = first
    return torch.from_numpy(np.add.accumulate(terms)).to(start.device)  # step by step, with Fluid's rounding


def _linspace_spec(start, stop, num):
    return Spec((-1,), start.dtype)


@op("linspace", slots="Start, Stop, Num -> Out", infer=_linspace_spec, grad=False)
def linspace(start, stop, num):
    """Num numbers from Start to Stop, both included (only Start when Num is 1)."""
    count = int(num.item())
    if count < 1:
        raise ShapeError(f"linspace: Num must be at least 1, received {count}")
    return torch.linspace(start.item(), stop.item(), count, dtype=start.dtype, device=start.device)


# ---- left without a value ------------------------------------------------------------------------------
@op("fake_init", slots="-> Out", infer=False, grad=False)
def fake_init(*, shape: Longs, device):
    """A tensor of `shape` whose contents mean nothing: a table that a parameter server holds."""
    return torch.empty(shape, device=device)
