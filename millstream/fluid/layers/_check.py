"""Checks of a layer's arguments while the Program is built; every message ends with the user's own line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.ir.printer import brief
from millstream.ir.site import user_site
from millstream.ir.types import dtype_name, to_var_type
from millstream.ir.variable import Variable

# Element types by what an operator can mean for them; layers name one of these instead of listing types again.
FLOATS = ("float16", "float32", "float64", "bfloat16")
INDICES = ("int32", "int64")
NUMBERS = (*FLOATS, *INDICES)
INTEGERS = ("uint8", "int8", "int16", *INDICES)
ELEMENTS = ("bool", *FLOATS, *INTEGERS)
_TAKEN: set[tuple[Any, tuple[str, ...]]] = set()  # (dtype of an eager value, element types that it was found among)


def is_variable(value: Any) -> bool:
    """Whether `value` can stand in an operator's slot (a Variable, or an eager one)."""
    return isinstance(value, Variable) or hasattr(value, "_ivar")


def refuse_type(layer: str, message: str) -> NoReturn:
    """ArgumentError (a TypeError) naming the layer and the user's line."""
    raise ArgumentError(_located(layer, message))


def refuse(layer: str, message: str) -> NoReturn:
    """ValueError (InvalidProgramError) naming the layer and the user's line."""
    raise InvalidProgramError(_located(layer, message))


def _located(layer: str, message: str) -> str:
    site = user_site()
    return f"{layer}: {message}" + (f"\n    at {site}" if site is not None else "")


def check_variable(value: Any, argument: str, layer: str) -> None:
    """TypeError unless `value` is a Variable."""
    if not is_variable(value):
        refuse_type(layer, f"'{argument}' must be a Variable, received {type(value).__name__}: {brief(value)!r}")


def check_variable_and_dtype(value: Any, argument: str, dtypes: Iterable[str], layer: str) -> None:
    """TypeError unless `value` is a Variable with one of the element types `dtypes`."""
    held = getattr(value, "_ivar", None)
    if held is not None and isinstance(dtypes, tuple) and (held.dtype, dtypes) in _TAKEN:
        return  # eager programs ask the same at every step
    check_variable(value, argument, layer)
    if getattr(value, "has_dtype", True):
        received = dtype_name(value.dtype)
        if received not in dtypes:
            shown = value.describe() if isinstance(value, Variable) else received
            refuse_type(layer, f"the data type of '{argument}' must be one of {', '.join(dtypes)}; received {shown}")
    if held is not None and isinstance(dtypes, tuple):
        _TAKEN.add((held.dtype, dtypes))


def check_variables(values: Any, argument: str, dtypes: Iterable[str], layer: str) -> list[Any]:
    """A Variable or a list of them, checked; as a list."""
    if is_variable(values):
        values = [values]
    elif not isinstance(values, (list, tuple)):
        refuse_type(layer, f"'{argument}' must be a Variable or a list of Variables, received {type(values).__name__}")
    if not values:
        refuse(layer, f"'{argument}' must not be empty")
    for i, value in enumerate(values):
        check_variable_and_dtype(value, f"{argument}[{i}]", dtypes, layer)
    return list(values)


def check_one_dtype(values: Iterable[Any], argument: str, layer: str) -> None:
    """ValueError unless all Variables have the same element type."""
    found = {dtype_name(v.dtype) for v in values}
    if len(found) > 1:
        refuse(layer, f"all of '{argument}' must have one data type, received {', '.join(sorted(found))}")


def check_type(value: Any, argument: str, types: type | tuple[type, ...], layer: str) -> None:
    """TypeError unless `value` is an instance of `types` (a bool does not count as an int)."""
    allowed = types if isinstance(types, tuple) else (types,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("None" if t is type(None) else t.__name__ for t in allowed)
        refuse_type(layer, f"'{argument}' must be {names}, received {type(value).__name__}: {brief(value)!r}")


def check_dtype(dtype: Any, argument: str, dtypes: Iterable[str], layer: str) -> str:
    """The name of an element type given as an argument.

    ValueError when it names none, TypeError when it is not one of `dtypes`.
    """
    try:
        name = dtype_name(to_var_type(dtype))
    except TypeError:
        refuse(layer, f"'{argument}' must be one of {', '.join(dtypes)}; received {dtype!r}")
    if name not in dtypes:
        refuse_type(layer, f"'{argument}' must be one of {', '.join(dtypes)}; received {name}")
    return name


def check_choice(value: Any, argument: str, choices: Iterable[Any], layer: str) -> None:
    """ValueError unless `value` is one of `choices`."""
    if value not in choices:
        refuse(layer, f"'{argument}' must be one of {', '.join(map(repr, choices))}; received {value!r}")
