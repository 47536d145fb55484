"""Inputs and results of the modern form: arrays, tensors, ragged lists; what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from millstream.errors import FeedError
from millstream.inference.model import Model, Result
from millstream.inference.tensors import check_lod
from millstream.ir.types import dtype_name
from millstream.ir.variable import Variable
from millstream.ops._values import NO_LOD, TORCH_DTYPE, LoD
from millstream.runtime.executor import feed_value
from millstream.runtime.tensor import LoDTensor, lod_from_lengths


class Inputs:
    """Turns what a user gives into the values of a Model's feeds."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names = model.feeds
        self._plain = [v.lod_level == 0 for v in model.vars]
        self._ranks = [len(v.shape) if v.has_shape else None for v in model.vars]
        self._numpy = [_numpy_dtype(d) for d in model.dtypes]
        self._fixed = [
            [(k, d) for k, d in enumerate(v.shape) if d > 0 and (k or not v.lod_level)] if v.has_shape else []
            for v in model.vars
        ]
        self._on_cpu = model.device.type == "cpu"
        self._rows = [self._row_shape(v) for v in model.vars]

    def _row_shape(self, var: Variable) -> tuple[int, ...] | None:
        """The shape of a row of an input with one LoD level, where it is known."""
        if var.lod_level != 1 or not var.has_shape or not self._on_cpu or len(var.shape) < 2 or min(var.shape[1:]) < 1:
            return None
        return tuple(var.shape[1:])

    def named(self, given: Mapping[str, Any]) -> list[Any]:
        """The values in the order of the feeds; FeedError for a missing or an unknown name."""
        if len(given) == len(self._names):
            try:
                return [given[name] for name in self._names]
            except KeyError:
                pass
        unknown = [n for n in given if n not in self._names]
        missing = [n for n in self._names if n not in given]
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(map(str, unknown))}"] if unknown else []
        raise FeedError(f"inputs of the model are {', '.join(self._described())}; {'; '.join(parts)}")

    def counted(self, given: Sequence[Any]) -> Sequence[Any]:
        """`given` if it has one value for each feed."""
        if len(given) != len(self._names):
            described = ", ".join(self._described())
            raise FeedError(f"the model takes {len(self._names)} inputs ({described}), received {len(given)}")
        return given

    def _described(self) -> list[str]:
        return [v.describe() for v in self._model.vars]

    def values(self, given: Sequence[Any]) -> tuple[list[torch.Tensor], list[LoD]]:
        """The feeds' tensors and LoDs. Arrays of the declared dtype are not copied."""
        tensors, lods = [], []
        for i, value in enumerate(given):
            if (
                type(value) is np.ndarray
                and value.dtype == self._numpy[i]
                and value.ndim == self._ranks[i]
                and self._plain[i]
                and self._on_cpu
                and value.flags.c_contiguous
                and value.flags.writeable
            ):
                t, lod = torch.from_numpy(value), NO_LOD
            else:
                flat = self._listed(i, value)
                t, lod = flat if flat is not None else self._any(self._model.vars[i], value)
            for k, size in self._fixed[i]:
                if t.shape[k] != size:
                    self._wrong_size(self._model.vars[i], k, t)
            tensors.append(t)
            lods.append(lod)
        return tensors, lods

    def _listed(self, i: int, value: Any) -> tuple[torch.Tensor, LoD] | None:
        """A list of arrays of the declared dtype, each a sequence; None for whatever needs a closer look."""
        row, dtype = self._rows[i], self._numpy[i]
        if row is None or type(value) is not list or not value:
            return None
        narrow = max(row) == 1
        for item in value:
            if type(item) is not np.ndarray or item.dtype != dtype or not item.size:
                return None
            if item.shape[1:] != row and not (narrow and item.ndim == 1):
                return None
        flat = np.concatenate(value) if len(value) > 1 else value[0]
        if not flat.flags.c_contiguous or not flat.flags.writeable:
            flat = flat.copy()
        offsets = np.array([0, *accumulate([len(item) for item in value])], np.int64)
        return torch.from_numpy(flat.reshape(-1, *row)), (offsets,)

    def _any(self, var: Variable, value: Any) -> tuple[torch.Tensor, LoD]:
        if isinstance(value, (str, bytes)) or value is None:
            raise FeedError(f"input {var.describe()}: expected an array, received {type(value).__name__}")
        if isinstance(value, np.ndarray) and not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        lod = None
        if var.lod_level and not isinstance(value, LoDTensor):
            value, lod = _flattened(var, value)
        try:
            t, given_lod = feed_value(var, value, self._model.device)
        except (TypeError, ValueError) as error:
            if isinstance(error, FeedError):
                raise
            raise FeedError(f"input {var.describe()}: received what makes no array: {error}") from None
        if not isinstance(t, torch.Tensor):
            raise FeedError(f"input {var.describe()}: expected an array, received {type(value).__name__}")
        t = _fitting(var, t)
        if var.lod_level and t.dim() == 1 and var.has_shape and tuple(var.shape[1:]) == (1,):
            t = t[:, None]  # ids one after another
        if var.has_shape and t.dim() != len(var.shape):
            alone = t.dim() == len(var.shape) - 1 and var.shape[0] < 0 and not var.lod_level
            one = "; a batch of one is x[None]" if alone else ""
            what = f"expected rank {len(var.shape)}, received rank {t.dim()} (shape {list(t.shape)})"
            raise FeedError(f"input {var.describe()}: {what}{one}")
        lod = given_lod if lod is None else lod
        if lod:
            check_lod(var.name, lod, t.shape[0] if t.dim() else 0)
        return t, lod

    @staticmethod
    def _wrong_size(var: Variable, k: int, t: torch.Tensor) -> None:
        raise FeedError(
            f"input {var.describe()}: dimension {k} must be {var.shape[k]}, received {t.shape[k]} (shape {list(t.shape)})"
        )


