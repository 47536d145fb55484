"""Parts of a compiled kernel in the threads that torch keeps for its own loops.

Threads of our own would sleep while torch computes and torch's while we do; on virtual machines waking one takes 50 to
250 us, and while both wait awake they take each other's cores. torch's loops run in OpenMP's threads, so ours enter the same
team through the runtime's own entry, GOMP_parallel (libgomp; LLVM's and Intel's runtimes have it too). A thread of it that
is awake takes a part within 3 us. Those threads know nothing of Python: the caller unpacks all arguments beforehand.

Between two operators Python's own code and data have left the caches, and what numpy does for a number or two then takes 5
to 25 us: rooms are kept, and compiled code fills in their numbers, enters the team, and looks whether a part failed. In
turns, two threads, bfloat16: ResNet-50's step 0.97, the Transformer's 0.975 of before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import binding, ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import openmp
from millstream.kernels.compiled import njit

_ROOM, _BEGIN = 512, 3  # int64 words for a part; those before its arguments: the function's address, if it failed, if taken
_KEPT = 8  # parts for which rooms are kept
_WORD, _INT = ir.IntType(64), ir.IntType(32)
_NUMBER, _PARALLEL = "millstream omp_get_thread_num", "millstream GOMP_parallel"


@cache
def _known() -> None:
    """From now on compiled code finds the runtime's functions."""
    runtime = openmp.library()
    assert runtime is not None, "run is for where openmp.available() holds"
    for name, function in ((_NUMBER, runtime.omp_get_thread_num), (_PARALLEL, runtime.GOMP_parallel)):
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)


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
        kind = ir.FunctionType(_INT, [])
        return builder.sext(builder.call(cgutils.get_or_insert_function(builder.module, kind, _NUMBER), []), _WORD)

    return types.int64(), emit


@intrinsic
def _word(typing_context, address):
    """The number at an address."""
    del typing_context

    def emit(context, builder, signature, args):
        return builder.load(_address(builder, args[0], 0, _WORD))

    return types.int64(types.int64), emit


@intrinsic
def _set_word(typing_context, address, number):
    """Store a number at an address."""
    del typing_context

    def emit(context, builder, signature, args):
        builder.store(args[1], _address(builder, args[0], 0, _WORD))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def _enter_team(typing_context, member, rooms, threads):
    """GOMP_parallel: a function over an address, in as many threads."""
    del typing_context

    def emit(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_WORD, _WORD, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, _PARALLEL)
        builder.call(function, [args[0], args[1], builder.trunc(args[2], _INT), ir.Constant(_INT, 0)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), emit


@njit(cache=True, nogil=True)
def _run_rooms(member, begin, threads, count):
    """Run the `count` parts in the rooms at an address; whether one of them failed."""
    _set_word(begin, threads)
    _set_word(begin + 8, count)
    for k in range(count):
        _set_word(begin + 8 * (2 + k * _ROOM + 2), 0)
    _enter_team(member, begin, threads)
    failed = False
    for k in range(count):
        failed |= _word(begin + 8 * (2 + k * _ROOM + 1)) != 0
    return failed


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


@cache
def _start() -> Callable[[int, int, int], bool]:
    """:func:`_run_rooms` of the members."""
    _known()  # before any of it is compiled, or taken from the cache
    return partial(_run_rooms, _member().address)


class _Rooms(NamedTuple):
    """The numbers of threads and of parts, and a room for each part; the address of the first."""

    words: np.ndarray
    begin: int


def _rooms(count: int) -> _Rooms:
    words = np.empty(2 + count * _ROOM, np.int64)
    return _Rooms(words, words.ctypes.data)


_free: list[_Rooms] = []  # for _KEPT parts each; taken and given back by single steps of the interpreter


def run(kernel: Any, calls: Sequence[tuple[Any, ...]]) -> None:
    """kernel(*arguments) for each of `calls`; returns when all are done.

    Args:
        kernel: compiled by numba, returning nothing.
        calls: arguments, of the same types in each.

    Raises:
        RuntimeError: the kernel raised an error.
    """
    lay_down, count = _handing(kernel), len(calls)
    if count > _KEPT:
        rooms = _rooms(count)
    else:
        rooms = _free.pop() if _free else _rooms(_KEPT)
    at = rooms.begin + 8 * 2
    for arguments in calls:
        lay_down(at, *arguments)
        at += 8 * _ROOM
    failed = _start()(rooms.begin, torch.get_num_threads(), count)
    if count <= _KEPT:
        _free.append(rooms)
    if failed:
        raise RuntimeError(f"{kernel.py_func.__name__}: failed inside a thread")
