"""While a function is recorded into a Program, layers hand out the Program's own parameters and converted methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Builder(Protocol):
    """What a function under construction asks for."""

    def parameter(self, param: Any) -> Any:
        """The Program's Parameter for an eager one."""

    def convert(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The form of a Python function that can be recorded."""


class _Current:
    builder: Builder | None = None


def switch(new: Builder | None) -> Builder | None:
    """Install a builder (None: nothing is recorded); returns the old one."""
    old, _Current.builder = _Current.builder, new
    return old


def builder() -> Builder | None:
    """The builder in force."""
    return _Current.builder


def parameter(param: Any) -> Any:
    """`param`, or what stands for it in the Program under construction."""
    if _Current.builder is None or param is None:
        return param
    return _Current.builder.parameter(param)


def forward_of(layer: Any) -> Callable[..., Any]:
    """The layer's forward(), converted while a Program is under construction."""
    if _Current.builder is None:
        return layer.forward
    return _Current.builder.convert(layer.forward)
