"""Readers that work ahead of their consumer in threads.

Each iteration owns its threads. They end when the source ends, when anything fails (the
consumer then gets the exception, after the samples that came before it), and when the
iterator is closed or garbage collected half way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ._channel import Channel, ChannelClosed

__all__ = ["map_ordered", "map_unordered", "read_ahead"]

Reader = Callable[[], Any]


class _Outcome:
    """A result or the exception that took its place."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _Promise(_Outcome):
    """An outcome that a worker fills in later."""

    __slots__ = ("ready",)

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()


def _spawn(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name=f"millstream-{name}", daemon=True)
    thread.start()
    return thread


def _drain(source: Reader, emit: Callable[[Any], None]) -> None:
    """Feed every sample to `emit`; always close the source's iterator in this same thread."""
    iterator = iter(source())
    try:
        for sample in iterator:
            emit(sample)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def read_ahead(source: Reader, capacity: int) -> Iterator[Any]:
    """Samples of `source`, read by one thread up to `capacity` ahead."""
    channel: Channel[_Outcome] = Channel(capacity)

    def produce() -> None:
        try:
            try:
                _drain(source, lambda sample: channel.put(_Outcome(sample)))
            except ChannelClosed:
                raise
            except BaseException as error:
                channel.put(_Outcome(error=error))
        except ChannelClosed:
            pass
        finally:
            channel.finish()

    _spawn("buffered", produce)
    try:
        while True:
            try:
                outcome = channel.get()
            except ChannelClosed:
                return
            yield outcome.unwrap()
    finally:
        channel.cancel()


def map_unordered(mapper: Callable[[Any], Any], source: Reader, workers: int, capacity: int) -> Iterator[Any]:
    """`mapper` of each sample in the order the `workers` threads finish."""
    work: Channel[Any] = Channel(capacity)
    results: Channel[_Outcome] = Channel(capacity)
    lock = threading.Lock()
    running = workers

    def produce() -> None:
        try:
            _drain(source, work.put)
        except ChannelClosed:
            pass
        except BaseException as error:
            _offer(results, _Outcome(error=error))
        finally:
            work.finish()

    def consume() -> None:
        nonlocal running
        try:
            while True:
                sample = work.get()
                try:
                    outcome = _Outcome(mapper(sample))
                except BaseException as error:
                    outcome = _Outcome(error=error)
                results.put(outcome)
        except ChannelClosed:
            pass
        finally:
            with lock:
                running -= 1
                last = running == 0
            if last:
                results.finish()

    _spawn("xmap-source", produce)
    for index in range(workers):
        _spawn(f"xmap-{index}", consume)
    try:
        while True:
            try:
                outcome = results.get()
            except ChannelClosed:
                return
            yield outcome.unwrap()
    finally:
        work.cancel()
        results.cancel()


def _offer(channel: Channel[_Outcome], outcome: _Outcome) -> None:
    with contextlib.suppress(ChannelClosed):
        channel.put(outcome)


def map_ordered(mapper: Callable[[Any], Any], source: Reader, workers: int, capacity: int) -> Iterator[Any]:
    """`mapper` of each sample in the source's order.

    The source thread puts a promise for each sample into `order` before handing it to the
    workers, so at most `capacity` results wait behind a slow one.
    """
    order: Channel[_Promise] = Channel(capacity)
    work: Channel[tuple[Any, _Promise]] = Channel(0)
    stopped = threading.Event()

    def emit(sample: Any) -> None:
        promise = _Promise()
        order.put(promise)
        work.put((sample, promise))

    def produce() -> None:
        try:
            _drain(source, emit)
        except ChannelClosed:
            pass
        except BaseException as error:
            promise = _Promise()
            promise.error = error
            promise.ready.set()
            with contextlib.suppress(ChannelClosed):
                order.put(promise)
        finally:
            order.finish()
            work.finish()

    def consume() -> None:
        while not stopped.is_set():
            try:
                sample, promise = work.get()
            except ChannelClosed:
                return
            try:
                promise.value = mapper(sample)
            except BaseException as error:
                promise.error = error
            promise.ready.set()

    _spawn("xmap-source", produce)
    for index in range(workers):
        _spawn(f"xmap-{index}", consume)
    try:
        while True:
            try:
                promise = order.get()
            except ChannelClosed:
                return
            promise.ready.wait()
            yield promise.unwrap()
    finally:
        stopped.set()
        order.cancel()
        work.cancel()
