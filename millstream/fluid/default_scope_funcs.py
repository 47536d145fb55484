"""``fluid.default_scope_funcs``: a stack of Scopes for each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.core import Scope

__all__ = ["enter_local_scope", "find_var", "get_cur_scope", "leave_local_scope", "scoped_function", "var"]

_threads = threading.local()


def _stack() -> list[Scope]:
    if not hasattr(_threads, "stack"):
        _threads.stack = [Scope()]
    stack: list[Scope] = _threads.stack
    return stack


def get_cur_scope() -> Scope:
    """The Scope entered last; there is one from the start."""
    return _stack()[-1]


def enter_local_scope() -> None:
    """Enter a new Scope inside the current one."""
    _stack().append(get_cur_scope().new_scope())


def leave_local_scope() -> None:
    """Leave the current Scope and drop what it holds. Raises InvalidProgramError: none has been entered."""
    if len(_stack()) == 1:
        raise InvalidProgramError("leave_local_scope: no scope has been entered by enter_local_scope()")
    _stack().pop()
    get_cur_scope().drop_kids()


def var(name: str) -> Any:
    """The variable `name` of the current Scope, made when it is not there."""
    return get_cur_scope().var(name)


def find_var(name: str) -> Any:
    """The variable `name` of the current Scope or those around it; None when there is none."""
    return get_cur_scope().find_var(name)


def scoped_function(func: Callable[[], Any]) -> None:
    """Call `func` in a new Scope, which is left also when it raises."""
    enter_local_scope()
    try:
        func()
    finally:
        leave_local_scope()
