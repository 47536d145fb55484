"""Tensors at the ends of a predictor: PaddleTensor (a copy with a name and a LoD) and ZeroCopyTensor (its own memory)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from millstream.errors import FeedError, UninitializedError
from millstream.ops._values import NO_LOD, LoD
from millstream.runtime.tensor import lod_error, lod_from_offsets

if TYPE_CHECKING:
    from millstream.inference.predictor import PaddlePredictor


class PaddleDType(IntEnum):
    """Element types of predictor tensors. FLOAT64 and the ones after it go beyond Fluid 1.8.5."""

    FLOAT32 = 0
    INT64 = 1
    INT32 = 2
    UINT8 = 3
    INT8 = 4
    FLOAT64 = 100
    FLOAT16 = 101
    BOOL = 102
    INT16 = 103

    __str__ = Enum.__str__


class PaddlePlace(IntEnum):
    """Where a tensor lives."""

    UNK = -1
    CPU = 0
    GPU = 1

    __str__ = Enum.__str__


_NUMPY: dict[PaddleDType, np.dtype[Any]] = {
    PaddleDType.FLOAT32: np.dtype("float32"),
    PaddleDType.INT64: np.dtype("int64"),
    PaddleDType.INT32: np.dtype("int32"),
    PaddleDType.UINT8: np.dtype("uint8"),
    PaddleDType.INT8: np.dtype("int8"),
    PaddleDType.FLOAT64: np.dtype("float64"),
    PaddleDType.FLOAT16: np.dtype("float16"),
    PaddleDType.BOOL: np.dtype("bool"),
    PaddleDType.INT16: np.dtype("int16"),
}
_PADDLE = {dtype: number for number, dtype in _NUMPY.items()}


def paddle_dtype_size(dtype: PaddleDType) -> int:
    """Bytes of one element."""
    return _NUMPY[PaddleDType(dtype)].itemsize


def _numbers(data: Any, what: str) -> np.ndarray:
    """`data` as an array that a predictor takes; TypeError for anything but numbers."""
    if not isinstance(data, np.ndarray):
        raise TypeError(
            f"{what} takes a numpy array of float32, int64 or int32, received {type(data).__name__}; "
            "use numpy.array(data, dtype)"
        )
    if data.dtype not in _PADDLE:
        raise TypeError(f"{what} takes a numpy array of float32, int64 or int32, received dtype {data.dtype}")
    return data


class PaddleBuf:
    """Bytes of a tensor, read as numbers of any type.

    Args:
        data: number of bytes, list of floats, or array.
    """

    __slots__ = ("_array",)

    def __init__(self, data: Any = 0) -> None:
        if isinstance(data, (int, np.integer)) and not isinstance(data, bool):
            self._array = np.zeros(int(data), np.uint8)
        else:
            self.reset(data)

    @classmethod
    def _of(cls, array: np.ndarray) -> PaddleBuf:
        made = cls.__new__(cls)
        made._array = array
        return made

    def reset(self, data: Any) -> None:
        """Hold a copy of `data` (list of floats, or array)."""
        if isinstance(data, (list, tuple)):
            data = np.array(data, np.float32)
        self._array = np.array(_numbers(data, "PaddleBuf")).reshape(-1)

    def resize(self, length: int) -> None:
        """Make it `length` bytes long; the contents of a longer buffer are not kept."""
        raw = self._raw()
        self._array = raw[:length] if length <= raw.size else np.zeros(length, np.uint8)

    def length(self) -> int:
        """Bytes."""
        return int(self._array.nbytes)

    def empty(self) -> bool:
        return not self._array.nbytes

    def float_data(self) -> list[float]:
        return self._as(np.float32)

    def int64_data(self) -> list[int]:
        return self._as(np.int64)

    def int32_data(self) -> list[int]:
        return self._as(np.int32)

    def tolist(self, dtype: str) -> list[Any]:
        """The contents as a list of numbers of type `dtype` ("float32", "int64" or "int32")."""
        if dtype not in ("float32", "int64", "int32"):
            raise ValueError(f"PaddleBuf.tolist: expected 'float32', 'int64' or 'int32', received {dtype!r}")
        return self._as(np.dtype(dtype))

    def _raw(self) -> np.ndarray:
        return np.ascontiguousarray(self._array).reshape(-1).view(np.uint8)

    def _as(self, dtype: Any) -> list[Any]:
        array = self._array
        if array.dtype != dtype:
            raw = self._raw()
            array = raw[: raw.size - raw.size % np.dtype(dtype).itemsize].view(dtype)
        return array.reshape(-1).tolist()  # type: ignore[no-any-return]


class PaddleTensor:
    """An input or a result of :meth:`PaddlePredictor.run`.

    Args:
        data: array of float32, int64 or int32.
        name: variable name (needed when the config specifies input names).
        lod: offsets, outermost level first.
        copy: False: use the memory of `data` itself.

    Attributes:
        shape: list of ints; may be set to another shape of as many elements.
        lod: list of lists of offsets; may be set.
        data: PaddleBuf; may be set. dtype: PaddleDType; may be set, before or after `data`.
    """

    __slots__ = ("_array", "_dtype", "_lod", "_shape", "name")

    _array: np.ndarray[Any, Any]

    def __init__(
        self, data: np.ndarray | None = None, name: str = "", lod: Sequence[Sequence[int]] = (), copy: bool = True
    ) -> None:
        self.name = name
        self._lod: LoD = lod_from_offsets(lod) if lod else NO_LOD
        self._dtype = PaddleDType.FLOAT32
        if data is None:
            self._array, self._shape = np.zeros(0, np.float32), []
            return
        array = _numbers(data, "PaddleTensor")
        self._array = np.array(array, order="C") if copy else np.ascontiguousarray(array)
        self._dtype = _PADDLE[array.dtype]
        self._shape = list(array.shape)

    @classmethod
    def _of(cls, name: str, array: np.ndarray, lod: LoD) -> PaddleTensor:
        made = cls.__new__(cls)
        made.name, made._array, made._lod, made._shape = name, array, lod, list(array.shape)
        made._dtype = _PADDLE[array.dtype]
        return made

    @property
    def shape(self) -> list[int]:
        return self._shape

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        self._shape = [int(d) for d in shape]

    @property
    def lod(self) -> list[list[int]]:
        return [level.tolist() for level in self._lod]

    @lod.setter
    def lod(self, lod: Sequence[Sequence[int]]) -> None:
        self._lod = lod_from_offsets(lod)

    @property
    def dtype(self) -> PaddleDType:
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: PaddleDType) -> None:
        self._dtype = PaddleDType(dtype)

    @property
    def data(self) -> PaddleBuf:
        return PaddleBuf._of(self._array)

    @data.setter
    def data(self, data: PaddleBuf) -> None:
        self._array = data._array

    def as_ndarray(self) -> np.ndarray:
        """The contents as an array of `dtype` and `shape` (a copy)."""
        return np.array(self._value())

    def _value(self) -> np.ndarray:
        """The contents in `dtype` and `shape`; FeedError when they do not fit."""
        array, dtype = self._array, _NUMPY[self._dtype]
        if array.dtype != dtype:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            if raw.size % dtype.itemsize:
                raise FeedError(f"PaddleTensor {self.name!r}: {raw.size} bytes are no whole number of {dtype} elements")
            array = raw.view(dtype)
        if list(array.shape) != self._shape:
            try:
                array = array.reshape(self._shape)
            except ValueError:
                raise FeedError(
                    f"PaddleTensor {self.name!r}: {array.size} elements do not make shape {self._shape}"
                ) from None
        return array


def paddle_tensor_to_bytes(tensor: PaddleTensor) -> bytes:
    """`tensor` as Fluid serialises it: version 0, name, LoD, shape, element type, data; lengths first, little-endian."""
    name = tensor.name.encode()
    parts = [struct.pack("<IQ", 0, len(name)), name, struct.pack("<Q", len(tensor._lod))]
    for level in tensor._lod:
        parts += [struct.pack("<Q", level.nbytes), level.astype("<i8").tobytes()]
    raw = np.ascontiguousarray(tensor._value()).tobytes()
    shape = np.array(tensor.shape, "<i4")
    parts += [struct.pack("<Q", shape.size), shape.tobytes(), struct.pack("<iQ", int(tensor.dtype), len(raw)), raw]
    return b"".join(parts)


class ZeroCopyTensor:
    """An input or output of :meth:`AnalysisPredictor.zero_copy_run`, by name; made by the predictor."""

    __slots__ = ("_index", "_is_input", "_name", "_owner")

    def __init__(self, owner: PaddlePredictor, name: str, index: int, is_input: bool) -> None:
        self._owner, self._name, self._index, self._is_input = owner, name, index, is_input

    @property
    def name(self) -> str:
        return self._name

    def reshape(self, shape: Sequence[int]) -> None:
        """Give an input this shape; its contents are then to be copied in."""
        self._need_input("reshape")
        sizes = list(shape) if isinstance(shape, (list, tuple, np.ndarray)) else None
        if sizes is None or not all(isinstance(d, (int, np.integer)) and d >= 0 for d in sizes):
            raise TypeError(f"ZeroCopyTensor.reshape: expected a list of sizes for {self._name!r}, received {shape!r}")
        held = self._owner._inputs[self._index]
        dtype = torch.float32 if held is None else held[0].dtype
        if held is None or list(held[0].shape) != sizes:
            self._owner._inputs[self._index] = (torch.empty(sizes, dtype=dtype), NO_LOD)

    def copy_from_cpu(self, data: np.ndarray) -> None:
        """Copy an array (float32, int64, int32) in; shape and dtype become the array's, a LoD set before stays."""
        self._need_input("copy_from_cpu")
        array = _numbers(data, "ZeroCopyTensor.copy_from_cpu")
        held = self._owner._inputs[self._index]
        value = torch.from_numpy(np.array(array, order="C"))
        if self._owner._device.type != "cpu":
            value = value.to(self._owner._device)
        self._owner._inputs[self._index] = (value, NO_LOD if held is None else held[1])

    def set_lod(self, lod: Sequence[Sequence[int]]) -> None:
        """Set the offsets of an input, outermost level first."""
        self._need_input("set_lod")
        if not isinstance(lod, (list, tuple)) or not all(isinstance(level, (list, tuple, np.ndarray)) for level in lod):
            what = f"expected offsets such as [[0, 2, 5]] for {self._name!r}, received {lod!r}"
            raise TypeError(f"ZeroCopyTensor.set_lod: {what}")
        held = self._owner._inputs[self._index]
        value = torch.empty(0) if held is None else held[0]
        self._owner._inputs[self._index] = (value, lod_from_offsets(lod))

    def copy_to_cpu(self) -> np.ndarray:
        """A copy of the contents."""
        t = self._held()[0]
        if t.dtype is torch.bfloat16:
            t = t.float()
        return np.array(t.cpu().numpy())

    def shape(self) -> list[int]:
        held = self._peek()
        return [0] if held is None else list(held[0].shape)

    def lod(self) -> list[list[int]]:
        """Offsets, outermost level first."""
        held = self._peek()
        return [] if held is None else [level.tolist() for level in held[1]]

    def type(self) -> PaddleDType:
        held = self._peek()
        return PaddleDType.FLOAT32 if held is None else _PADDLE[torch.empty(0, dtype=held[0].dtype).numpy().dtype]

    def _peek(self) -> tuple[torch.Tensor, LoD] | None:
        if self._is_input:
            return self._owner._inputs[self._index]
        outputs = self._owner._outputs
        return None if outputs is None else outputs[self._index]

    def _held(self) -> tuple[torch.Tensor, LoD]:
        held = self._peek()
        if held is None:
            todo = "copy_from_cpu it first" if self._is_input else "call zero_copy_run first"
            raise UninitializedError(f"ZeroCopyTensor {self._name!r} holds nothing yet: {todo}")
        return held

    def _need_input(self, method: str) -> None:
        if not self._is_input:
            raise FeedError(f"ZeroCopyTensor.{method}: {self._name!r} is an output; only inputs can be written")


def check_lod(name: str, lod: LoD, rows: int) -> None:
    """FeedError unless `lod` fits `rows` rows."""
    wrong = lod_error(lod, rows)
    if wrong:
        raise FeedError(f"input {name!r}: bad LoD for {rows} rows: {wrong}")
