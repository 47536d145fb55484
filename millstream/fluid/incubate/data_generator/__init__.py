"""``fluid.incubate.data_generator``: write a dataset's pipe command in Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["DataGenerator", "MultiSlotDataGenerator", "MultiSlotStringDataGenerator"]

Sample = Any


class DataGenerator:
    """Turns lines of raw data into lines of the MultiSlot format.

    Define ``generate_sample(line)``: it returns a function that yields samples, each a list of (slot, values) pairs;
    `line` is None under :meth:`run_from_memory`.
    """

    def __init__(self) -> None:
        self.batch_size_ = 32

    def set_batch(self, batch_size: int) -> None:
        """Samples that :meth:`generate_batch` gets at a time."""
        if batch_size < 1:
            raise ValueError(f"set_batch: expected a positive number, received {batch_size}")
        self.batch_size_ = batch_size

    def run_from_memory(self) -> None:
        """Write the samples of ``generate_sample(None)`` to standard output."""
        self._write(self.generate_sample(None)())

    def run_from_stdin(self) -> None:
        """Write the samples of every line of standard input to standard output."""
        self._write(sample for line in sys.stdin for sample in self.generate_sample(line)())

    def _write(self, samples: Iterable[Sample]) -> None:
        batch: list[Sample] = []
        for sample in samples:
            if sample is None:
                continue
            batch.append(sample)
            if len(batch) == self.batch_size_:
                self._flush(batch)
                batch = []
        if batch:
            self._flush(batch)
        sys.stdout.flush()

    def _flush(self, batch: list[Sample]) -> None:
        for sample in self.generate_batch(batch)():
            sys.stdout.write(self._gen_str(sample))

    def generate_sample(self, line: str | None) -> Callable[[], Iterator[Sample]]:
        """Define this."""
        raise NotImplementedError("Please rewrite this function to return a list or tuple: [(name, [feasign, ...]), ...]")

    def generate_batch(self, samples: list[Sample]) -> Callable[[], Iterator[Sample]]:
        """Redefine this to look at a whole batch; the samples themselves by default."""

        def local_iter() -> Iterator[Sample]:
            yield from samples

        return local_iter

    def _gen_str(self, line: Sample) -> str:
        """One sample as a line."""
        raise NotImplementedError("use MultiSlotDataGenerator or MultiSlotStringDataGenerator")

    @staticmethod
    def _pairs(line: Sample) -> list[tuple[str, list[Any]]]:
        if isinstance(line, (zip, map)):
            line = list(line)
        if not isinstance(line, (list, tuple)):
            raise ValueError(f"the output of generate_sample must be a list or tuple of (slot, values), received {line!r}")
        for pair in line:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(f"expected a pair (slot, values), received {pair!r}")
            if not isinstance(pair[1], (list, tuple)) or not len(pair[1]):
                raise ValueError(
                    f"slot {pair[0]}: expected a list with at least one value, received {pair[1]!r}; pad empty slots"
                )
        return [(name, list(values)) for name, values in line]


class MultiSlotStringDataGenerator(DataGenerator):
    """Values are strings, written as they are."""

    def _gen_str(self, line: Sample) -> str:
        return " ".join(f"{len(values)} {' '.join(map(str, values))}" for _, values in self._pairs(line)) + "\n"


class MultiSlotDataGenerator(DataGenerator):
    """Values are numbers; every line must have the slots of the first one, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self._proto_info: list[tuple[str, str]] | None = None  # (slot, "uint64" or "float")

    def _gen_str(self, line: Sample) -> str:
        pairs = self._pairs(line)
        kinds = [(name, self._kind(name, values)) for name, values in pairs]
        if self._proto_info is None:
            self._proto_info = kinds
        else:
            names, known = [n for n, _ in kinds], [n for n, _ in self._proto_info]
            if names != known:
                raise ValueError(f"a sample has the slots {names}, the samples before it {known}")
            # A slot with integers only so far may still turn out to be one of floats.
            self._proto_info = [
                (name, "float" if "float" in (new, old) else "uint64")
                for (name, new), (_, old) in zip(kinds, self._proto_info)
            ]
        return " ".join(f"{len(values)} {' '.join(map(str, values))}" for _, values in pairs) + "\n"

    @staticmethod
    def _kind(name: str, values: list[Any]) -> str:
        kind = "uint64"
        for value in values:
            if isinstance(value, float):
                kind = "float"
            elif not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"slot {name}: the values must be int or float, received {type(value).__name__}: {value!r}")
        return kind
