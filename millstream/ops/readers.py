"""Readers inside a Program: a queue of the Scope gives the batches that `read` hands to the next operators.

The queue and what reads from it are runtime objects (runtime/feeding.py); these operators only pass them on.
"""

from __future__ import annotations

from typing import Any

from millstream.errors import UninitializedError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
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
