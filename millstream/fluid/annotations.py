"""``fluid.annotations``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["deprecated"]


def deprecated(since: str, instead: str, extra_message: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a function that should not be used any more: each call says so on the standard error stream.

    Args:
        since: version from which it is so.
        instead: what to use.
        extra_message: a further line.
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        message = f"API {func.__name__} is deprecated since {since}. Please use {instead} instead."
        if extra_message:
            message += f"\n{extra_message}"

        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            print(message, file=sys.stderr)
            return func(*args, **kwargs)

        call.__doc__ = f"{func.__doc__ or ''}\n    {message}"
        return call

    return decorate
