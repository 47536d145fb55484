"""DataFeeder: batches of Python samples become the feeds of a Program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from millstream.config import settings
from millstream.errors import FeedError
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import VarType, dtype_name, to_var_type
from millstream.ir.variable import Variable
from millstream.ops._values import TORCH_DTYPE
from millstream.runtime.place import CUDAPlace
from millstream.runtime.tensor import LoDTensor, lod_from_lengths

__all__ = [
    "BatchedTensorProvider",
    "DataFeeder",
    "DataToLoDTensorConverter",
    "check_dtype",
    "check_type",
    "check_variable_and_dtype",
    "convert_dtype",
]


def convert_dtype(dtype: Any) -> str:
    """The name (``"float32"``) of an element type given as a VarType, numpy type or name.

    Raises TypeError: it is none of those.
    """
    try:
        return dtype_name(to_var_type(dtype))
    except (ValueError, KeyError) as error:
        raise TypeError(f"dtype must be one of bool, float16, …, uint8, but received {dtype!r}") from error


def check_type(input: Any, input_name: str, expected_type: Any, op_name: str, extra_message: str = "") -> None:
    """TypeError unless `input` is an instance of `expected_type`."""
    if not isinstance(input, expected_type):
        allowed = expected_type if isinstance(expected_type, tuple) else (expected_type,)
        names = " or ".join(t.__name__ for t in allowed)
        raise TypeError(
            f"The type of '{input_name}' in {op_name} must be {names}, but received {type(input).__name__}. {extra_message}"
        )


def check_dtype(input_dtype: Any, input_name: str, expected_dtype: Any, op_name: str, extra_message: str = "") -> None:
    """TypeError unless the element type `input_dtype` is one of `expected_dtype`."""
    allowed = (expected_dtype,) if isinstance(expected_dtype, str) else tuple(expected_dtype)
    found = convert_dtype(input_dtype)
    if found not in allowed:
        raise TypeError(
            f"The data type of '{input_name}' in {op_name} must be {' or '.join(allowed)}, but received {found}. "
            f"{extra_message}"
        )


def check_variable_and_dtype(
    input: Any, input_name: str, expected_dtype: Any, op_name: str, extra_message: str = ""
) -> None:
    """TypeError unless `input` is a Variable with an element type among `expected_dtype`."""
    if not isinstance(input, Variable) and not hasattr(input, "_ivar"):
        raise TypeError(f"The type of '{input_name}' in {op_name} must be Variable, but received {type(input).__name__}")
    check_dtype(input.dtype, input_name, expected_dtype, op_name, extra_message)


class DataToLoDTensorConverter:
    """Collects the samples of one variable into a LoDTensor.

    Args:
        place: where the tensor is made.
        lod_level: 0: samples are stacked; n: a sample is a list nested n deep, and the rows are joined.
        shape: declared shape. Where a sample's rank differs from it and at most one dimension is unknown, the batch
            is reshaped to it (4 numbers for ``[-1, 2, 2]``, a bare label for ``[-1, 1]``).
        dtype: element type.
    """

    name = ""  # of the variable, for errors

    def __init__(self, place: Any, lod_level: int, shape: Sequence[int], dtype: Any) -> None:
        self.place = place
        self.lod_level = int(lod_level)
        dims = [-1 if d is None else int(d) for d in shape]
        self.shape = dims
        self.can_reshape = sum(d < 0 for d in dims) <= 1
        self.dtype = convert_dtype(dtype)
        self._numpy_dtype = np.dtype("float32" if self.dtype == "bfloat16" else self.dtype)
        self._reset()

    def _reset(self) -> None:
        self.data: list[Any] = []

    def feed(self, data: Any) -> None:
        """Add one sample."""
        self.data.append(data)

    def done(self) -> LoDTensor:
        """The tensor of all samples fed since the last call."""
        samples, self.data = self.data, []
        return self.convert(samples)

    def convert(self, samples: Sequence[Any]) -> LoDTensor:
        """The tensor of a batch of samples."""
        if self.lod_level == 0:
            array = self._array(samples)
            lengths: list[list[int]] = []
        else:
            rows, lengths = self._flatten(samples)
            array = self._array(rows, samples)
        if self.can_reshape and array.ndim != len(self.shape):
            array = self._reshaped(array, samples)
        tensor = LoDTensor()
        tensor.set(array, self.place, zero_copy=True)  # the array is our own
        if self.dtype == "bfloat16":
            tensor._t = tensor.torch().to(TORCH_DTYPE[VarType.BF16])
        if lengths:
            tensor._lod = lod_from_lengths(lengths)
        return tensor

    # ---- one array out of many samples -------------------------------------------------------
    def _array(self, items: Sequence[Any], samples: Sequence[Any] | None = None) -> np.ndarray:
        if not len(items):
            return np.zeros([0, *(max(d, 0) for d in self.shape[1:])], self._numpy_dtype)
        first = items[0]
        try:
            if isinstance(first, np.ndarray) and not isinstance(items, np.ndarray):
                # np.array over a list of arrays walks every element; stack copies blocks.
                return np.stack(items).astype(self._numpy_dtype, copy=False)  # type: ignore[arg-type]
            if isinstance(first, LoDTensor):
                return np.stack([np.asarray(t) for t in items]).astype(self._numpy_dtype, copy=False)
            return np.array(items, dtype=self._numpy_dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._bad_samples(items if samples is None else samples, error) from None

    def _bad_samples(self, samples: Sequence[Any], error: Exception) -> FeedError:
        """Which sample does not fit the others, for the message only: the fast path looked at none of them."""
        expected: tuple[int, ...] | None = None
        for k, sample in enumerate(samples):
            try:
                found = np.asarray(sample, dtype=self._numpy_dtype).shape
            except (ValueError, TypeError, OverflowError) as reason:
                return self._error(k, f"can't be converted to {self.dtype}: {reason}; received {str(sample)[:60]!r}")
            if self.lod_level:
                found = found[1:]
            if expected is None:
                expected = found
            elif found != expected:
                return self._error(k, f"has shape {list(found)}, the samples before it {list(expected)}")
        return FeedError(f"feed {self._declared()}: the batch can't be converted to {self.dtype}: {error}")

    def _error(self, k: int, problem: str) -> FeedError:
        hint = "" if self.lod_level else "; variable-length data needs lod_level > 0"
        return FeedError(f"feed {self._declared()}: sample {k} {problem}{hint if 'shape' in problem else ''}")

    def _declared(self) -> str:
        lod = f" lod={self.lod_level}" if self.lod_level else ""
        return f"{self.name or 'variable'}: {self.dtype}[{', '.join(map(str, self.shape))}]{lod}"

    def _reshaped(self, array: np.ndarray, samples: Sequence[Any]) -> np.ndarray:
        if array.size == 0:
            return array.reshape([len(array) if not k else max(d, 0) for k, d in enumerate(self.shape)])
        try:
            return array.reshape(self.shape)
        except ValueError:
            raise FeedError(
                f"feed {self._declared()}: a batch of {len(samples)} samples has shape {list(array.shape)}, which can't be "
                f"reshaped to {self.shape}"
            ) from None

    def _flatten(self, samples: Sequence[Any]) -> tuple[Sequence[Any], list[list[int]]]:
        """Rows of all samples, and the lengths of each level."""
        lengths: list[list[int]] = []
        items: Any = samples
        for level in range(self.lod_level):
            try:
                lengths.append([len(item) for item in items])
            except TypeError:
                raise self._not_nested(samples, level) from None
            if items and all(isinstance(item, np.ndarray) for item in items):
                kept = [item for item in items if item.size] or items[:1]
                try:
                    items = np.concatenate(kept)
                except ValueError as error:
                    raise self._bad_samples(samples, error) from None
            else:
                items = list(chain.from_iterable(items))
        return items, lengths

    def _not_nested(self, samples: Sequence[Any], level: int) -> FeedError:
        def depth(item: Any) -> int:
            found = 0
            while isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.ndim):
                found += 1
                if not len(item):
                    return self.lod_level
                item = item[0]
            return found

        for k, sample in enumerate(samples):
            if depth(sample) < self.lod_level:
                return self._error(
                    k, f"must be a list nested {self.lod_level} deep, received {type(sample).__name__}: {str(sample)[:60]!r}"
                )
        return self._error(0, f"is not nested {level + 1} deep everywhere")


def converter(place: Any, lod_level: int, shape: Sequence[int], dtype: Any, name: str) -> DataToLoDTensorConverter:
    """A converter that names its variable in errors."""
    made = DataToLoDTensorConverter(place, lod_level, shape, dtype)
    made.name = name
    return made


class BatchedTensorProvider:
    """Calls give batches, each a list with one LoDTensor for every variable of `feed_list`.

    Args:
        generator: a function that returns an iterator over samples (one field a variable).
        drop_last: leave out a last batch that is short.
    """

    def __init__(
        self, feed_list: Sequence[Any], place: Any, batch_size: int, generator: Callable[[], Iterable[Any]], drop_last: bool
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"BatchedTensorProvider: batch_size must be positive, received {batch_size}")
        self.place = place
        self.batch_size = batch_size
        self.generator = generator
        self.drop_last = drop_last
        self.converters = [converter(place, var.lod_level, var.shape, var.dtype, var.name) for var in feed_list]

    def _tensors(self, batch: list[Any]) -> list[LoDTensor]:
        return [c.convert(column) for c, column in zip(self.converters, columns(batch, self.converters))]

    def __call__(self) -> Iterator[list[LoDTensor]]:
        batch: list[Any] = []
        for sample in self.generator():
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield self._tensors(batch)
                batch = []
        if batch and not self.drop_last:
            yield self._tensors(batch)


def columns(batch: Any, fields: Sequence[Any]) -> list[Any]:
    """The samples of a batch, turned into one sequence a field; FeedError naming the sample with a wrong count."""
    n = len(fields)
    if isinstance(batch, np.ndarray) and batch.ndim >= 2 and batch.shape[1] == n:
        return [batch[:, k] for k in range(n)]
    for k, sample in enumerate(batch):
        if not hasattr(sample, "__len__") or len(sample) != n:
            count = len(sample) if hasattr(sample, "__len__") else f"no ({type(sample).__name__})"
            names = ", ".join(getattr(f, "name", "") or "?" for f in fields)
            raise FeedError(f"feed: sample {k} has {count} fields, but there are {n} variables to feed: {names}")
    found = list(zip(*batch))
    return found if found else [()] * n


class DataFeeder:
    """Turns batches of samples into feeds.

    Args:
        feed_list: Variables, or names of variables of `program`, in the order of a sample's fields.
        place: where the tensors are made.
        program: where names are looked up; the default main Program when None.
    """

    def __init__(self, feed_list: Sequence[Any], place: Any, program: Program | None = None) -> None:
        program = default_main_program() if program is None else program
        self.feed_dtypes: list[Any] = []
        self.feed_names: list[str] = []
        self.feed_shapes: list[Any] = []
        self.feed_lod_level: list[int] = []
        for var in feed_list:
            if isinstance(var, str):
                var = program.global_block().var(var)
            if not isinstance(var, Variable):
                raise TypeError(f"Feed list should contain a list of variable, received {type(var).__name__}: {var!r}")
            self.feed_dtypes.append(var.dtype)
            self.feed_names.append(var.name)
            self.feed_shapes.append(var.shape)
            self.feed_lod_level.append(var.lod_level)
        self.place = place
        self._converters = self._make_converters(place)

    def _make_converters(self, place: Any) -> list[DataToLoDTensorConverter]:
        return [
            converter(place, level, shape, dtype, name)
            for name, shape, dtype, level in zip(self.feed_names, self.feed_shapes, self.feed_dtypes, self.feed_lod_level)
        ]

    def feed(self, iterable: Iterable[Any]) -> dict[str, LoDTensor]:
        """The feed for one run.

        Args:
            iterable: the batch: samples, each with one field for every variable.

        Raises:
            FeedError: naming the variable, the sample's number, what was expected and what came.
        """
        return self._feed(iterable, self._converters)

    def _feed(self, iterable: Iterable[Any], converters: list[DataToLoDTensorConverter]) -> dict[str, LoDTensor]:
        batch = iterable if isinstance(iterable, (list, tuple, np.ndarray)) else list(iterable)
        return {c.name: c.convert(column) for c, column in zip(converters, columns(batch, converters))}

    def feed_parallel(self, iterable: Iterable[Any], num_places: int | None = None) -> Iterator[dict[str, LoDTensor]]:
        """One feed for each place, from an iterable with one batch for each place.

        Args:
            num_places: None: all places (CUDA devices, or CPU_NUM).

        Raises:
            ValueError: the number of batches is not the number of places.
        """
        places = self._places(num_places)
        batches = list(iterable)
        if len(batches) != len(places):
            raise FeedError(
                f"feed_parallel takes one batch for each of the {len(places)} places, received {len(batches)} "
                "(leave out the last short batch, or split it)"
            )
        for place, batch in zip(places, batches):
            yield self._feed(batch, self._make_converters(place))

    def _places(self, num_places: int | None) -> list[Any]:
        count = self._get_number_of_places_(num_places)
        if isinstance(self.place, CUDAPlace):
            return [CUDAPlace(k) for k in range(count)]
        return [self.place] * count

    def _get_number_of_places_(self, num_places: int | None) -> int:
        if num_places is not None:
            return int(num_places)
        if isinstance(self.place, CUDAPlace):
            import torch

            return max(1, torch.cuda.device_count())
        return settings().cpu_num

    def decorate_reader(
        self, reader: Callable[[], Iterable[Any]], multi_devices: bool, num_places: int | None = None, drop_last: bool = True
    ) -> Callable[[], Iterator[Any]]:
        """A reader of feeds over a reader of batches.

        Args:
            multi_devices: gather one batch for each place, and give a list of feeds.
            drop_last: leave out batches at the end that are too few for all places; without it they are an error.
        """

        def one() -> Iterator[Any]:
            for batch in reader():
                yield self.feed(batch)

        def many() -> Iterator[Any]:
            count = self._get_number_of_places_(num_places)
            held: list[Any] = []
            for batch in reader():
                held.append(batch)
                if len(held) == count:
                    yield list(self.feed_parallel(held, num_places))
                    held = []
            if held and not drop_last:
                raise FeedError(
                    f"decorate_reader: {len(held)} batches are left for {count} places; "
                    "the data can't be split evenly (drop_last=True leaves them out)"
                )

        return many if multi_devices else one
