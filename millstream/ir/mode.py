"""Whether layers append to a Program or run at once.

The eager runtime installs a Tracer here while ``fluid.dygraph.guard()`` is open; layers ask `tracer()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Tracer(Protocol):
    """Runs operators as layers make them."""

    def new_variable(self, name: str | None, dtype: Any, **kwargs: Any) -> Any:
        """An eager variable without a value."""

    def new_result(self, dtype: Any, stop_gradient: bool = False) -> Any:
        """An eager variable of an element type, for an operator to fill."""

    def trace_op(self, type: str, inputs: dict[str, Any], outputs: dict[str, Any], attrs: dict[str, Any]) -> Any:
        """Run one operator on eager variables and fill its outputs."""

    def create_parameter(self, name: str, shape: Any, dtype: Any, initializer: Any, **kwargs: Any) -> Any:
        """An eager parameter, initialised."""

    def initialize(self, var: Any, initializer: Any) -> None:
        """Fill a variable, which has a shape and a dtype, by an initializer."""


class _Current:
    tracer: Tracer | None = None
    capture: Callable[[Any], Any] | None = None


def tracer() -> Tracer | None:
    """The tracer in force, or None while Programs are built."""
    return _Current.tracer


def switch_tracer(new: Tracer | None) -> Tracer | None:
    """Install a tracer (None: build Programs) and return the old one."""
    old, _Current.tracer = _Current.tracer, new
    return old


def in_dygraph_mode() -> bool:
    """Whether operators run as they are made."""
    return _Current.tracer is not None


def runs_at_once() -> bool:
    """Whether operators run as they are made and nobody keeps a record of them: any that give the same numbers will do."""
    return _Current.tracer is not None and getattr(_Current.tracer, "recorder", None) is None


def takes_gradients() -> bool:
    """Whether operators made now may be differentiated: False in eager mode inside no_grad and after eval()."""
    return _Current.tracer is None or bool(getattr(_Current.tracer, "has_grad", True))


def switch_capture(new: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """While a function over eager variables is made into a Program: what replaces them in an operator's slots.

    Returns the old one; None means that no Program is made that way.
    """
    old, _Current.capture = _Current.capture, new
    return old


def capture() -> Callable[[Any], Any] | None:
    """The replacement in force, or None."""
    return _Current.capture
