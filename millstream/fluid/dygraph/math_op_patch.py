"""``fluid.dygraph.math_op_patch``: eager variables have the operators that static Variables have."""

from __future__ import annotations

from millstream.fluid.layers.math_op_patch import add_operators
from millstream.runtime.eager import VarBase

__all__ = ["monkey_patch_math_varbase"]


def monkey_patch_math_varbase() -> None:
    """Give VarBase Python's operators; runs once when this package is imported."""
    add_operators(VarBase)
