"""LoDTensor and SelectedRows as users hold them: tensors with sequence offsets, in a Scope or on their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from millstream.errors import EnforceNotMet, FeedError, UninitializedError
from millstream.ir.types import VarType
from millstream.ops._values import NO_LOD, VAR_DTYPE, LoD
from millstream.ops._values import SelectedRows as Rows


def lod_from_offsets(lod: Sequence[Sequence[int]]) -> LoD:
    """Offset lists as int64 vectors; FeedError when they do not ascend from 0."""
    levels = tuple(np.asarray(level, dtype=np.int64) for level in lod)
    for k, level in enumerate(levels):
        if level.ndim != 1 or level.size < 1 or level[0] != 0 or (np.diff(level) < 0).any():
            raise FeedError(f"LoD: level {k} must be a list of offsets that starts at 0 and never falls, received {lod[k]}")
    return levels


def lod_from_lengths(lengths: Sequence[Sequence[int]]) -> LoD:
    """Length lists (as the Python API speaks) as offset vectors."""
    out = []
    for level in lengths:
        offsets = np.zeros(len(level) + 1, dtype=np.int64)
        np.cumsum(np.asarray(level, dtype=np.int64), out=offsets[1:])
        out.append(offsets)
    return tuple(out)


def lod_error(lod: LoD, rows: int) -> str | None:
    """What is wrong with `lod` for a tensor of `rows` rows, or None."""
    for k, level in enumerate(lod):
        if level.ndim != 1 or level.size < 1 or level[0] != 0:
            return f"level {k} must be a list of offsets that starts at 0"
        offsets = level.tolist() if level.size < 64 else None  # numpy takes longer than a batch of a few sequences
        if sorted(offsets) != offsets if offsets is not None else (np.diff(level) < 0).any():
            return f"level {k} has a negative length"
        below = rows if k == len(lod) - 1 else lod[k + 1].size - 1
        if level[-1] != below:
            what = "rows" if k == len(lod) - 1 else f"sequences of level {k + 1}"
            return f"the lengths of level {k} add up to {int(level[-1])}, but there are {below} {what}"
    return None


# the names that LoDTensor's text has for data types
_PRINTED_DTYPE = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "::paddle::platform::float16",
    torch.int16: "int16_t",
    torch.int32: "int",
    torch.int64: "int64_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
}


def numbers_of(t: torch.Tensor) -> np.ndarray:
    """`t` as a numpy array, over its memory where it lies on the CPU; bfloat16 as float32.

    int64 comes as C's ``long long``, as from Fluid: numpy then writes the type out, ``array([1], dtype=int64)``.
    """
    t = t.detach()
    if t.dtype is torch.bfloat16:
        t = t.float()
    a = t.cpu().numpy()
    return a.view(np.longlong) if t.dtype is torch.int64 else a


class LoDTensor:
    """A tensor and the offsets of its variable-length sequences (none for plain tensors).

    The Python API speaks *lengths* (``recursive_sequence_lengths``); ``lod()`` speaks offsets.
    """

    __slots__ = ("__weakref__", "_lod", "_t")

    def __init__(self, lod: Sequence[Sequence[int]] | None = None) -> None:
        self._t: torch.Tensor | None = None
        self._lod: LoD = lod_from_offsets(lod) if lod else NO_LOD

    @classmethod
    def of(cls, t: torch.Tensor, lod: LoD = NO_LOD) -> LoDTensor:
        """Wrap a torch tensor (not copied)."""
        self = cls()
        self._t = t
        self._lod = lod
        return self

    # ---- contents ----------------------------------------------------------------------------
    def set(self, array: Any, place: Any = None, zero_copy: bool = False) -> None:
        """Copy `array` (anything numpy takes) into this tensor; dtype and shape become the array's."""
        if isinstance(array, LoDTensor):
            array = array.torch().numpy()
        a = np.asarray(array)
        if a.dtype == object:
            raise FeedError(f"LoDTensor.set takes a rectangular numeric array, received dtype object of shape {a.shape}")
        if a.dtype.newbyteorder("=") != a.dtype:
            a = a.astype(a.dtype.newbyteorder("="))
        try:
            t = torch.from_numpy(np.ascontiguousarray(a).reshape(a.shape))
        except TypeError as error:
            raise FeedError(f"LoDTensor.set: no tensor type for numpy dtype {a.dtype}") from error
        if not zero_copy or not a.flags.writeable:
            t = t.clone()
        if place is not None and hasattr(place, "torch_device"):
            t = t.to(place.torch_device())
        self._t = t

    def torch(self) -> torch.Tensor:
        """The torch tensor; UninitializedError before it holds anything."""
        if self._t is None:
            raise UninitializedError("tensor holds no memory: nothing was written to it yet")
        return self._t

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        a = numbers_of(self.torch())
        if dtype is not None and a.dtype != dtype:
            return a.astype(dtype)
        return a if copy is False else a.copy()

    def numpy(self) -> np.ndarray:
        """A copy as a numpy array."""
        return self.__array__()

    def shape(self) -> list[int]:
        return [] if self._t is None else list(self._t.shape)

    _get_dims = shape

    def _set_dims(self, dims: Sequence[int]) -> None:
        """Take another shape: with as many numbers, the numbers stay; else they are undefined."""
        new = list(dims)
        if self._t is None:
            self._t = torch.empty(new)
        elif math.prod(new) == self._t.numel():
            self._t = self._t.reshape(new)
        else:
            self._t = self._t.new_empty(new)

    def _element(self, index: int, dtype: Any) -> Any:
        t = self.torch()
        if t.dtype is not dtype:
            held, wanted = (str(d).removeprefix("torch.") for d in (t.dtype, dtype))
            raise EnforceNotMet(f"the tensor holds {held}, not {wanted}")
        return t.view(-1)[index]

    def _get_float_element(self, index: int) -> float:
        """Number `index` in row order. EnforceNotMet: it is no float32."""
        return float(self._element(index, torch.float32))

    def _set_float_element(self, index: int, value: float) -> None:
        """Change number `index` in place. EnforceNotMet: it is no float32."""
        self._element(index, torch.float32).fill_(value)

    def _get_double_element(self, index: int) -> float:
        """Number `index` in row order. EnforceNotMet: it is no float64."""
        return float(self._element(index, torch.float64))

    def _set_double_element(self, index: int, value: float) -> None:
        """Change number `index` in place. EnforceNotMet: it is no float64."""
        self._element(index, torch.float64).fill_(value)

    def _share_data_with(self, other: LoDTensor) -> LoDTensor:
        """Hold the memory of `other`; the LoD stays."""
        self._t = other.torch()
        return self

    def _to_dlpack(self) -> Any:
        """A DLPack capsule over the memory; ``core.from_dlpack`` takes it."""
        return torch.utils.dlpack.to_dlpack(self.torch().detach())

    def _dtype(self) -> VarType:
        return VarType.FP32 if self._t is None else VAR_DTYPE[self._t.dtype]

    def _is_initialized(self) -> bool:
        return self._t is not None

    def _clear(self) -> None:
        self._t, self._lod = None, NO_LOD

    def __len__(self) -> int:
        return 0 if self._t is None or self._t.dim() == 0 else self._t.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self)[index]

    def __float__(self) -> float:
        return float(self.torch())

    def __int__(self) -> int:
        return int(self.torch())

    # ---- LoD ---------------------------------------------------------------------------------
    def lod(self) -> list[list[int]]:
        """Offsets, outermost level first."""
        return [level.tolist() for level in self._lod]

    def set_lod(self, lod: Sequence[Sequence[int]]) -> None:
        """Set offsets; FeedError when they do not fit the rows."""
        self._put_lod(lod_from_offsets(lod))

    def recursive_sequence_lengths(self) -> list[list[int]]:
        """Lengths, outermost level first."""
        return [np.diff(level).tolist() for level in self._lod]

    def set_recursive_sequence_lengths(self, recursive_sequence_lengths: Sequence[Sequence[int]]) -> None:
        """Set lengths; FeedError when they do not add up to the rows."""
        self._put_lod(lod_from_lengths(recursive_sequence_lengths))

    def has_valid_recursive_sequence_lengths(self) -> bool:
        return lod_error(self._lod, len(self)) is None

    def _put_lod(self, lod: LoD) -> None:
        if self._t is not None:
            wrong = lod_error(lod, len(self))
            if wrong:
                raise FeedError(f"LoD does not fit a tensor of shape {self.shape()}: {wrong}")
        self._lod = lod

    def __str__(self) -> str:
        """LoD in offsets, dimensions, dtype and every number, as Fluid prints them."""
        levels = "".join("{" + ", ".join(str(n) for n in level) + "}" for level in self.lod())
        numbers = np.asarray(self).ravel()
        integral = numbers.dtype.kind in "iub"
        data = " ".join(str(int(n)) if integral else f"{n:.6g}" for n in numbers)
        dims = ", ".join(str(n) for n in self.shape())
        dtype = _PRINTED_DTYPE.get(self.torch().dtype, str(self.torch().dtype).removeprefix("torch."))
        return f"\tlod: {{{levels}}}\n\tdim: {dims}\n\tlayout: NCHW\n\tdtype: {dtype}\n\tdata: [{data}]\n"

    def __repr__(self) -> str:
        return "LoDTensor(uninitialized)" if self._t is None else str(self)


