"""GeneratorLoader and PyReader: loaders over Python generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.reader import _sources
from millstream.fluid.reader._places import as_places
from millstream.ir import names
from millstream.ir.mode import in_dygraph_mode
from millstream.ir.program import default_main_program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.reader._threads import read_ahead
from millstream.runtime.eager import to_eager
from millstream.runtime.feeding import LoDTensorBlockingQueue, init_lod_tensor_blocking_queue
from millstream.runtime.place import CPUPlace
from millstream.runtime.scope import global_scope
from millstream.runtime.tensor import LoDTensor

__all__ = ["DataLoaderBase", "DygraphGeneratorLoader", "GeneratorLoader", "PyReader", "append_queue_reader"]


class DataLoaderBase:
    """What all loaders share: a loader is called, or iterated over, once a pass."""

    def __init__(self) -> None:
        self._places: list[Any] = []
        self._current: Iterator[Any] | None = None

    def __call__(self) -> DataLoaderBase:
        return self

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def __next__(self) -> Any:
        """The next item of the pass that ``next`` itself began."""
        if self._current is None:
            self._current = iter(self)
        try:
            return next(self._current)
        except StopIteration:
            self._current = None
            raise

    next = __next__


def reader_attrs(variables: Sequence[Any]) -> dict[str, Any]:
    """The attributes of create_py_reader for the slots that `variables` describe."""
    return {
        "shape_concat": [d for v in variables for d in v.shape],
        "lod_levels": [v.lod_level for v in variables],
        "ranks": [len(v.shape) for v in variables],
        "dtypes": [int(v.dtype) for v in variables],
        "need_check_feed": [int(v.need_check_feed) for v in variables],
        "use_data_config": True,
        "device_index": 0,
        "device_count": 1,
    }


def append_queue_reader(
    block: Any, variables: Sequence[Any], capacity: int, queue_name: str, reader_name: str
) -> tuple[LoDTensorBlockingQueue, Variable]:
    """A queue in the Scope, and the operator in `block` that makes the reader over it."""
    queue = init_lod_tensor_blocking_queue(global_scope().var(queue_name), capacity)
    reader = block.create_var(name=reader_name, type=VarType.READER, persistable=True)
    reader.reader_slots = tuple((tuple(v.shape), v.dtype, v.lod_level) for v in variables)
    block.append_op(
        type="create_py_reader",
        inputs={"blocking_queue": [queue_name]},
        outputs={"Out": [reader]},
        attrs=reader_attrs(variables),
    )
    return queue, reader


class GeneratorLoader(DataLoaderBase):
    """Feeds a Program from a Python generator, prepared ahead in a thread (or another process).

    Args:
        feed_list: Variables that are fed, in the generator's order.
        capacity: batches that may wait.
        use_double_buffer: bring batches to the device ahead of their use.
        iterable: the loop iterates over the loader and feeds each item; otherwise the Program reads by itself,
            between :meth:`start` and :meth:`reset`.
        return_list: items are lists of LoDTensors instead of dicts; one list or dict for each place, in a list.
        drop_last: leave out batches at the end that are too few for all places.
    """

    _makes = "DataLoader"

    def __init__(
        self,
        feed_list: Sequence[Any] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = False,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        if not capacity or capacity < 1:
            raise ValueError(f"Please give value to capacity: a positive number of batches, received {capacity!r}")
        self._feed_list = list(feed_list) if feed_list is not None else []
        if not self._feed_list and not in_dygraph_mode():
            raise ValueError(f"{self._makes}: feed_list must hold the Variables to feed, received {feed_list!r}")
        self._capacity = int(capacity)
        self._use_double_buffer = use_double_buffer
        self._iterable = iterable
        self._return_list = return_list
        self._drop_last = drop_last
        self._use_multiprocess = False
        self._source: Callable[[], Iterator[list[LoDTensor]]] | None = None
        self._feeder: _sources.QueueFeeder | None = None
        if not iterable:
            self._append_read()

    # ---- operators that read -----------------------------------------------------------------
    def _append_read(self) -> None:
        queue_name = names.generate("lod_tensor_blocking_queue")
        reader_name = names.generate("create_py_reader")
        buffer_name = names.generate("double_buffer")
        # The reader is made in the main Program: the startup Program may have run already.
        block = default_main_program().current_block()
        queue, reader = append_queue_reader(block, self._feed_list, self._capacity, queue_name, reader_name)
        reader.stop_gradient = True
        self._feeder = _sources.QueueFeeder(queue, self._makes)
        if self._use_double_buffer:
            buffered = block.create_var(name=buffer_name, type=VarType.READER, persistable=True, stop_gradient=True)
            buffered.reader_slots = reader.reader_slots
            block.append_op(
                type="create_double_buffer_reader", inputs={"UnderlyingReader": [reader]}, outputs={"Out": [buffered]}
            )
            reader = buffered
        block.append_op(
            type="read",
            inputs={"Reader": [reader]},
            outputs={"Out": self._feed_list},
            attrs={"drop_last": self._drop_last},
        )

    @property
    def queue(self) -> LoDTensorBlockingQueue | None:
        """The queue that the Program reads from; None for an iterable loader."""
        return self._feeder.queue if self._feeder is not None else None

    @property
    def iterable(self) -> bool:
        return self._iterable

    def _queue_feeder(self) -> _sources.QueueFeeder:
        if self._feeder is None:
            raise AssertionError(f"{self._makes}: start() and reset() are for iterable=False; iterate over the loader")
        return self._feeder

    def start(self) -> None:
        """Begin a pass (iterable=False)."""
        self._queue_feeder().start()

    def reset(self) -> None:
        """End a pass, after EOFException or in the middle of it (iterable=False)."""
        self._queue_feeder().reset()

    # ---- iterating ---------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Any]:
        if not self._iterable:
            raise AssertionError(f"{self._makes} is not iterable: it was made with iterable=False; use start() and reset()")
        if self._source is None:
            raise AssertionError(f"{self._makes}: data source of it has not been set: call one of its set_* methods")
        if isinstance(self._source, _sources.InProcess):
            return self._items(self._source())
        return self._items(read_ahead(self._source, self._capacity))

    def _items(self, batches: Iterator[list[LoDTensor]]) -> Iterator[Any]:
        group: list[Any] = []
        try:
            for batch in batches:
                group.append(batch if self._return_list else {v.name: t for v, t in zip(self._feed_list, batch)})
                if len(group) == max(1, len(self._places)):
                    yield group
                    group = []
            if group and not self._drop_last:
                yield group
        finally:
            batches.close()  # type: ignore[attr-defined]

    # ---- sources -----------------------------------------------------------------------------
    def _set(self, make: Callable[[Any], Callable[[], Any]], places: Any) -> GeneratorLoader:
        if self._iterable and places is None and not in_dygraph_mode():
            raise AssertionError("Places cannot be None when DataLoader is iterable: give the place(s) of the Executor")
        self._places = as_places(places)
        source = make(self._places[0] if self._places and self._iterable else CPUPlace())
        if self._use_multiprocess:
            source = _sources.InProcess(source, self._capacity)
        self._source = source
        if self._feeder is not None:
            self._feeder.set_source(source)
        return self

    def set_sample_generator(
        self, reader: Callable[[], Any], batch_size: int, drop_last: bool = True, places: Any = None
    ) -> GeneratorLoader:
        """Read from a generator of samples, batched here.

        Args:
            reader: called once a pass; yields samples (one field a Variable).
            places: where the items go; needed for an iterable loader.
        """
        if batch_size is None or batch_size < 1:
            raise AssertionError(f"batch_size must be larger than 0, received {batch_size!r}")
        return self._set(lambda place: _sources.from_samples(self._feed_list, reader, batch_size, drop_last, place), places)

    def set_sample_list_generator(self, reader: Callable[[], Any], places: Any = None) -> GeneratorLoader:
        """Read from a generator of lists of samples (``paddle.batch``)."""
        return self._set(lambda place: _sources.from_sample_lists(self._feed_list, reader, place), places)

    def set_batch_generator(self, reader: Callable[[], Any], places: Any = None) -> GeneratorLoader:
        """Read from a generator of batches: arrays or LoDTensors, one for each Variable."""
        feeds = [v.name for v in self._feed_list] or None
        return self._set(lambda place: _sources.from_batches(reader, place, feeds), places)


class DygraphGeneratorLoader(GeneratorLoader):
    """The loader of imperative mode: items are lists of eager variables.

    Args:
        use_multiprocess: run the generator in another process.
    """

    def __init__(
        self,
        feed_list: Sequence[Any] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = True,
        use_multiprocess: bool = False,
    ) -> None:
        if not iterable:
            raise InvalidProgramError(
                "DataLoader: in imperative mode a loader is iterable; iterable=False has no meaning there"
            )
        super().__init__(None, capacity, use_double_buffer, True, True, True)
        self._use_multiprocess = use_multiprocess

    def _items(self, batches: Iterator[list[LoDTensor]]) -> Iterator[Any]:
        place = self._places[0] if self._places else None
        try:
            for batch in batches:
                yield [to_eager(t, place=place) for t in batch]
        finally:
            batches.close()  # type: ignore[attr-defined]

    def set_sample_generator(
        self, reader: Callable[[], Any], batch_size: int, drop_last: bool = True, places: Any = None
    ) -> GeneratorLoader:
        """Read from a generator of samples; fields are stacked."""
        from millstream.batch import batch

        return self.set_sample_list_generator(batch(reader, batch_size, drop_last), places)

    def set_sample_list_generator(self, reader: Callable[[], Any], places: Any = None) -> GeneratorLoader:
        """Read from a generator of lists of samples; fields are stacked."""
        from millstream.fluid.dataloader.collate import default_collate_fn

        def batches() -> Iterator[Any]:
            for samples in reader():
                yield default_collate_fn(samples)

        return self.set_batch_generator(batches, places)


class PyReader(DataLoaderBase):
    """The loader's form of 1.4 to 1.6; see :class:`GeneratorLoader`."""

    def __init__(
        self,
        feed_list: Sequence[Any] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = False,
    ) -> None:
        super().__init__()
        if in_dygraph_mode():
            self._loader: GeneratorLoader = DygraphGeneratorLoader(None, capacity, use_double_buffer, iterable)
        else:
            self._loader = GeneratorLoader(feed_list, capacity, use_double_buffer, iterable, return_list)

    @property
    def queue(self) -> LoDTensorBlockingQueue | None:
        """The queue that the Program reads from; None for an iterable reader."""
        return self._loader.queue

    @property
    def iterable(self) -> bool:
        return self._loader.iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def start(self) -> None:
        """Begin a pass (iterable=False)."""
        self._loader.start()

    def reset(self) -> None:
        """End a pass (iterable=False)."""
        self._loader.reset()

    def decorate_sample_generator(
        self, sample_generator: Callable[[], Any], batch_size: int, drop_last: bool = True, places: Any = None
    ) -> None:
        """Read from a generator of samples."""
        self._loader.set_sample_generator(sample_generator, batch_size, drop_last, places)

    def decorate_sample_list_generator(self, reader: Callable[[], Any], places: Any = None) -> None:
        """Read from a generator of lists of samples."""
        self._loader.set_sample_list_generator(reader, places)

    def decorate_batch_generator(self, reader: Callable[[], Any], places: Any = None) -> None:
        """Read from a generator of batches."""
        self._loader.set_batch_generator(reader, places)

    decorate_paddle_reader = decorate_sample_list_generator
    decorate_tensor_provider = decorate_batch_generator
