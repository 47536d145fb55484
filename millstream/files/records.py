"""Tensor records: the binary form of LoDTensor and SelectedRows that Fluid's save operators write.

LoDTensor: uint32 0, uint64 number of levels, per level uint64 byte length and int64 offsets, then a tensor.
SelectedRows: uint32 0, uint64 number of rows, int64 rows, int64 height, then a tensor.
Tensor: uint32 0, int32 length of a TensorDesc message, that message, the elements in C order.
A combined file is LoDTensor records one after the other, without names; Fluid orders them by variable name.
All numbers are little-endian. bfloat16 elements (type 22) are numpy uint16, their bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from millstream.errors import AttributeTypeError
from millstream.files.atomic import atomic_write
from millstream.files.source import Source, as_source, element_count, open_source
from millstream.ir.types import VarType
from millstream.ir.wire import BYTES, VARINT, WireError, fields, read_varint, signed, varint

Array = np.ndarray[Any, Any]
Lod = tuple[Array, ...]

MAX_RANK = 64  # of numpy
MAX_LEVELS = 32
_MAX_DESC = 1024
_DTYPES: dict[int, np.dtype[Any]] = {
    VarType.BOOL: np.dtype("bool"),
    VarType.INT16: np.dtype("<i2"),
    VarType.INT32: np.dtype("<i4"),
    VarType.INT64: np.dtype("<i8"),
    VarType.FP16: np.dtype("<f2"),
    VarType.FP32: np.dtype("<f4"),
    VarType.FP64: np.dtype("<f8"),
    VarType.UINT8: np.dtype("u1"),
    VarType.INT8: np.dtype("i1"),
    VarType.BF16: np.dtype("<u2"),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


class SelectedRowsRecord(NamedTuple):
    """Rows of a [height, ...] tensor: `rows` int64 [n] (repeats allowed), `value` [n, ...]."""

    rows: Array
    height: int
    value: Array


# ---- writing -------------------------------------------------------------------------------------
def write_tensor(fh: BinaryIO, array: Any) -> None:
    """Write one tensor (no LoD); a C-order little-endian array is not copied.

    Raises AttributeTypeError: its dtype has no number (unsigned ints but uint8, complex, objects, …).
    """
    array = np.asarray(array)
    number = _NUMBERS.get(array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype)
    if number is None:
        raise AttributeTypeError(
            f"a tensor of dtype {array.dtype} can't be saved; expected one of "
            f"{', '.join(d.name for d in _NUMBERS if d.name != 'uint16')} (bfloat16: its bits as uint16)"
        )
    desc = b"\x08" + varint(number) + b"".join(b"\x10" + varint(d) for d in array.shape)
    fh.write(b"\0\0\0\0" + len(desc).to_bytes(4, "little") + desc)
    _write_raw(fh, array, _DTYPES[number])


def _write_raw(fh: BinaryIO, array: Array, dtype: np.dtype[Any]) -> None:
    if array.size:
        flat = np.ascontiguousarray(array, dtype).reshape(-1)
        fh.write(flat.view(np.uint8).data)


def write_lod_tensor(fh: BinaryIO, array: Any, lod: Iterable[Any] = ()) -> None:
    """Write a LoDTensor record; `lod` is a sequence of int64 offset arrays, outermost level first.

    Raises ValueError: the offsets do not fit the array (each level starts at 0, never falls, ends at the number of
    entries of the next level, the last at ``array.shape[0]``).
    """
    array = np.asarray(array)
    levels = tuple(np.asarray(level, dtype="<i8") for level in lod)
    problem = lod_problem(levels, array.shape[0] if array.ndim else 1)
    if problem:
        raise ValueError(f"write_lod_tensor: {problem}")
    fh.write(b"\0\0\0\0" + len(levels).to_bytes(8, "little"))
    for level in levels:
        fh.write(level.nbytes.to_bytes(8, "little"))
        _write_raw(fh, level, level.dtype)
    write_tensor(fh, array)


def write_selected_rows(fh: BinaryIO, rows: Any, height: int, value: Any) -> None:
    """Write a SelectedRows record: `rows` int64 [n], `value` [n, ...].

    Raises ValueError: the number of rows differs, or a row is not in [0, height).
    """
    rows, value = np.asarray(rows, dtype="<i8"), np.asarray(value)
    problem = _rows_problem(rows, height, value.shape)
    if problem:
        raise ValueError(f"write_selected_rows: {problem}")
    fh.write(b"\0\0\0\0" + len(rows).to_bytes(8, "little"))
    _write_raw(fh, rows, rows.dtype)
    fh.write(int(height).to_bytes(8, "little", signed=True))
    write_tensor(fh, value)


# ---- reading -------------------------------------------------------------------------------------
def read_tensor(source: Any) -> Array:
    """Read one tensor (no LoD) from a Source, an open binary file or bytes; raises FileFormatError."""
    src = as_source(source)
    _version(src, "tensor")
    length = src.integer(4, "the length of a TensorDesc", signed=True)
    if not 2 <= length <= _MAX_DESC:
        raise src.fail(f"expected the length of a TensorDesc (2 to {_MAX_DESC}), found {length}", src.pos - 4)
    at = src.pos
    number, dims = _tensor_desc(src, src.take(length, "a TensorDesc"), at)
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise src.fail(f"unknown element type {number}; expected one of {sorted(_DTYPES)}", at)
    if len(dims) > MAX_RANK or any(d < 0 for d in dims):
        raise src.fail(f"expected at most {MAX_RANK} dimensions >= 0, found {dims[:16]}", at)
    array = src.array(dtype, tuple(dims), "tensor data")
    if dtype.kind == "b":  # a numpy bool must be 0 or 1; Fluid takes any other byte as true
        bits = array.reshape(-1).view(np.uint8)
        np.minimum(bits, 1, out=bits)
    return array


def read_lod_tensor(source: Any) -> tuple[Array, Lod]:
    """Read a LoDTensor record from a Source, an open binary file or bytes; (array, int64 offsets per level).

    Raises FileFormatError with file, offset, what was expected and what was found.
    """
    src = as_source(source)
    _version(src, "LoDTensor")
    at = src.pos
    count = src.integer(8, "the number of LoD levels")
    if count > MAX_LEVELS:
        raise src.fail(f"expected a number of LoD levels up to {MAX_LEVELS}, found {count}", at)
    levels = []
    for n in range(count):
        length_at = src.pos
        length = src.integer(8, f"the length of LoD level {n}")
        if length % 8 or not length:
            raise src.fail(f"LoD level {n}: expected a multiple of 8 bytes, found {length}", length_at)
        levels.append(src.array(np.dtype("<i8"), (length // 8,), f"LoD level {n}"))
    array = read_tensor(src)
    problem = lod_problem(tuple(levels), array.shape[0] if array.ndim else 1)
    if problem:
        raise src.fail(problem, at)
    return array, tuple(levels)


def read_selected_rows(source: Any) -> SelectedRowsRecord:
    """Read a SelectedRows record from a Source, an open binary file or bytes; raises FileFormatError."""
    src = as_source(source)
    _version(src, "SelectedRows")
    at = src.pos
    count = src.integer(8, "the number of rows")
    rows = src.array(np.dtype("<i8"), (count,), "row numbers")
    height = src.integer(8, "the height", signed=True)
    value = read_tensor(src)
    problem = _rows_problem(rows, height, value.shape)
    if problem:
        raise src.fail(problem, at)
    return SelectedRowsRecord(rows, height, value)


def finish(source: Source, what: str) -> None:
    """Raise FileFormatError when bytes follow the last record."""
    if source.left:
        raise source.fail(f"{source.left} bytes follow {what}; the file does not belong to these variables")


def _version(src: Source, what: str) -> None:
    version = src.integer(4, f"the {what} version")
    if version:
        raise src.fail(f"expected {what} version 0, found {version}", src.pos - 4)


def _tensor_desc(src: Source, desc: bytes, at: int) -> tuple[int, list[int]]:
    """(element type number, dims) of TensorDesc bytes; dims may be packed or not."""
    number = -1
    dims: list[int] = []
    try:
        for field in fields(desc, 0, len(desc)):
            if field.number == 1 and field.wire_type == VARINT:
                number, _ = read_varint(desc, field.start, field.end)
            elif field.number == 2 and field.wire_type in (VARINT, BYTES):
                pos = field.start
                while pos < field.end:
                    value, pos = read_varint(desc, pos, field.end)
                    dims.append(signed(value))
            else:
                raise WireError(field.tag_at, f"unexpected field {field.number} of wire type {field.wire_type}")
    except WireError as error:
        raise src.fail(f"TensorDesc: {error.problem}", at + error.offset) from None
    if number < 0:
        raise src.fail("TensorDesc without an element type", at)
    return number, dims


def lod_problem(lod: Sequence[Array], rows: int) -> str:
    """What is wrong with offsets `lod` over `rows` rows, or an empty string."""
    for n, level in enumerate(lod):
        if level.ndim != 1 or not level.size or level[0] != 0:
            return f"LoD level {n}: expected offsets that start at 0, found {level.tolist()[:8]}"
        if (level[1:] < level[:-1]).any():
            return f"LoD level {n}: expected offsets that never fall, found {level.tolist()[:8]}"
        last = n + 1 == len(lod)
        wanted = rows if last else lod[n + 1].size - 1
        if level[-1] != wanted:
            below = "rows of the tensor" if last else f"entries of level {n + 1}"
            return f"LoD level {n}: expected offsets that end at {wanted} ({below}), found {level[-1]}"
    return ""


def _rows_problem(rows: Array, height: int, shape: tuple[int, ...]) -> str:
    if rows.ndim != 1 or not shape or shape[0] != len(rows):
        return f"SelectedRows: expected a value with {rows.size} rows, found shape {list(shape)}"
    if height < 0 or (len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= height)):
        span = f"{rows.min()} to {rows.max()}" if len(rows) else "none"
        return f"SelectedRows: expected row numbers in [0, height), found {span} with height {height}"
    return ""


# ---- whole files ---------------------------------------------------------------------------------
def save_lod_tensor(path: str | os.PathLike[str], array: Any, lod: Iterable[Any] = ()) -> None:
    """Write one LoDTensor file, atomically."""
    with atomic_write(path) as fh:
        write_lod_tensor(fh, array, lod)


def load_lod_tensor(path: str | os.PathLike[str]) -> tuple[Array, Lod]:
    """Read a file that is one LoDTensor; raises FileFormatError, also when bytes follow it."""
    with open_source(path) as src:
        result = read_lod_tensor(src)
        finish(src, "the tensor")
    return result


def save_selected_rows(path: str | os.PathLike[str], rows: Any, height: int, value: Any) -> None:
    """Write one SelectedRows file, atomically."""
    with atomic_write(path) as fh:
        write_selected_rows(fh, rows, height, value)


def load_selected_rows(path: str | os.PathLike[str]) -> SelectedRowsRecord:
    """Read a file that is one SelectedRows; raises FileFormatError, also when bytes follow it."""
    with open_source(path) as src:
        result = read_selected_rows(src)
        finish(src, "the SelectedRows")
    return result


def save_combined(path: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Write a combined file of name -> array or (array, lod), in the order of the sorted names, atomically."""
    with atomic_write(path) as fh:
        for name in sorted(tensors):
            value = tensors[name]
            array, lod = value if isinstance(value, tuple) else (value, ())
            write_lod_tensor(fh, array, lod)


def load_combined(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, tuple[Array, Lod]]:
    """Read a combined file that holds exactly the variables `names`: name -> (array, lod).

    Raises FileFormatError: a record is bad (the error names its variable), too few records, or bytes left over.
    """
    found: dict[str, tuple[Array, Lod]] = {}
    with open_source(path) as src:
        for name in sorted(set(names)):
            src.name = f"{os.fspath(path)} (variable {name!r})"
            found[name] = read_lod_tensor(src)
        src.name = os.fspath(path)
        finish(src, f"the last of {len(found)} variables")
    return found


def tensor_nbytes(shape: tuple[int, ...], dtype: VarType) -> int:
    """Bytes of the elements of a tensor of this shape and element type."""
    return element_count(shape) * _DTYPES[dtype].itemsize
