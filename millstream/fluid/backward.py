"""``fluid.backward``: gradients of Programs (see :mod:`millstream.autodiff`)."""

from __future__ import annotations

from typing import Any

from millstream.autodiff.backward import append_backward, calc_gradient, gradients
from millstream.autodiff.recompute import ProgramStats

__all__ = ["ProgramStats", "append_backward", "calc_gradient", "gradients", "serialize_op_decs"]


def serialize_op_decs(op_desc: Any) -> str:
    """The operator as text, for debugging."""
    return str(getattr(op_desc, "_op", op_desc).to_string())


