"""What users give a loader — samples, lists of samples, batches — as functions that yield lists of LoDTensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from millstream.errors import FeedError, InvalidProgramError
from millstream.fluid.data_feeder import BatchedTensorProvider, columns, converter
from millstream.fluid.dataloader.dataloader_iter import stream_in_process
from millstream.runtime.feeding import LoDTensorBlockingQueue
from millstream.runtime.tensor import LoDTensor

Batch = list[LoDTensor]
Source = Callable[[], Iterator[Batch]]


def from_samples(
    variables: Sequence[Any], reader: Callable[[], Any], batch_size: int, drop_last: bool, place: Any
) -> Source:
    """`reader` yields samples."""
    return BatchedTensorProvider(variables, place, batch_size, reader, drop_last)


def from_sample_lists(variables: Sequence[Any], reader: Callable[[], Any], place: Any) -> Source:
    """`reader` yields lists of samples (``paddle.batch``)."""
    converters = [converter(place, v.lod_level, v.shape, v.dtype, v.name) for v in variables]

    def source() -> Iterator[Batch]:
        for batch in reader():
            batch = batch if isinstance(batch, (list, tuple, np.ndarray)) else list(batch)
            yield [c.convert(column) for c, column in zip(converters, columns(batch, converters))]

    return source


def from_batches(reader: Callable[[], Any], place: Any, names: Sequence[str] | None) -> Source:
    """`reader` yields batches: arrays or LoDTensors, one for each of `names` (None: any number)."""

    def source() -> Iterator[Batch]:
        for number, batch in enumerate(reader()):
            items = batch if isinstance(batch, (list, tuple)) else [batch]
            if names is not None and len(items) != len(names):
                raise FeedError(
                    f"batch {number} of the batch generator has {len(items)} arrays, but {len(names)} variables are fed: "
                    f"{', '.join(names)} (a generator of samples needs set_sample_generator, one of sample lists "
                    "set_sample_list_generator)"
                )
            yield [as_tensor(item, place, names[k] if names else str(k)) for k, item in enumerate(items)]

    return source


def as_tensor(item: Any, place: Any, name: str) -> LoDTensor:
    """An array, LoDTensor or eager variable as a LoDTensor."""
    if isinstance(item, LoDTensor):
        return item
    if hasattr(item, "_ivar") or (hasattr(item, "numpy") and not isinstance(item, np.ndarray)):
        item = item.numpy()
    try:
        array = np.asarray(item)
    except ValueError:
        array = np.asarray(None)
    if array.dtype == object:
        raise TypeError(
            f"feed {name}: the batch generator gave something that is no regular array: {str(item)[:60]!r}; "
            "variable-length data goes into a LoDTensor (fluid.create_lod_tensor)"
        )
    tensor = LoDTensor()
    tensor.set(array, place)
    return tensor


class InProcess:
    """A source that runs in another process, `capacity` batches ahead."""

    def __init__(self, source: Source, capacity: int) -> None:
        self.source = source
        self.capacity = capacity

    def _packed(self) -> Iterator[Any]:
        for batch in self.source():
            yield [_pack(t) for t in batch]

    def __call__(self) -> Iterator[Batch]:
        for batch in stream_in_process(self._packed, self.capacity):
            yield [_unpack(t) for t in batch]


def _pack(tensor: LoDTensor) -> tuple[np.ndarray, Any, bool]:
    t = tensor.torch()
    brain = t.dtype is torch.bfloat16  # numpy has no such type
    return (t.view(torch.int16) if brain else t).numpy(), tensor._lod, brain


def _unpack(packed: tuple[np.ndarray, Any, bool]) -> LoDTensor:
    array, lod, brain = packed
    t = torch.from_numpy(array)
    return LoDTensor.of(t.view(torch.bfloat16) if brain else t, lod)


class QueueFeeder:
    """Fills a queue from a source in a thread, one pass at a time.

    Args:
        name: how errors call it.
    """

    def __init__(self, queue: LoDTensorBlockingQueue, name: str) -> None:
        self.queue = queue
        self.name = name
        queue.owner = name
        self.source: Source | None = None
        self._thread: threading.Thread | None = None

    def set_source(self, source: Source) -> None:
        """What the next start() reads."""
        self.source = source
        self.queue.owner = self.name

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin a pass.

        Raises InvalidProgramError: no generator is set, or a pass is under way.
        """
        if self.source is None:
            raise InvalidProgramError(
                f"{self.name}: no data source was set (set_batch_generator, decorate_paddle_reader, …)"
            )
        if self.running:
            raise InvalidProgramError(f"{self.name}: start() was called twice; call reset() between two passes")
        if self.queue.is_closed():
            self.queue.reopen()
        self.queue.started = True
        self._thread = threading.Thread(
            target=_fill, args=(self.queue, self.source, self.queue.epoch), daemon=True, name="millstream-reader"
        )
        self._thread.start()

    def reset(self) -> None:
        """End the pass, wherever it is; batches that nobody read are dropped."""
        self.queue.kill()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        self.queue.started = False
        self.queue.reopen()


def _fill(queue: LoDTensorBlockingQueue, source: Source, epoch: int) -> None:
    try:
        batches = iter(source())
        try:
            for batch in batches:
                if not queue.push(batch, epoch):
                    return
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
    except BaseException as error:
        queue.close(error, epoch)  # the program that reads gets it
    else:
        queue.close(None, epoch)
