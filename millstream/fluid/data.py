"""``fluid.data``."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_type
from millstream.ir.types import VarType

__all__ = ["data"]


def data(name: str, shape: Any, dtype: Any = "float32", lod_level: int = 0) -> Any:
    """An input that each run is fed; its shape and dtype are checked then.

    Args:
        shape: all dimensions; None or -1: any size.
        lod_level: levels of variable-length structure.
    """
    check_type(name, "name", (str, bytes), "data")
    check_type(shape, "shape", (list, tuple), "data")
    name = name.decode() if isinstance(name, bytes) else name
    return LayerHelper("data", name=name).create_global_variable(
        name=name,
        shape=[-1 if d is None else int(d) for d in shape],
        dtype=dtype,
        type=VarType.LOD_TENSOR,
        lod_level=lod_level,
        is_data=True,
        need_check_feed=True,
    )
