"""Readers that only Fluid 1.1 had: a preprocessed reader, and files of records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from millstream.errors import NotSupportedError
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import ELEMENTS, check_variables, refuse
from millstream.fluid.layers.reader_io import _check_reader, transformed
from millstream.ir import names
from millstream.ir.program import Program, default_main_program, default_startup_program, program_guard
from millstream.ir.variable import Variable

__all__ = ["Preprocessor", "open_files", "open_recordio_file"]


class Preprocessor:
    """A reader whose batches pass through layers first (form of Fluid 1.1).

    Args:
        reader: of `py_reader` and the like. name: has no meaning.

    Use::

        preprocessor = fluid.layers.Preprocessor(reader)
        with preprocessor.block():
            image, label = preprocessor.inputs()
            preprocessor.outputs(image / 255.0, label)
        image, label = fluid.layers.read_file(preprocessor())

    The layers stand in the Program behind the operator that reads, so they run where the rest runs.
    """

    def __init__(self, reader: Variable, name: str | None = None) -> None:
        _check_reader(reader, "Preprocessor")
        self.underlying_reader = reader
        self._recorded = Program()
        self._inputs: list[Variable] = []
        self._outputs: list[Variable] = []
        self._state = "before"

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is built inside is applied to every batch."""
        if self._state != "before":
            refuse("Preprocessor", "block() can be entered once")
        self._state = "in"
        with program_guard(self._recorded, default_startup_program()):
            yield
        self._state = "after"
        if not self._outputs:
            refuse("Preprocessor", "call outputs() inside `with preprocessor.block():`")
        if self._recorded.num_blocks > 1 or self._recorded.all_parameters():
            refuse("Preprocessor", "layers with parameters or control flow belong behind read_file(), not in block()")

    def inputs(self) -> list[Variable]:
        """What the reader gives, one Variable for each slot."""
        if self._state != "in":
            refuse("Preprocessor", "inputs() belongs inside `with preprocessor.block():`")
        root = self._recorded.global_block()
        if not self._inputs:
            for shape, dtype, level in self.underlying_reader.reader_slots:
                name = names.generate("preprocessor_input")
                var = root.create_var(name=name, shape=shape, dtype=dtype, lod_level=level, stop_gradient=True)
                self._inputs.append(var)
        return list(self._inputs)

    def outputs(self, *outs: Any) -> None:
        """What the new reader gives."""
        if self._state != "in":
            refuse("Preprocessor", "outputs() belongs inside `with preprocessor.block():`")
        self._outputs = check_variables(list(outs), "outs", ELEMENTS, "Preprocessor.outputs")

    def __call__(self) -> Variable:
        """The new reader."""
        if self._state != "after":
            refuse("Preprocessor", "the new reader exists after `with preprocessor.block():`")
        return transformed(self.underlying_reader, self._apply)

    def _apply(self, batch: list[Variable]) -> list[Variable]:
        """The recorded operators, appended to the current Block for the variables of a batch."""
        known = {var.name: value for var, value in zip(self._inputs, batch)}
        block = default_main_program().current_block()
        helper = LayerHelper("preprocessor")
        for op in self._recorded.global_block().ops:
            for name in op.output_arg_names:
                made = helper.create_variable_for_type_inference(dtype=None, stop_gradient=True)
                known.setdefault(name, made)
            ins = {slot: [known.get(n, n) for n in values] for slot, values in op.inputs.items()}
            outs = {slot: [known[n] for n in values] for slot, values in op.outputs.items()}
            block.append_op(type=op.type, inputs=ins, outputs=outs, attrs=dict(op.attrs))
        return [known[var.name] for var in self._outputs]


def _no_records(layer: str) -> NoReturn:
    raise NotSupportedError(
        f"{layer}: recordio files of Fluid 1.1 are not read (1.8.5 had dropped them too). Read the data in Python and give "
        "it to fluid.io.DataLoader.from_generator or fluid.layers.py_reader; fluid.DatasetFactory reads text files fast"
    )


def open_files(
    filenames: Sequence[str],
    shapes: Sequence[Sequence[int]],
    lod_levels: Sequence[int],
    dtypes: Sequence[Any],
    thread_num: int | None = None,
    buffer_size: int | None = None,
    pass_num: int = 1,
    is_test: bool | None = None,
) -> NoReturn:
    """A reader of recordio files (form of Fluid 1.1). Raises NotSupportedError, which says what to use."""
    _no_records("open_files")


def open_recordio_file(
    filename: str,
    shapes: Sequence[Sequence[int]],
    lod_levels: Sequence[int],
    dtypes: Sequence[Any],
    pass_num: int = 1,
    for_parallel: bool = True,
) -> NoReturn:
    """A reader of one recordio file (form of Fluid 1.1). Raises NotSupportedError, which says what to use."""
    _no_records("open_recordio_file")
