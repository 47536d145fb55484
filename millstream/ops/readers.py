"""Readers inside a Program: a queue of the Scope gives the batches that `read` hands to the next operators.

The queue and what reads from it are runtime objects (runtime/feeding.py); these operators only pass them on.
"""

from __future__ import annotations

from typing import Any

from millstream.errors import UninitializedError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._reader_chain import BatchReader, RandomReader, ShuffleReader, made_over
from millstream.ops._values import Ragged


@op(
    "create_py_reader",
    slots="blocking_queue -> Out*",
    infer=False,
    grad=False,
    from_scope="blocking_queue",
)
def create_py_reader(
    blocking_queue: Any,
    *,
    device: Any,
    shape_concat: list[int],
    ranks: list[int],
    lod_levels: list[int],
    dtypes: list[int],
    need_check_feed: list[int] = [],
    use_data_config: bool = True,
    device_index: int = 0,
    device_count: int = 1,
):
    """The reader over a LoDTensorBlockingQueue; `shape_concat` holds the shapes of all slots, `ranks` their lengths."""
    slots, at = [], 0
    checks = need_check_feed or [0] * len(ranks)
    for rank, level, dtype, check in zip(ranks, lod_levels, dtypes, checks):
        slots.append((tuple(shape_concat[at : at + rank]), VarType(dtype), level, bool(check)))
        at += rank
    return [blocking_queue.reader(slots, device)]


def _made(reader: Any) -> Any:
    if reader is None or not hasattr(reader, "read_next"):
        raise UninitializedError(
            "the reader was not made in this scope: run the startup program first "
            "(exe.run(fluid.default_startup_program())), in the scope that the program was built under"
        )
    return reader


@op("create_double_buffer_reader", slots="UnderlyingReader -> Out", infer=False, grad=False)
def create_double_buffer_reader(underlying_reader: Any, *, place: str = "AUTO"):
    """A reader that works ahead of the Program."""
    return _made(underlying_reader).buffered()


@op("read", slots="Reader -> Out*#", infer=False, grad=False, side_effect=True)
def read(reader: Any, *, throw_eof_exp: bool = True, infer_out: bool = True, drop_last: bool = True):
    """The next batch; EOFException when there is none."""
    return [Ragged(values, lod) for values, lod in _made(reader).read_next()]


# ---- readers of Fluid 1.1 ----------------------------------------------------------------------------
@op("create_random_data_generator", slots="-> Out", infer=False, grad=False)
def create_random_data_generator(
    *, low: float, high: float, shape_concat: list[int], ranks: list[int], lod_levels: list[int], rng: Any, device: Any
):
    """A reader without end: float32 elements uniform in [low, high), for each slot of its shape."""
    shapes, at = [], 0
    for rank in ranks:
        shapes.append(tuple(shape_concat[at : at + rank]))
        at += rank
    return RandomReader(low, high, shapes, rng, device)


def _name(names: Any) -> str:
    return str(names["Out"][0])


@op("create_shuffle_reader", slots="UnderlyingReader -> Out", infer=False, grad=False)
def create_shuffle_reader(underlying_reader: Any, *, buffer_size: int, rng: Any, names: Any):
    """The batches of another reader, `buffer_size` at a time, in random order."""
    source = _made(underlying_reader)
    return made_over(source, _name(names), lambda: ShuffleReader(source, buffer_size, rng))


@op("create_batch_reader", slots="UnderlyingReader -> Out", infer=False, grad=False)
def create_batch_reader(underlying_reader: Any, *, batch_size: int, discard_leftover: bool = True, names: Any):
    """Batches of another reader, `batch_size` laid one after another into one."""
    source = _made(underlying_reader)
    return made_over(source, _name(names), lambda: BatchReader(source, batch_size, discard_leftover))
