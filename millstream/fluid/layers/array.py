"""Layers over LoDTensorArrays and rank tables."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers import _eager
from millstream.fluid.layers._eager import eager_form
from millstream.ir import names
from millstream.ir.types import VarType
from millstream.ir.variable import Variable

__all__ = [
    "array_length",
    "array_read",
    "array_to_lod_tensor",
    "array_write",
    "create_array",
    "lod_rank_table",
    "lod_tensor_to_array",
    "max_sequence_len",
    "merge_lod_tensor",
    "reorder_lod_tensor_by_rank",
    "select_input",
    "select_output",
    "shrink_memory",
    "split_lod_tensor",
    "tensor_array_to_tensor",
]


def _check_array(array: Any, layer: str) -> None:
    if not isinstance(array, Variable) or array.type is not VarType.LOD_TENSOR_ARRAY:
        what = array.describe() if isinstance(array, Variable) else type(array).__name__
        raise TypeError(f"{layer}: array must be a LoDTensorArray Variable (create_array, array_write), received {what}")


def _check_index(i: Any, layer: str) -> None:
    if not isinstance(i, Variable) or i.dtype not in (VarType.INT64, VarType.INT32):
        what = i.describe() if isinstance(i, Variable) else type(i).__name__
        raise TypeError(f"{layer}: the index i must be an int64 Variable of one element, received {what}")
    if i.has_shape and i.shape not in ((1,), (-1,), ()):
        raise ValueError(f"{layer}: the index i must have shape [1], received {i.describe()}")


@eager_form(_eager.create_array)
def create_array(dtype: Any) -> Variable:
    """An empty LoDTensorArray whose elements have type `dtype`."""
    helper = LayerHelper("array", **locals())
    return helper.create_variable(name=f"{helper.name}.out", type=VarType.LOD_TENSOR_ARRAY, dtype=dtype)


@eager_form(_eager.array_write)
def array_write(x: Variable, i: Variable, array: Variable | None = None) -> Variable:
    """Write `x` to element `i` of `array` (a new array when None); returns the array."""
    helper = LayerHelper("array_write", **locals())
    _check_index(i, "array_write")
    if array is None:
        array = helper.create_variable(name=f"{helper.name}.out", type=VarType.LOD_TENSOR_ARRAY, dtype=x.dtype)
    else:
        _check_array(array, "array_write")
    helper.append_op(type="write_to_array", inputs={"X": [x], "I": [i]}, outputs={"Out": [array]})
    return array


@eager_form(_eager.array_read)
def array_read(array: Variable, i: Variable) -> Variable:
    """Element `i` of `array`."""
    helper = LayerHelper("array_read", **locals())
    _check_array(array, "array_read")
    _check_index(i, "array_read")
    out = helper.create_variable_for_type_inference(dtype=array.dtype)
    helper.append_op(type="read_from_array", inputs={"X": [array], "I": [i]}, outputs={"Out": [out]})
    return out


@eager_form(_eager.array_length)
def array_length(array: Variable) -> Variable:
    """Number of elements: int64 [1]."""
    helper = LayerHelper("array_length", **locals())
    _check_array(array, "array_length")
    out = helper.create_variable_for_type_inference(dtype="int64")
    out.stop_gradient = True
    helper.append_op(type="lod_array_length", inputs={"X": [array]}, outputs={"Out": [out]})
    return out


@eager_form(_eager.tensor_array_to_tensor)
def tensor_array_to_tensor(
    input: Variable, axis: int = 1, name: str | None = None, use_stack: bool = False
) -> tuple[Variable, Variable]:
    """(elements concatenated, or stacked, along `axis`; int32 sizes of each along it)."""
    helper = LayerHelper("tensor_array_to_tensor", **locals())
    _check_array(input, "tensor_array_to_tensor")
    out = helper.create_variable_for_type_inference(dtype=input.dtype)
    index = helper.create_variable_for_type_inference(dtype="int32")
    helper.append_op(
        type="tensor_array_to_tensor",
        inputs={"X": [input]},
        outputs={"Out": [out], "OutIndex": [index]},
        attrs={"axis": axis, "use_stack": use_stack},
    )
    return out, index


def lod_rank_table(x: Variable, level: int = 0) -> Variable:
    """Sequences of `x` at LoD `level`, longest first."""
    helper = LayerHelper("lod_rank_table", **locals())
    table = helper.create_variable(type=VarType.LOD_RANK_TABLE, name=names.generate("lod_rank_table"))
    helper.append_op(type="lod_rank_table", inputs={"X": x}, outputs={"Out": table}, attrs={"level": level})
    return table


def max_sequence_len(rank_table: Variable) -> Variable:
    """Length of the longest sequence: int64 [1]."""
    helper = LayerHelper("max_seqence_len", **locals())
    out = helper.create_variable_for_type_inference(dtype="int64")
    helper.append_op(type="max_sequence_len", inputs={"RankTable": rank_table}, outputs={"Out": out})
    return out


def lod_tensor_to_array(x: Variable, table: Variable) -> Variable:
    """One array element a time step, longest sequences first."""
    helper = LayerHelper("lod_tensor_to_array", **locals())
    array = helper.create_variable(
        name=names.generate("lod_tensor_to_array"), type=VarType.LOD_TENSOR_ARRAY, dtype=x.dtype
    )
    helper.append_op(type="lod_tensor_to_array", inputs={"X": x, "RankTable": table}, outputs={"Out": array})
    return array


def array_to_lod_tensor(x: Variable, table: Variable) -> Variable:
    """The inverse of lod_tensor_to_array."""
    helper = LayerHelper("array_to_lod_tensor", **locals())
    out = helper.create_variable_for_type_inference(dtype=x.dtype)
    helper.append_op(type="array_to_lod_tensor", inputs={"X": x, "RankTable": table}, outputs={"Out": out})
    return out


def reorder_lod_tensor_by_rank(x: Variable, rank_table: Variable) -> Variable:
    """Sequences (rows, without LoD) of `x` in the order of `rank_table`."""
    helper = LayerHelper("reorder_lod_tensor_by_rank", **locals())
    helper.is_instance("x", Variable)
    helper.is_instance("rank_table", Variable)
    out = helper.create_variable_for_type_inference(dtype=x.dtype)
    helper.append_op(
        type="reorder_lod_tensor_by_rank", inputs={"X": [x], "RankTable": [rank_table]}, outputs={"Out": [out]}
    )
    return out


def shrink_memory(x: Variable, i: Variable, table: Variable) -> Variable:
    """The first rows of `x`: those of sequences still active at step `i`."""
    helper = LayerHelper("shrink_memory", **locals())
    out = helper.create_variable_for_type_inference(dtype=x.dtype)
    helper.append_op(
        type="shrink_rnn_memory", inputs={"X": [x], "I": [i], "RankTable": [table]}, outputs={"Out": [out]}, attrs={}
    )
    return out


def split_lod_tensor(input: Variable, mask: Variable, level: int = 0) -> tuple[Variable, Variable]:
    """Rows (sequences of `level`) where `mask` holds, and the others."""
    helper = LayerHelper("split_lod_tensor", **locals())
    true = helper.create_variable_for_type_inference(dtype=input.dtype)
    false = helper.create_variable_for_type_inference(dtype=input.dtype)
    helper.append_op(
        type="split_lod_tensor",
        inputs={"X": input, "Mask": mask},
        outputs={"OutTrue": true, "OutFalse": false},
        attrs={"level": level},
    )
    return true, false


def merge_lod_tensor(in_true: Variable, in_false: Variable, x: Variable, mask: Variable, level: int = 0) -> Variable:
    """The inverse of split_lod_tensor; `x` gives the LoD of the result."""
    helper = LayerHelper("merge_lod_tensor", **locals())
    out = helper.create_variable_for_type_inference(dtype=in_true.dtype)
    helper.append_op(
        type="merge_lod_tensor",
        inputs={"X": x, "Mask": mask, "InTrue": in_true, "InFalse": in_false},
        outputs={"Out": out},
        attrs={"level": level},
    )
    return out


def select_input(inputs: list[Variable], mask: Variable) -> Variable:
    """inputs[mask], `mask` an int32 Variable of one element."""
    helper = LayerHelper("select_input", **locals())
    first = inputs[0]
    out = helper.create_variable(
        name=names.generate("_generated_var"), dtype=first.dtype, shape=first.shape, type=first.type
    )
    helper.append_op(type="select_input", inputs={"X": inputs, "Mask": mask}, outputs={"Out": out})
    return out


def select_output(input: Variable, outputs: list[Variable], mask: Variable) -> list[Variable]:
    """Give `input` to outputs[mask]."""
    helper = LayerHelper("select_output", **locals())
    helper.append_op(type="select_output", inputs={"X": input, "Mask": mask}, outputs={"Out": outputs})
    return outputs
