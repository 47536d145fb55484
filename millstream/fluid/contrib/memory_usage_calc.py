"""How much memory a Program's results take."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.ir.program import Program
from millstream.ir.types import VarType, dtype_name

__all__ = ["memory_usage"]


def memory_usage(program: Program, batch_size: int) -> tuple[float, float, str]:
    """A rough range of the memory that the results of the operators in the global Block take.

    Returns:
        (lower bound, upper bound, unit: 'B', 'KB' or 'MB'): 5 and 10 per cent above the sum of all results.

    Raises:
        TypeError: not a Program; ValueError: a batch size that is not positive, two unknown dimensions in a shape.
    """
    if not isinstance(program, Program):
        raise TypeError(f"memory_usage: 'program' must be a Program, received {type(program).__name__}")
    if batch_size <= 0:
        raise ValueError(f"memory_usage: 'batch_size' must be positive, received {batch_size}")
    block = program.global_block()
    total = 0.0
    for name in {name for op in block.ops for name in op.output_arg_names}:
        var = block._find_var_recursive(name)
        if var is not None and var.type == VarType.LOD_TENSOR:
            total += _bytes(var, batch_size)
    for unit in ("B", "KB"):
        if total <= 1024:
            return total * 1.05, total * 1.1, unit
        total /= 1024
    return total * 1.05, total * 1.1, "MB"


def _bytes(var: Any, batch_size: int) -> int:
    unknown = [d for d in var.shape if d < 0]
    if len(unknown) > 1:
        raise ValueError(f"memory_usage: {var.describe()} has more than one unknown dimension")
    count = 1
    for d in var.shape:
        count *= d if d >= 0 else -d * batch_size
    name = dtype_name(var.dtype)
    return count * (2 if name == "bfloat16" else np.dtype(name).itemsize)
