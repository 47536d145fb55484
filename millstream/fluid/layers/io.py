"""Inputs of a Program."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_type
from millstream.ir.types import VarType

__all__ = ["data"]


def data(
    name: str,
    shape: Any,
    append_batch_size: bool = True,
    dtype: Any = "float32",
    lod_level: int = 0,
    type: VarType = VarType.LOD_TENSOR,
    stop_gradient: bool = True,
) -> Any:
    """An input that each run is fed.

    Args:
        shape: without the batch dimension, unless `append_batch_size` is False or some dimension is None or -1.
        lod_level: levels of variable-length structure.
        type: kind of variable; LOD_TENSOR unless it is written by an operator.

    What is fed may have any shape; use ``fluid.data`` to have it checked.
    """
    check_type(name, "name", (str, bytes), "data")
    check_type(shape, "shape", (list, tuple), "data")
    name = name.decode() if isinstance(name, bytes) else name
    dims = [-1 if d is None else int(d) for d in shape]
    if append_batch_size and all(d >= 0 for d in dims):
        dims = [-1, *dims]
    var = LayerHelper("data", name=name).create_global_variable(
        name=name, shape=dims, dtype=dtype, type=type, lod_level=lod_level, is_data=True
    )
    var.stop_gradient = stop_gradient
    return var
