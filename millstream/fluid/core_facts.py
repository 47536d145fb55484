"""What ``fluid.core`` tells of names, of the operator library and of this build."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import torch

from millstream.config import KNOWN, get_flags, set_flags
from millstream.errors import EnforceNotMet, NotSupportedError, UnknownOperatorError
from millstream.fluid.op_proto import get_all_op_protos as _op_protos
from millstream.ir.operator import COMMON_ATTRS
from millstream.ops import REGISTRY
from millstream.runtime import profiler
from millstream.runtime.scope import Scope
from millstream.runtime.tensor import LoDTensor, LoDTensorArray

__all__ = [
    "EventSortingKey",
    "ProfilerState",
    "TracerOption",
    "from_dlpack",
    "get_all_op_protos",
    "get_fetch_variable",
    "get_op_attrs_default_value",
    "get_variable_tensor",
    "globals",
    "has_grad_op_maker",
    "has_non_empty_grad_op_maker",
    "is_profiler_enabled",
    "op_support_gpu",
    "set_feed_variable",
    "set_num_threads",
]

# ---- names ----------------------------------------------------------------------------------------
kEmptyVarName = empty_var_name = lambda: "@EMPTY@"
kGradVarSuffix = grad_var_suffix = lambda: "@GRAD"
kTempVarName = lambda: "@TEMP@"  # noqa: E731
kZeroVarSuffix = lambda: "@ZERO"  # noqa: E731
kNewGradSuffix = lambda: "@NEWGRAD@"  # noqa: E731
kControlDepVarName = lambda: "__control_var"  # noqa: E731
loaded_var_suffix = lambda: "@LOADED"  # noqa: E731


# ---- operators ------------------------------------------------------------------------------------
def has_grad_op_maker(op_type: str) -> bool:
    """Whether `op_type` is an operator of which a Program can be differentiated (with or without an effect)."""
    return op_type in REGISTRY and REGISTRY.forward_type(op_type) is None


def has_non_empty_grad_op_maker(op_type: str) -> bool:
    """Whether there is a gradient operator for `op_type`."""
    return op_type in REGISTRY and REGISTRY.get(op_type).differentiable


def op_support_gpu(op_type: str) -> bool:
    """Whether this process can run the operator on a GPU."""
    return op_type in REGISTRY and torch.cuda.is_available()


def get_op_attrs_default_value(op_type: str | bytes) -> dict[str, Any]:
    """Attribute -> default of an operator; attributes that must be given are left out.

    Raises UnknownOperatorError: there is no such operator.
    """
    name = op_type.decode() if isinstance(op_type, bytes) else op_type
    if name not in REGISTRY:
        raise UnknownOperatorError(f"get_op_attrs_default_value: there is no operator {name!r}")
    found = {a: d.default for a, d in REGISTRY.get(name).attrs.items() if d.default is not None}
    return {**COMMON_ATTRS, **found}


def get_all_op_protos() -> list[bytes]:
    """Each operator's OpProto message as bytes."""
    return [proto.SerializeToString() for proto in _op_protos()]


# ---- flags and build ------------------------------------------------------------------------------
class GlobalVarGetterSetterRegistry:
    """The ``FLAGS_*`` as a mapping."""

    def __getitem__(self, name: str) -> Any:
        return get_flags(name)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        set_flags({name: value})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.removeprefix("FLAGS_") in KNOWN

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a flag; `default` when there is no such flag."""
        return get_flags(name)[name] if name in self else default

    def keys(self) -> list[str]:
        """Names of all flags."""
        return [f"FLAGS_{name}" for name in KNOWN]

    is_public = __contains__


_registry = GlobalVarGetterSetterRegistry()


def globals() -> GlobalVarGetterSetterRegistry:
    """The flags by name: ``core.globals()["FLAGS_check_nan_inf"]``."""
    return _registry


def set_num_threads(number: int) -> None:
    """Threads that one operator may use."""
    torch.set_num_threads(number)


def is_compiled_with_mkldnn() -> bool:
    """Whether oneDNN is in torch's build."""
    return bool(torch.backends.mkldnn.is_available())


def is_compiled_with_brpc() -> bool:
    """False: there is no parameter server here."""
    return False


def is_compiled_with_dist() -> bool:
    """False: there is no parameter server here."""
    return False


def avx_supported() -> bool:
    """Whether the processor has AVX."""
    return torch.backends.cpu.get_cpu_capability() != "DEFAULT"


def init_devices(*_: Any) -> None:
    """Nothing to do: torch finds its devices."""


init_glog = init_devices


def init_gflags(args: list[str]) -> bool:
    """Set the flags of a command line: ``--name=value``. Other words are left out."""
    for word in args:
        name, found, text = word.lstrip("-").partition("=")
        if not found or name not in KNOWN:
            continue
        default = KNOWN[name].default
        value: Any = text.lower() in ("1", "true", "yes") if isinstance(default, bool) else type(default)(text)
        set_flags({f"FLAGS_{name}": value})
    return True


# ---- profiler -------------------------------------------------------------------------------------
class ProfilerState(enum.IntEnum):
    """What a profiler watches."""

    kDisabled = 0
    kCPU = 1
    kCUDA = 2
    kAll = 3


class EventSortingKey(enum.IntEnum):
    """Columns that a profiler's table is sorted by."""

    kDefault = 0
    kCalls = 1
    kTotal = 2
    kMin = 3
    kMax = 4
    kAve = 5


class TracerOption(enum.IntEnum):
    """How much a profiler records."""

    kDefault = 0
    kOpDetail = 1
    kAllOpDetail = 2


def is_profiler_enabled() -> bool:
    """Whether a profiler is recording."""
    return profiler.active() is not None


# ---- values of a Scope ----------------------------------------------------------------------------
def set_feed_variable(scope: Scope, tensor: LoDTensor, name: str, index: int) -> None:
    """Put `tensor` at place `index` of the list of feeds `name`."""
    held = scope.var(name).get_lod_tensor_array()
    while len(held) <= index:
        held.append(LoDTensor())
    held[index] = tensor


def get_fetch_variable(scope: Scope, name: str, index: int) -> LoDTensor:
    """The tensor at place `index` of the list of fetches `name`. EnforceNotMet: it is not there."""
    found = scope.find_var(name)
    held = found.obj if found is not None else None
    if not isinstance(held, LoDTensorArray) or index >= len(held):
        raise EnforceNotMet(f"get_fetch_variable: variable {name!r} is not in the scope, or has no value at {index}")
    return held[index]  # type: ignore[no-any-return]


def get_variable_tensor(scope: Scope, name: str) -> LoDTensor:
    """The LoDTensor of variable `name`. EnforceNotMet: it is not in the scope, or is another kind of value."""
    found = scope.find_var(name)
    if found is None:
        raise EnforceNotMet(f"get_variable_tensor: variable {name!r} is not in the scope")
    return found.get_tensor()


def from_dlpack(capsule: Any) -> LoDTensor:
    """A LoDTensor over the memory of a DLPack capsule, or of an object that gives one."""
    return LoDTensor.of(torch.from_dlpack(capsule))


class PassBuilder:
    """Would list passes of Fluid's graphs. Raises NotSupportedError when it is made."""

    def __init__(self) -> None:
        _no_pass("PassBuilder()")


def get_pass(name: str) -> None:
    """Raises NotSupportedError: the passes of Fluid's graphs are not here."""
    _no_pass(f"get_pass({name!r})")


def _no_pass(what: str) -> None:
    raise NotSupportedError(
        f"core.{what}: passes work on Programs here; `millstream.passes` has them, and docs/passes.md shows how "
        "to write one"
    )
