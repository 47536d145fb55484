"""Read the numeric matrices of a MATLAB 5 file (the format of ``imagelabels.mat``).

Source: "MAT-File Format", The MathWorks. Cells, structures, text and sparse matrices are
skipped; complex matrices are refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ..errors import FileFormatError

__all__ = ["load_mat"]

_MATRIX, _COMPRESSED = 14, 15
_STORAGE = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8",
    15: "u8",
}  # fmt: skip


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, contents) of the elements that follow each other in `data`."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # small element: size and type in one word, contents in the next
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 8
            if size > 4:
                raise FileFormatError(f"MAT file: small element of {size} bytes")
        else:
            start = at + 8
            # Compressed elements are not padded to 8 bytes.
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        contents = data[start : start + size]
        if len(contents) != size:
            raise FileFormatError("MAT file: ends inside an element")
        yield kind, contents
        at = end


def _matrix(data: bytes, order: str) -> tuple[str, np.ndarray] | None:
    parts = list(_elements(data, order))
    if len(parts) < 4 or len(parts[0][1]) < 8:
        return None
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    kind = flags & 0xFF
    if kind not in _CLASSES:
        return None
    if flags & 0x0800:
        raise FileFormatError("MAT file: complex matrices are not supported")
    shape = tuple(np.frombuffer(parts[1][1], order + "i4").tolist())
    name = parts[2][1].decode("ascii")
    storage, raw = parts[3]
    if storage not in _STORAGE:
        raise FileFormatError(f"MAT file: {name!r} has unknown storage type {storage}")
    values = np.frombuffer(raw, order + _STORAGE[storage])
    if values.size != int(np.prod(shape)):
        raise FileFormatError(f"MAT file: {name!r} has {values.size} values for shape {shape}")
    return name, values.astype(_CLASSES[kind]).reshape(shape, order="F")


def load_mat(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """name -> array of the real numeric matrices; FileFormatError if the file is damaged."""
    with open(path, "rb") as stream:
        data = stream.read()
    mark = data[126:128]
    if mark not in (b"IM", b"MI"):
        raise FileFormatError(f"{os.fspath(path)}: not a MATLAB 5 file")
    order = "<" if mark == b"IM" else ">"
    result: dict[str, np.ndarray] = {}
    pending = list(_elements(data[128:], order))
    while pending:
        kind, contents = pending.pop(0)
        if kind == _COMPRESSED:
            try:
                pending[:0] = list(_elements(zlib.decompress(contents), order))
            except zlib.error as error:
                raise FileFormatError(f"{os.fspath(path)}: {error}") from error
        elif kind == _MATRIX:
            matrix = _matrix(contents, order)
            if matrix is not None:
                result[matrix[0]] = matrix[1]
    return result
