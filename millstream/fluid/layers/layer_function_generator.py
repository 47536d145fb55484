"""``layers.layer_function_generator``: layer functions made from an operator's declaration."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from string import Template
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.ir.operator import COMMON_ATTRS
from millstream.ops import REGISTRY
from millstream.ops._opdef import OpDef

__all__ = ["autodoc", "deprecated", "generate_activation_fn", "generate_layer_fn", "templatedoc"]


def _declared(op_type: str) -> OpDef:
    if op_type not in REGISTRY:
        raise ValueError(f'Operator "{op_type}" has not been registered.')
    return REGISTRY.get(op_type)


def generate_layer_fn(op_type: str) -> Callable[..., Any]:
    """A function that appends operator `op_type`: inputs, attributes and `name`, `act` are its keyword arguments.

    An input is called as its slot, in small letters if one likes. Positional arguments are the inputs in order.

    Raises ValueError: there is no such operator, or it has several results.
    """
    definition = _declared(op_type)
    results = [s for s in definition.outputs if not s.intermediate]
    if len(results) != 1:
        raise ValueError(f"Only one non intermediate output operator can be automatically generated. {op_type}")
    result = results[0].name
    if results[0].many:
        raise ValueError(f"Only non duplicable op can be automatically generated. {op_type}")

    def layer(*args: Any, **kwargs: Any) -> Any:
        name, act = kwargs.pop("name", None), kwargs.pop("act", None)
        helper = LayerHelper(op_type, name=name, act=act)
        inputs: dict[str, list[Any]] = {}
        given = list(args)
        for slot in definition.inputs:
            value = kwargs.pop(slot.name, kwargs.pop(slot.name.lower(), None))
            if value is None and given:
                value = given.pop(0)
            if value is not None:
                inputs[slot.name] = list(value) if isinstance(value, (list, tuple)) else [value]
        if given:
            raise TypeError(f"{op_type}: at most {len(definition.inputs)} inputs by position, received {len(args)}")
        first = next(iter(inputs.values()), None)
        dtype = first[0].dtype if first else "float32"
        out = kwargs.pop("out", kwargs.pop(result, None))
        outputs = {result: [helper.create_variable_for_type_inference(dtype) if out is None else out]}
        unknown = [k for k in kwargs if k not in definition.attrs and k not in COMMON_ATTRS and not k.startswith("use_")]
        if unknown:  # use_cudnn, use_mkldnn and their kin have no meaning here
            raise TypeError(f"{op_type}: no input or attribute {unknown[0]!r}; attributes: {', '.join(definition.attrs)}")
        for slot in definition.outputs:
            if slot.intermediate:
                outputs[slot.name] = [helper.create_variable_for_type_inference(dtype)]
        helper.append_op(type=op_type, inputs=inputs, outputs=outputs, attrs=kwargs)
        return helper.append_activation(outputs[result][0])

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = definition.doc
    return layer


def generate_activation_fn(op_type: str) -> Callable[..., Any]:
    """A function ``(x, name=None)`` that appends the operator X -> Out `op_type`."""
    definition = _declared(op_type)

    def layer(x: Any, name: str | None = None) -> Any:
        return append(op_type, op_type, {"X": [x]}, dtype=x.dtype, name=name)

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = definition.doc
    return layer


def deprecated(func_or_class: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: each call warns that the function should not be used any more."""

    @functools.wraps(func_or_class)
    def call(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"API {func_or_class.__name__} is deprecated since Fluid 1.x", DeprecationWarning, stacklevel=2)
        return func_or_class(*args, **kwargs)

    return call


def autodoc(comment: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the documentation of the operator of the function's name, after `comment`."""

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        func.__doc__ = f"{comment}\n{_declared(func.__name__).doc}" if comment else _declared(func.__name__).doc
        return func

    return decorate


def templatedoc(op_type: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: ``${comment}`` in the function's documentation becomes the operator's.

    Args:
        op_type: the function's name by default. Other names in the documentation stay as they are.
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        doc = _declared(op_type or func.__name__).doc
        func.__doc__ = Template(func.__doc__ or "").safe_substitute(comment=doc)
        return func

    return decorate
