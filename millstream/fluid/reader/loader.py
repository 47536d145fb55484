"""DataLoader: batches of a dataset, and the makers of the other loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from millstream.fluid.dataloader.batch_sampler import BatchSampler
from millstream.fluid.dataloader.collate import default_collate_fn
from millstream.fluid.dataloader.dataloader_iter import in_this_process, in_workers
from millstream.fluid.dataloader.dataset import Dataset, IterableDataset
from millstream.fluid.reader._places import as_places
from millstream.fluid.reader._sources import as_tensor
from millstream.fluid.reader.dataset_loader import DatasetLoader
from millstream.fluid.reader.generator import DataLoaderBase, DygraphGeneratorLoader, GeneratorLoader
from millstream.ir.mode import in_dygraph_mode
from millstream.reader._threads import read_ahead
from millstream.runtime.eager import to_eager
from millstream.runtime.place import CPUPlace

__all__ = ["DataLoader"]


class DataLoader(DataLoaderBase):
    """Batches of a dataset.

    Args:
        dataset: samples by index, or an IterableDataset.
        feed_list: Variables that are fed; needed unless `return_list`.
        places: where batches go; in a Program, several places get a batch each.
        return_list: items are lists of LoDTensors instead of dicts by name.
        batch_sampler: gives lists of indices; excludes batch_size, shuffle and drop_last.
        collate_fn: makes a list of arrays (or LoDTensors) of a list of samples; stacks fields by default.
        num_workers: processes that read the dataset; 0: this one.
        use_buffer_reader: read ahead in a thread (workers are ahead anyway).
        use_shared_memory: workers hand over arrays in shared memory.
        timeout: seconds to wait for a worker; 0: for ever.
        worker_init_fn: called in each worker with its number.

    Iterating gives, in a Program, a list with one dict (or list) for each place; in imperative mode, lists of eager
    variables. An exception in the dataset, here or in a worker, is raised where the loader is iterated over.
    """

    def __init__(
        self,
        dataset: Any,
        feed_list: Sequence[Any] | None = None,
        places: Any = None,
        return_list: bool = False,
        batch_sampler: Any = None,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        collate_fn: Callable[[Any], Any] | None = None,
        num_workers: int = 0,
        use_buffer_reader: bool = True,
        use_shared_memory: bool = True,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
    ) -> None:
        super().__init__()
        _require(
            isinstance(dataset, Dataset), f"dataset should be subclass instance of paddle.io.Dataset, received {dataset!r}"
        )
        self.dataset = dataset
        self.feed_list = list(feed_list) if feed_list is not None else None
        self.return_list = return_list
        self.collate_fn = collate_fn or default_collate_fn
        self.use_buffer_reader = use_buffer_reader
        self.worker_init_fn = worker_init_fn
        _require(isinstance(use_shared_memory, bool), "use_shared_memory should be a bool")
        self.use_shared_memory = use_shared_memory
        _require(num_workers >= 0, f"num_workers should be a non-negative value, received {num_workers}")
        self.num_workers = num_workers
        _require(timeout >= 0, f"timeout should be a non-negative value, received {timeout}")
        self.timeout = timeout
        if not in_dygraph_mode():
            _require(places is not None, "places cannot be None: give the place(s) of the Executor")
            _require(return_list or bool(self.feed_list), "feed_list should be set when return_list=False")
        self._places = as_places(places)
        iterated = isinstance(dataset, IterableDataset)
        if batch_sampler is not None:
            _require(not iterated, "an IterableDataset gives its own order: batch_sampler should not be set")
            _require(
                batch_size == 1 and not shuffle and not drop_last,
                "batch_size/shuffle/drop_last should not be set when batch_sampler is given",
            )
        elif iterated:
            _require(not shuffle, "an IterableDataset gives its own order: shuffle should not be set")
            _require(batch_size > 0, f"batch_size should be a positive integer, but got {batch_size}")
        else:
            batch_sampler = BatchSampler(dataset, shuffle=shuffle, batch_size=batch_size, drop_last=drop_last)
        self.batch_sampler = batch_sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Batches of a pass (before they are shared among places)."""
        if self.batch_sampler is None:
            raise RuntimeError("the length of a DataLoader over an IterableDataset is not known")
        return len(self.batch_sampler)

    def _batches(self) -> Iterator[Any]:
        args = (self.dataset, self.batch_sampler, self.batch_size, self.drop_last, self.collate_fn)
        if self.num_workers:
            return in_workers(
                *args,
                num_workers=self.num_workers,
                timeout=self.timeout,
                init=self.worker_init_fn,
                share=self.use_shared_memory,
            )
        if self.use_buffer_reader:
            return read_ahead(lambda: in_this_process(*args), 2)
        return in_this_process(*args)

    def __iter__(self) -> Iterator[Any]:
        if in_dygraph_mode():
            return self._eager(self._batches())
        return self._fed(self._batches())

    def _tensors(self, batch: Any, place: Any) -> list[Any]:
        items = batch if isinstance(batch, (list, tuple)) else [batch]
        if self.feed_list is not None and len(items) != len(self.feed_list):
            raise ValueError(
                f"DataLoader: a batch has {len(items)} fields, but feed_list has {len(self.feed_list)} Variables: "
                f"{', '.join(v.name for v in self.feed_list)}"
            )
        feeds = [v.name for v in self.feed_list] if self.feed_list is not None else [str(k) for k in range(len(items))]
        return [as_tensor(item, place, name) for item, name in zip(items, feeds)]

    def _eager(self, batches: Iterator[Any]) -> Iterator[Any]:
        place = self._places[0] if self._places else CPUPlace()
        try:
            for batch in batches:
                yield [to_eager(t, place=place) for t in self._tensors(batch, place)]
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _fed(self, batches: Iterator[Any]) -> Iterator[Any]:
        group: list[Any] = []
        try:
            for batch in batches:
                tensors = self._tensors(batch, self._places[len(group)])
                group.append(tensors if self.return_list else {v.name: t for v, t in zip(self.feed_list or (), tensors)})
                if len(group) == len(self._places):
                    yield group
                    group = []
        finally:
            batches.close()  # type: ignore[attr-defined]

    @staticmethod
    def from_generator(
        feed_list: Sequence[Any] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = False,
        use_multiprocess: bool = False,
        drop_last: bool = True,
    ) -> GeneratorLoader:
        """A loader over a generator: see :class:`GeneratorLoader`.

        Args:
            use_multiprocess: run the generator in another process.
        """
        if in_dygraph_mode():
            return DygraphGeneratorLoader(feed_list, capacity, use_double_buffer, iterable, return_list, use_multiprocess)
        loader = GeneratorLoader(feed_list, capacity, use_double_buffer, iterable, return_list, drop_last)
        loader._use_multiprocess = use_multiprocess
        return loader

    @staticmethod
    def from_dataset(dataset: Any, places: Any, drop_last: bool = True) -> DatasetLoader:
        """A loader over a ``fluid.dataset`` of files.

        Args:
            drop_last: leave out the last batch when it is short.
        """
        return DatasetLoader(dataset, places, drop_last)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(f"DataLoader: {message}")
