"""Batches of a dataset, made here or by worker processes."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from millstream.fluid.dataloader.dataset import IterableDataset
from millstream.fluid.dataloader.workers import EndOfData, Pool, WorkerInfo, get_worker_info

__all__ = ["ParentWatchDog", "WorkerInfo", "get_worker_info", "in_this_process", "in_workers"]

_AHEAD = 2  # batches each worker makes ahead


class ParentWatchDog:
    """Tells a worker whether the process that made it still lives."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._alive = True

    def is_alive(self) -> bool:
        """False once the parent process is gone."""
        self._alive = self._alive and os.getppid() == self._parent
        return self._alive


def _answers(dataset: Any, batch_size: int, drop_last: bool, collate: Callable[[Any], Any]) -> Callable[[int], Any]:
    """The maker of a function task -> batch: tasks are lists of indices, or anything for a dataset that is iterated."""

    def by_index(_: int) -> Any:
        return lambda indices: collate([dataset[k] for k in indices])

    def in_turn(_: int) -> Any:
        samples = iter(dataset)

        def answer(_: Any) -> Any:
            batch = list(itertools.islice(samples, batch_size))
            if not batch or (drop_last and len(batch) < batch_size):
                raise EndOfData
            return collate(batch)

        return answer

    return in_turn if isinstance(dataset, IterableDataset) else by_index


def in_this_process(
    dataset: Any, batch_sampler: Any, batch_size: int, drop_last: bool, collate: Callable[[Any], Any]
) -> Iterator[Any]:
    """Batches, in order."""
    answer = _answers(dataset, batch_size, drop_last, collate)(0)
    try:
        for task in batch_sampler if batch_sampler is not None else itertools.repeat(None):
            yield answer(task)
    except EndOfData:
        return


def in_workers(
    dataset: Any,
    batch_sampler: Any,
    batch_size: int,
    drop_last: bool,
    collate: Callable[[Any], Any],
    *,
    num_workers: int,
    timeout: float,
    init: Callable[[int], Any] | None,
    share: bool,
) -> Iterator[Any]:
    """Batches made by `num_workers` processes, in the order of the sampler (an iterated dataset: workers in turn)."""
    make = _answers(dataset, batch_size, drop_last, collate)
    pool = Pool(num_workers, make, init, dataset, timeout, share)
    try:
        tasks = iter(batch_sampler if batch_sampler is not None else itertools.repeat(None))
        asked: deque[int] = deque()  # workers, in the order of their batches
        done: set[int] = set()
        for worker, task in zip([*range(num_workers)] * _AHEAD, tasks):
            pool.submit(worker, task)
            asked.append(worker)
        while asked:
            worker = asked.popleft()
            if worker in done:
                continue
            try:
                batch = pool.receive(worker)
            except EndOfData:
                done.add(worker)
                continue
            for task in itertools.islice(tasks, 1):
                pool.submit(worker, task)
                asked.append(worker)
            yield batch
    finally:
        pool.stop()


def stream_in_process(source: Callable[[], Any], capacity: int) -> Iterator[Any]:
    """What the function `source` yields, made by one other process at most `capacity` items ahead."""

    def make(_: int) -> Any:
        items = iter(source())

        def answer(_: Any) -> Any:
            for item in items:
                return item
            raise EndOfData

        return answer

    pool = Pool(1, make)
    try:
        for _ in range(max(1, capacity)):
            pool.submit(0, None)
        while True:
            try:
                item = pool.receive(0)
            except EndOfData:
                return
            pool.submit(0, None)
            yield item
    finally:
        pool.stop()
