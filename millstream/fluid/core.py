"""``fluid.core``: the names under which Fluid programs reach the runtime."""

from __future__ import annotations

from millstream.errors import EnforceNotMet, EOFException
from millstream.inference import (
    AnalysisConfig,
    AnalysisPredictor,
    MkldnnQuantizerConfig,
    NativeConfig,
    NativePaddlePredictor,
    PaddleBuf,
    PaddleDType,
    PaddlePassBuilder,
    PaddlePlace,
    PaddlePredictor,
    PaddleTensor,
    PassStrategy,
    ZeroCopyTensor,
    create_paddle_predictor,
    paddle_dtype_size,
    paddle_tensor_to_bytes,
)
from millstream.ir.types import AttrType, VarType
from millstream.runtime import stored as _stored  # noqa: F401  (for fluid.io)
from millstream.runtime.feeding import LoDTensorBlockingQueue, init_lod_tensor_blocking_queue
from millstream.runtime.place import CPUPlace, CUDAPinnedPlace, CUDAPlace
from millstream.runtime.scope import Scope, ScopeVar, global_scope
from millstream.runtime.tensor import LoDTensor, LoDTensorArray, SelectedRows


class VarDesc:
    """Holder of :class:`VarType`, as in ``core.VarDesc.VarType.FP32``."""

    VarType = VarType


_Scope = Scope
Variable = ScopeVar
Tensor = LoDTensor

__all__ = [
    "AnalysisConfig",
    "AnalysisPredictor",
    "AttrType",
    "CPUPlace",
    "CUDAPinnedPlace",
    "CUDAPlace",
    "EOFException",
    "EnforceNotMet",
    "LoDTensor",
    "LoDTensorArray",
    "LoDTensorBlockingQueue",
    "MkldnnQuantizerConfig",
    "NativeConfig",
    "NativePaddlePredictor",
    "PaddleBuf",
    "PaddleDType",
    "PaddlePassBuilder",
    "PaddlePlace",
    "PaddlePredictor",
    "PaddleTensor",
    "PassStrategy",
    "Scope",
    "SelectedRows",
    "Tensor",
    "VarDesc",
    "Variable",
    "ZeroCopyTensor",
    "create_paddle_predictor",
    "global_scope",
    "init_lod_tensor_blocking_queue",
    "paddle_dtype_size",
    "paddle_tensor_to_bytes",
]
