"""The OpenMP runtime that torch's loops run in, entered by its own name for a parallel region."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import torch

_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def library() -> ctypes.CDLL | None:
    """Where GOMP_parallel and omp_get_thread_num of the runtime that torch is bound to are; None where it has none."""
    path = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    try:
        loaded = ctypes.CDLL(path)  # it is already; symbols are looked up in what it needs, too
        parallel, _ = loaded.GOMP_parallel, loaded.omp_get_thread_num
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return loaded


_forked = False


def _leave_team() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_leave_team)  # libgomp waits for ever for threads that a forked child does not have


def available() -> bool:
    """Whether there is a team to enter: not without OpenMP, nor in a forked process."""
    return not _forked and library() is not None


def enter(member: Callable[[int], None], threads: int) -> None:
    """member(k) in `threads` threads of the team, of which this one is the first; they run Python in turn.

    Loops that a member runs have no threads but its own: regions within regions have one. `member` must not raise.
    """
    runtime = library()
    assert runtime is not None, "enter is for where available() holds"
    region = _MEMBER(lambda _: member(runtime.omp_get_thread_num()))
    runtime.GOMP_parallel(ctypes.cast(region, ctypes.c_void_p), None, threads, 0)
