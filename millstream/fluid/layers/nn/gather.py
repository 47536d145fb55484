"""Picking and placing elements by index, turning and mixing them."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    ELEMENTS,
    INDICES,
    NUMBERS,
    check_dtype,
    check_type,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    refuse,
)
from millstream.fluid.layers.nn.manipulate import reshape, with_xshape
from millstream.fluid.layers.nn.manipulate import slice as slice_of
from millstream.fluid.layers.tensor import assign, check_type_of_value, fill_constant, named_range, zeros
from millstream.ir.types import to_var_type

__all__ = [
    "allclose",
    "arange",
    "diag_embed",
    "flip",
    "full",
    "full_like",
    "gather",
    "gather_nd",
    "gather_tree",
    "get_tensor_from_selected_rows",
    "index_sample",
    "index_select",
    "merge_selected_rows",
    "meshgrid",
    "multiplex",
    "nonzero",
    "rank",
    "roll",
    "scatter",
    "scatter_nd",
    "scatter_nd_add",
    "shard_index",
    "t",
    "trace",
    "tril",
    "triu",
    "unique",
    "unique_with_counts",
    "where",
]


# ---- by index ----------------------------------------------------------------------------------
def gather(input: Any, index: Any, overwrite: bool = True) -> Any:
    """Rows `index` ([n] or [n, 1]) of `input`.

    Args:
        overwrite: in the gradient a row picked more than once takes the last of its gradients instead of their sum.
    """
    check_variable_and_dtype(input, "x", ELEMENTS, "gather")
    check_variable_and_dtype(index, "index", INDICES, "gather")
    inputs = {"X": input, "Index": index}
    return append("gather", "gather", inputs, {"overwrite": overwrite}, dtype=input.dtype)


def gather_nd(input: Any, index: Any, name: str | None = None) -> Any:
    """input[index[..., 0], index[..., 1], …]: shape index.shape[:-1] + input.shape[index.shape[-1]:]."""
    check_variable_and_dtype(input, "input", ELEMENTS, "gather_nd")
    check_variable_and_dtype(index, "index", INDICES, "gather_nd")
    return append("gather_nd", "gather_nd", {"X": input, "Index": index}, dtype=input.dtype, name=name)


def scatter(input: Any, index: Any, updates: Any, name: str | None = None, overwrite: bool = True) -> Any:
    """`input` with the rows `index` replaced by `updates`; with overwrite=False set to the sum of theirs."""
    check_variable_and_dtype(input, "input", NUMBERS, "scatter")
    check_variable_and_dtype(index, "index", INDICES, "scatter")
    check_variable(updates, "updates", "scatter")
    inputs = {"X": input, "Ids": index, "Updates": updates}
    return append("scatter", "scatter", inputs, {"overwrite": overwrite}, dtype=input.dtype, name=name)


def scatter_nd_add(ref: Any, index: Any, updates: Any, name: str | None = None) -> Any:
    """`ref` with `updates` added at the places `index`; see :func:`gather_nd`."""
    check_variable_and_dtype(ref, "ref", NUMBERS, "scatter_nd_add")
    check_variable_and_dtype(index, "index", INDICES, "scatter_nd_add")
    check_variable(updates, "updates", "scatter_nd_add")
    if ref.dtype != updates.dtype:
        refuse(
            "scatter_nd_add",
            f"'ref' and 'updates' must have one data type, received {ref.describe()} and {updates.describe()}",
        )
    inputs = {"X": ref, "Index": index, "Updates": updates}
    return append("scatter_nd_add", "scatter_nd_add", inputs, dtype=ref.dtype, name=name)


def scatter_nd(index: Any, updates: Any, shape: Any, name: str | None = None) -> Any:
    """Zeros of `shape` with `updates` added at the places `index`."""
    return scatter_nd_add(zeros(shape, updates.dtype), index, updates, name)


def index_select(input: Any, index: Any, dim: int = 0) -> Any:
    """The elements `index` (1-D) of `input` along `dim`."""
    check_variable_and_dtype(input, "input", NUMBERS, "index_select")
    check_variable_and_dtype(index, "index", INDICES, "index_select")
    inputs = {"X": input, "Index": index}
    return append("index_select", "index_select", inputs, {"dim": dim}, dtype=input.dtype)


def index_sample(x: Any, index: Any) -> Any:
    """x[i, index[i, j]] for every i, j; both 2-D with as many rows."""
    check_variable_and_dtype(x, "x", NUMBERS, "index_sample")
    check_variable_and_dtype(index, "index", INDICES, "index_sample")
    return append("index_sample", "index_sample", {"X": x, "Index": index}, dtype=x.dtype)


def multiplex(inputs: Any, index: Any) -> Any:
    """Row i of inputs[index[i]], for every i; `index` is int32 or int64 [batch, 1]."""
    if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
        refuse("multiplex", "'inputs' must be a list of at least 2 Variables")
    values = check_variables(inputs, "inputs", NUMBERS, "multiplex")
    check_variable_and_dtype(index, "index", INDICES, "multiplex")
    return append("multiplex", "multiplex", {"X": values, "Ids": index}, dtype=values[0].dtype)


def where(condition: Any) -> Any:
    """int64 [n, rank]: the indices of the elements that are not 0."""
    check_variable_and_dtype(condition, "condition", ELEMENTS, "where")
    return append("where_index", "where_index", {"Condition": condition}, dtype="int64", slot="Out")


def nonzero(input: Any, as_tuple: bool = False) -> Any:
    """:func:`where`; with `as_tuple` one [n, 1] tensor a dimension."""
    found = where(input)
    if not as_tuple:
        return found
    rank = len(input.shape)
    if rank <= 1:
        return (found,)
    return tuple(slice_of(found, axes=[1], starts=[i], ends=[i + 1]) for i in range(rank))


def unique(x: Any, dtype: Any = "int32") -> tuple[Any, Any]:
    """(the different values of the vector `x` in order of appearance, the place of each element among them)."""
    check_variable_and_dtype(x, "x", NUMBERS, "unique")
    helper = LayerHelper("unique")
    out = helper.create_variable_for_type_inference(x.dtype)
    index = helper.create_variable_for_type_inference(dtype)
    helper.append_op(
        type="unique", inputs={"X": x}, attrs={"dtype": to_var_type(dtype)}, outputs={"Out": [out], "Index": [index]}
    )
    return out, index


def unique_with_counts(x: Any, dtype: Any = "int32") -> tuple[Any, Any, Any]:
    """:func:`unique`, and how often each value occurs."""
    check_variable_and_dtype(x, "x", NUMBERS, "unique_with_counts")
    check_dtype(dtype, "dtype", INDICES, "unique_with_counts")
    if len(x.shape) != 1:
        refuse("unique_with_counts", f"'x' must have 1 dimension, received {x.describe()}")
    helper = LayerHelper("unique_with_counts")
    out = helper.create_variable_for_type_inference(x.dtype)
    index = helper.create_variable_for_type_inference(dtype)
    count = helper.create_variable_for_type_inference(dtype)
    helper.append_op(
        type="unique_with_counts",
        inputs={"X": x},
        attrs={"dtype": to_var_type(dtype)},
        outputs={"Out": [out], "Index": [index], "Count": [count]},
    )
    return out, index, count


def shard_index(input: Any, index_num: int, nshards: int, shard_id: int, ignore_value: int = -1) -> Any:
    """Indices [..., 1] in the range of shard `shard_id` counted from its beginning; others become `ignore_value`."""
    check_variable_and_dtype(input, "input", INDICES, "shard_index")
    if not 0 <= shard_id < nshards:
        refuse("shard_index", f"'shard_id' must be in [0, {nshards}), received {shard_id}")
    attrs = {"index_num": index_num, "nshards": nshards, "shard_id": shard_id, "ignore_value": ignore_value}
    out = append("shard_index", "shard_index", {"X": [input]}, attrs, dtype=input.dtype)
    return out


def gather_tree(ids: Any, parents: Any) -> Any:
    """The full sequences of a beam search: `ids` [T, batch, beam] followed back from the last step through `parents`."""
    check_variable_and_dtype(ids, "ids", INDICES, "gather_tree")
    check_variable_and_dtype(parents, "parents", INDICES, "gather_tree")
    return append("gather_tree", "gather_tree", {"Ids": ids, "Parents": parents}, dtype=ids.dtype)


# ---- turning -----------------------------------------------------------------------------------
def flip(input: Any, dims: Any, name: str | None = None) -> Any:
    """`input` with its elements in reverse order along the dimensions `dims`."""
    check_type(dims, "dims", (list, tuple), "flip")
    check_variable_and_dtype(input, "input", ("bool", *NUMBERS), "flip")
    helper = LayerHelper("flip", name=name)
    out = (
        helper.create_variable_for_type_inference(input.dtype)
        if name is None
        else helper.create_variable(name=name, dtype=input.dtype)
    )
    helper.append_op(type="flip", inputs={"X": input}, outputs={"Out": out}, attrs={"dims": list(dims)})
    return out


def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """`input` rolled by `shifts` places along `dims` (without `dims`: as if it were flat)."""
    check_variable_and_dtype(input, "input", NUMBERS, "roll")
    helper = LayerHelper("roll")
    shape = list(input.shape)
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else dims
    if dims is not None and len(dims) != len(shifts):
        refuse("roll", f"'shifts' and 'dims' must have one length, received {shifts} and {list(dims)}")
    source = input
    if dims is None:
        source, dims = reshape(input, shape=[-1, 1]), [0]
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type="roll", inputs={"X": source}, outputs={"Out": out}, attrs={"dims": list(dims), "shifts": shifts})
    return reshape(out, shape=shape, inplace=True)


def t(input: Any, name: str | None = None) -> Any:
    """The transpose of a matrix; a vector is returned as it is."""
    check_variable_and_dtype(input, "input", NUMBERS, "t")
    if len(input.shape) > 2:
        refuse("t", f"'input' must have at most 2 dimensions, received {input.describe()}; use transpose")
    if len(input.shape) < 2:
        return input
    return with_xshape("t", "transpose2", {"X": [input]}, {"axis": [1, 0]}, input, name)


def _triangle(layer: str, input: Any, diagonal: int, lower: bool, name: str | None) -> Any:
    check_variable_and_dtype(input, "x", NUMBERS, layer)
    if len(input.shape) < 2:
        refuse(layer, f"'input' must have at least 2 dimensions, received {input.describe()}")
    check_type(diagonal, "diagonal", (int,), layer)
    helper = LayerHelper(layer, name=name)
    out = helper.create_variable(name=helper.name, dtype=input.dtype)
    attrs = {"diagonal": diagonal, "lower": lower}
    helper.append_op(type="tril_triu", inputs={"X": input}, attrs=attrs, outputs={"Out": out})
    return out


def tril(input: Any, diagonal: int = 0, name: str | None = None) -> Any:
    """The lower triangle of each matrix, up to `diagonal` above the main one; zeros elsewhere."""
    return _triangle("tril", input, diagonal, True, name)


def triu(input: Any, diagonal: int = 0, name: str | None = None) -> Any:
    """The upper triangle of each matrix, from `diagonal` above the main one; zeros elsewhere."""
    return _triangle("triu", input, diagonal, False, name)


def trace(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1, out: Any = None, name: str | None = None) -> Any:
    """Sums of the diagonals (`offset` above the main one) of the matrices over `dim1` and `dim2`."""
    check_variable_and_dtype(input, "input", NUMBERS, "trace")
    rank = len(input.shape)
    if rank < 2:
        refuse("trace", f"'input' must have at least 2 dimensions, received {input.describe()}")
    for value, argument in ((dim1, "dim1"), (dim2, "dim2")):
        if not -rank <= value < rank:
            refuse("trace", f"'{argument}' must be in [{-rank}, {rank}), received {value}")
    if dim1 % rank == dim2 % rank:
        refuse("trace", f"'dim1' and 'dim2' must differ, received {dim1} and {dim2}")
    attrs = {"offset": offset, "dim1": dim1, "dim2": dim2}
    return append("trace", "trace", {"Input": [input]}, attrs, dtype=input.dtype, out=out, name=name)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices over the new dimensions `dim1`, `dim2` whose diagonal (`offset` above the main one) is the last dimension."""
    check_type_of_value(input, "input", "diag_embed")
    helper = LayerHelper("diag_embed")
    if not hasattr(input, "block") and not hasattr(input, "_ivar"):
        input = assign(input)
    attrs = {"offset": offset, "dim1": dim1, "dim2": dim2}
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type="diag_embed", inputs={"Input": [input]}, attrs=attrs, outputs={"Out": [out]})
    out.stop_gradient = True
    return out


