"""Arithmetic, logic and comparison of two tensors, scaling and clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    NUMBERS,
    check_type,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
)
from millstream.fluid.layers.tensor import assign
from millstream.ir.types import VarType

__all__ = [
    "addcmul",
    "clamp",
    "clip",
    "clip_by_norm",
    "elementwise_add",
    "elementwise_div",
    "elementwise_equal",
    "elementwise_floordiv",
    "elementwise_max",
    "elementwise_min",
    "elementwise_mod",
    "elementwise_mul",
    "elementwise_pow",
    "elementwise_sub",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "scale",
]


def _elementwise(op_type: str, meaning: str) -> Callable[..., Any]:
    def layer(x: Any, y: Any, axis: int = -1, act: Any = None, name: str | None = None) -> Any:
        check_variable_and_dtype(x, "x", NUMBERS, op_type)
        check_variable_and_dtype(y, "y", NUMBERS, op_type)
        return append(op_type, op_type, {"X": [x], "Y": [y]}, {"axis": axis}, dtype=x.dtype, name=name, act=act)

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = (
        f"act({meaning}), element by element; y's dimensions line up with x's from `axis` on (-1: with the last ones) "
        "and are repeated where they are 1 or missing."
    )
    return layer


elementwise_add = _elementwise("elementwise_add", "x + y")
elementwise_sub = _elementwise("elementwise_sub", "x - y")
elementwise_mul = _elementwise("elementwise_mul", "x * y")
elementwise_div = _elementwise("elementwise_div", "x / y; integers truncate toward zero")
elementwise_max = _elementwise("elementwise_max", "the greater of x and y")
elementwise_min = _elementwise("elementwise_min", "the lesser of x and y")
elementwise_pow = _elementwise("elementwise_pow", "x ** y")
elementwise_mod = _elementwise("elementwise_mod", "the remainder of x / y")
elementwise_floordiv = _elementwise("elementwise_floordiv", "x / y, truncated toward zero")


def elementwise_equal(x: Any, y: Any, name: str | None = None) -> Any:
    """x == y, element by element, bool."""
    helper = LayerHelper("elementwise_equal", name=name)
    for value, argument in ((x, "x"), (y, "y")):
        check_variable_and_dtype(value, argument, NUMBERS, "elementwise_equal")
    out = helper.create_variable_for_type_inference("bool", stop_gradient=True)
    helper.append_op(type="equal", inputs={"X": [x], "Y": [y]}, outputs={"Out": [out]}, attrs={})
    return out


def _logical(op_type: str, meaning: str) -> Callable[..., Any]:
    def layer(x: Any, y: Any, out: Any = None, name: str | None = None) -> Any:
        check_variable_and_dtype(x, "x", ("bool",), op_type)
        check_variable_and_dtype(y, "y", ("bool",), op_type)
        if out is not None:
            check_variable(out, "out", op_type)
        return append(op_type, op_type, {"X": x, "Y": y}, dtype=VarType.BOOL, out=out, name=name)

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = f"{meaning}, element by element, of bool tensors of one shape; written to `out` when it is given."
    return layer


logical_and = _logical("logical_and", "x and y")
logical_or = _logical("logical_or", "x or y")
logical_xor = _logical("logical_xor", "x exclusive-or y")


def logical_not(x: Any, out: Any = None, name: str | None = None) -> Any:
    """not x, element by element, of a bool tensor; written to `out` when it is given."""
    check_variable_and_dtype(x, "x", ("bool",), "logical_not")
    if out is not None:
        check_variable(out, "out", "logical_not")
    return append("logical_not", "logical_not", {"X": x}, dtype=VarType.BOOL, out=out, name=name)


def scale(
    x: Any,
    scale: Any = 1.0,
    bias: float = 0.0,
    bias_after_scale: bool = True,
    act: Any = None,
    name: str | None = None,
) -> Any:
    """act(scale * x + bias), or act(scale * (x + bias)); `scale` is a number or a Variable of shape [1]."""
    check_variable_and_dtype(x, "x", ELEMENTS, "scale")
    attrs: dict[str, Any] = {"bias": float(bias), "bias_after_scale": bias_after_scale}
    inputs = {"X": [x]}
    if is_variable(scale):
        inputs["ScaleTensor"] = [scale]
    else:
        attrs["scale"] = float(scale)
    return append("scale", "scale", inputs, attrs, dtype=x.dtype, name=name, act=act)


def clip(x: Any, min: float, max: float, name: str | None = None) -> Any:
    """min(max(x, `min`), `max`)."""
    check_variable_and_dtype(x, "x", FLOATS, "clip")
    for value, argument in ((min, "min"), (max, "max")):
        if not hasattr(value, "__float__"):
            refuse("clip", f"'{argument}' must be a number, received {type(value).__name__}: {value!r}")
    attrs = {"min": float(min), "max": float(max)}
    return append("clip", "clip", {"X": x}, attrs, dtype=x.dtype, name=name, takes_name=True)


def clip_by_norm(x: Any, max_norm: float, name: str | None = None) -> Any:
    """x, or x * max_norm / norm(x) when its L2 norm is greater than `max_norm`."""
    check_variable_and_dtype(x, "x", FLOATS, "clip_by_norm")
    check_type(max_norm, "max_norm", (int, float), "clip_by_norm")
    attrs = {"max_norm": float(max_norm)}
    return append("clip_by_norm", "clip_by_norm", {"X": x}, attrs, dtype=x.dtype, name=name, takes_name=True)


def clamp(input: Any, min: Any = None, max: Any = None, output: Any = None, name: str | None = None) -> Any:
    """Every element limited to [min, max]; numbers or Variables of shape [1]; one of them may be None.

    A missing `min` is -infinity. (Fluid 1.8.5 took 0 for it.)
    """
    check_variable_and_dtype(input, "input", NUMBERS, "clamp")
    if min is None and max is None:
        refuse("clamp", "'min' or 'max' must be given")
    inputs, attrs = {"X": input}, {"min": float("-inf"), "max": float("inf")}
    for value, key, slot in ((min, "min", "Min"), (max, "max", "Max")):
        if is_variable(value):
            value.stop_gradient = True
            inputs[slot] = value
        elif value is not None:
            check_type(value, key, (int, float), "clamp")
            attrs[key] = float(value)
    return append("clamp", "clip", inputs, attrs, dtype=input.dtype, out=output, name=name)


def addcmul(input: Any, tensor1: Any, tensor2: Any, value: float = 1.0, out: Any = None, name: str | None = None) -> Any:
    """input + value * tensor1 * tensor2; written to `out` too when it is given."""
    for tensor, argument in ((input, "input"), (tensor1, "tensor1"), (tensor2, "tensor2")):
        check_variable_and_dtype(tensor, argument, NUMBERS, "addcmul")
    if out is not None:
        check_variable_and_dtype(out, "out", NUMBERS, "addcmul")
    total = elementwise_add(input, elementwise_mul(tensor1, tensor2) * value)
    return total if out is None else assign(total, out)
