"""Comparisons, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    NUMBERS,
    check_variable,
    check_variable_and_dtype,
)

__all__ = [
    "equal",
    "greater_equal",
    "greater_than",
    "less_equal",
    "less_than",
    "not_equal",
]

_COMPARED = ("bool", *NUMBERS)


def _compare(op_type: str, x: Any, y: Any, cond: Any, attrs: dict[str, Any]) -> Any:
    check_variable_and_dtype(x, "x", _COMPARED, op_type)
    check_variable_and_dtype(y, "y", _COMPARED, op_type)
    if cond is not None:
        check_variable(cond, "cond", op_type)
    helper = LayerHelper(op_type)
    if cond is None:
        cond = helper.create_variable_for_type_inference("bool")
        cond.stop_gradient = True
    helper.append_op(type=op_type, inputs={"X": [x], "Y": [y]}, outputs={"Out": [cond]}, attrs=attrs)
    return cond


def _comparison(op_type: str, sign: str) -> Callable[..., Any]:
    def layer(x: Any, y: Any, cond: Any = None) -> Any:
        return _compare(op_type, x, y, cond, {})

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = f"x {sign} y, element by element, bool; y broadcasts; written to `cond` when it is given."
    return layer


less_equal = _comparison("less_equal", "<=")
greater_than = _comparison("greater_than", ">")
greater_equal = _comparison("greater_equal", ">=")
equal = _comparison("equal", "==")
not_equal = _comparison("not_equal", "!=")


def less_than(x: Any, y: Any, force_cpu: bool | None = None, cond: Any = None) -> Any:
    """x < y, element by element, bool; y broadcasts; written to `cond` when it is given. `force_cpu` has no meaning."""
    return _compare("less_than", x, y, cond, {} if force_cpu is None else {"force_cpu": force_cpu})
