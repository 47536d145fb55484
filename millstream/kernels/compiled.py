"""numba's decorator for all kernels here, from a numba whose compiler leaves memory when it is done.

LLVM's library is 150 MiB of code and tables. Loading it, preparing the compiler and taking compiled kernels from numba's
cache touch about 70 MiB of them, which stay resident though nothing runs there once the kernels stand. They are clean pages
of a file: given back here whenever the compiler is left, they come again, from the system's cache, when it is entered.

A compiled kernel holds what it calls, and numba's cache looks at the kernel's own file alone. Here it is taken only while no
file beside it has changed: after an upgrade old code would go on over new layouts.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding

__all__ = ["njit"]

_LIBRARY = "libllvmlite"
_PATIENCE = 5.0  # seconds of compiling before a word about it
_TEXT = (
    "millstream compiles loops for this processor: the first steps take longer, later processes find them on disk "
    "(`millstream warmup` compiles all of them ahead)"
)
_log = logging.getLogger(__name__)
_MOST_PAGES = (8 << 20) // mmap.PAGESIZE  # that may stand before they are given back
_EVERY = 4  # calls of LLVM


def unwritten(library: str) -> list[tuple[int, int]]:
    """(address, length) of the memory maps of a loaded library that can't be written and never were (relocated tables were):
    their pages are the file's. Empty where the system does not say (/proc/self/smaps)."""
    found: list[tuple[int, int]] = []
    inside = False
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                first, _, rest = line.partition(" ")
                if first == "Anonymous:":
                    if inside and int(rest.split()[0]):
                        found.pop()
                    inside = False
                elif not first.endswith(":"):
                    inside = library in rest and rest[0] == "r" and rest[1] == "-"
                    if inside:
                        begin, end = (int(number, 16) for number in first.split("-"))
                        found.append((begin, end - begin))
    except OSError:
        return []
    return found


def _leaver(library: str) -> Any:
    """A function that gives the pages of a library back."""
    maps = unwritten(library)
    madvise = getattr(ctypes.CDLL(None), "madvise", None) if maps else None
    if madvise is None:
        return lambda: None
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def leave() -> None:
        for begin, length in maps:
            madvise(begin, length, mmap.MADV_DONTNEED)

    return leave


_leave = _leaver(_LIBRARY)
_leave()  # before numba comes: loading the library alone touched 36 MiB

import numba  # noqa: E402
from numba.core import event  # noqa: E402
from numba.core.registry import cpu_target  # noqa: E402
from numba.core.runtime.nrt import rtsys  # noqa: E402

from millstream.kernels import callees  # noqa: E402


def _without_linear_algebra() -> None:
    """Load numba's functions of arrays, which look for scipy's BLAS by importing it: 11 MiB and 0.1 s, and no kernel here
    needs it. They are told that scipy is there; numba still imports it when a user's function asks for a product."""
    from numba.np import linalg

    look = getattr(linalg, "ensure_blas", None)
    if look is None or "numba.np.arraymath" in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    vars(linalg).update(ensure_blas=lambda: None)
    try:
        arraymath = importlib.import_module("numba.np.arraymath")
        if hasattr(arraymath, "ensure_blas"):
            vars(arraymath).update(ensure_blas=look)
    finally:
        vars(linalg).update(ensure_blas=look)


def _digest(folder: Path) -> str:
    """Of what stands in the Python files of `folder`; empty where they can't be read (an archive)."""
    found = hashlib.blake2b(digest_size=16)
    try:
        for path in sorted(folder.glob("*.py")):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    except OSError:
        return ""
    return found.hexdigest()


_SOURCES = _digest(Path(__file__).parent)


def njit(function: Callable[..., Any] | None = None, *, apart: bool = False, **options: Any) -> Any:
    """numba.njit; with cache=True the cached code counts only for the kernels' files as they stand.

    apart: for long kernels that several kernels call. They call it by name, where others become a part of their callers.
    """
    if function is None:
        return lambda f: njit(f, apart=apart, **options)
    found = {**options, "no_cfunc_wrapper": True, "pipeline_class": callees.Compiler}
    kernel = numba.njit(**found)(function)
    if apart:
        callees.apart(kernel)
    else:
        callees.within(kernel, function, options)
    index = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, _SOURCES)
    return kernel


class _Leave(event.Listener):
    """Gives the pages of the compiler back when it is left, and while it runs as soon as many have come.

    Its lock is taken again within itself; pages go each time, so that they do not pile up (a few ms in all). Preparing
    the compiler and compiling touch 50 MiB between: LLVM's own lock, which each call of it takes, tells of these.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._limit = 0

    def on_start(self, event: event.Event) -> None:
        """Nothing: pages come back as they are touched."""

    def on_end(self, event: event.Event) -> None:
        _leave()

    def after_call(self) -> None:
        """After each call of LLVM. Asking the system costs some us: every few calls will do."""
        self._calls += 1
        if not self._calls % _EVERY and _file_pages() > self._limit:
            _leave()
            self._limit = _file_pages() + _MOST_PAGES


class _Tell(event.Listener):
    """Says once what a long first step is busy with."""

    def __init__(self) -> None:
        self._depth, self._begin, self._spent, self._told = 0, 0.0, 0.0, False

    def on_start(self, event: event.Event) -> None:
        """A kernel is about to be compiled, perhaps for another one."""
        now = time.perf_counter()
        if not self._depth:
            self._begin = now
        self._depth += 1
        if not self._told and self._spent + now - self._begin > _PATIENCE:
            self._told = True
            _log.warning(_TEXT)

    def on_end(self, event: event.Event) -> None:
        """It is compiled, or can't be."""
        self._depth -= 1
        if not self._depth:
            self._spent += time.perf_counter() - self._begin


def _file_pages() -> int:
    """Resident pages of files; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:
            return int(statm.read().split()[2])
    except OSError:
        return 0


_leave()
_leaving = _Leave()
event.register("numba:compiler_lock", _leaving)
event.register("numba:compile", _Tell())
llvmlite.binding.ffi.register_lock_callback(lambda: None, _leaving.after_call)
# numba's own run time is its first work for the compiler and touches most of it: while little else stands in memory.
rtsys.initialize(cpu_target.target_context)
_without_linear_algebra()
