"""How kernels are compiled that other kernels call.

numba compiles what a kernel calls as if Python called it as well: with functions around it that unpack Python's arguments
and C's, as machine code of its own, in a file of its own in the cache. Then it is linked into its caller, and all callers of
that, and compiled again there. So much of the time that a kernel takes to compile goes into code that never runs. Here

* a kernel that a kernel calls is compiled without all that, and only linked into its caller (:func:`within`);
* one that is long and called from several places is compiled once, as if for Python, and called by name (:func:`apart`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
from llvmlite import binding
from numba import types
from numba.core import cgutils
from numba.core.codegen import CPUCodegen, JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target

__all__ = ["Compiler", "apart", "symbol", "within"]

_ENVIRONMENT = "_ZN08NumbaEnv"  # what numba's names of a function's constants begin with
_MANAGER_A_MODULE = "llvm_module" in inspect.signature(CPUCodegen._function_pass_manager).parameters  # older numba


class _Library(JITCodeLibrary):
    """Compiled code of a kernel and of what is linked into it."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Like numba's, which makes a pass manager for each declaration as well: thirty for each function."""
        if _MANAGER_A_MODULE:
            super()._optimize_functions(ll_module)
            return
        ll_module.data_layout = self._codegen._data_layout
        for function in ll_module.functions:
            if not function.is_declaration:
                manager, builder = self._codegen._function_pass_manager()
                manager.run(function, builder)

    def _finalize_specific(self) -> None:
        """The constants of what is linked in are looked up here: it never was code of its own."""
        super()._finalize_specific()
        codegen: Any = self._codegen
        for variable in self._final_module.global_variables:
            found = lookup_environment(variable.name) if variable.name.startswith(_ENVIRONMENT) else None
            if found is not None:
                codegen.set_env(variable.name, found)


class _NoCode:
    """Stands for the code generator of what gets no code of its own."""

    def set_env(self, name: str, env: Any) -> None:
        """There is nothing to find it yet."""


class _LinkedLibrary(_Library):
    """Of a kernel that is only linked into others."""

    @property
    def codegen(self) -> Any:
        """Without code."""
        return _NoCode()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _Flags(Flags):
    """A kernel's options, as what numba itself compiles within the kernel (min, empty, …) takes them.

    numba compiles that for each set of options, and looks it up by all of them at each call. Here the options that say how
    the kernel itself is called are those of all kernels, and what they are looked up by is known.
    """

    __slots__ = ("_known",)

    def __init__(self, flags: Flags) -> None:
        super().__init__(flags)
        for name in ("no_cpython_wrapper", "no_cfunc_wrapper", "release_gil"):
            setattr(self, name, True)
        self._known = super().__hash__()

    def __hash__(self) -> int:
        return self._known

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class _KernelFlags(Flags):
    """A kernel's options."""

    __slots__ = ()

    def copy(self) -> Flags:
        """For what is compiled within: one object for all kernels of the same options."""
        flags = _Flags(self)
        return _FLAGS.setdefault(flags, flags)


_FLAGS: dict[_Flags, _Flags] = {}


class Compiler(CompilerBase):
    """numba's, with the library above."""

    library = _Library

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags = _KernelFlags(self.state.flags)

    def define_pipelines(self) -> list[Any]:
        """numba's own."""
        state = self.state
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(state)]


class _LinkedCompiler(Compiler):
    library = _LinkedLibrary


def within(kernel: Any, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Other kernels take `kernel` (a dispatcher of numba's) as a part of their own code."""
    options = {name: value for name, value in options.items() if name != "cache"}
    options.update(no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_LinkedCompiler)
    linked = numba.njit(**options)(function)
    kernel.get_call_template, kernel.get_overload = linked.get_call_template, linked.get_overload


# ---- by name -------------------------------------------------------------------------------------
def symbol(kernel: Any, taken: tuple[types.Type, ...]) -> str:
    """Compile `kernel` for arguments of these types, or take it from numba's cache, and tell the linker where it is.

    Returns:
        What the linker knows it by, in every process.
    """
    kernel.compile(taken)
    overload, function = kernel.overloads[taken], kernel.py_func
    name = f"millstream {function.__module__}.{function.__qualname__}({', '.join(map(str, taken))})"
    binding.add_symbol(name, overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))
    return name


@dataclass(frozen=True)
class _Known:
    """Called before a kernel comes from numba's cache: what it calls by name is known by then."""

    module: str
    name: str
    taken: tuple[types.Type, ...]

    def __call__(self) -> None:
        symbol(getattr(importlib.import_module(self.module), self.name), self.taken)


def _whole(kind: types.Type) -> types.Type:
    """The type that a kernel apart takes for `kind`."""
    if isinstance(kind, types.BaseTuple):
        several: Any = kind
        return types.BaseTuple.from_types([_whole(t) for t in several.types])
    kind = types.unliteral(kind)
    return types.intp if isinstance(kind, types.Integer) or kind == types.float64 else kind


def apart(kernel: Any) -> None:
    """Other kernels call `kernel` (a dispatcher of numba's, a global name of its module) by name: it is compiled once.

    It is not inlined and costs a few ns a call. Whole numbers and addresses are intp to it, also where a caller has a
    constant, an address without a sign, or the float64 that numba makes of the sum of the two: no form for each.
    """
    keys: dict[tuple[types.Type, ...], tuple[str, str]] = {}
    template = kernel.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return template(tuple(map(_whole, args)), {name: _whole(kind) for name, kind in kws.items()})

    def get_overload(sig: Any) -> tuple[str, str]:
        taken = tuple(getattr(sig, "args", sig))
        if taken not in keys:
            keys[taken] = ("apart", symbol(kernel, taken))
            cpu_target.target_context.insert_func_defn([(_call(kernel, keys[taken][1]), keys[taken], taken)])
        return keys[taken]

    kernel.get_call_template, kernel.get_overload = get_call_template, get_overload


def _call(kernel: Any, name: str) -> Callable[..., Any]:
    """What numba's lowering calls for a call of `kernel`."""
    function = kernel.py_func

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.active_code_library._reload_init.add(_Known(function.__module__, function.__name__, signature.args))
        kind = context.call_conv.get_function_type(signature.return_type, signature.args)
        callee = cgutils.get_or_insert_function(builder.module, kind, name)
        status, result = context.call_conv.call_function(builder, callee, signature.return_type, signature.args, args)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return emit
