"""What numpy leaves in a pickle, rebuilt without calling anything the pickle names.

numpy pickles an array as ``_reconstruct(ndarray, (0,), b"b")`` followed by a state (version, shape, dtype, fortran,
bytes), a dtype as ``dtype("f4", False, True)`` with a state that holds the byte order, a scalar as
``scalar(dtype, bytes)``. Before protocol 3 bytes are ``_codecs.encode(text, "latin1")``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from millstream.files.source import Source, element_count

GlobalTable = dict[tuple[str, str], Callable[[Any, tuple[Any, ...]], Any]]
_CHUNK = 1 << 15
_PLAIN = re.compile(r"(?:[biufc](?:1|2|4|8|16)|[SU][1-9][0-9]{0,8}|[SU]0?)\Z")


class Machine(Protocol):
    """What is needed of the machine that reads the pickle."""

    src: Source

    def spend(self, count: int, what: str) -> None:
        """Account for `count` bytes that become an "array" or "text"; raises when the file has no such amount."""


class Blob:
    """A long string that is still in the file: `form` is ``bytes``, ``text`` (UTF-8) or ``old`` (Python 2)."""

    __slots__ = ("form", "length", "pos", "src")

    def __init__(self, src: Source, pos: int, length: int, form: str) -> None:
        self.src, self.pos, self.length, self.form = src, pos, length, form


class Latin1(Blob):
    """The bytes that a text in the file encodes as latin1."""

    __slots__ = ()


class Pending:
    """An object that a BUILD opcode has yet to fill."""

    what = "an object"

    def set_state(self, machine: Machine, state: Any) -> None:
        """Take the state; raises TypeError or ValueError when it does not fit."""
        raise TypeError("takes no state")


class PendingDtype(Pending):
    """A dtype: `kind` like ``f4``, the byte order comes with the state."""

    what = "a numpy dtype"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.order = "="

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.kind)

    def set_state(self, machine: Machine, state: Any) -> None:
        if not isinstance(state, tuple) or not 8 <= len(state) <= 9 or state[0] not in (3, 4):
            raise ValueError("expected the state of a dtype (version 3 or 4)")
        if state[1] not in ("<", ">", "|", "=", b"<", b">", b"|", b"="):
            raise ValueError(f"unknown byte order {str(state[1])[:20]!r}")
        if any(part is not None for part in state[2:5]) or (len(state) == 9 and state[8] is not None):
            raise ValueError("structured dtypes and dtype metadata are not read")
        self.order = state[1] if isinstance(state[1], str) else state[1].decode()
        size = state[5]
        if self.kind[0] in "SU" and isinstance(size, int):
            if not 0 <= size < 1 << 30:
                raise ValueError(f"a string dtype of {size} bytes")
            self.kind = f"{self.kind[0]}{size // (4 if self.kind[0] == 'U' else 1)}"


class PendingArray(Pending):
    """An array; `value` is there once its state is."""

    what = "a numpy array"

    def __init__(self) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    def set_state(self, machine: Machine, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("expected the state (version, shape, dtype, fortran, bytes)")
        if len(state) == 5 and state[0] not in (0, 1):
            raise ValueError(f"unknown state version {str(state[0])[:20]}")
        shape, dtype, fortran, data = state[-4:]
        self.value = _array(machine, shape, dtype, bool(fortran), data)


def materialize(pending: Pending, machine: Any) -> Any:
    """The numpy object that `pending` stands for."""
    if isinstance(pending, PendingDtype):
        return pending.dtype
    if isinstance(pending, PendingArray) and pending.value is not None:
        return pending.value
    raise machine.fail(f"{pending.what} without its contents")


def _array(machine: Machine, shape: Any, dtype: Any, fortran: bool, data: Any) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, PendingDtype):
        raise ValueError("expected a plain dtype")
    fits = isinstance(shape, tuple) and len(shape) <= 64
    if not fits or any(type(d) is not int or not 0 <= d < 1 << 62 for d in shape):
        raise ValueError(f"expected a tuple of dimensions as shape, found {type(shape).__name__}")
    kind = dtype.dtype
    count = element_count(shape)
    if isinstance(data, list):
        raise ValueError("arrays of objects are not read")
    if not isinstance(data, (bytes, str, Blob)):
        raise ValueError(f"expected bytes, found {type(data).__name__}")
    if not kind.itemsize:
        raise ValueError("a dtype of no bytes")
    machine.spend(count * kind.itemsize, "array")
    made = np.empty(shape, kind, "F" if fortran else "C")
    flat = (made.T if fortran else made).reshape(-1).view(np.uint8) if count else np.empty(0, np.uint8)
    _fill(flat, data)
    if kind.kind == "b":
        np.minimum(flat, 1, out=flat)
    return made


def _fill(target: np.ndarray[Any, Any], data: Any) -> None:
    """Put all bytes of `data` into `target` (uint8), piece by piece; ValueError when the lengths differ."""
    wanted, done = target.nbytes, 0
    for piece in _pieces(data):
        if done + len(piece) > wanted:
            raise ValueError(f"expected {wanted} bytes, found more")
        target[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    if done != wanted:
        raise ValueError(f"expected {wanted} bytes, found {done}")


def _pieces(data: Any) -> Any:
    if isinstance(data, str):  # a Python 2 string read as latin1
        data = data.encode("latin1")
    if isinstance(data, bytes):
        yield data
        return
    src, back = data.src, data.src.pos
    try:
        at, end = data.pos, data.pos + data.length
        rest = b""
        while at < end:
            src.seek(at)
            raw = src.take(min(_CHUNK, end - at), "array data")
            at += len(raw)
            if not isinstance(data, Latin1):
                yield raw
                continue
            raw = rest + raw
            cut = len(raw) - 1 if raw[-1] >= 0xC0 and at < end else len(raw)  # do not cut a two-byte character
            rest = raw[cut:]
            yield raw[:cut].decode().encode("latin1")
    finally:
        src.seek(back)


# ---- the functions a pickle may name ---------------------------------------------------------------
def _reconstruct(machine: Machine, args: tuple[Any, ...]) -> PendingArray:
    if len(args) != 3 or getattr(args[0], "name", "") != "numpy.ndarray" or args[1] != (0,):
        raise ValueError("expected (ndarray, (0,), 'b')")
    return PendingArray()


def _dtype(machine: Machine, args: tuple[Any, ...]) -> PendingDtype:
    kind = args[0] if args else None
    if isinstance(kind, bytes):
        kind = kind.decode("latin1")
    if not isinstance(kind, str) or not 1 <= len(args) <= 3:
        raise ValueError("expected the name of a dtype")
    if not _PLAIN.match(kind):
        raise ValueError(f"dtype {kind[:40]!r} is not read; expected numbers, bools or fixed strings, not objects")
    if kind[0] in "biufc":
        np.dtype(kind)
    return PendingDtype(kind)


def _scalar(machine: Machine, args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or not isinstance(args[0], PendingDtype):
        raise ValueError("expected a dtype and bytes")
    return _array(machine, (), args[0], False, args[1])[()]


def _encode(machine: Machine, args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or args[1] not in ("latin1", "latin-1"):
        raise ValueError("expected a text and 'latin1'")
    text = args[0]
    if isinstance(text, Blob):
        if text.form != "text":
            raise ValueError("expected a text")
        return Latin1(text.src, text.pos, text.length, "bytes")
    if not isinstance(text, str):
        raise TypeError("expected a text")
    machine.spend(len(text), "text")
    return text.encode("latin1")


def _from_buffer(machine: Machine, args: tuple[Any, ...]) -> PendingArray:
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise ValueError("expected (bytes, dtype, shape, order)")
    made = PendingArray()
    made.value = _array(machine, args[2], args[1], args[3] == "F", args[0])
    return made


def _not_called(machine: Machine, args: tuple[Any, ...]) -> Any:
    raise TypeError("only named in pickles, never called")


NUMPY_GLOBALS: GlobalTable = {
    ("numpy", "ndarray"): _not_called,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    NUMPY_GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    NUMPY_GLOBALS[f"{_core}.multiarray", "scalar"] = _scalar
    NUMPY_GLOBALS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
