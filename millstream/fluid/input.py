"""``fluid.one_hot`` and ``fluid.embedding``: the forms without a trailing dimension of 1."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import INDICES, check_variable_and_dtype, is_variable
from millstream.fluid.layers.nn.dense import lookup

__all__ = ["embedding", "one_hot"]


def one_hot(input: Any, depth: Any, allow_out_of_range: bool = False) -> Any:
    """float32 [*input.shape, depth] with a 1 at each index.

    Args:
        depth: an int, or an int32 Variable of shape [1].
        allow_out_of_range: an index outside [0, depth) gives zeros instead of an error.
    """
    check_variable_and_dtype(input, "input", INDICES, "one_hot")
    return one_hot_of("one_hot_v2", input, depth, allow_out_of_range)


def one_hot_of(op_type: str, input: Any, depth: Any, allow_out_of_range: bool) -> Any:
    """Append the operator, with a fixed or a computed depth."""
    inputs = {"X": input}
    attrs: dict[str, Any] = {"allow_out_of_range": allow_out_of_range}
    if is_variable(depth):
        depth.stop_gradient = True
        inputs["depth_tensor"] = depth
    else:
        attrs["depth"] = int(depth)
    return append(op_type, op_type, inputs, attrs, dtype="float32")


def embedding(
    input: Any,
    size: Any,
    is_sparse: bool = False,
    is_distributed: bool = False,
    padding_idx: int | None = None,
    param_attr: Any = None,
    dtype: Any = "float32",
) -> Any:
    """Rows of a table for the ids `input` [...]; the result is [..., width]. See ``fluid.layers.embedding``."""
    return lookup("lookup_table_v2", input, size, is_sparse, is_distributed, padding_idx, param_attr, dtype)
