"""How much memory a request takes: estimated before it runs, measured while it does, and held under a limit."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from millstream.errors import MillstreamError
from millstream.inference.model import Model
from millstream.ir import library, walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ops._values import TORCH_DTYPE


def weights(model: Model) -> int:
    """Bytes of the parameters, memory that several share counted once."""
    found: dict[int, int] = {}
    for name in model.scope.local_var_names():
        value = model.parameter(name)
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def activations(program: Program, fetches: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> int:
    """Bytes of the values that live at the same time, at most, when the feeds have these shapes.

    Shapes are inferred anew from the feeds'; a dimension that only running can tell counts as the largest number of
    rows that is fed. What kernels need for themselves is not in it.
    """
    program = walk.clone(program)
    root = program.global_block()
    for name, shape in shapes.items():
        root.var(name).shape = tuple(int(d) for d in shape)
    unknown = max([int(shape[0]) for shape in shapes.values() if len(shape)], default=1)
    lib = library.installed()
    ops = [op for op in root.ops if op.type not in ("feed", "fetch")]
    last: dict[str, int] = {}
    for i, op in enumerate(ops):
        for name in [*walk.reads_of(op), *walk.writes_of(op)]:
            last[name] = i
        try:
            if lib is not None:
                lib.check_and_infer(op)
        except MillstreamError:
            continue  # its declared shapes count
    live = {name: _size(root, name, unknown) for name in shapes}
    peak = sum(live.values())
    for i, op in enumerate(ops):
        for name in walk.writes_of(op):
            if name != EMPTY_VAR:
                live[name] = _size(root, name, unknown)
        peak = max(peak, sum(live.values()))
        for name in [n for n in live if last.get(n, -1) <= i and n not in fetches]:
            del live[name]
    return peak


def _size(block: Block, name: str, unknown: int) -> int:
    var = block._find_var_recursive(name)
    if var is None or var.persistable or var.type is not VarType.LOD_TENSOR or not (var.has_shape and var.has_dtype):
        return 0
    dtype = TORCH_DTYPE.get(var.dtype, torch.float32)
    return math.prod(d if d >= 0 else unknown for d in var.shape) * dtype.itemsize


class Budget:
    """What requests of each kind took beyond their estimate, so that the next one is judged by it.

    A kind's first two runs are measured, one at a time: the growth of the process's memory to its peak, the smaller of
    the two (the first one compiles, too). Freed memory goes back to the system after every run. Where the system does
    not tell its peak (it is not Linux), estimates alone count.

    Attributes:
        limit: bytes.
    """

    _RUNS = 2
    _SLACK = 4 << 20  # what the process does beside the request

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._alive: dict[Any, int] = {}
        self._beyond: dict[Any, int] = {}
        self._runs: dict[Any, int] = {}
        self._lock = threading.Lock()

    def alive(self, kind: Any) -> int | None:
        """The estimate kept for requests of a kind, or None."""
        return self._alive.get(kind)

    def keep(self, kind: Any, alive: int) -> None:
        """Keep the estimate of values alive at a time."""
        if len(self._alive) < 1024:  # requests of ever new shapes must not add up
            self._alive[kind] = alive

    def beyond(self, kind: Any, alive: int) -> int:
        """Bytes on top of the estimate: as measured for this kind, else in proportion to what others took."""
        if kind in self._beyond:
            return self._beyond[kind]
        return max((int(b * max(1.0, alive / max(self._alive[k], 1))) for k, b in self._beyond.items()), default=0)

    @contextmanager
    def run(self, kind: Any) -> Iterator[None]:
        """Around a request that was let in."""
        runs = self._runs.get(kind, 0)
        if runs >= self._RUNS or kind not in self._alive:
            yield
            _trim()
            return
        with self._lock:
            _trim()
            before = _resident(restart=True)
            yield
            peak = _resident(peak=True)
            self._runs[kind] = runs + 1
            if before is not None and peak is not None:
                found = max(0, peak - before - self._alive[kind] - self._SLACK)
                self._beyond[kind] = min(found, self._beyond.get(kind, found))
            _trim()


def _resident(peak: bool = False, restart: bool = False) -> int | None:
    """Bytes of this process in memory now, or at most since `restart`; None where the system does not tell."""
    try:
        if restart:
            with open("/proc/self/clear_refs", "w") as fh:
                fh.write("5")
        with open("/proc/self/status") as status:
            wanted = "VmHWM:" if peak else "VmRSS:"
            return next(int(line.split()[1]) << 10 for line in status if line.startswith(wanted))
    except (OSError, ValueError, StopIteration):
        return None


def _trim() -> None:
    """Give freed memory back to the system, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