def meshgrid(input: Any, name: str | None = None) -> list[Any]:
    """k tensors of shape [n_1, …, n_k] from k vectors; tensor i varies along dimension i."""
    values = check_variables(input, "input", NUMBERS, "meshgrid")
    helper = LayerHelper("meshgrid", name=name)
    outs = [helper.create_variable_for_type_inference(v.dtype) for v in values]
    helper.append_op(type="meshgrid", inputs={"X": values}, outputs={"Out": outs}, attrs={})
    return outs


def allclose(
    input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False, name: str | None = None
) -> Any:
    """Whether |input - other| <= atol + rtol * |other| everywhere: bool, shape [1]."""
    check_variable_and_dtype(input, "input", ("float32", "float64"), "allclose")
    check_variable_and_dtype(other, "other", ("float32", "float64"), "allclose")
    attrs = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan}
    return append("allclose", "allclose", {"Input": input, "Other": other}, attrs, dtype="bool", name=name)


# ---- constants ---------------------------------------------------------------------------------
def full(
    shape: Any,
    fill_value: Any,
    out: Any = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Any:
    """A tensor of `shape` filled with `fill_value`; `dtype` float32 by default; `device` has no meaning."""
    dtype = check_dtype("float32" if dtype is None else dtype, "dtype", ("bool", *NUMBERS), "full")
    helper = LayerHelper("full", name=name)
    if out is None:
        out = helper.create_variable_for_type_inference(dtype)
    else:
        check_variable(out, "out", "full")
    out = fill_constant(shape, dtype, fill_value, out=out)
    out.stop_gradient = stop_gradient
    return out


def full_like(
    input: Any,
    fill_value: Any,
    out: Any = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Any:
    """`fill_value` in the shape of `input`; `dtype` is input's by default; `device` has no meaning."""
    check_variable(input, "input", "full_like")
    target = input.dtype if dtype is None else to_var_type(dtype)
    attrs = {"value": float(fill_value), "dtype": target}
    out = append("full_like", "fill_any_like", {"X": input}, attrs, dtype=target, out=out, name=name)
    out.stop_gradient = stop_gradient
    return out


def arange(start: Any, end: Any, step: Any = 1, dtype: Any = None, name: str | None = None) -> Any:
    """start, start + step, … below `end`; `dtype` float32 by default."""
    return named_range(start, end, step, "float32" if dtype is None else dtype, name)


def rank(input: Any) -> Any:
    """The number of dimensions, int32."""
    check_variable(input, "input", "rank")
    return assign(np.array(len(input.shape), "int32"))


# ---- sparse rows -------------------------------------------------------------------------------
def merge_selected_rows(x: Any, name: str | None = None) -> Any:
    """SelectedRows whose repeated rows are summed into one."""
    helper = LayerHelper("merge_selected_rows", name=name)
    check_variable(x, "x", "merge_selected_rows")
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="merge_selected_rows", inputs={"X": x}, outputs={"Out": out}, attrs={})
    return out


def get_tensor_from_selected_rows(x: Any, name: str | None = None) -> Any:
    """The values of SelectedRows, without their row numbers."""
    check_variable(x, "x", "get_tensor_from_selected_rows")
    helper = LayerHelper("get_tensor_from_selected_rows", name=name)
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="get_tensor_from_selected_rows", inputs={"X": x}, outputs={"Out": out}, attrs={})
    return out
