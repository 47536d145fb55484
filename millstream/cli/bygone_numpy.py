"""What numpy 1.x had and printed in the years of Fluid; ``millstream run`` gives it back.

Names that are missing are set to what they meant (``np.float`` is ``float``), also methods of arrays; functions take again
what they took (rows of unequal length, generators of rows, ``np.array(x, copy=False)``); and numbers print without their
type, ``[0.5]`` and not ``[np.float32(0.5)]``. What stays numpy 2's: the type of a float32 number times a Python float.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["restore"]


def _asscalar(a: Any) -> Any:
    """numpy.asscalar: the only element of an array as a Python number."""
    return a.item()


def _asfarray(a: Any, dtype: Any = np.float64) -> Any:
    """numpy.asfarray: `a` as an array of floating numbers."""
    return np.asarray(a, dtype if np.issubdtype(dtype, np.inexact) else np.float64)


def _alen(a: Any) -> int:
    """numpy.alen: the length of the first axis, 1 for a number."""
    return len(np.atleast_1d(a))


_KINDS: dict[str, list[Any]] = {
    "int": [np.int8, np.int16, np.int32, np.int64],
    "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
    "float": [np.float16, np.float32, np.float64, np.longdouble],
    "complex": [np.complex64, np.complex128, np.clongdouble],
    "others": [bool, object, bytes, str, np.void],
}
_NAMES: dict[str, Any] = {
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
    "singlecomplex": np.complex64,
    "cfloat": np.complex128,
    "longfloat": np.longdouble,
    "longcomplex": np.clongdouble,
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
    "PZERO": 0.0,
    "NZERO": -0.0,
    "NaN": np.nan,
    "NAN": np.nan,
    "product": np.prod,
    "cumproduct": np.cumprod,
    "alltrue": np.all,
    "sometrue": np.any,
    "round_": np.round,
    "mat": np.asmatrix,
    "alen": _alen,
    "asscalar": _asscalar,
    "asfarray": _asfarray,
    "msort": functools.partial(np.sort, axis=0),
    "row_stack": np.vstack,
    "in1d": np.isin,
    "trapz": getattr(np, "trapezoid", None),
    "sctypes": _KINDS,
    "typeDict": np.sctypeDict,
    "cast": {t: functools.partial(np.asarray, dtype=t) for types in _KINDS.values() for t in types}
    | {np.dtype(t).name: functools.partial(np.asarray, dtype=t) for types in _KINDS.values() for t in types},
    "AxisError": np.exceptions.AxisError,
    "ComplexWarning": np.exceptions.ComplexWarning,
    "RankWarning": np.exceptions.RankWarning,
    "VisibleDeprecationWarning": np.exceptions.VisibleDeprecationWarning,
}


def _itemset(self: np.ndarray[Any, Any], *args: Any) -> None:
    """ndarray.itemset: (value) of an array of one element, (flat position, value) or (indices, value)."""
    if len(args) == 2 and isinstance(args[0], tuple):
        self[args[0]] = args[1]
    else:
        self.flat[args[0] if len(args) == 2 else 0] = args[-1]


_METHODS: dict[str, Callable[..., Any]] = {
    "tostring": lambda self, order="C": self.tobytes(order),
    "ptp": lambda self, axis=None, out=None, **given: np.ptp(self, axis, out, **given),
    "itemset": _itemset,
    "newbyteorder": lambda self, new_order="S": self.view(self.dtype.newbyteorder(new_order)),
}


def _made(of: Callable[..., Any], copies: bool) -> Callable[..., Any]:
    """np.array, np.asarray: rows of unequal length make an array of lists; ``copy=False`` copies where it must."""

    @functools.wraps(of)
    def make(*args: Any, **given: Any) -> Any:
        if copies and given.get("copy") is False:
            given["copy"] = None
        try:
            return of(*args, **given)
        except ValueError as error:
            if "inhomogeneous" not in str(error) or len(args) > 1 or given.get("dtype") is not None:
                raise
            return of(*args, **dict(given, dtype=object))

    return make


def _joined(of: Callable[..., Any]) -> Callable[..., Any]:
    """np.vstack and its kind took a generator of arrays."""

    @functools.wraps(of)
    def join(arrays: Any, *args: Any, **given: Any) -> Any:
        return of(list(arrays) if isinstance(arrays, Iterator) else arrays, *args, **given)

    return join


def _fromstring(of: Callable[..., Any]) -> Callable[..., Any]:
    """np.fromstring without `sep` read bytes, into an array of its own."""

    @functools.wraps(of)
    def fromstring(string: Any, dtype: Any = float, count: int = -1, *, sep: str = "", **given: Any) -> Any:
        if sep:
            return of(string, dtype, count, sep=sep, **given)
        data = string.encode("latin1") if isinstance(string, str) else string
        return np.frombuffer(data, dtype, count, **given).copy()

    return fromstring


def _histogram(of: Callable[..., Any]) -> Callable[..., Any]:
    """np.histogram called `density` `normed` too."""

    @functools.wraps(of)
    def histogram(*args: Any, normed: bool | None = None, **given: Any) -> Any:
        return of(*args, **(given if normed is None else dict(given, density=normed)))

    return histogram


_CHANGED: dict[str, Callable[..., Any]] = {
    "array": functools.partial(_made, copies=True),
    "asarray": functools.partial(_made, copies=False),
    "fromstring": _fromstring,
    "histogram": _histogram,
    **dict.fromkeys(("stack", "vstack", "hstack", "dstack", "column_stack"), _joined),
}


def _give(owner: ModuleType, names: dict[str, Any]) -> None:
    missing = object()
    for name, value in names.items():
        # numpy warns, or refuses with advice, where it knows that a name is gone: look past that
        if owner.__dict__.get(name, missing) is missing and value is not None:
            setattr(owner, name, value)


def _give_methods() -> None:
    """Methods of the array type, which Python code cannot set: into the mapping behind its ``__dict__``."""
    (methods,) = (d for d in gc.get_referents(np.ndarray.__dict__) if isinstance(d, dict))
    for name, method in _METHODS.items():
        # numpy 2 keeps some of the names, to say that they are gone
        if name not in methods or not hasattr(np.zeros(1), name):
            methods[name] = method
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(np.ndarray))


def restore() -> None:
    """Give it all back, in this process."""
    _give(np, _NAMES)
    _give(np.lib, {"pad": np.pad})
    _give_methods()
    for name, change in _CHANGED.items():
        setattr(np, name, change(getattr(np, name)))
    np.set_printoptions(legacy="1.21")
    # float(loss) of arrays [1] is how the programs of those years are written
    warnings.filterwarnings("ignore", "Conversion of an array with ndim > 0 to a scalar", DeprecationWarning)
