"""How much memory a request will take, estimated before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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


def text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
