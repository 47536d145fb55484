"""Layers that reach out of the computation: Python functions, printing, counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    ELEMENTS,
    check_choice,
    check_type,
    check_variable_and_dtype,
    check_variables,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.ops.host import register_callable, registered_callable, registered_callable_count

__all__ = ["Print", "autoincreased_step_counter", "py_func"]


class PyFuncRegistry:
    """A Python function with the number by which ``py_func`` operators name it; it holds for this process."""

    def __init__(self, func: Callable[..., Any]) -> None:
        if not callable(func):
            refuse_type("py_func", f"'func' must be callable, received {type(func).__name__}")
        self._func = func
        self._id = register_callable(func)

    @property
    def id(self) -> int:
        return self._id

    def __call__(self, *args: Any) -> Any:
        return self._func(*args)

    @classmethod
    def registered_func(cls, idx: int) -> Callable[..., Any]:
        """The function with number `idx`."""
        return registered_callable(idx)

    @classmethod
    def registered_func_num(cls) -> int:
        """How many functions have a number."""
        return registered_callable_count()


def py_func(
    func: Callable[..., Any],
    x: Any,
    out: Any,
    backward_func: Callable[..., Any] | None = None,
    skip_vars_in_backward_input: Any = None,
) -> Any:
    """A Python function as an operator; a Program with one can't be saved for another process.

    Args:
        func: takes one LoDTensor for each of `x`, gives one (or a numpy array) for each of `out`.
        x: Variable, list of them, or None.
        out: Variables declared beforehand, with shape and dtype.
        backward_func: takes x, out and the gradients of out; gives the gradients of x. None: no gradient flows.
        skip_vars_in_backward_input: those of x and out that `backward_func` does not take.
    """
    layer = "py_func"
    helper = LayerHelper(layer)
    inputs = [] if x is None else check_variables(x, "x", ELEMENTS, layer)
    outputs = [] if out is None else check_variables(out, "out", ELEMENTS, layer)
    for var in outputs:
        if not var.has_shape:
            refuse(layer, f"'out' must be declared with its shape, received {var.describe()}")
    forward_id = PyFuncRegistry(func).id
    attrs: dict[str, Any] = {"forward_callable_id": forward_id, "backward_callable_id": -1, "backward_skip_vars": []}
    if backward_func is not None:
        attrs["backward_callable_id"] = PyFuncRegistry(backward_func).id
        skipped = skip_vars_in_backward_input or []
        skipped = [skipped] if is_variable(skipped) else list(skipped)
        known = {v.name for v in inputs + outputs}
        for var in skipped:
            if var.name not in known:
                refuse(layer, f"{var.name} of 'skip_vars_in_backward_input' is neither in x nor in out")
        attrs["backward_skip_vars"] = [v.name for v in skipped]
    helper.append_op(type=layer, inputs={"X": inputs}, outputs={"Out": outputs}, attrs=attrs)
    return out


def Print(
    input: Any,
    first_n: int = -1,
    message: str | None = None,
    summarize: int = 20,
    print_tensor_name: bool = True,
    print_tensor_type: bool = True,
    print_tensor_shape: bool = True,
    print_tensor_lod: bool = True,
    print_phase: str = "both",
) -> Any:
    """`input` unchanged, printed whenever it is computed.

    Args:
        first_n: how many times; -1: always.
        message: text before it.
        summarize: how many elements; -1: all.
        print_phase: "forward", "backward" (its gradient) or "both".
    """
    check_variable_and_dtype(input, "input", ELEMENTS, "Print")
    check_type(print_phase, "print_phase", str, "Print")
    check_choice(print_phase.lower(), "print_phase", ("forward", "backward", "both"), "Print")
    helper = LayerHelper("print_" + input.name)
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="print",
        inputs={"In": input},
        outputs={"Out": out},
        attrs={
            "first_n": first_n,
            "summarize": summarize,
            "message": message or "",
            "print_tensor_name": print_tensor_name,
            "print_tensor_type": print_tensor_type,
            "print_tensor_shape": print_tensor_shape,
            "print_tensor_lod": print_tensor_lod,
            "print_phase": print_phase.upper(),
        },
    )
    return out


def autoincreased_step_counter(counter_name: str | None = None, begin: int = 1, step: int = 1) -> Any:
    """An int64 counter [1] that grows by `step` in each run from begin - 1 on: with step 1 the first run sees `begin`.

    A Program has one counter of a name; asking for it again gives the same Variable.
    """
    helper = LayerHelper("global_step_counter")
    name = "@STEP_COUNTER@" if counter_name is None else counter_name
    counter, is_new = helper.create_or_get_global_variable(name=name, dtype="int64", shape=[1], persistable=True)
    if is_new:
        helper.set_variable_initializer(counter, initializer=Constant(value=begin - 1, force_cpu=True))
        helper.main_program.global_block()._prepend_op(
            type="increment", inputs={"X": [counter]}, outputs={"Out": [counter]}, attrs={"step": float(step)}
        )
        counter.stop_gradient = True
    return counter