def _numpy_dtype(dtype: torch.dtype | None) -> np.dtype[Any] | None:
    return None if dtype is None or dtype is torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype


def _fitting(var: Variable, t: torch.Tensor) -> torch.Tensor:
    want = TORCH_DTYPE.get(var.dtype) if var.has_dtype else None
    if want is None or t.dtype is want:
        return t
    integers = (torch.int64, torch.int32)
    if (t.is_floating_point() and want.is_floating_point) or (t.dtype in integers and want in integers):
        return t.to(want)
    raise FeedError(
        f"input {var.describe()}: received {str(t.dtype).removeprefix('torch.')} of shape {list(t.shape)}; convert it with "
        f".astype({dtype_name(var.dtype)!r})"
    )


def _flattened(var: Variable, value: Any) -> tuple[Any, LoD]:
    """A list of sequences (of lists of sequences, for two levels) as one array and its LoD.

    An array or tensor is one sequence.
    """
    if isinstance(value, (np.ndarray, torch.Tensor)):
        rows = value.shape[0] if value.ndim else 0
        lengths: list[list[int]] = [[1]] * (var.lod_level - 1) + [[rows]]
        return value, lod_from_lengths(lengths)
    lengths, level = [], list(value)
    for _ in range(var.lod_level - 1):
        _need_lists(var, level)
        lengths.append([len(item) for item in level])
        level = [inner for item in level for inner in item]
    _need_lists(var, level)
    none = np.empty(0, dtype_name(var.dtype) if var.has_dtype else "float32")  # numpy would make it float64
    sequences = [np.asarray(item) if len(item) else none for item in level]
    lengths.append([len(s) for s in sequences])
    tail = tuple(var.shape[1:])
    try:
        rows = [s.reshape((len(s), *tail)) if -1 not in tail else s for s in sequences]
        flat = np.concatenate(rows) if rows else np.empty((0, *(max(d, 0) for d in tail)))
    except ValueError:
        shapes = ", ".join(str(list(s.shape)) for s in sequences[:4])
        raise FeedError(
            f"input {var.describe()}: each sequence must be an array of [length, {', '.join(map(str, tail))}], "
            f"received {shapes}"
        ) from None
    arrays = bool(level) and all(isinstance(item, np.ndarray) for item in level)
    if var.has_dtype and flat.dtype.kind in "iuf" and not arrays:
        flat = flat.astype(dtype_name(var.dtype)) if flat.size == 0 or flat.dtype.kind == _kind(var) else flat
    return flat, lod_from_lengths(lengths)


def _kind(var: Variable) -> str:
    return "f" if TORCH_DTYPE[var.dtype].is_floating_point else "i"


def _need_lists(var: Variable, level: list[Any]) -> None:
    for item in level:
        if not isinstance(item, (list, tuple, np.ndarray)):
            raise FeedError(
                f"input {var.describe()} takes a list of sequences (LoD level {var.lod_level}), received a list with "
                f"{type(item).__name__} in it; a batch of one sequence is [[…]]"
            )


def result_of(value: Any, lod: LoD, name: str) -> Any:
    """A fetched value as the user gets it, in memory of its own: an array, or a LoDTensor when it has a LoD."""
    if type(value) is np.ndarray:
        return value  # an engine's
    if not isinstance(value, torch.Tensor):
        raise FeedError(f"result {name!r} is a {type(value).__name__}; only tensors can be results")
    if lod:
        return LoDTensor.of(value.detach().clone(), lod)
    if value.dtype is torch.bfloat16:
        value = value.float()
    return np.array(value.detach().cpu().numpy())


def request_results(results: list[Result], names: Sequence[str]) -> list[Any]:
    """:func:`result_of` for each."""
    return [result_of(value, lod, name) for (value, lod), name in zip(results, names)]
