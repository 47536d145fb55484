"""``paddle.sysconfig``: where C++ programs find headers and libraries."""

from __future__ import annotations

from typing import NoReturn

from millstream.errors import NotSupportedError

__all__ = ["get_include", "get_lib"]


def _refuse(what: str) -> NoReturn:
    raise NotSupportedError(
        f"sysconfig.{what}: millstream is Python on torch and has no C++ headers or libraries of its own. Write operators "
        "with fluid.layers.py_func, or declare them as a package (entry points `millstream.ops`); to serve a model from "
        "C++, export it: `millstream export --help`"
    )


def get_include() -> str:
    """Raises NotSupportedError: there are no C++ headers."""
    _refuse("get_include")


def get_lib() -> str:
    """Raises NotSupportedError: there are no C++ libraries."""
    _refuse("get_lib")
