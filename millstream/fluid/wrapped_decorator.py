"""``fluid.wrapped_decorator``: decorators that keep a function's name, documentation and signature."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["signature_safe_contextmanager", "wrap_decorator"]

signature_safe_contextmanager = contextlib.contextmanager


def wrap_decorator(decorator_func: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`decorator_func`, but what it makes looks like the function that it is given."""

    @functools.wraps(decorator_func)
    def decorate(func: Any) -> Any:
        return functools.wraps(func)(decorator_func(func))

    return decorate