class SelectedRows:
    """Some rows of a tall matrix, as users hold it (``core.SelectedRows``)."""

    __slots__ = ("_height", "_rows", "_tensor")

    def __init__(self, rows: Sequence[int] = (), height: int = 0) -> None:
        self._rows = [int(r) for r in rows]
        self._height = int(height)
        self._tensor = LoDTensor()

    @classmethod
    def of(cls, value: Rows) -> SelectedRows:
        """Wrap a kernel's value."""
        self = cls(value.rows.tolist(), value.height)
        self._tensor._t = value.values
        return self

    def value(self) -> Rows:
        """The kernel's value."""
        return Rows(torch.tensor(self._rows, dtype=torch.int64), self._tensor.torch(), self._height)

    def rows(self) -> list[int]:
        return list(self._rows)

    def set_rows(self, rows: Sequence[int]) -> None:
        self._rows = [int(r) for r in rows]

    def height(self) -> int:
        return self._height

    def set_height(self, height: int) -> None:
        self._height = int(height)

    def get_tensor(self) -> LoDTensor:
        return self._tensor


class LoDTensorArray(list[Any]):
    """A list of LoDTensors (``core.LoDTensorArray``)."""


def create_lod_tensor(data: Any, recursive_seq_lens: Sequence[Sequence[int]], place: Any) -> LoDTensor:
    """A LoDTensor from an array, a nested list of ints, or a LoDTensor.

    Args:
        data: array whose first dimension is the sum of the innermost lengths; or a list of sequences of numbers.
        recursive_seq_lens: lengths, outermost level first.
        place: where the tensor lives.

    Raises:
        FeedError: the lengths do not fit the data.
        TypeError: the data is none of these.
    """
    if isinstance(data, LoDTensor):
        return create_lod_tensor(np.asarray(data), recursive_seq_lens, place)
    if isinstance(data, list):
        lengths = [len(seq) for seq in data]
        if [lengths] != [list(recursive_seq_lens[-1])]:
            raise FeedError(f"create_lod_tensor: the data has sequence lengths {lengths}, not {recursive_seq_lens[-1]}")
        flat = np.concatenate([np.asarray(seq).reshape(len(seq), -1) for seq in data], axis=0).astype("int64")
        return create_lod_tensor(flat.reshape(len(flat), -1), recursive_seq_lens, place)
    if not isinstance(data, np.ndarray):
        raise TypeError(
            f"create_lod_tensor: data should be an array, a list of lists or a LoDTensor, received {type(data).__name__}"
        )
    tensor = LoDTensor()
    tensor.set(data, place)
    tensor.set_recursive_sequence_lengths(recursive_seq_lens)
    return tensor


def create_random_int_lodtensor(
    recursive_seq_lens: Sequence[Sequence[int]], base_shape: Sequence[int], place: Any, low: int, high: int
) -> LoDTensor:
    """A LoDTensor of random integers in [low, high], shape [sum of lengths, *base_shape], int64."""
    rows = int(sum(recursive_seq_lens[-1]))
    data = np.random.randint(low, high + 1, [rows, *base_shape]).astype("int64")
    return create_lod_tensor(data, recursive_seq_lens, place)
