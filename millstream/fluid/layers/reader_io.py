"""Readers inside a Program: variables that give the next batch each time the Program runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_type, check_variable, refuse
from millstream.fluid.reader import _sources
from millstream.fluid.reader.generator import append_queue_reader
from millstream.ir import names
from millstream.ir.block import Block
from millstream.ir.program import Program, default_main_program, default_startup_program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.ir.walk import copy_var
from millstream.runtime.place import CPUPlace

__all__ = [
    "batch",
    "create_py_reader_by_data",
    "double_buffer",
    "load",
    "monkey_patch_reader_methods",
    "py_reader",
    "random_data_generator",
    "read_file",
    "shuffle",
]


def py_reader(
    capacity: int,
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[Any],
    lod_levels: Sequence[int] | None = None,
    name: str | None = None,
    use_double_buffer: bool = True,
) -> Variable:
    """A reader variable that a Python function fills.

    Args:
        capacity: batches that may wait.
        shapes, dtypes, lod_levels: of each thing that ``read_file`` returns (lod_levels: all 0 when None).

    Returns a variable with ``decorate_paddle_reader(reader)`` (lists of samples), ``decorate_tensor_provider(reader)``
    (lists of arrays or LoDTensors), ``start()`` and ``reset()``. A run after the last batch raises EOFException.
    """
    check_type(shapes, "shapes", (list, tuple), "py_reader")
    check_type(dtypes, "dtypes", (list, tuple), "py_reader")
    levels = [0] * len(shapes) if lod_levels is None else list(lod_levels)
    if not len(shapes) == len(dtypes) == len(levels):
        counts = f"{len(shapes)} shapes, {len(dtypes)} dtypes and {len(levels)} lod_levels"
        refuse("py_reader", f"expected as many shapes as dtypes and lod_levels, received {counts}")
    scratch = Block(Program(), 0, -1)
    slots = [
        Variable(scratch, f"py_reader slot {k}", shape, dtype, level, is_data=True)
        for k, (shape, dtype, level) in enumerate(zip(shapes, dtypes, levels))
    ]
    return _reader("py_reader", capacity, slots, name, use_double_buffer)


def create_py_reader_by_data(
    capacity: int, feed_list: Sequence[Any], name: str | None = None, use_double_buffer: bool = True
) -> Variable:
    """Like :func:`py_reader`, with the shapes, dtypes and LoD levels of data variables."""
    check_type(feed_list, "feed_list", (list, tuple), "create_py_reader_by_data")
    for k, var in enumerate(feed_list):
        check_variable(var, f"feed_list[{k}]", "create_py_reader_by_data")
    return _reader("create_py_reader_by_data", capacity, list(feed_list), name, use_double_buffer)


def _reader(layer: str, capacity: int, slots: list[Variable], name: str | None, use_double_buffer: bool) -> Variable:
    check_type(capacity, "capacity", int, layer)
    if capacity < 1:
        refuse(layer, f"capacity must be positive, received {capacity}")
    if name is None:
        queue_name = names.generate("lod_tensor_blocking_queue")
        reader_name = names.generate("create_py_reader")
        buffer_name = names.generate("double_buffer")
    else:
        queue_name, reader_name, buffer_name = f"{name}_queue", f"{name}_reader", f"{name}_double_buffer"
    startup = default_startup_program().global_block()
    queue, made = append_queue_reader(startup, slots, capacity, queue_name, reader_name)
    reader = _in_main(made)
    feeder = _sources.QueueFeeder(queue, f"{layer} {reader_name!r}")
    if use_double_buffer:
        reader = double_buffer(reader, name=buffer_name)
    _give_methods(reader, feeder, slots)
    return reader


def _in_main(made: Variable) -> Variable:
    block = default_main_program().global_block()
    twin = copy_var(made, block)
    twin.stop_gradient = True
    block.vars[twin.name] = twin
    block._touch()
    return twin


# ---- what a reader variable can do ---------------------------------------------------------------
def _give_methods(reader: Any, feeder: _sources.QueueFeeder, slots: list[Variable]) -> None:
    def decorate_tensor_provider(self: Variable, reader: Callable[[], Any]) -> None:
        """Read from a function that yields batches: arrays or LoDTensors, one for each slot."""
        feeder.set_source(_sources.from_batches(reader, CPUPlace(), [f"{self.name}[{k}]" for k in range(len(slots))]))

    def decorate_paddle_reader(self: Variable, reader: Callable[[], Any]) -> None:
        """Read from a function that yields lists of samples (``paddle.batch``)."""
        feeder.set_source(_sources.from_sample_lists(slots, reader, CPUPlace()))

    def start(self: Variable) -> None:
        """Begin a pass."""
        feeder.start()

    def reset(self: Variable) -> None:
        """End a pass, after EOFException or in the middle of it."""
        feeder.reset()

    reader.queue = feeder.queue
    reader.feeder = feeder
    methods: dict[str, Callable[..., Any]] = {
        "decorate_tensor_provider": decorate_tensor_provider,
        "decorate_batch_generator": decorate_tensor_provider,
        "decorate_paddle_reader": decorate_paddle_reader,
        "decorate_sample_list_generator": decorate_paddle_reader,
        "start": start,
        "reset": reset,
    }
    for name, function in methods.items():
        setattr(reader, name, MethodType(function, reader))


def monkey_patch_reader_methods(reader: Variable) -> Variable:
    """Give a reader variable ``reset()``, and mark it as one that the Program keeps."""
    if not hasattr(reader, "reset"):
        refuse("monkey_patch_reader_methods", f"{reader.describe()} was not made by py_reader")
    reader.stop_gradient = True
    reader.persistable = True
    return reader


def _carry_methods(new: Any, old: Any) -> None:
    """A reader over a reader is started and reset like the one below."""
    for name in (
        "decorate_tensor_provider",
        "decorate_batch_generator",
        "decorate_paddle_reader",
        "decorate_sample_list_generator",
        "start",
        "reset",
        "queue",
        "feeder",
        "transforms",
    ):
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))


def _check_reader(reader: Any, layer: str) -> None:
    check_variable(reader, "reader", layer)
    if reader.type is not VarType.READER:
        refuse(layer, f"'reader' must be a reader variable (py_reader), received {reader.describe()}")


def double_buffer(reader: Variable, place: Any = None, name: str | None = None) -> Variable:
    """A reader that brings batches to the device ahead of their use.

    Args:
        place: the device; that of the Executor when None.
    """
    _check_reader(reader, "double_buffer")
    attrs = {"place": "AUTO" if place is None else str(place).upper()}
    return _over(reader, "create_double_buffer_reader", attrs, name)


def shuffle(reader: Variable, buffer_size: int) -> Variable:
    """A reader of the batches of `reader` in random order, drawn from `buffer_size` at a time (form of Fluid 1.1)."""
    return _over(reader, "create_shuffle_reader", {"buffer_size": _count(reader, buffer_size, "buffer_size", "shuffle")})


def batch(reader: Variable, batch_size: int) -> Variable:
    """A reader that lays `batch_size` batches of `reader` one after another; a rest is dropped (form of Fluid 1.1)."""
    if getattr(reader, "transforms", ()):
        refuse("batch", "batches can not be joined behind a Preprocessor: put batch() before it")
    return _over(reader, "create_batch_reader", {"batch_size": _count(reader, batch_size, "batch_size", "batch")})


def _count(reader: Any, value: Any, argument: str, layer: str) -> int:
    _check_reader(reader, layer)
    check_type(value, argument, int, layer)
    if value < 1:
        refuse(layer, f"{argument} must be positive, received {value}")
    return int(value)


def _over(reader: Variable, op_type: str, attrs: dict[str, Any], name: str | None = None) -> Variable:
    block = default_main_program().current_block()
    var = block.create_var(
        name=name if name is not None else names.generate(op_type),
        type=VarType.READER,
        persistable=True,
        stop_gradient=True,
    )
    var.reader_slots = reader.reader_slots
    block.append_op(type=op_type, inputs={"UnderlyingReader": [reader]}, outputs={"Out": [var]}, attrs=attrs)
    _carry_methods(var, reader)
    return var


def random_data_generator(
    low: float, high: float, shapes: Sequence[Sequence[int]], lod_levels: Sequence[int], for_parallel: bool = True
) -> Variable:
    """A reader of float32 tensors of the given shapes, uniform in [low, high), without end (form of Fluid 1.1).

    Args:
        shapes: complete ones, one for each thing that ``read_file`` returns.
        lod_levels: as many; only 0 can be.
        for_parallel: has no meaning.
    """
    layer = "random_data_generator"
    check_type(shapes, "shapes", (list, tuple), layer)
    check_type(lod_levels, "lod_levels", (list, tuple), layer)
    if len(shapes) != len(lod_levels) or any(lod_levels):
        refuse(layer, f"expected one lod_level of 0 for each of {len(shapes)} shapes, received {list(lod_levels)}")
    if any(d < 1 for shape in shapes for d in shape) or not low < high:
        refuse(layer, f"expected positive dims and low < high, received shapes {list(shapes)}, low {low}, high {high}")
    startup = default_startup_program().global_block()
    made = startup.create_var(name=names.generate("create_random_data_generator"), type=VarType.READER, persistable=True)
    made.reader_slots = tuple((tuple(shape), VarType.FP32, 0) for shape in shapes)
    attrs = {
        "low": float(low),
        "high": float(high),
        "shape_concat": [int(d) for shape in shapes for d in shape],
        "ranks": [len(shape) for shape in shapes],
        "lod_levels": list(lod_levels),
    }
    startup.append_op(type="create_random_data_generator", inputs={}, outputs={"Out": [made]}, attrs=attrs)
    return _in_main(made)


def transformed(reader: Variable, transform: Callable[[list[Variable]], list[Variable]]) -> Variable:
    """A reader like `reader`; `read_file` of it passes what it reads through `transform`."""
    block = default_main_program().current_block()
    var = copy_var(reader, block)
    var.reader_slots = reader.reader_slots
    _carry_methods(var, reader)
    var.transforms = (*getattr(reader, "transforms", ()), transform)  # type: ignore[attr-defined]
    return var


def read_file(reader: Variable) -> Any:
    """The next batch of a reader: one variable, or a list of them; at the end a run raises EOFException."""
    _check_reader(reader, "read_file")
    if not reader.reader_slots:
        refuse("read_file", f"the slots of {reader.name!r} are not known; read from the variable that py_reader returned")
    helper = LayerHelper("read_file")
    outs = []
    for shape, dtype, level in reader.reader_slots:
        out = helper.create_variable_for_type_inference(dtype=dtype, stop_gradient=True)
        out.shape = shape
        out.lod_level = level
        out.is_data = True
        outs.append(out)
    helper.append_op(type="read", inputs={"Reader": [reader]}, outputs={"Out": outs})
    for transform in getattr(reader, "transforms", ()):
        outs = transform(outs)
    return outs[0] if len(outs) == 1 else outs


def load(out: Variable, file_path: str, load_as_fp16: bool | None = None) -> None:
    """Fill `out` from a file that ``fluid.io.save_vars`` wrote, each time the Program runs.

    Args:
        load_as_fp16: convert to float16.
    """
    check_variable(out, "out", "load")
    attrs: dict[str, Any] = {"file_path": file_path}
    if load_as_fp16 is not None:
        attrs["load_as_fp16"] = load_as_fp16
    LayerHelper("load").append_op(type="load", inputs={}, outputs={"Out": [out]}, attrs=attrs)
