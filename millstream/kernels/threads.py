"""A kernel over independent parts (sequences, rows) in several threads; numba's loops let go of the interpreter.

numba's own parallel loops need a pool of threads beside torch's, and one of their two backends ends the process when two
threads of the user enter it. Parts run in torch's own threads (team.py), or in plain ones where those cannot be had. As many
run as torch may use threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import torch

WORTH = 2_000_000  # multiplications for which a second thread is asked: a sleeping one costs 50 to 250 us


def parts(work: int, most: int) -> int:
    """In how many parts to cut `work` multiplications that fall into `most` independent pieces."""
    return max(1, min(torch.get_num_threads(), most, work // WORTH + 1))


def cuts(work: int, most: int) -> list[tuple[int, int]]:
    """(first, last) of each part of `most` pieces with `work` multiplications in all."""
    count = parts(work, most)
    return [(most * i // count, most * (i + 1) // count) for i in range(count)]


def numba_is_loaded() -> bool:
    """Whether a kernel compiled by numba costs no more than its work: loading numba takes a second and some 100 MiB."""
    return "numba" in sys.modules


class Shares:
    """The cores split over `workers` threads that each run torch's loops: :meth:`take` in a worker, :meth:`restore` here.

    torch keeps the number of its threads for each thread. A new one would take all cores, and workers would wait for each
    other; threads that are started later take the number that was set last, whoever set it.
    """

    def __init__(self, workers: int) -> None:
        self.all = torch.get_num_threads()
        self.each = max(1, self.all // workers)

    def take(self) -> None:
        """In a worker: use one share."""
        if self.each != self.all:
            torch.set_num_threads(self.each)

    def restore(self) -> None:
        """In the thread that started the workers: later threads may use all cores."""
        if self.each != self.all:
            torch.set_num_threads(self.all)


@cache
def _team() -> ModuleType:
    """Imported at first use: it loads numba."""
    from millstream.kernels import team

    return team


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="millstream-kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of the threads


def run_parts(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
    """kernel(*arguments) for each of `calls`; returns when all are done. `kernel`: a function, or one compiled by numba."""
    if len(calls) == 1:
        kernel(*calls[0])
        return
    if hasattr(kernel, "py_func") and _team().available():
        _team().run(kernel, calls)
        return
    others = [_pool(len(calls) - 1).submit(kernel, *arguments) for arguments in calls[1:]]
    try:
        kernel(*calls[0])
    finally:
        for other in others:
            other.result()


def run_many(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
    """:func:`run_parts` of any number of small parts, of a kernel compiled by numba."""
    if len(calls) > 1 and torch.get_num_threads() > 1 and _team().available():
        _team().run(kernel, calls)
        return
    for arguments in calls:
        kernel(*arguments)
