"""Freed memory stays in the process, so that the next step does not fetch it from the system page by page.

The C library gives large freed blocks back at once, or not, as its moving thresholds happen to stand; the pages that come
anew are zeroed one by one. Measured (one thread): word2vec 4.4 ms a step with 990 page faults, 2.2 without; LeNet 25.3 and
18.1; a CTR network of 26 slots 26.5 and 20.5; stacked LSTM and GRU taggers a few per cent. ResNet-50 (two threads) spent
240 ms of processor time a step in the system with 256 MiB kept, 60 with 2 GiB, at the same peak. Fluid keeps freed memory in
pools of its own for the same reason.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from millstream.config import environment, settings

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
_LARGEST = 32 << 20  # older C libraries take no greater mmap threshold, and a greater one brings nothing
_FIRST = 256 << 10  # while a Plan runs for the first time


@cache
def _mallopt() -> tuple[Callable[[int, int], int], int] | None:
    """The C library's mallopt and how many bytes it shall keep; None where memory is not ours to keep."""
    kept = settings().keep_memory_mb << 20
    own = [n for n in environment() if n.startswith("MALLOC_") or n == "GLIBC_TUNABLES"]
    if not kept or own:
        return None
    try:
        return ctypes.CDLL(None).mallopt, min(kept, 2**31 - 1)
    except (AttributeError, OSError, TypeError):
        return None


@cache
def keep_freed_memory() -> bool:
    """Have malloc keep up to ``settings().keep_memory_mb`` of freed memory; whether it was set.

    Once a process. Nothing happens with another C library, or where the user has tuned malloc by MALLOC_* variables.
    """
    found = _mallopt()
    if found is None:
        return False
    mallopt, kept = found
    return bool(mallopt(_MMAP_THRESHOLD, min(kept, _LARGEST))) and bool(mallopt(_TRIM_THRESHOLD, kept))


def give_back() -> None:
    """Return freed memory to the system: before something that needs much of another kind, such as compiling a network."""
    if _mallopt() is not None:
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def first_run() -> Iterator[None]:
    """While a Plan runs for the first time, what is large comes from the system and goes back to it.

    A first run leaves many small blocks for good (compiled primitives, caches). Between large blocks they would cut the
    heap: in C libraries before 2.38 a freed block that was aligned when asked for does not hold an equal one again unless a
    neighbour is free too, and later steps would take new memory instead. So the small ones go together, and large ones start
    above them with the second run. Peak MiB with a limit of 12 MiB here -> 256 KiB: DeepLabv3+ 3,449 -> 2,481, SE-ResNeXt-50
    1,564 -> 1,280. Later runs fault no pages either way.
    """
    found = _mallopt()
    if found is None:
        yield
        return
    mallopt, kept = found
    mallopt(_MMAP_THRESHOLD, min(kept, _FIRST))
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, min(kept, _LARGEST))
