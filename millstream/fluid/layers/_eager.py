"""Layers that are Python itself in dygraph mode: control flow, arrays (lists), schedules (objects)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from millstream.fluid.layers._check import is_variable, refuse, refuse_type
from millstream.ir import mode


def eager_form(eager: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: in dygraph mode call `eager`, which has the same parameters, instead of the layer function."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def choose(*args: Any, **kwargs: Any) -> Any:
            return (function if mode.tracer() is None else eager)(*args, **kwargs)

        return choose

    return decorate


# ---- control flow ------------------------------------------------------------------------------
def _need_callable(value: Any, argument: str, layer: str) -> None:
    if value is not None and not callable(value):
        refuse_type(layer, f"'{argument}' must be callable, received {type(value).__name__}")


def cond(pred: Any, true_fn: Any = None, false_fn: Any = None, name: str | None = None) -> Any:
    _need_callable(true_fn, "true_fn", "cond")
    _need_callable(false_fn, "false_fn", "cond")
    chosen = true_fn if bool(pred) else false_fn
    return None if chosen is None else chosen()


def while_loop(cond: Any, body: Any, loop_vars: Any, is_test: bool = False, name: str | None = None) -> Any:
    for value, argument in ((cond, "cond"), (body, "body")):
        if not callable(value):
            refuse_type("while_loop", f"'{argument}' must be callable, received {type(value).__name__}")
    if not isinstance(loop_vars, (list, tuple)) or not loop_vars:
        refuse("while_loop", "'loop_vars' must be a non-empty list or tuple of Variables")
    while bool(cond(*loop_vars)):
        new = body(*loop_vars)
        new = list(new) if isinstance(new, (list, tuple)) else [new]
        if len(new) != len(loop_vars):
            refuse("while_loop", f"body gives {len(new)} values for {len(loop_vars)} loop variables")
        loop_vars = new
    return list(loop_vars)


def case(pred_fn_pairs: Any, default: Any = None, name: str | None = None) -> Any:
    if not isinstance(pred_fn_pairs, (list, tuple)) or not pred_fn_pairs:
        refuse_type("case", "'pred_fn_pairs' must be a non-empty list of (bool Variable, callable)")
    for pair in pred_fn_pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[1]):
            refuse_type("case", f"expected (bool Variable, callable), received {pair!r}")
    _need_callable(default, "default", "case")
    for pred, function in pred_fn_pairs:
        if bool(pred):
            return function()
    return (default or pred_fn_pairs[-1][1])()


def switch_case(branch_index: Any, branch_fns: Any, default: Any = None, name: str | None = None) -> Any:
    if isinstance(branch_fns, dict):
        pairs = list(branch_fns.items())
    elif isinstance(branch_fns, (list, tuple)):
        pairs = [p if isinstance(p, tuple) else (k, p) for k, p in enumerate(branch_fns)]
    else:
        refuse_type("switch_case", f"'branch_fns' must be a list or dict, received {type(branch_fns).__name__}")
    if not pairs:
        refuse("switch_case", "'branch_fns' must not be empty")
    for _, function in pairs:
        if not callable(function):
            refuse_type("switch_case", f"'branch_fns' must hold callables, received {type(function).__name__}")
    _need_callable(default, "default", "switch_case")
    found = dict(pairs)
    index = int(branch_index)
    if index in found:
        return found[index]()
    return (default or found[max(found)])()


# ---- arrays ------------------------------------------------------------------------------------
def _need_array(array: Any, layer: str) -> None:
    if not isinstance(array, list):
        refuse_type(layer, f"'array' must be a list in dygraph mode, received {type(array).__name__}")


def create_array(dtype: Any) -> list[Any]:
    return []


def array_write(x: Any, i: Any, array: Any = None) -> list[Any]:
    array = [] if array is None else array
    _need_array(array, "array_write")
    index = int(i)
    if not 0 <= index <= len(array):
        refuse("array_write", f"the index {index} is past the end of an array of {len(array)}")
    array[index : index + 1] = [x]
    return array


def array_read(array: Any, i: Any) -> Any:
    _need_array(array, "array_read")
    index = int(i)
    if not 0 <= index < len(array):
        refuse("array_read", f"there is no element {index} in an array of {len(array)}")
    return array[index]


def array_length(array: Any) -> Any:
    from millstream.fluid.layers.tensor import fill_constant

    _need_array(array, "array_length")
    return fill_constant([1], "int64", len(array))


def tensor_array_to_tensor(input: Any, axis: int = 1, name: str | None = None, use_stack: bool = False) -> Any:
    import numpy as np

    from millstream.fluid.layers.nn.manipulate import stack
    from millstream.fluid.layers.tensor import assign, concat

    _need_array(input, "tensor_array_to_tensor")
    if not input or not all(is_variable(v) for v in input):
        refuse("tensor_array_to_tensor", "'input' must be a non-empty list of Variables")
    out = stack(input, axis=axis) if use_stack else concat(input, axis=axis)
    sizes = [1 if use_stack else v.shape[axis] for v in input]
    return out, assign(np.array(sizes, "int32"))


# ---- schedules ---------------------------------------------------------------------------------
def schedule(name: str) -> Callable[..., Any]:
    """The constructor of a schedule object of fluid.dygraph, with the parameters of the layer function."""

    def make(*args: Any, **kwargs: Any) -> Any:
        from millstream.fluid.dygraph import learning_rate_scheduler as objects

        if name == "NoamDecay" and len(args) > 2:
            args, kwargs = args[:2], {"learning_rate": args[2], **kwargs}
        if name == "PiecewiseDecay":
            kwargs = {"begin": 0, **kwargs}
        return getattr(objects, name)(*args, **kwargs)

    return make
