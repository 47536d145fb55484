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

from millstream.kernels import openmp

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
        self.workers = min(workers, max(self.all, _cores()))
        self.each = max(1, self.all // self.workers)

    def take(self) -> None:
        """In a worker: use one share."""
        if self.each != self.all:
            torch.set_num_threads(self.each)

    def restore(self) -> None:
        """In the thread that started the workers: later threads may use all cores."""
        if self.each != self.all:
            torch.set_num_threads(self.all)

    @property
    def in_team(self) -> bool:
        """Whether :meth:`run` is for these shares: within a team loops have one thread."""
        return self.each == 1 and openmp.available()

    def run(self, jobs: Sequence[Callable[[], None]], apart: bool = True) -> None:
        """Call each of `jobs` in the threads that torch keeps for its own loops, or, unless `apart`, all in this one.

        A thread begins with the job of its own number, whose memory its cache may still have; then it takes what is left.
        All jobs run; then the first error comes out. Numbers do not depend on `apart`: loops have one share in both.
        """
        pending, errors = dict(enumerate(jobs)), dict[int, BaseException]()

        def member(number: int) -> None:
            if number >= self.workers:
                return
            self.take()
            for k in (number, *range(len(jobs))):
                job = pending.pop(k, None)
                if job is not None:
                    try:
                        job()
                    except BaseException as error:
                        errors[k] = error

        if apart:
            openmp.enter(member, max(self.all, self.workers))
        else:
            member(0)
        self.restore()
        if errors:
            raise errors[min(errors)]


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    if hasattr(kernel, "py_func") and openmp.available():
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
    if len(calls) > 1 and torch.get_num_threads() > 1 and openmp.available():
        _team().run(kernel, calls)
        return
    for arguments in calls:
        kernel(*arguments)
