"""Parts of a compiled kernel in the threads that torch keeps for its own loops.

Threads of our own would sleep while torch computes and torch's while we do; on virtual machines waking one takes 50 to
250 us, and while both wait awake they take each other's cores. torch's loops run in OpenMP's threads, so ours enter the same
team through the runtime's own entry, GOMP_parallel (libgomp; LLVM's and Intel's runtimes have it too). A thread of it that
is awake takes a part within 3 us. Those threads know nothing of Python: the caller unpacks all arguments beforehand.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from llvmlite import binding, ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import openmp
from millstream.kernels.compiled import njit

_ROOM, _BEGIN = 512, 3  # int64 words for a part; those before its arguments: the function's address, if it failed, if taken
_WORD = ir.IntType(64)
_NUMBER = "millstream omp_get_thread_num"


@cache
def _parallel() -> Callable[..., None]:
    """GOMP_parallel; from now on compiled code finds omp_get_thread_num."""
    runtime = openmp.library()
    assert runtime is not None, "run is for where openmp.available() holds"
    binding.add_symbol(_NUMBER, ctypes.cast(runtime.omp_get_thread_num, ctypes.c_void_p).value)
    return cast("Callable[..., None]", runtime.GOMP_parallel)


# ---- compiled code -------------------------------------------------------------------------------
@intrinsic
def _lay_down(typing_context, kernel, room, arguments):
    """Store `arguments` (a tuple) and a function that runs `kernel` over them, at the address `room`.

    The function finds the kernel by the name that :func:`_named` gave it: linked in, the kernel would be compiled again.
    """
    dispatcher, taken = kernel.dispatcher, tuple(arguments)
    if kernel.get_call_type(typing_context, taken, {}).return_type != types.none:
        raise TypeError(f"{dispatcher.py_func.__name__}: a kernel in parts must not return anything")

    def emit(context, builder, signature, args):
        _, at, packed = args
        if context.get_abi_sizeof(packed.type) > 8 * (_ROOM - _BEGIN):
            raise TypeError(f"{dispatcher.py_func.__name__}: the arguments take more than {8 * (_ROOM - _BEGIN)} bytes")
        name = context.mangler(f"part_of_{dispatcher.py_func.__name__}", taken, abi_tags=(), uid=None)
        part = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_WORD]), name)
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block())
        given = inside.load(_address(inside, part.args[0], _BEGIN, packed.type))
        values = [_borrowed(context, inside, t, inside.extract_value(given, k)) for k, t in enumerate(taken)]
        kind = context.call_conv.get_function_type(types.none, taken)
        callee = cgutils.get_or_insert_function(builder.module, kind, _name(dispatcher, taken))
        status, _ = context.call_conv.call_function(inside, callee, types.none, taken, values)
        inside.store(inside.zext(status.is_error, _WORD), _address(inside, part.args[0], 1, _WORD))
        inside.ret_void()
        builder.store(builder.ptrtoint(part, _WORD), _address(builder, at, 0, _WORD))
        builder.store(packed, _address(builder, at, _BEGIN, packed.type))
        return context.get_dummy_value()

    return types.none(kernel, types.intp, arguments), emit


def _borrowed(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> ir.Value:
    """An argument without its counter of references, which is gone once the caller has unpacked the arguments."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo, array.parent = (ir.Constant(field.type, None) for field in (array.meminfo, array.parent))
        return array._getvalue()
    if context.data_model_manager[kind].contains_nrt_meminfo():
        raise TypeError(f"a kernel in parts takes numbers, arrays and tuples of numbers, not {kind}")
    return value


