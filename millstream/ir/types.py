"""Data types and variable kinds, with the numbers that the serialized form uses."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from millstream.errors import AttributeTypeError


class VarType(IntEnum):
    """``framework.proto VarType.Type``: element types and kinds of variables in one enumeration."""

    BOOL = 0
    INT16 = 1
    INT32 = 2
    INT64 = 3
    FP16 = 4
    FP32 = 5
    FP64 = 6
    LOD_TENSOR = 7
    SELECTED_ROWS = 8
    FEED_MINIBATCH = 9
    FETCH_LIST = 10
    STEP_SCOPES = 11
    LOD_RANK_TABLE = 12
    LOD_TENSOR_ARRAY = 13
    PLACE_LIST = 14
    READER = 15
    RAW = 17
    TUPLE = 18
    SIZE_T = 19
    UINT8 = 20
    INT8 = 21
    BF16 = 22

    def __str__(self) -> str:
        return f"VarType.{self.name}"

    __repr__ = __str__


class AttrType(IntEnum):
    """``framework.proto AttrType``."""

    INT = 0
    FLOAT = 1
    STRING = 2
    INTS = 3
    FLOATS = 4
    STRINGS = 5
    BOOLEAN = 6
    BOOLEANS = 7
    BLOCK = 8
    LONG = 9
    BLOCKS = 10
    LONGS = 11

    def __str__(self) -> str:
        return f"AttrType.{self.name}"

    __repr__ = __str__


_NAME_TO_TYPE = {
    "bool": VarType.BOOL,
    "int16": VarType.INT16,
    "int32": VarType.INT32,
    "int64": VarType.INT64,
    "float16": VarType.FP16,
    "float32": VarType.FP32,
    "float64": VarType.FP64,
    "uint8": VarType.UINT8,
    "int8": VarType.INT8,
    "bfloat16": VarType.BF16,
}
_TYPE_TO_NAME: dict[int, str] = {t: n for n, t in _NAME_TO_TYPE.items()}
FLOATING = frozenset({VarType.FP16, VarType.FP32, VarType.FP64, VarType.BF16})


def to_var_type(dtype: Any) -> VarType:
    """The :class:`VarType` of a dtype given as name, numpy dtype, python type or enum number.

    Raises:
        AttributeTypeError: the value names no supported element type.
    """
    if isinstance(dtype, VarType):
        return dtype
    if isinstance(dtype, str):
        found = _NAME_TO_TYPE.get(dtype)
        if found is not None:
            return found
    elif isinstance(dtype, int) and not isinstance(dtype, bool):
        return VarType(dtype)
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    found = _NAME_TO_TYPE.get(name)
    if found is None:
        raise AttributeTypeError(f"unknown data type {dtype!r}; expected one of {', '.join(_NAME_TO_TYPE)}")
    return found


def dtype_name(dtype: VarType | int) -> str:
    """``VarType.FP32 -> "float32"``; kinds that are not element types give the enum name in lower case."""
    found = _TYPE_TO_NAME.get(dtype)
    return found if found is not None else VarType(dtype).name.lower()


def to_numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """The numpy dtype of an element type (bfloat16 has none and raises)."""
    t = to_var_type(dtype)
    if t is VarType.BF16 or t not in _TYPE_TO_NAME:
        raise AttributeTypeError(f"{dtype_name(t)} has no numpy dtype")
    return np.dtype(_TYPE_TO_NAME[t])


def is_block(value: Any) -> bool:
    """Whether an attribute value is a Block."""
    return hasattr(value, "parent_idx")


def implied_attr_type(value: Any) -> AttrType | None:
    """The attribute type that a Python value suggests: an empty list is INTS, an int beyond 32 bits LONG; None: no type."""
    if isinstance(value, (bool, np.bool_)):
        return AttrType.BOOLEAN
    if isinstance(value, (int, np.integer)):
        return AttrType.INT if -(1 << 31) <= value < 1 << 31 else AttrType.LONG
    if isinstance(value, (float, np.floating)):
        return AttrType.FLOAT
    if isinstance(value, (str, bytes)):
        return AttrType.STRING
    if is_block(value):
        return AttrType.BLOCK
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if not isinstance(value, (list, tuple)):
        return None
    kinds = {implied_attr_type(v) for v in value}
    if not kinds:
        return AttrType.INTS
    if kinds == {AttrType.INT, AttrType.LONG}:
        return AttrType.LONGS
    if kinds == {AttrType.INT, AttrType.FLOAT}:
        return AttrType.FLOATS
    return _PLURAL.get(next(iter(kinds))) if len(kinds) == 1 else None


_PLURAL: dict[AttrType | None, AttrType] = {
    AttrType.BOOLEAN: AttrType.BOOLEANS,
    AttrType.INT: AttrType.INTS,
    AttrType.LONG: AttrType.LONGS,
    AttrType.FLOAT: AttrType.FLOATS,
    AttrType.STRING: AttrType.STRINGS,
    AttrType.BLOCK: AttrType.BLOCKS,
}
