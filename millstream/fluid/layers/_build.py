"""What most layers do: append one operator and return its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_variable_and_dtype, is_variable, refuse, refuse_type
from millstream.ir import mode


def append(
    layer: str,
    op_type: str,
    inputs: dict[str, Any],
    attrs: dict[str, Any] | None = None,
    *,
    dtype: Any,
    slot: str = "Out",
    out: Any = None,
    name: str | None = None,
    act: Any = None,
    stop_gradient: bool = False,
    takes_name: bool = False,
) -> Any:
    """Append `op_type` with one output (`out`, or a new temporary of `layer`); then the activation, if any.

    takes_name: the output is called `name` itself, where other layers make ``name.tmp_0`` of it (as in 1.8.5).
    """
    eager: Any = mode.tracer()
    if eager is not None and act is None and out is None and name is None:
        out = eager.new_result(dtype, stop_gradient)
        eager.trace_op(op_type, inputs, {slot: [out]}, attrs)
        return out
    helper = LayerHelper(layer, name=name, act=act)
    if out is None and takes_name and name is not None:
        out = helper.create_variable(name=name, dtype=dtype, persistable=False, stop_gradient=stop_gradient)
    elif out is None:
        out = helper.create_variable_for_type_inference(dtype, stop_gradient=stop_gradient)
    helper.append_op(type=op_type, inputs=inputs, outputs={slot: [out]}, attrs=attrs or {})
    return helper.append_activation(out)


def unary(op_type: str, dtypes: tuple[str, ...], meaning: str, module: str) -> Callable[..., Any]:
    """The layer function of an operator ``X -> Out`` without attributes."""

    def layer(x: Any, name: str | None = None) -> Any:
        check_variable_and_dtype(x, "x", dtypes, op_type)
        return append(op_type, op_type, {"X": [x]}, dtype=x.dtype, name=name)

    layer.__name__ = layer.__qualname__ = op_type
    layer.__module__ = module
    layer.__doc__ = f"{meaning}, element by element; shape and dtype of `x` ({', '.join(dtypes)})."
    return layer


def int_list(value: Any, n: int, argument: str, layer: str) -> list[int]:
    """`value` as `n` integers; one integer is repeated."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)) or is_variable(value):
        refuse_type(layer, f"'{argument}' must be an int or {n} ints, received {type(value).__name__}: {value!r}")
    if hasattr(value, "__index__"):
        return [int(value)] * n
    try:
        found = [int(v) for v in value]
    except (TypeError, ValueError):
        refuse_type(layer, f"'{argument}' must be an int or {n} ints, received {value!r}")
    if len(found) != n:
        refuse(layer, f"'{argument}' must have {n} elements, received {found}")
    return found


def as_tensors(
    helper: LayerHelper, values: Sequence[Any], dtype: str = "int32", fill_prefix: str | None = None
) -> list[Any]:
    """Each element as a Variable of shape [1]: Variables as they are, integers by a ``fill_constant`` on the CPU.

    `fill_prefix` names the constants ``<fill_prefix>_<n>.tmp_0`` instead of after the layer itself.
    """
    made = []
    for value in values:
        if is_variable(value):
            if fill_prefix is None:
                value.stop_gradient = True
            made.append(value)
            continue
        owner = helper if fill_prefix is None else LayerHelper(fill_prefix)
        if fill_prefix is None:
            LayerHelper("fill_constant")  # the names of later constants count this one
        constant = owner.create_variable_for_type_inference(dtype, stop_gradient=True)
        owner.append_op(
            type="fill_constant",
            inputs={},
            outputs={"Out": [constant]},
            attrs={
                "shape": [1],
                "dtype": constant.dtype,
                "value": float(value),
                "str_value": str(int(value)),
                "force_cpu": True,
            },
        )
        made.append(constant)
    return made


def has_variable(values: Any) -> bool:
    """Whether a list argument holds a Variable."""
    return isinstance(values, (list, tuple)) and any(is_variable(v) for v in values)


def known_part(values: Sequence[Any], unknown: int = -1) -> list[int]:
    """The integers of a list, with `unknown` where a Variable stands."""
    return [unknown if is_variable(v) else int(v) for v in values]
