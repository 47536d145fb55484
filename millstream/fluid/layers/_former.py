"""Positional arguments in the order of Fluid 1.1, where 1.8.5 put a new parameter in between."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def inserted(position: int, former: type | tuple[type, ...], default: Any = None) -> Callable[[F], F]:
    """Decorator: the parameter at `position` came after 1.1, with `default`.

    A positional argument of a type of `former` there is meant for the parameter behind it.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(args) > position and isinstance(args[position], former):
                args = (*args[:position], default, *args[position:])
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
