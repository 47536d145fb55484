"""Reader decorators, with Fluid's names and signatures (``paddle.reader.decorator``)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ComposeNotAligned
from ._processes import merge_pipes, merge_queue
from ._threads import map_ordered, map_unordered, read_ahead

__all__ = [
    "ComposeNotAligned",
    "XmapEndSignal",
    "buffered",
    "cache",
    "chain",
    "compose",
    "firstn",
    "map_readers",
    "multiprocess_reader",
    "shuffle",
    "xmap_readers",
]

Reader = Callable[[], Any]
_MISSING = object()


class XmapEndSignal:
    """Fluid's public end-of-stream mark; kept for programs that name it, not used here."""


def cache(reader: Reader) -> Reader:
    """Read everything once, now, and serve it from memory on each iteration."""
    samples = tuple(reader())
    return lambda: iter(samples)


def map_readers(func: Callable[..., Any], *readers: Reader) -> Reader:
    """`func` of one sample of each reader; ends with the shortest reader."""
    return lambda: map(func, *[reader() for reader in readers])


def shuffle(reader: Reader, buf_size: int) -> Reader:
    """Shuffle inside consecutive windows of `buf_size` samples.

    Uses the global generator of :mod:`random`, so ``random.seed`` makes it repeatable.
    """

    def shuffled() -> Iterator[Any]:
        window: list[Any] = []
        for sample in reader():
            window.append(sample)
            if len(window) >= buf_size:
                random.shuffle(window)
                yield from window
                window = []
        random.shuffle(window)
        yield from window

    return shuffled


def chain(*readers: Reader) -> Reader:
    """The samples of the readers one after the other."""
    return lambda: itertools.chain.from_iterable(reader() for reader in readers)


def compose(*readers: Reader, **kwargs: Any) -> Reader:
    """Join one sample of each reader into a flat tuple.

    A sample that is a tuple contributes its members, any other sample itself. With
    `check_alignment=True` (default) ComposeNotAligned is raised when one reader ends before
    another; with False the rest is dropped.
    """
    check_alignment = kwargs.pop("check_alignment", True)
    if kwargs:
        raise TypeError(f"paddle.reader.compose: unknown keyword arguments {sorted(kwargs)}")

    def composed() -> Iterator[tuple[Any, ...]]:
        streams = [iter(reader()) for reader in readers]
        join = zip if not check_alignment else _zip_or_mark
        for row in join(*streams):
            for index, sample in enumerate(row):
                if sample is _MISSING:
                    raise ComposeNotAligned(
                        f"paddle.reader.compose: reader {index} of {len(readers)} ended before "
                        "the others. Hint: check_alignment=False drops the surplus"
                    )
            yield tuple(itertools.chain.from_iterable(s if isinstance(s, tuple) else (s,) for s in row))

    return composed


def _zip_or_mark(*streams: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    return itertools.zip_longest(*streams, fillvalue=_MISSING)


def buffered(reader: Reader, size: int) -> Reader:
    """Read up to `size` samples ahead in a thread; `size` <= 0 means without bound."""
    return lambda: read_ahead(reader, int(size))


def firstn(reader: Reader, n: int) -> Reader:
    """The first `n` samples; a negative `n` means all of them."""

    def limited() -> Iterator[Any]:
        return itertools.islice(reader(), None if n < 0 else n)

    return limited


def xmap_readers(
    mapper: Callable[[Any], Any],
    reader: Reader,
    process_num: int,
    buffer_size: int,
    order: bool = False,
) -> Reader:
    """Map samples in `process_num` threads, at most `buffer_size` waiting on either side.

    With `order=False` results come as they are ready. An exception of `reader` or `mapper`
    reaches the consumer; closing the iterator ends the threads.
    """
    if process_num < 1:
        raise ValueError(f"paddle.reader.xmap_readers: process_num must be at least 1, got {process_num}")
    run = map_ordered if order else map_unordered
    return lambda: run(mapper, reader, int(process_num), int(buffer_size))


def multiprocess_reader(readers: list[Reader], use_pipe: bool = True, queue_size: int = 1000) -> Reader:
    """Run each reader in its own (forked) process; samples come in order of arrival.

    Samples must be picklable and not None. `use_pipe=True` uses one pipe per reader, False one
    shared queue of `queue_size`. A failing reader's exception reaches the consumer; closing the
    iterator ends the processes.
    """
    if not isinstance(readers, list) or not readers:
        raise AssertionError(
            f"paddle.reader.multiprocess_reader: readers must be a non-empty list of readers, got {readers!r}"
        )
    if use_pipe:
        return lambda: merge_pipes(readers)
    return lambda: merge_queue(readers, queue_size)
