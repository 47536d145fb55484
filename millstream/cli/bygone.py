"""Names that Python and numpy had in the years of Fluid and have dropped since; ``millstream run`` gives them back.

Only names that are missing are set, to what they meant: ``np.float`` is ``float``, ``collections.Iterable`` is
``collections.abc.Iterable``. A program that does not use them sees no difference.
"""

from __future__ import annotations

import base64
import collections
import collections.abc
import fractions
import functools
import inspect
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["restore"]

ArgSpec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")


def _getargspec(func: Callable[..., Any]) -> Any:
    """inspect.getargspec: positional arguments, the names of * and **, and defaults."""
    spec = inspect.getfullargspec(func)
    return ArgSpec(spec.args, spec.varargs, spec.varkw, spec.defaults)


def _asscalar(a: Any) -> Any:
    """numpy.asscalar: the only element of an array as a Python number."""
    return a.item()


def _asfarray(a: Any, dtype: Any = np.float64) -> Any:
    """numpy.asfarray: `a` as an array of floating numbers."""
    return np.asarray(a, dtype if np.issubdtype(dtype, np.inexact) else np.float64)


_NUMPY: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "object": object,
    "str": str,
    "complex": complex,
    "long": int,
    "unicode": str,
    "float_": np.float64,
    "complex_": np.complex128,
    "int0": np.intp,
    "uint0": np.uintp,
    "bool8": np.bool_,
    "object0": np.object_,
    "string_": np.bytes_,
    "unicode_": np.str_,
    "Inf": np.inf,
    "Infinity": np.inf,
    "infty": np.inf,
    "PINF": np.inf,
    "NINF": -np.inf,
    "NaN": np.nan,
    "NAN": np.nan,
    "product": np.prod,
    "cumproduct": np.cumprod,
    "alltrue": np.all,
    "sometrue": np.any,
    "round_": np.round,
    "asscalar": _asscalar,
    "asfarray": _asfarray,
    "msort": functools.partial(np.sort, axis=0),
    "row_stack": np.vstack,
    "in1d": np.isin,
    "trapz": getattr(np, "trapezoid", None),
}
_OTHERS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (collections, {name: getattr(collections.abc, name) for name in collections.abc.__all__}),
    (inspect, {"getargspec": _getargspec}),
    (fractions, {"gcd": math.gcd}),
    (time, {"clock": time.process_time}),
    (base64, {"encodestring": base64.encodebytes, "decodestring": base64.decodebytes}),
    (threading.Thread, {"isAlive": threading.Thread.is_alive}),
)


def restore() -> None:
    """Give the missing names back, in this process."""
    missing = object()
    for owner, names in ((np, _NUMPY), *_OTHERS):
        for name, value in names.items():
            # numpy warns, or refuses with advice, where it knows that a name is gone: look past that
            if owner.__dict__.get(name, missing) is missing and value is not None:
                setattr(owner, name, value)
