"""What Python's library had in the years of Fluid and has dropped since; ``millstream run`` gives it back.

Names that are missing are set to what they meant (``collections.Iterable`` is ``collections.abc.Iterable``); a few
functions take arguments again that they took then. For numpy see :mod:`millstream.cli.bygone_numpy`.
"""

from __future__ import annotations

import base64
import collections
import collections.abc
import fractions
import functools
import importlib.util
import inspect
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence, Set
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from millstream.cli import bygone_numpy

__all__ = ["restore"]

ArgSpec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")


def _getargspec(func: Callable[..., Any]) -> Any:
    """inspect.getargspec: positional arguments, the names of * and **, and defaults."""
    spec = inspect.getfullargspec(func)
    return ArgSpec(spec.args, spec.varargs, spec.varkw, spec.defaults)


_OTHERS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (collections, {name: getattr(collections.abc, name) for name in collections.abc.__all__}),
    (inspect, {"getargspec": _getargspec}),
    (fractions, {"gcd": math.gcd}),
    (time, {"clock": time.process_time}),
    (base64, {"encodestring": base64.encodebytes, "decodestring": base64.decodebytes}),
    (threading.Thread, {"isAlive": threading.Thread.is_alive}),
)


def _answer_in_numbers(util: Any) -> None:
    """Let distutils.util.strtobool give 1 and 0, which programs print; setuptools' copy of distutils says True and False."""
    judge = util.strtobool
    util.strtobool = functools.wraps(judge)(lambda val: int(judge(val)))


class _Distutils(MetaPathFinder):
    """Waits for the first import of ``distutils.util``: most programs have none, and it takes long."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "distutils.util":
            return None
        sys.meta_path.remove(self)  # its place is that of the next finder, asked now
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: ModuleType) -> None:
                load(module)
                _answer_in_numbers(module)

            spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _sample(of: Callable[..., Any]) -> Callable[..., Any]:
    """random.sample took sets."""
    return functools.wraps(of)(
        lambda population, k, **given: of(tuple(population) if isinstance(population, Set) else population, k, **given)
    )


def _shuffle(of: Callable[..., Any]) -> Callable[..., Any]:
    """random.shuffle took a second argument, a function that draws from [0, 1)."""

    @functools.wraps(of)
    def shuffle(x: Any, random: Callable[[], float] | None = None) -> None:
        if random is None:
            return of(x)
        for i in reversed(range(1, len(x))):
            j = int(random() * (i + 1))
            x[i], x[j] = x[j], x[i]

    return shuffle


def _without_encoding(of: Callable[..., Any]) -> Callable[..., Any]:
    """json.load and loads took an `encoding`, without meaning since Python 3.1."""

    @functools.wraps(of)
    def read(source: Any, *, encoding: str | None = None, **given: Any) -> Any:
        return of(source, **given)

    return read


_CHANGED: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (random, "sample", _sample),
    (random, "shuffle", _shuffle),
    (json, "load", _without_encoding),
    (json, "loads", _without_encoding),
)


def restore() -> None:
    """Give it all back, in this process."""
    if "distutils.util" in sys.modules:
        _answer_in_numbers(sys.modules["distutils.util"])
    else:
        sys.meta_path.insert(0, _Distutils())
    for owner, names in _OTHERS:
        for name, value in names.items():
            if name not in owner.__dict__:
                setattr(owner, name, value)
    for owner, name, change in _CHANGED:
        setattr(owner, name, change(getattr(owner, name)))
    bygone_numpy.restore()
