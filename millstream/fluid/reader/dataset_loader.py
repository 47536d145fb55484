"""A loader over a ``fluid.dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.fluid.reader._places import as_places
from millstream.fluid.reader.generator import DataLoaderBase

__all__ = ["DatasetLoader"]


class DatasetLoader(DataLoaderBase):
    """Items are lists with one dict name -> LoDTensor for each place, read by the dataset's own threads.

    Args:
        dataset: a ``fluid.dataset``, with its files, batch size and variables set.
        drop_last: leave out a last batch that is short, and last batches too few for all places.
    """

    def __init__(self, dataset: Any, places: Any, drop_last: bool) -> None:
        super().__init__()
        if not hasattr(dataset, "_batches"):
            raise AssertionError(f"dataset must be a DatasetBase (fluid.DatasetFactory), received {type(dataset).__name__}")
        self._dataset = dataset
        self._places = as_places(places)
        if not self._places:
            raise AssertionError("DataLoader.from_dataset: places must not be empty")
        self._drop_last = drop_last

    def __iter__(self) -> Iterator[Any]:
        group: list[Any] = []
        batches = self._dataset._batches(drop_last=self._drop_last)
        try:
            for batch in batches:
                group.append(batch)
                if len(group) == len(self._places):
                    yield group
                    group = []
            if group and not self._drop_last:
                yield group
        finally:
            batches.close()
