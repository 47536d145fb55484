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
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding  # noqa: F401

__all__ = ["njit"]

_LIBRARY = "libllvmlite"


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


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """numba.njit; with cache=True the cached code counts only for the kernels' files as they stand."""
    if function is None:
        return lambda f: njit(f, **options)
    kernel = numba.njit(**options)(function)
    index = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, _SOURCES)
    return kernel


class _Leave(event.Listener):
    """Gives the pages of the compiler back when it is left.

    Its lock is taken again within itself; pages go each time, so that
    they do not pile up (a few ms in all).
    """

    def on_start(self, event: event.Event) -> None:
        """Nothing: pages come back as they are touched."""

    def on_end(self, event: event.Event) -> None:
        _leave()


_leave()
event.register("numba:compiler_lock", _Leave())
