"""``fluid.dygraph.base``: eager mode on and off, data in, gradients out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.complex_variable import ComplexVariable
from millstream.fluid.layers.tensor import assign
from millstream.ir import mode, names
from millstream.ir.mode import in_dygraph_mode
from millstream.ir.program import Program, program_guard
from millstream.ir.variable import Variable
from millstream.runtime.eager import BackwardStrategy, VarBase, partial_grad, to_eager
from millstream.runtime.place import CPUPlace, CUDAPinnedPlace, CUDAPlace
from millstream.runtime.tensor import LoDTensor
from millstream.runtime.tracer import EagerTracer

__all__ = [
    "disable_dygraph",
    "disable_imperative",
    "enable_dygraph",
    "enable_imperative",
    "enabled",
    "grad",
    "guard",
    "no_grad",
    "to_variable",
]

_PLACES = (CPUPlace, CUDAPlace, CUDAPinnedPlace)


class _Entered:
    """The guard that enable_dygraph() opened."""

    guard: AbstractContextManager[None] | None = None


def _need_eager(what: str) -> EagerTracer:
    tracer = mode.tracer()
    if not isinstance(tracer, EagerTracer):
        raise InvalidProgramError(f"{what} works in dygraph mode only: put it inside `with fluid.dygraph.guard():`")
    return tracer


def enabled() -> bool:
    """Whether operators run as they are made (dygraph mode)."""
    return in_dygraph_mode()


@contextmanager
def guard(place: Any = None) -> Iterator[None]:
    """Dygraph mode inside the ``with`` block, on `place` (CPUPlace when None), with fresh default Programs and names.

    Names start anew, so that a second guard in one process finds the states that the first one saved.
    """
    if place is not None and not isinstance(place, _PLACES):
        raise ArgumentError(f"guard: 'place' must be a CPUPlace or CUDAPlace, received {type(place).__name__}")
    with program_guard(Program(), Program()), names.guard():
        old = mode.switch_tracer(EagerTracer(place))
        try:
            yield
        finally:
            mode.switch_tracer(old)


def enable_dygraph(place: Any = None) -> None:
    """Dygraph mode from now on, until disable_dygraph(). Nothing happens if it is on already."""
    if _Entered.guard is None and not in_dygraph_mode():
        entered = guard(place)
        entered.__enter__()
        _Entered.guard = entered


def disable_dygraph() -> None:
    """Leave the dygraph mode that enable_dygraph() entered."""
    if _Entered.guard is not None:
        entered, _Entered.guard = _Entered.guard, None
        entered.__exit__(None, None, None)


enable_imperative = enable_dygraph
disable_imperative = disable_dygraph


def to_variable(value: Any, name: str | None = None, zero_copy: bool | None = None) -> Any:
    """A numpy array as an eager variable with stop_gradient True; a variable is returned as it is.

    A complex array gives a ComplexVariable. While a function is made into a Program, an array becomes a constant of it.

    Args:
        value: ndarray, VarBase, ComplexVariable or LoDTensor.
        zero_copy: share memory with `value` (the variable is then changed with the array); a copy when None or False.
    """
    if mode.capture() is not None and mode.tracer() is None:
        return value if isinstance(value, Variable) else assign(np.asarray(value))
    tracer = _need_eager("to_variable")
    if isinstance(value, (VarBase, ComplexVariable)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "c":
        name = name if name is not None else names.generate("_generated_var")
        real, imag = np.ascontiguousarray(value.real), np.ascontiguousarray(value.imag)
        return ComplexVariable(to_variable(real, f"{name}.real"), to_variable(imag, f"{name}.imag"))
    if not isinstance(value, (np.ndarray, LoDTensor)):
        raise ArgumentError(
            f"to_variable: 'value' must be a numpy.ndarray or a Variable, received {type(value).__name__}; "
            "wrap it: to_variable(np.array(value))"
        )
    if zero_copy and isinstance(value, np.ndarray) and value.flags.c_contiguous and value.flags.writeable:
        import torch

        return VarBase(torch.from_numpy(value), name)
    return to_eager(value, name, tracer.place)


class _NoGrad:
    """No graph inside: a context manager, and a decorator of functions and generators."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def __enter__(self) -> None:
        tracer = mode.tracer()
        if isinstance(tracer, EagerTracer):
            entered = tracer.no_grad()
            entered.__enter__()
            self._open.append(entered)
        else:
            self._open.append(None)

    def __exit__(self, *error: Any) -> None:
        entered = self._open.pop()
        if entered is not None:
            entered.__exit__(*error)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(func):

            @functools.wraps(func)
            def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
                items = func(*args, **kwargs)
                while True:  # the consumer's operators between two items keep their gradients
                    with _NoGrad():
                        try:
                            item = next(items)
                        except StopIteration:
                            return
                    yield item

            return generate

        @functools.wraps(func)
        def run(*args: Any, **kwargs: Any) -> Any:
            with _NoGrad():
                return func(*args, **kwargs)

        return run


def no_grad(func: Callable[..., Any] | None = None) -> Any:
    """Operators leave no graph: ``with no_grad():``, ``@no_grad`` or ``@no_grad()``."""
    return _NoGrad() if func is None else _NoGrad()(func)


no_grad_ = no_grad


def _variables(value: Any, what: str) -> list[VarBase]:
    if isinstance(value, VarBase):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, VarBase) for v in value):
        raise ArgumentError(f"grad: '{what}' must be a Variable or a list of Variables, received {value!r}"[:200])
    return list(value)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool = False,
    no_grad_vars: Any = None,
    backward_strategy: BackwardStrategy | None = None,
) -> list[VarBase | None]:
    """Gradients of the sum of `outputs` with respect to `inputs`; the variables' own gradients stay as they are.

    Args:
        outputs, inputs: a Variable or a list.
        grad_outputs: gradients of `outputs`, None for ones.
        retain_graph: keep the graph for another backward() or grad(); as `create_graph` when None.
        create_graph: the results can be differentiated again.
        only_inputs: must be True, as in Fluid 1.8.5.
        allow_unused: None for an input that `outputs` do not depend on, instead of an error.
        no_grad_vars: variables through which no gradient flows.
        backward_strategy: as for backward().
    """
    _need_eager("grad")
    if not only_inputs:
        raise InvalidProgramError("grad: only_inputs=False is not supported; call backward() for all gradients")
    outs, ins = _variables(outputs, "outputs"), _variables(inputs, "inputs")
    given = [None] * len(outs) if grad_outputs is None else grad_outputs
    given = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(given) != len(outs):
        raise InvalidProgramError(f"grad: {len(given)} grad_outputs for {len(outs)} outputs; there must be one for each")
    for g in given:
        if g is not None and not isinstance(g, VarBase):
            raise ArgumentError(f"grad: 'grad_outputs' takes Variables and None, received {type(g).__name__}")
    blocked: list[VarBase] = []
    if no_grad_vars is not None:
        items = list(no_grad_vars) if isinstance(no_grad_vars, (set, frozenset)) else no_grad_vars
        blocked = _variables(items, "no_grad_vars") if items else []
    if backward_strategy is not None and not isinstance(backward_strategy, BackwardStrategy):
        raise ArgumentError(f"grad: 'backward_strategy' must be a BackwardStrategy, received {backward_strategy!r}")
    if any(o is b for o in outs for b in blocked):
        raise InvalidProgramError("grad: one of 'outputs' is in 'no_grad_vars' too")
    retain = create_graph if retain_graph is None else retain_graph
    return partial_grad(outs, ins, given, retain, create_graph, allow_unused, blocked)