def _address(builder: ir.IRBuilder, room: ir.Value, word: int, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(builder.add(room, ir.Constant(_WORD, 8 * word)), kind.as_pointer())


@intrinsic
def _call(typing_context, function, room):
    """Call a function that :func:`_lay_down` made."""
    del typing_context

    def emit(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_WORD]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [args[1]])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def _take(typing_context, flag):
    """Whether the number at an address was 0; now it is 1."""
    del typing_context

    def emit(context, builder, signature, args):
        before = builder.atomic_rmw("xchg", _address(builder, args[0], 0, _WORD), ir.Constant(_WORD, 1), "monotonic")
        return builder.icmp_signed("==", before, ir.Constant(_WORD, 0))

    return types.boolean(types.int64), emit


@intrinsic
def _own_number(typing_context):
    """Of this thread in its team, from 0."""
    del typing_context

    def emit(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.sext(builder.call(cgutils.get_or_insert_function(builder.module, kind, _NUMBER), []), _WORD)

    return types.int64(), emit


@cache
def _member() -> Any:
    """What each thread of the team runs over the rooms of :func:`run`; kept, for its address is what they get.

    A thread begins with its own share of the parts, so that in one operator after the other it works on the same rows, which
    its cache may still have. Then it takes what is left: one that wakes late finds its parts done.
    """

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def take_parts(rooms):
        words = carray(rooms, 2)
        begin, threads, count = words.ctypes.data, words[0], words[1]
        start = _own_number() * count // threads
        for n in range(count):
            first = 2 + (start + n) % count * _ROOM
            if _take(begin + 8 * (first + 2)):
                _call(carray(rooms, first + 1)[first], begin + 8 * first)

    return take_parts


def _name(kernel: Any, taken: tuple[types.Type, ...]) -> str:
    """What the linker knows `kernel` for these types by, in every process."""
    function, kinds = kernel.py_func, ", ".join(map(str, taken))
    return f"millstream part {function.__module__}.{function.__qualname__}({kinds})"


def _named(kernel: Any, taken: tuple[types.Type, ...]) -> None:
    """Compile `kernel`, or take it from numba's cache, and tell the linker where it is."""
    kernel.compile(taken)
    overload = kernel.overloads[taken]
    binding.add_symbol(_name(kernel, taken), overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))


@cache
def _handing(kernel: Any) -> Callable[..., None]:
    """A compiled function of (room, *arguments of the kernel).

    numba keeps compiled code by the file, the name and the line of a function, hence one of its own for each kernel, which
    says that it stands in the kernel's file. Before it is compiled, or taken from the cache, the kernel gets its name.
    """
    name = f"{kernel.py_func.__name__}_part"
    source = f"def {name}(room, *arguments):\n    lay_down(kernel, room, arguments)\n"
    known: dict[str, Any] = {"__name__": kernel.py_func.__module__, "lay_down": _lay_down, "kernel": kernel}
    exec(compile(source, kernel.py_func.__code__.co_filename, "exec"), known)
    handing = njit(cache=True)(known[name])
    compile_or_load = handing.compile

    def compile_named(signature: tuple[Any, ...]) -> Any:
        _named(kernel, tuple(signature[1]))
        return compile_or_load(signature)

    handing.compile = compile_named
    return handing


def run(kernel: Any, calls: Sequence[tuple[Any, ...]]) -> None:
    """kernel(*arguments) for each of `calls`; returns when all are done.

    Args:
        kernel: compiled by numba, returning nothing.
        calls: arguments, of the same types in each.

    Raises:
        RuntimeError: the kernel raised an error.
    """
    threads = torch.get_num_threads()
    rooms = np.empty(2 + len(calls) * _ROOM, np.int64)  # the numbers of threads and of parts, a room for each part
    rooms[:2] = threads, len(calls)
    rooms[2 + _BEGIN - 1 :: _ROOM] = 0
    begin, lay_down = rooms.ctypes.data, _handing(kernel)
    for k, arguments in enumerate(calls):
        lay_down(begin + 8 * (2 + k * _ROOM), *arguments)
    parallel = _parallel()  # it names what the members look for
    parallel(_member().address, begin, threads, 0)
    if rooms[3::_ROOM].any():
        raise RuntimeError(f"{kernel.py_func.__name__}: failed inside a thread")
