"""Layers over variable-length sequences (LoD tensors)."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    INDICES,
    NUMBERS,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.fluid.layers._former import inserted
from millstream.fluid.param_attr import ParamAttr
from millstream.ir.types import to_var_type

__all__ = [
    "filter_by_instag",
    "hash",
    "im2sequence",
    "lod_append",
    "lod_reset",
    "row_conv",
    "sequence_concat",
    "sequence_conv",
    "sequence_enumerate",
    "sequence_expand",
    "sequence_expand_as",
    "sequence_first_step",
    "sequence_last_step",
    "sequence_mask",
    "sequence_pad",
    "sequence_pool",
    "sequence_reshape",
    "sequence_reverse",
    "sequence_scatter",
    "sequence_slice",
    "sequence_softmax",
    "sequence_unpad",
]

_POOLS = ("average", "sum", "sqrt", "max", "last", "first")


def sequence_pool(input: Any, pool_type: str, is_test: bool = False, pad_value: float = 0.0) -> Any:
    """One row for each sequence of the last LoD level: average, sum, sqrt (sum / sqrt(length)), max, first or last.

    Args:
        input: float rows with LoD level >= 1; the result has one level less.
        is_test: max does not remember which rows won.
        pad_value: the row of an empty sequence.
    """
    check_variable_and_dtype(input, "input", FLOATS, "sequence_pool")
    if not isinstance(pool_type, str) or pool_type.lower() not in _POOLS:
        refuse("sequence_pool", f"pool_type must be one of {', '.join(_POOLS)}, received {pool_type!r}")
    helper = LayerHelper("sequence_pool")
    out = helper.create_variable_for_type_inference(input.dtype)
    max_index = helper.create_variable_for_type_inference("int32")
    helper.append_op(
        type="sequence_pool",
        inputs={"X": input},
        outputs={"Out": out, "MaxIndex": max_index},
        attrs={"pooltype": pool_type.upper(), "is_test": is_test, "pad_value": pad_value},
    )
    if pool_type.lower() == "max":
        max_index.stop_gradient = True
    return out


def sequence_first_step(input: Any) -> Any:
    """The first row of each sequence."""
    return sequence_pool(input=input, pool_type="first")


def sequence_last_step(input: Any) -> Any:
    """The last row of each sequence."""
    return sequence_pool(input=input, pool_type="last")


def sequence_softmax(input: Any, use_cudnn: bool = False, name: str | None = None) -> Any:
    """Softmax within each sequence of a column [rows, 1]. `use_cudnn` has no meaning here."""
    check_variable_and_dtype(input, "input", FLOATS, "sequence_softmax")
    return append(
        "sequence_softmax", "sequence_softmax", {"X": input}, {"use_cudnn": use_cudnn}, dtype=input.dtype, name=name
    )


@inserted(5, (bool, str, ParamAttr))
def sequence_conv(
    input: Any,
    num_filters: int,
    filter_size: int = 3,
    filter_stride: int = 1,
    padding: bool = True,
    padding_start: int | None = None,
    bias_attr: Any = None,
    param_attr: Any = None,
    act: Any = None,
    name: str | None = None,
) -> Any:
    """Convolution over the rows of each sequence; rows beyond its ends count as zeros.

    Args:
        num_filters: width of the output.
        filter_size: rows seen at once; the weight is [filter_size * d, num_filters].
        filter_stride: only 1.
        padding: has no meaning (the output always has the input's rows).
        padding_start: offset of the first row seen; -(filter_size // 2) when None.
    """
    check_variable_and_dtype(input, "input", FLOATS, "sequence_conv")
    if filter_stride != 1:
        refuse("sequence_conv", f"filter_stride must be 1, received {filter_stride}")
    helper = LayerHelper("sequence_conv", input=input, bias_attr=bias_attr, param_attr=param_attr, act=act, name=name)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[filter_size * input.shape[1], num_filters], dtype=input.dtype
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="sequence_conv",
        inputs={"X": [input], "Filter": [weight]},
        outputs={"Out": out},
        attrs={
            "contextStride": filter_stride,
            "contextStart": -int(filter_size // 2) if padding_start is None else padding_start,
            "contextLength": filter_size,
        },
    )
    return helper.append_activation(helper.append_bias_op(out))


def sequence_expand(x: Any, y: Any, ref_level: int = -1, name: str | None = None) -> Any:
    """Each sequence (row) of `x` repeated as often as the LoD of `y` at `ref_level` says."""
    check_variable_and_dtype(x, "x", NUMBERS, "sequence_expand")
    check_variable(y, "y", "sequence_expand")
    return append("sequence_expand", "sequence_expand", {"X": x, "Y": y}, {"ref_level": ref_level}, dtype=x.dtype, name=name)


def sequence_expand_as(x: Any, y: Any, name: str | None = None) -> Any:
    """Row i of `x` repeated as long as sequence i of `y`."""
    check_variable_and_dtype(x, "x", NUMBERS, "sequence_expand_as")
    check_variable(y, "y", "sequence_expand_as")
    return append("sequence_expand_as", "sequence_expand_as", {"X": x, "Y": y}, dtype=x.dtype, name=name)


def sequence_concat(input: Any, name: str | None = None) -> Any:
    """Sequence i of the result is the sequences i of all inputs, one after another."""
    if not isinstance(input, (list, tuple)):
        refuse_type("sequence_concat", f"'input' must be a list of Variables, received {type(input).__name__}")
    for each in input:
        check_variable_and_dtype(each, "input", ELEMENTS, "sequence_concat")
    return append("sequence_concat", "sequence_concat", {"X": list(input)}, dtype=input[0].dtype, name=name)


def sequence_reshape(input: Any, new_dim: int) -> Any:
    """Rows of width `new_dim`; each sequence keeps its numbers."""
    check_variable_and_dtype(input, "input", NUMBERS, "sequence_reshape")
    return append("sequence_reshape", "sequence_reshape", {"X": [input]}, {"new_dim": new_dim}, dtype=input.dtype)


def sequence_reverse(x: Any, name: str | None = None) -> Any:
    """Each sequence back to front."""
    check_variable_and_dtype(x, "x", (*NUMBERS, "int8", "uint8"), "sequence_reverse")
    return append("sequence_reverse", "sequence_reverse", {"X": x}, dtype=x.dtype, slot="Y", name=name)


def sequence_slice(input: Any, offset: Any, length: Any, name: str | None = None) -> Any:
    """Rows [offset, offset + length) of each sequence; `offset` and `length` are [sequences, 1] integers."""
    check_variable_and_dtype(input, "input", NUMBERS, "sequence_slice")
    check_variable_and_dtype(offset, "offset", INDICES, "sequence_slice")
    check_variable_and_dtype(length, "length", INDICES, "sequence_slice")
    offset.stop_gradient = True
    length.stop_gradient = True
    inputs = {"X": input, "Offset": offset, "Length": length}
    return append("sequence_slice", "sequence_slice", inputs, dtype=input.dtype, name=name)


def sequence_pad(x: Any, pad_value: Any, maxlen: int | None = None, name: str | None = None) -> tuple[Any, Any]:
    """(dense [sequences, maxlen, …] padded with `pad_value`, int64 lengths [sequences]).

    Args:
        pad_value: a Variable of one element or one row.
        maxlen: length of the result; the longest sequence when None.
    """
    check_variable_and_dtype(x, "x", NUMBERS, "sequence_pad")
    check_variable_and_dtype(pad_value, "pad_value", NUMBERS, "sequence_pad")
    helper = LayerHelper("sequence_pad", name=name)
    out = helper.create_variable_for_type_inference(x.dtype)
    length = helper.create_variable_for_type_inference("int64")
    pad_value.stop_gradient = True
    length.stop_gradient = True
    helper.append_op(
        type="sequence_pad",
        inputs={"X": x, "PadValue": pad_value},
        outputs={"Out": out, "Length": length},
        attrs={"padded_length": -1 if maxlen is None else maxlen},
    )
    return out, length


def sequence_unpad(x: Any, length: Any, name: str | None = None) -> Any:
    """The inverse of sequence_pad: the first length[i] rows of x[i], as sequences."""
    check_variable_and_dtype(x, "x", NUMBERS, "sequence_unpad")
    check_variable_and_dtype(length, "length", ("int64",), "sequence_unpad")
    length.stop_gradient = True
    return append("sequence_unpad", "sequence_unpad", {"X": x, "Length": length}, dtype=x.dtype, name=name)


def sequence_mask(x: Any, maxlen: Any = None, dtype: Any = "int64", name: str | None = None) -> Any:
    """mask[…, j] = j < x[…]; `maxlen` is an int, a Variable, or None for the largest x."""
    check_variable(x, "x", "sequence_mask")
    inputs = {"X": [x]}
    attrs: dict[str, Any] = {"out_dtype": to_var_type(dtype)}
    if maxlen is not None and is_variable(maxlen):
        inputs["MaxLenTensor"] = maxlen
    else:
        attrs["maxlen"] = -1 if maxlen is None else maxlen
    return append("sequence_mask", "sequence_mask", inputs, attrs, dtype=dtype, slot="Y", name=name, stop_gradient=True)


def sequence_enumerate(input: Any, win_size: int, pad_value: int = 0, name: str | None = None) -> Any:
    """Row i: the ids i … i + win_size - 1 of the same sequence, `pad_value` beyond its end."""
    check_variable_and_dtype(input, "input", INDICES, "sequence_enumerate")
    return append(
        "sequence_enumerate",
        "sequence_enumerate",
        {"X": input},
        {"win_size": win_size, "pad_value": pad_value},
        dtype=input.dtype,
        name=name,
        stop_gradient=True,
    )


def sequence_scatter(input: Any, index: Any, updates: Any, name: str | None = None) -> Any:
    """`input` with updates added: row i gets, at the columns of sequence i of `index`, that sequence of `updates`."""
    check_variable_and_dtype(input, "input", NUMBERS, "sequence_scatter")
    check_variable_and_dtype(index, "index", INDICES, "sequence_scatter")
    check_variable(updates, "updates", "sequence_scatter")
    inputs = {"X": input, "Ids": index, "Updates": updates}
    return append("sequence_scatter", "sequence_scatter", inputs, dtype=input.dtype, name=name)


def lod_reset(x: Any, y: Any = None, target_lod: Any = None) -> Any:
    """`x` with the LoD of `y` (or the offsets that `y` holds), or with `target_lod` (offsets of one level)."""
    check_variable_and_dtype(x, "x", NUMBERS, "lod_reset")
    if y is not None:
        check_variable(y, "y", "lod_reset")
        return append("lod_reset", "lod_reset", {"X": x, "Y": y}, dtype=x.dtype)
    if target_lod is None:
        refuse("lod_reset", "give y or target_lod")
    return append("lod_reset", "lod_reset", {"X": x}, {"target_lod": list(target_lod)}, dtype=x.dtype)


def lod_append(x: Any, level: Any) -> Any:
    """`x` with one more LoD level below those it has: a list of offsets, or the last level of a Variable."""
    check_variable(x, "x", "lod_append")
    if is_variable(level):
        return append("lod_append", "lod_reset", {"X": x, "Y": level}, {"append": True}, dtype=x.dtype)
    if not isinstance(level, (list, tuple)):
        refuse_type("lod_append", f"'level' must be a list of ints or a Variable, received {type(level).__name__}")
    return append("lod_append", "lod_reset", {"X": x}, {"append": True, "target_lod": list(level)}, dtype=x.dtype)


def row_conv(input: Any, future_context_size: int, param_attr: Any = None, act: Any = None) -> Any:
    """Each row becomes a weighted sum of itself and the next `future_context_size` rows (Deep Speech 2, 2015)."""
    check_variable_and_dtype(input, "input", FLOATS, "row_conv")
    helper = LayerHelper("row_conv", input=input, param_attr=param_attr, act=act)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[future_context_size + 1, input.shape[-1]], dtype=input.dtype
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type="row_conv", inputs={"X": [input], "Filter": [weight]}, outputs={"Out": [out]})
    return helper.append_activation(out)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def im2sequence(
    input: Any,
    filter_size: Any = 1,
    stride: Any = 1,
    padding: Any = 0,
    input_image_size: Any = None,
    out_stride: Any = 1,
    name: str | None = None,
) -> Any:
    """Each image [C, H, W] as a sequence of its patches, flattened, row by row.

    Args:
        padding: int, (vertical, horizontal), or (up, left, down, right).
        input_image_size: real sizes [batch, 2]; then `out_stride` says by how much the image was reduced.
    """
    check_variable_and_dtype(input, "input", FLOATS, "im2sequence")
    pads = _pair(padding)
    attrs = {
        "kernels": _pair(filter_size),
        "strides": _pair(stride),
        "paddings": pads * 2 if len(pads) == 2 else pads,
    }
    inputs = {"X": input}
    if input_image_size is not None:
        inputs["Y"] = input_image_size
        attrs["out_stride"] = _pair(out_stride)
    return append("im2sequence", "im2sequence", inputs, attrs, dtype=input.dtype, name=name)


def hash(input: Any, hash_size: int, num_hash: int = 1, name: str | None = None) -> Any:
    """`num_hash` XXH64 hashes of each row, modulo `hash_size`: int64 [rows, num_hash, 1]."""
    check_variable_and_dtype(input, "input", INDICES, "hash")
    attrs = {"num_hash": num_hash, "mod_by": hash_size}
    return append("hash", "hash", {"X": input}, attrs, dtype=input.dtype, name=name, stop_gradient=True)


def filter_by_instag(ins: Any, ins_tag: Any, filter_tag: Any, is_lod: bool, out_val_if_empty: int = 0) -> list[Any]:
    """[instances that carry one of the tags in `filter_tag`, loss weight of each]; the weight is 0 when none is left."""
    check_variable(ins, "ins", "filter_by_instag")
    check_variable_and_dtype(ins_tag, "ins_tag", ("int64",), "filter_by_instag")
    check_variable_and_dtype(filter_tag, "filter_tag", ("int64",), "filter_by_instag")
    helper = LayerHelper("filter_by_instag")
    out = helper.create_variable_for_type_inference(ins.dtype)
    weight = helper.create_variable_for_type_inference("float64")
    index = helper.create_variable_for_type_inference("int64")
    helper.append_op(
        type="filter_by_instag",
        inputs={"Ins": ins, "Ins_tag": ins_tag, "Filter_tag": filter_tag},
        outputs={"Out": out, "LossWeight": weight, "IndexMap": index},
        attrs={"is_lod": is_lod, "out_val_if_empty": out_val_if_empty},
    )
    return [out, weight]
