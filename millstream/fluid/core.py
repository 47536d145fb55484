"""``fluid.core``: the names under which Fluid programs reach the runtime."""

from __future__ import annotations

from millstream.errors import EnforceNotMet, EOFException
from millstream.ir.types import AttrType, VarType
from millstream.runtime.place import CPUPlace, CUDAPinnedPlace, CUDAPlace
from millstream.runtime.scope import Scope, ScopeVar
from millstream.runtime.tensor import LoDTensor, LoDTensorArray, SelectedRows


class VarDesc:
    """Holder of :class:`VarType`, as in ``core.VarDesc.VarType.FP32``."""

    VarType = VarType


_Scope = Scope
Variable = ScopeVar
Tensor = LoDTensor

__all__ = [
    "AttrType",
    "CPUPlace",
    "CUDAPinnedPlace",
    "CUDAPlace",
    "EOFException",
    "EnforceNotMet",
    "LoDTensor",
    "LoDTensorArray",
    "Scope",
    "SelectedRows",
    "Tensor",
    "VarDesc",
    "Variable",
]
