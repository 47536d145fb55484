"""The bytes of an ONNX model, judged before anything is built of them."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from millstream.errors import FileFormatError, MissingFileError, NotSupportedError
from millstream.onnx._require import onnx_package

# TensorProto.DataType: numpy dtype, and the field that holds values when raw_data does not
_TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_data"),
    2: (np.uint8, "int32_data"),
    3: (np.int8, "int32_data"),
    5: (np.int16, "int32_data"),
    6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"),
    9: (np.bool_, "int32_data"),
    10: (np.float16, "int32_data"),
    11: (np.float64, "double_data"),
}
LARGEST_TENSOR = 1 << 34  # bytes; what a file claims beyond that is damage


class Source:
    """A parsed model, where it came from, and how its external tensors are read."""

    def __init__(self, model: Any, name: str, folder: str | None) -> None:
        self.model = model
        self.name = name
        self.folder = folder

    def fail(self, what: str) -> FileFormatError:
        """The error that says what is wrong with this file."""
        return FileFormatError(f"{self.name}: {what}")

    def dtype(self, number: int, what: str) -> Any:
        """The numpy dtype of a TensorProto data type."""
        if number not in _TYPES:
            names = onnx_package().TensorProto.DataType
            if number not in names.values() or not number:
                raise self.fail(f"{what} has data type {number}, which ONNX does not know")
            raise NotSupportedError(f"{self.name}: {what} has data type {names.Name(number)}, which Programs do not have")
        return np.dtype(_TYPES[number][0])

    def array(self, tensor: Any, what: str) -> np.ndarray[Any, Any]:
        """The values of a TensorProto, whose size must be what its dims say."""
        kind = self.dtype(tensor.data_type, what)
        dims = tuple(tensor.dims)
        if len(dims) > 32 or any(d < 0 for d in dims):
            raise self.fail(f"{what} has dims {list(dims)[:8]}")
        count = math.prod(dims)
        size = count * kind.itemsize
        if math.prod(d for d in dims if d) * kind.itemsize > LARGEST_TENSOR:
            raise self.fail(f"{what} claims {size} bytes (dims {list(dims)})")
        if tensor.HasField("segment"):
            raise self.fail(f"{what} is stored in segments, which is not supported")
        if tensor.data_location == onnx_package().TensorProto.EXTERNAL:
            return np.frombuffer(self._external(tensor, size, what), kind.newbyteorder("<")).astype(kind).reshape(dims)
        if tensor.HasField("raw_data"):
            if len(tensor.raw_data) != size:
                raise self.fail(f"{what} has {len(tensor.raw_data)} bytes, its dims {list(dims)} mean {size}")
            return np.frombuffer(tensor.raw_data, kind.newbyteorder("<")).astype(kind).reshape(dims)
        field = getattr(tensor, _TYPES[tensor.data_type][1])
        if len(field) != count:
            raise self.fail(f"{what} has {len(field)} numbers, its dims {list(dims)} mean {count}")
        with np.errstate(all="ignore"):
            if kind == np.float16:
                return np.array(field, np.int32).astype(np.uint16).view(np.float16).reshape(dims)
            return np.array(field, np.int64 if kind.kind in "iub" else kind).astype(kind).reshape(dims)

    def _external(self, tensor: Any, size: int, what: str) -> bytes:
        """Bytes of a tensor in another file, which must lie in the model's own folder."""
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise self.fail(f"{what} lies in another file ({location!r}); load the model by its path")
        root = os.path.realpath(self.folder)
        steps = location.replace("\\", "/").split("/")
        outside = not location or os.path.isabs(location) or "\0" in location or ".." in steps
        path = "" if outside else os.path.realpath(os.path.join(root, location))
        if outside or os.path.commonpath([root, path]) != root:
            raise self.fail(f"{what} lies in {location!r}, outside the folder of the model")
        if not os.path.isfile(path):
            raise MissingFileError(f"{self.name}: {what} lies in {location!r}, which is not there")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise self.fail(f"{what}: offset and length of external data must be numbers") from None
        if length != size or offset < 0 or offset + size > os.path.getsize(path):
            raise self.fail(
                f"{what}: {size} bytes at {offset} of {location!r} (it says {length}) are not in the file of "
                f"{os.path.getsize(path)} bytes"
            )
        with open(path, "rb") as fh:
            fh.seek(offset)
            return fh.read(size)


def open_model(path_or_bytes: Any) -> Source:
    """The parsed model of a path, or of bytes, or a ModelProto itself.

    Raises MissingFileError: no such file. FileFormatError: it is no ONNX model.
    """
    onnx = onnx_package()
    if isinstance(path_or_bytes, onnx.ModelProto):
        return Source(path_or_bytes, "<ModelProto>", None)
    folder = None
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        data, name = bytes(path_or_bytes), "<bytes>"
    else:
        name = os.fspath(path_or_bytes)
        if not os.path.isfile(name):
            raise MissingFileError(f"ONNX model {name!r} does not exist")
        folder = os.path.dirname(os.path.abspath(name))
        with open(name, "rb") as fh:
            data = fh.read()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as damage:  # protobuf's DecodeError is no public name in all its versions
        raise FileFormatError(f"{name}: these bytes are no ONNX model ({str(damage)[:100]})") from None
    return Source(model, name, folder)
