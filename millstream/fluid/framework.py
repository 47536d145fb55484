"""``fluid.framework``: Programs, their parts, places and versions, under the names Fluid programs use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from millstream import config, version
from millstream.config import get_flags, set_flags
from millstream.errors import NotSupportedError, VersionError
from millstream.fluid import unique_name
from millstream.fluid.complex_variable import ComplexVariable
from millstream.fluid.core import (
    CPUPlace,
    CUDAPinnedPlace,
    CUDAPlace,
    is_compiled_with_cuda,
    kControlDepVarName,
    kZeroVarSuffix,
)
from millstream.fluid.graph import IrGraph, IrNode, IrOpNode, IrVarNode
from millstream.fluid.op_proto import OpProtoHolder, get_all_op_protos
from millstream.ir.block import Block
from millstream.ir.mode import in_dygraph_mode, tracer
from millstream.ir.names import EMPTY_VAR, GRAD_SUFFIX, TEMP_VAR, grad_name
from millstream.ir.operator import Operator
from millstream.ir.program import (
    Program,
    default_main_program,
    default_startup_program,
    name_scope,
    program_guard,
    switch_main_program,
    switch_startup_program,
)
from millstream.ir.types import FLOATING, VarType, to_var_type
from millstream.ir.variable import Parameter, Variable

__all__ = [
    "Block",
    "ComplexVariable",
    "IrGraph",
    "IrNode",
    "IrOpNode",
    "IrVarNode",
    "OpProtoHolder",
    "Operator",
    "Parameter",
    "Program",
    "Variable",
    "convert_np_dtype_to_dtype_",
    "cpu_places",
    "cuda_pinned_places",
    "cuda_places",
    "default_main_program",
    "default_startup_program",
    "device_guard",
    "dtype_is_floating",
    "get_all_op_protos",
    "get_flags",
    "grad_var_name",
    "in_dygraph_mode",
    "is_compiled_with_cuda",
    "name_scope",
    "program_guard",
    "require_version",
    "set_flags",
    "switch_main_program",
    "switch_startup_program",
    "unique_name",
]

GRAD_VAR_SUFFIX = GRAD_SUFFIX
EMPTY_VAR_NAME = EMPTY_VAR
TEMP_VAR_NAME = TEMP_VAR
ZERO_VAR_SUFFIX = kZeroVarSuffix()
CONTROL_DEP_VAR_PREFIX = kControlDepVarName()


def grad_var_name(var_name: str) -> str:
    """The name of the gradient of variable `var_name`."""
    return grad_name(var_name)


def convert_np_dtype_to_dtype_(np_dtype: Any) -> VarType:
    """The VarType of a numpy dtype or its name."""
    return to_var_type(np_dtype)


def dtype_is_floating(dtype: Any) -> bool:
    """Whether an element type is a floating one."""
    return to_var_type(dtype) in FLOATING


def _get_var(name: str, program: Program | None = None) -> Variable:
    """The variable `name` of the global Block of `program` (the default main Program)."""
    return (default_main_program() if program is None else program).global_block().var(name)


def _cpu_num() -> int:
    """Places that data parallelism uses on the CPU: the environment's CPU_NUM, or 1."""
    return config.settings().cpu_num


def _full_name_scope() -> str:
    """The name scope in force, as operators carry it: ``/`` outside of all."""
    return f"/{default_main_program()._name_scope}"


def _dygraph_tracer() -> Any:
    """The tracer of the eager mode, or None while Programs are built."""
    return tracer()


# ---- places ------------------------------------------------------------------------------------
def _need_cuda(what: str) -> None:
    if not is_compiled_with_cuda():
        raise NotSupportedError(f"{what}: no CUDA device can be used here; use cpu_places() or CPUPlace()")


def cpu_places(device_count: int | None = None) -> list[CPUPlace]:
    """`device_count` CPUPlaces; by default as many as the environment's CPU_NUM says (1 when it does not)."""
    count = config.settings().cpu_num if device_count is None else device_count
    return [CPUPlace()] * count


def cuda_places(device_ids: Sequence[int] | None = None) -> list[CUDAPlace]:
    """A CUDAPlace for each of `device_ids`, by default for every device. NotSupportedError without CUDA."""
    _need_cuda("cuda_places")
    if device_ids is None:
        found: list[CUDAPlace] = []
        while True:
            place = CUDAPlace(len(found))
            try:
                place.torch_device()
            except NotSupportedError:
                return found
            found.append(place)
    if not isinstance(device_ids, (list, tuple)):
        device_ids = [device_ids]  # type: ignore[list-item]
    return [CUDAPlace(i) for i in device_ids]


def cuda_pinned_places(device_count: int | None = None) -> list[CUDAPinnedPlace]:
    """`device_count` CUDAPinnedPlaces, by default as many as CPU_NUM says. NotSupportedError without CUDA."""
    _need_cuda("cuda_pinned_places")
    count = config.settings().cpu_num if device_count is None else device_count
    return [CUDAPinnedPlace()] * count


def _current_expected_place() -> Any:
    """The place of the eager mode; None while Programs are built."""
    return getattr(tracer(), "place", None)


@contextmanager
def device_guard(device: str | None = None) -> Iterator[None]:
    """Operators appended inside carry the attribute ``op_device``: "cpu", "gpu", "" or None (no wish)."""
    if device not in ("cpu", "gpu", "", None):
        raise ValueError(f"device_guard: 'device' must be 'cpu', 'gpu', '' or None, received {device!r}")
    old = switch_device(device)
    try:
        yield
    finally:
        switch_device(old)


def switch_device(device: str | None) -> str | None:
    """Set the device of the operators appended from now on; returns the old one."""
    program = default_main_program()
    old = program._device
    program._device = device or ""
    return old or None


# ---- versions ----------------------------------------------------------------------------------
_VERSION = re.compile(r"\d+(\.\d+){0,3}")


def require_version(min_version: str, max_version: str | None = None) -> None:
    """Check that the interface's version (1.8.5) is in [min_version, max_version].

    Raises TypeError: not a str; ValueError: not one to four numbers with dots; VersionError: outside.
    """
    for value, argument in ((min_version, "min_version"), (max_version, "max_version")):
        if value is None and argument == "max_version":
            continue
        if not isinstance(value, str):
            raise TypeError(f"require_version: '{argument}' must be str, received {type(value).__name__}: {value!r}")
        if not _VERSION.fullmatch(value):
            raise ValueError(f"require_version: '{argument}' must be one to four numbers like '1.5.2.0', received {value!r}")
    here = _numbers(version.full_version)
    if max_version is not None:
        if not _numbers(min_version) <= here <= _numbers(max_version):
            raise VersionError(
                f"version in [{min_version}, {max_version}] is required, but {version.full_version} is installed"
            )
    elif here < _numbers(min_version):
        raise VersionError(f"version {min_version} or higher is required, but {version.full_version} is installed")


def _numbers(text: str) -> tuple[int, ...]:
    parts = [int(p) for p in text.split(".")]
    return tuple(parts + [0] * (4 - len(parts)))


def load_op_library(lib_filename: str) -> None:
    """Operators compiled for Fluid cannot be loaded: they are linked against its own library.

    Raises:
        NotSupportedError: always.
    """
    raise NotSupportedError(
        f"load_op_library: {lib_filename!r} holds operators compiled against another framework. Write the operator as a "
        "Python function over numpy arrays and use it with fluid.layers.py_func"
    )
