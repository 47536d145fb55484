"""``fluid.core``: the names under which Fluid programs reach the runtime."""

from __future__ import annotations

import enum

import numpy as np

from millstream.errors import EnforceNotMet, EOFException, NotSupportedError
from millstream.fluid import eager_ops as ops
from millstream.fluid.core_facts import (
    EventSortingKey,
    GlobalVarGetterSetterRegistry,
    PassBuilder,
    ProfilerState,
    TracerOption,
    avx_supported,
    empty_var_name,
    from_dlpack,
    get_all_op_protos,
    get_fetch_variable,
    get_op_attrs_default_value,
    get_pass,
    get_variable_tensor,
    globals,
    grad_var_suffix,
    has_grad_op_maker,
    has_non_empty_grad_op_maker,
    init_devices,
    init_gflags,
    init_glog,
    is_compiled_with_brpc,
    is_compiled_with_dist,
    is_compiled_with_mkldnn,
    is_profiler_enabled,
    kControlDepVarName,
    kEmptyVarName,
    kGradVarSuffix,
    kNewGradSuffix,
    kTempVarName,
    kZeroVarSuffix,
    loaded_var_suffix,
    op_support_gpu,
    set_feed_variable,
    set_num_threads,
)
from millstream.fluid.graph.node import Graph, Node
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
from millstream.ir.desc import BlockDesc, OpDesc, ProgramDesc
from millstream.ir.desc import VarDesc as _VarDesc
from millstream.ir.types import AttrType, VarType, dtype_name
from millstream.runtime import stored as _stored  # noqa: F401  (for fluid.io)
from millstream.runtime.eager import BackwardStrategy, VarBase
from millstream.runtime.feeding import LoDTensorBlockingQueue, init_lod_tensor_blocking_queue
from millstream.runtime.lone_operator import LoneOperator
from millstream.runtime.place import CPUPlace, CUDAPinnedPlace, CUDAPlace
from millstream.runtime.scope import Scope, ScopeVar, global_scope
from millstream.runtime.tensor import LoDTensor, LoDTensorArray, SelectedRows

kCPU, kCUDA, kAll, kDisabled = ProfilerState.kCPU, ProfilerState.kCUDA, ProfilerState.kAll, ProfilerState.kDisabled


class VarDesc(_VarDesc):
    """What ``variable.desc`` gives, and the holder of :class:`VarType`, as in ``core.VarDesc.VarType.FP32``."""

    VarType = VarType


class OpRole(enum.IntEnum):
    """Values of the operator attribute `op_role`: what part of training an operator belongs to."""

    Forward = 0
    Backward = 1
    Optimize = 2
    RPC = 4
    Dist = 8
    LRSched = 16
    Loss = 256


class op_proto_and_checker_maker:
    """Names of the attributes that every operator may carry."""

    OpRole = OpRole
    kOpRoleAttrName = staticmethod(lambda: "op_role")
    kOpRoleVarAttrName = staticmethod(lambda: "op_role_var")
    kOpNameScopeAttrName = staticmethod(lambda: "op_namescope")
    kOpCreationCallstackAttrName = staticmethod(lambda: "op_callstack")
    kOpDeviceAttrName = staticmethod(lambda: "op_device")


def size_of_dtype(dtype: VarType) -> int:
    """Bytes of one element."""
    name = dtype_name(dtype)
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def is_compiled_with_cuda() -> bool:
    """Whether torch can use a CUDA device here."""
    try:
        CUDAPlace(0).torch_device()
    except NotSupportedError:
        return False
    return True


class Place:
    """Any of the places, set afterwards."""

    def __init__(self) -> None:
        self._place: CPUPlace | CUDAPlace | CUDAPinnedPlace | None = None

    def set_place(self, place: CPUPlace | CUDAPlace | CUDAPinnedPlace | Place) -> None:
        """Be `place`."""
        self._place = place._place if isinstance(place, Place) else place

    def is_cpu_place(self) -> bool:
        """Whether it is a CPUPlace."""
        return isinstance(self._place, CPUPlace)

    def is_gpu_place(self) -> bool:
        """Whether it is a CUDAPlace."""
        return isinstance(self._place, CUDAPlace)

    def is_cuda_pinned_place(self) -> bool:
        """Whether it is a CUDAPinnedPlace."""
        return isinstance(self._place, CUDAPinnedPlace)

    def gpu_device_id(self) -> int:
        """Number of the device; RuntimeError unless it is a CUDAPlace."""
        if not isinstance(self._place, CUDAPlace):
            raise RuntimeError(f"gpu_device_id: this place is {self._place!r}, not a CUDAPlace")
        return self._place.get_device_id()


class ParallelStrategy:
    """How many processes there are, and which one this is."""

    def __init__(self) -> None:
        self.nranks = 1
        self.local_rank = 0
        self.trainer_endpoints: list[str] = []
        self.current_endpoint = ""


Operator = LoneOperator
_Scope = Scope
Variable = ScopeVar
Tensor = LoDTensor

__all__ = [
    "AnalysisConfig",
    "AnalysisPredictor",
    "AttrType",
    "BackwardStrategy",
    "BlockDesc",
    "CPUPlace",
    "CUDAPinnedPlace",
    "CUDAPlace",
    "EOFException",
    "EnforceNotMet",
    "EventSortingKey",
    "GlobalVarGetterSetterRegistry",
    "Graph",
    "LoDTensor",
    "LoDTensorArray",
    "LoDTensorBlockingQueue",
    "MkldnnQuantizerConfig",
    "NativeConfig",
    "NativePaddlePredictor",
    "Node",
    "OpDesc",
    "Operator",
    "PaddleBuf",
    "PaddleDType",
    "PaddlePassBuilder",
    "PaddlePlace",
    "PaddlePredictor",
    "PaddleTensor",
    "ParallelStrategy",
    "PassBuilder",
    "PassStrategy",
    "Place",
    "ProfilerState",
    "ProgramDesc",
    "Scope",
    "SelectedRows",
    "Tensor",
    "TracerOption",
    "VarBase",
    "VarDesc",
    "Variable",
    "ZeroCopyTensor",
    "avx_supported",
    "create_paddle_predictor",
    "empty_var_name",
    "from_dlpack",
    "get_all_op_protos",
    "get_fetch_variable",
    "get_op_attrs_default_value",
    "get_pass",
    "get_variable_tensor",
    "global_scope",
    "globals",
    "grad_var_suffix",
    "has_grad_op_maker",
    "has_non_empty_grad_op_maker",
    "init_devices",
    "init_gflags",
    "init_glog",
    "init_lod_tensor_blocking_queue",
    "is_compiled_with_brpc",
    "is_compiled_with_cuda",
    "is_compiled_with_dist",
    "is_compiled_with_mkldnn",
    "is_profiler_enabled",
    "kControlDepVarName",
    "kEmptyVarName",
    "kGradVarSuffix",
    "kNewGradSuffix",
    "kTempVarName",
    "kZeroVarSuffix",
    "loaded_var_suffix",
    "op_proto_and_checker_maker",
    "op_support_gpu",
    "ops",
    "paddle_dtype_size",
    "paddle_tensor_to_bytes",
    "set_feed_variable",
    "set_num_threads",
    "size_of_dtype",
]
