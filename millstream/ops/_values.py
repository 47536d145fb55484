"""Values that kernels see beside plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.ir.types import VarType
from millstream.kernels.arrays import array

LoD = tuple[np.ndarray, ...]  # one int64 offset vector a level, outermost first; () is "no LoD"
NO_LOD: LoD = ()


class Ragged(NamedTuple):
    """Rows of variable-length sequences laid one after another, and where each sequence starts.

    Attributes:
        values: tensor of shape [total rows, …].
        lod: offset vectors, outermost level first; level k+1 has ``lod[k][-1] + 1`` entries.
    """

    values: torch.Tensor
    lod: LoD

    @property
    def offsets(self) -> np.ndarray:
        """The innermost level (one sequence per interval); all rows as one sequence when there is no LoD."""
        return self.lod[-1] if self.lod else np.array([0, self.values.shape[0]], dtype=np.int64)


@cache
def rows_kernels() -> ModuleType:
    """kernels.rows, which brings numba: loaded when rows are first worked on."""
    from millstream.kernels import rows as module

    return module


class SelectedRows:
    """A tall matrix of which only some rows are given: `rows[i]` is the index of `values[i]`.

    Attributes:
        rows: int64 tensor [n]; repeats are allowed and add up.
        values: tensor [n, …].
        height: number of rows of the full matrix.
        distinct: each row is there once and they are in increasing order (False: not known).
    """

    __slots__ = ("distinct", "height", "rows", "values")

    def __init__(self, rows: torch.Tensor, values: torch.Tensor, height: int, distinct: bool = False) -> None:
        self.rows = rows
        self.values = values
        self.height = height
        self.distinct = distinct

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.height, *self.values.shape[1:])

    def to_dense(self) -> torch.Tensor:
        """The full matrix, repeats added."""
        return self.add_to(torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device))

    def add_to(self, out: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
        """`out` += alpha * this matrix, in place. Raises IndexError when `out` has too few rows."""
        values = self.values
        # torch takes about 60 ns a row more; below, loading numba's code would cost a program more than it ever saves
        if self.is_plain() and values.numel() >= 4096 and out.dtype is values.dtype and out.is_contiguous():
            rows_kernels().add_rows(array(out), array(self.rows.long()), array(values), alpha)
            return out
        return out.index_add_(0, self.rows, values, alpha=alpha)

    def is_plain(self) -> bool:
        """Whether loops of our own take it: a matrix of float32 or float64 on the CPU."""
        values = self.values
        return values.dim() == 2 and values.is_cpu and values.dtype in (torch.float32, torch.float64)

    def merged(self) -> SelectedRows:
        """The same matrix with each row at most once, in increasing order."""
        if self.distinct:
            return self
        if self.is_plain():
            found = rows_kernels().merge(array(self.rows.long()), array(self.values))
            return SelectedRows(torch.from_numpy(found[0]), torch.from_numpy(found[1]), self.height, True)
        rows, inverse = torch.unique(self.rows, return_inverse=True)
        if rows.numel() == self.rows.numel():
            order = torch.argsort(self.rows)
            return SelectedRows(rows, self.values[order], self.height, True)
        out = torch.zeros((rows.numel(), *self.values.shape[1:]), dtype=self.values.dtype, device=self.values.device)
        return SelectedRows(rows, out.index_add_(0, inverse, self.values), self.height, True)

    def once(self) -> SelectedRows:
        """The same matrix with each row at most once, in Fluid 1.8.5's order: rows that repeat come out merged and sorted,
        others as they are (momentum and rmsprop tell the difference: they look rows up by bisection)."""
        merged = self.merged()
        return merged if merged.rows.numel() < self.rows.numel() else self


class TensorArray(list[Any]):
    """LoDTensorArray: a list of :class:`Ragged` (or None where nothing was written yet)."""

    __slots__ = ()


class RankTable(NamedTuple):
    """lod_rank_table: sequences sorted by decreasing length (stable).

    Attributes:
        index: original position of the i-th longest sequence.
        lengths: its length.
        coarse: the LoD levels above the one that was ranked.
    """

    index: np.ndarray  # type: ignore[assignment]  # tuple.index is of no use here
    lengths: np.ndarray
    coarse: LoD


class Spec(NamedTuple):
    """What is known of a value while the Program is built.

    Attributes:
        shape: -1 for an unknown dimension.
        weak: the dtype is for a variable that has none; a declared one stays (operators whose dtype Fluid never infers).
    """

    shape: tuple[int, ...]
    dtype: VarType = VarType.FP32
    lod_level: int = 0
    type: VarType = VarType.LOD_TENSOR
    weak: bool = False

    def like(self, **changes: Any) -> Spec:
        """A copy with changes."""
        return self._replace(**changes)


class BlockFrame(NamedTuple):
    """What the kernel of an operator with a sub-Block works on.

    Attributes:
        env: values of the outer variables that the sub-Block (or the operator itself) reads or writes, by name;
            the kernel updates it and the caller takes the outputs from it.
        lods: LoD of those that have one, by name.
        inputs, outputs: variable names by slot.
        body: runs the sub-Block once over (env, lods, ctx); names local to the Block do not survive.
        ctx: the runtime's context.
    """

    env: dict[str, Any]
    lods: dict[str, LoD]
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    body: Callable[[dict[str, Any], dict[str, LoD], Any], None]
    ctx: Any


TORCH_DTYPE = {
    VarType.BOOL: torch.bool,
    VarType.INT16: torch.int16,
    VarType.INT32: torch.int32,
    VarType.INT64: torch.int64,
    VarType.FP16: torch.float16,
    VarType.FP32: torch.float32,
    VarType.FP64: torch.float64,
    VarType.UINT8: torch.uint8,
    VarType.INT8: torch.int8,
    VarType.BF16: torch.bfloat16,
}
VAR_DTYPE = {t: v for v, t in TORCH_DTYPE.items()}


def torch_dtype(number: int) -> torch.dtype:
    """The torch dtype of a dtype attribute."""
    return TORCH_DTYPE[VarType(number)]
