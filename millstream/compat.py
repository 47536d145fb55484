"""``paddle.compat``: text and number functions that programs shared between Python 2 and 3 use."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["floor_division", "get_exception_message", "int_type", "long_type", "round", "to_bytes", "to_text"]

int_type = int
long_type = int


def to_text(obj: Any, encoding: str = "utf-8", inplace: bool = False) -> Any:
    """`obj` with every bytes in it (or in a list, set or dict) decoded; all else stays. `inplace` changes `obj` itself."""
    return _converted(obj, lambda value: value.decode(encoding) if isinstance(value, bytes) else value, inplace)


def to_bytes(obj: Any, encoding: str = "utf-8", inplace: bool = False) -> Any:
    """`obj` with every str in it (or in a list or set) encoded; TypeError for numbers. `inplace` changes `obj` itself."""
    return _converted(obj, lambda value: _bytes(value, encoding), inplace)


def round(x: float, d: int = 0) -> float:  # the name is Fluid's
    """`x` rounded to `d` decimals, halves away from zero (as Python 2 did)."""
    scale = 10**d
    if x > 0.0:
        return float(math.floor((x * scale) + 0.5)) / scale
    if x < 0.0:
        return float(math.ceil((x * scale) - 0.5)) / scale
    return math.copysign(0.0, x)


def floor_division(x: Any, y: Any) -> Any:
    """``x // y``."""
    return x // y


def get_exception_message(exc: BaseException) -> str:
    """The text of an exception."""
    if exc is None:
        raise AssertionError("get_exception_message: expected an exception, received None")
    return str(exc)


def _bytes(value: Any, encoding: str) -> Any:
    if isinstance(value, bytes) or value is None:
        return value
    if not isinstance(value, str):
        raise TypeError(f"to_bytes takes str, bytes, or a list or set of them, received {type(value).__name__}")
    return value.encode(encoding)


def _converted(obj: Any, one: Any, inplace: bool) -> Any:
    if obj is None:
        return None
    if isinstance(obj, list):
        made: Any = [_converted(item, one, False) for item in obj]
        if inplace:
            obj[:] = made
            return obj
        return made
    if isinstance(obj, set):
        made = {one(item) for item in obj}
        if inplace:
            obj.clear()
            obj.update(made)
            return obj
        return made
    if isinstance(obj, dict):
        made = {one(key): one(value) for key, value in obj.items()}
        if inplace:
            obj.clear()
            obj.update(made)
            return obj
        return made
    return one(obj)
