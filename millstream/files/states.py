"""``.pdparams`` and ``.pdopt``: pickles (protocol 2) of dict name -> ndarray, as Fluid's save and save_dygraph make.

Written opcode by opcode, in the very bytes that Python 3.7 and numpy 1 give: numpy 2's own pickles name
``numpy._core``, which the numpy of a Fluid installation does not have. Arrays are written piece by piece, not copied.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from millstream.errors import FileFormatError, NotSupportedError
from millstream.files.atomic import atomic_write
from millstream.files.unpickle import read_pickle

STRUCTURED_NAMES = "StructuredToParameterName@@"  # key of dict structured name -> parameter name (save_dygraph)
_BATCH = 1000  # items per SETITEMS, as Python's pickler
_CHUNK = 1 << 20
_MAX_TEXT = (1 << 32) - 1


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write dict name -> array (or nested plain data) to `path`, atomically.

    Raises TypeError: something in it is neither plain data nor a numeric array. NotSupportedError: an array over
    about 2 GiB, which pickle protocol 2 can't hold.
    """
    with atomic_write(path) as fh:
        dump_state(fh, state)


def dump_state(fh: BinaryIO, state: Mapping[str, Any]) -> None:
    """As :func:`write_state`, into an open binary file."""
    fh.write(b"\x80\x02")
    _Writer(fh).save(state)
    fh.write(b".")


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``.pdparams`` or ``.pdopt`` file: name -> ndarray (writable), STRUCTURED_NAMES -> dict.

    Raises FileFormatError: it is no pickle of a dict with str keys, or holds anything but plain data and arrays.
    """
    found = read_pickle(path)
    if not isinstance(found, dict) or not all(isinstance(k, str) for k in found):
        raise FileFormatError(f"{os.fspath(path)}: expected a dict of names to arrays, found {type(found).__name__}")
    return dict(found)


class _Writer:
    """Python's protocol 2 pickler for plain data, with its memo."""

    def __init__(self, fh: BinaryIO) -> None:
        self.fh = fh
        self.memo: dict[Any, int] = {}  # id of an object, or the name of a thing that is always the same
        self.alive: list[Any] = []  # an id means its object only while that lives
        self.count = 0
        self.open: set[int] = set()

    def put(self, key: Any = None) -> None:
        """Remember the object just written (under `key`)."""
        n = self.count
        self.count += 1
        self.fh.write(b"q" + bytes([n]) if n < 256 else b"r" + struct.pack("<I", n))
        if key is not None:
            self.memo[key] = n

    def get(self, key: Any) -> bool:
        """Refer to what was remembered under `key`; False when there is none."""
        n = self.memo.get(key)
        if n is None:
            return False
        self.fh.write(b"h" + bytes([n]) if n < 256 else b"j" + struct.pack("<I", n))
        return True

    def save(self, value: Any) -> None:
        if value is None or isinstance(value, bool):
            self.fh.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            self.array(np.asarray(value))
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, float):
            self.fh.write(b"G" + struct.pack(">d", value))
        elif isinstance(value, bytes):
            self.encoded(np.frombuffer(value, np.uint8))
        elif isinstance(value, (Mapping, list, tuple)):
            self.container(value)
        else:
            raise TypeError(f"a state holds arrays, str, numbers, None, dicts, lists; received {type(value).__name__}")

    def integer(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.fh.write(b"K" + bytes([value]))
        elif 0 <= value < 1 << 16:
            self.fh.write(b"M" + struct.pack("<H", value))
        elif -(1 << 31) <= value < 1 << 31:
            self.fh.write(b"J" + struct.pack("<i", value))
        else:
            raw = value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "little", signed=True)
            if len(raw) > 16:
                raise TypeError(f"a state holds ints of at most 128 bits, received {value.bit_length()} bits")
            self.fh.write(b"\x8a" + bytes([len(raw)]) + raw)

    def text(self, value: str, key: Any = None) -> None:
        if key is None:
            key = id(value)
            self.alive.append(value)
        if self.get(key):
            return
        raw = value.encode("utf-8", "surrogatepass")
        self.fh.write(b"X" + struct.pack("<I", len(raw)) + raw)
        self.put(key)

    def constant(self, value: str) -> None:
        """A text that is one and the same object wherever numpy uses it."""
        self.text(value, ("text", value))

    def named(self, module: str, name: str) -> None:
        """A global."""
        if not self.get((module, name)):
            self.fh.write(f"c{module}\n{name}\n".encode())
            self.put((module, name))

    def container(self, value: Any) -> None:
        key = id(value)
        if key in self.open:
            raise TypeError("a state can't hold a container that holds itself")
        if value == ():
            self.fh.write(b")")
            return
        if self.get(key):
            return
        self.alive.append(value)
        self.open.add(key)
        if isinstance(value, tuple):
            self.tuple(value, key)
        else:
            mapping = isinstance(value, Mapping)
            self.fh.write(b"}" if mapping else b"]")
            self.put(key)
            items = list(value.items()) if mapping else list(value)
            for start in range(0, len(items), _BATCH):
                self.batch(items[start : start + _BATCH], mapping)
        self.open.discard(key)

    def tuple(self, value: tuple[Any, ...], key: Any = None) -> None:
        if not value:
            self.fh.write(b")")
            return
        if len(value) > 3:
            self.fh.write(b"(")
        for item in value:
            self.save(item)
        self.fh.write({1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(value), b"t"))
        self.put(key)

    def batch(self, items: list[Any], mapping: bool) -> None:
        several = len(items) > 1
        if several:
            self.fh.write(b"(")
        for item in items:
            if mapping:
                if not isinstance(item[0], (str, int)):
                    raise TypeError(f"a state's names are str (or int), received {type(item[0]).__name__}")
                self.save(item[0])
                self.save(item[1])
            else:
                self.save(item)
        self.fh.write((b"u" if several else b"s") if mapping else (b"e" if several else b"a"))

    # ---- numpy -------------------------------------------------------------------------------
    def array(self, value: np.ndarray[Any, Any]) -> None:
        key = id(value)
        if self.get(key):
            return
        self.alive.append(value)
        if value.dtype.kind not in "biufc" or value.dtype.metadata:
            raise TypeError(f"a state holds arrays of numbers, received dtype {value.dtype}")
        order = "|" if value.dtype.itemsize == 1 else "<"
        dtype = value.dtype.newbyteorder(order) if order == "<" else value.dtype
        self.named("numpy.core.multiarray", "_reconstruct")
        self.named("numpy", "ndarray")
        self.tuple((0,))
        if not self.get("b"):
            self.encoded(np.frombuffer(b"b", np.uint8), "b")
        self.fh.write(b"\x87")
        self.put()
        self.fh.write(b"R")
        self.put(key)
        self.fh.write(b"(K\x01")
        self.tuple(value.shape)
        self.dtype(f"{dtype.kind}{dtype.itemsize}", order)
        self.fh.write(b"\x89")
        self.encoded(np.ascontiguousarray(value, dtype).reshape(-1).view(np.uint8))
        self.fh.write(b"t")
        self.put()
        self.fh.write(b"b")

    def dtype(self, kind: str, order: str) -> None:
        if self.get(("dtype", kind)):
            return
        self.named("numpy", "dtype")
        self.constant(kind)
        self.fh.write(b"\x89\x88\x87")
        self.put()
        self.fh.write(b"R")
        self.put(("dtype", kind))
        self.fh.write(b"(K\x03")
        self.constant(order)
        self.fh.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t")
        self.put()
        self.fh.write(b"b")

    def encoded(self, data: np.ndarray[Any, Any], key: Any = None) -> None:
        """Bytes, which protocol 2 holds as ``_codecs.encode(text, "latin1")``; `data` is uint8, 1-d."""
        pieces = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
        length = len(data) + sum(int(np.count_nonzero(p >= 0x80)) for p in pieces)
        if length > _MAX_TEXT:
            raise NotSupportedError(
                f"an array of {len(data)} bytes can't be written: pickle protocol 2 holds at most 4 GiB of text. "
                "Save it with save_persistables"
            )
        self.named("_codecs", "encode")
        self.fh.write(b"X" + struct.pack("<I", length))
        for piece in pieces:
            self.fh.write(piece.tobytes().decode("latin1").encode())
        self.put()
        self.constant("latin1")
        self.fh.write(b"\x86")
        self.put()
        self.fh.write(b"R")
        self.put(key)
