"""Read pickles that hold only plain data: containers, strings, numbers and NumPy arrays.

Python's unpickler runs whatever the file names. This one lets a file name only the few
constructors below, each of which checks its arguments, and no object that could be altered
through attribute assignment is ever handed to the file. Object arrays and structured dtypes
are refused.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ..errors import FileFormatError

__all__ = ["load", "loads"]

_PLAIN_DTYPE = re.compile(r"[biufcSU?]\d{0,9}")


class _Constructor:
    """A callable without attributes, so that a BUILD opcode has nothing to change."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_Constructor__call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise FileFormatError(f"pickle: assignment to {name!r} of a constructor refused")

    def __call__(self, *args: Any) -> Any:
        return self.__call(*args)  # type: ignore[attr-defined]


class _Dtype:
    """A NumPy dtype under construction: pickles give the byte order in a second step."""

    __slots__ = ("dtype",)

    def __init__(self, spec: Any, *_: Any) -> None:
        text = spec.decode("ascii") if isinstance(spec, bytes) else spec
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
            raise FileFormatError(f"pickle: NumPy dtype {spec!r} is not plain data")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]) or order not in ("<", ">", "|", "="):
            raise FileFormatError("pickle: structured NumPy dtypes are refused")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class _Array(np.ndarray):
    """An array waiting for its contents; replaced by a plain array at the end."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        content = _plain_dtype(dtype)
        if isinstance(raw, str):
            raw = raw.encode("latin1")
        count = 1
        for extent in shape:
            count *= extent
        if not isinstance(raw, bytes) or count * content.itemsize != len(raw):
            raise FileFormatError(f"pickle: array contents do not fit shape {shape}, {content}")
        state = (1, tuple(shape), content, bool(fortran), raw)
        super().__setstate__(state)  # type: ignore[arg-type]


def _plain_dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _Dtype):
        raise FileFormatError(f"pickle: expected a NumPy dtype, got {type(value).__name__}")
    return value.dtype


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _NDARRAY or tuple(shape) != (0,):
        raise FileFormatError("pickle: only plain NumPy arrays are admitted")
    return np.ndarray.__new__(_Array, (0,), "b")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Protocol 5 form of an array."""
    return np.frombuffer(bytes(buffer), _plain_dtype(dtype)).reshape(shape, order=order).copy(order)


def _scalar(dtype: Any, raw: Any) -> Any:
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    return np.frombuffer(data, _plain_dtype(dtype), count=1)[0]


def _encode(text: Any, codec: Any) -> bytes:
    """How protocol 2 spells bytes; other codecs could expand a small file without bound."""
    if codec not in ("latin1", "latin-1", b"latin1"):
        raise FileFormatError(f"pickle: codec {codec!r} refused")
    return text.encode("latin1")


def _empty_bytes(*args: Any) -> bytes:
    """How protocols 0 to 2 spell b""; ``bytes(n)`` would make any amount of zeros."""
    if args:
        raise FileFormatError("pickle: bytes() with arguments refused")
    return b""


def _not_callable(*_: Any) -> Any:
    raise FileFormatError("pickle: direct construction of numpy.ndarray refused")


_NDARRAY = _Constructor(_not_callable)
_ADMITTED: dict[tuple[str, str], _Constructor] = {
    ("_codecs", "encode"): _Constructor(_encode),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Constructor(_Dtype),
    ("collections", "OrderedDict"): _Constructor(collections.OrderedDict),
}
for _module in ("numpy.core", "numpy._core"):
    _ADMITTED[(f"{_module}.multiarray", "_reconstruct")] = _Constructor(_reconstruct)
    _ADMITTED[(f"{_module}.multiarray", "scalar")] = _Constructor(_scalar)
    _ADMITTED[(f"{_module}.numeric", "_frombuffer")] = _Constructor(_from_buffer)
for _module in ("builtins", "__builtin__"):
    _ADMITTED[(_module, "bytes")] = _Constructor(_empty_bytes)
    for _type in (set, frozenset, complex):
        _ADMITTED[(_module, _type.__name__)] = _Constructor(_type)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[(module, name)]
        except KeyError:
            raise FileFormatError(
                f"pickle: the file asks for {module}.{name}; only plain containers, strings, "
                "numbers and NumPy arrays are admitted"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise FileFormatError("pickle: persistent references are refused")


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """Replace half-made helpers by the plain arrays and dtypes they stand for."""
    if isinstance(value, _Array):
        return value.view(np.ndarray)
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, _Constructor):
        raise FileFormatError("pickle: a constructor is not data")
    if not isinstance(value, (list, tuple, dict)):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, tuple):
        finished = tuple(_finish(item, done) for item in value)
        done[id(value)] = finished
        return finished
    done[id(value)] = value
    if isinstance(value, list):
        value[:] = [_finish(item, done) for item in value]
    else:
        for key in value:
            value[key] = _finish(value[key], done)
    return value


def load(stream: IO[bytes], encoding: str = "latin1") -> Any:
    """Read one pickle. `encoding` is for Python 2 strings ("bytes" keeps them as bytes).

    FileFormatError if the file is damaged or holds anything but plain data.
    """
    try:
        return _finish(_Unpickler(stream, encoding=encoding).load(), {})
    except FileFormatError:
        raise
    except Exception as error:  # the unpickler raises nearly anything on a damaged file
        raise FileFormatError(f"pickle: not a readable pickle of plain data: {error}") from error


def loads(data: bytes, encoding: str = "latin1") -> Any:
    """:func:`load` from memory."""
    return load(io.BytesIO(data), encoding)
