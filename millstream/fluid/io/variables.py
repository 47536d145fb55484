"""save_vars, load_vars and their forms for parameters and persistable variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from millstream.errors import ShapeError
from millstream.files.source import Source
from millstream.fluid import core
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import VarType
from millstream.ir.variable import Parameter, Variable

Predicate = Callable[[Variable], bool]
_NO_TENSOR = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER})


def is_parameter(var: Variable) -> bool:
    """Whether `var` is a Parameter (trainable or not)."""
    return isinstance(var, Parameter)


def is_persistable(var: Variable) -> bool:
    """Whether `var` outlives a run and is data (not a reader, nor the holder of feeds or fetches)."""
    return bool(var.persistable) and var.type not in _NO_TENSOR


def is_belong_to_optimizer(var: Variable) -> bool:
    """Whether `var` persists without being a Parameter: accumulators, learning rates, counters."""
    return is_persistable(var) and not is_parameter(var)


# ---- saving ----------------------------------------------------------------------------------------
def save_vars(
    executor: Any,
    dirname: str | None,
    main_program: Any = None,
    vars: Iterable[Variable | str] | None = None,
    predicate: Predicate | None = None,
    filename: str | None = None,
) -> bytes | None:
    """Save variables of the current scope: one file each in `dirname`, or all in the one file `filename`.

    Args:
        executor: an Executor (values are taken from the current scope).
        dirname: directory, made if needed; None (with `filename` None): return the combined file as bytes.
        main_program: where `vars` or `predicate` look; the default main Program when None.
        vars: the variables; None: those of the Program for which `predicate` is true.
        filename: combined form; the order is that of the sorted names.

    Raises UninitializedError: a variable holds nothing; no file is written then.
    """
    _check_executor(executor, "save_vars")
    program = program_of(main_program, "save_vars")
    chosen = chosen_variables(program, vars, predicate)
    names = [v.name for v in chosen]
    scope = core.global_scope()
    if dirname is None and filename is None:
        return core._stored.combined_bytes(scope, names)
    if dirname is None or not isinstance(dirname, (str, os.PathLike)):
        raise TypeError(f"save_vars: dirname must be a path (or None, without filename), received {dirname!r}")
    if not names:
        return None
    if filename is None:
        core._stored.save_separate(scope, os.fspath(dirname), names)
    else:
        core._stored.save_combined(scope, os.path.join(dirname, filename), names)
    return None


def save_params(executor: Any, dirname: str | None, main_program: Any = None, filename: str | None = None) -> bytes | None:
    """:func:`save_vars` of the Parameters (a batch norm's moving mean and variance too)."""
    return save_vars(executor, dirname, main_program, None, is_parameter, filename)


def save_persistables(
    executor: Any, dirname: str | None, main_program: Any = None, filename: str | None = None
) -> bytes | None:
    """:func:`save_vars` of all persistable variables: Parameters and what the optimizer keeps."""
    return save_vars(executor, dirname, main_program, None, is_persistable, filename)


# ---- loading ---------------------------------------------------------------------------------------
def load_vars(
    executor: Any,
    dirname: str | None,
    main_program: Any = None,
    vars: Iterable[Variable | str] | None = None,
    predicate: Predicate | None = None,
    filename: str | bytes | None = None,
) -> None:
    """Load what :func:`save_vars` wrote into the current scope; dtype, shape and LoD become those of the files.

    All files are read and checked before the scope changes. With `dirname` None, `filename` is the contents of a
    combined file (bytes). A combined file holds exactly the variables asked for, in the order of their names.

    Raises:
        MissingFileError: a file is not there. FileFormatError: it is damaged, or holds other variables.
        ShapeError: a Parameter's file has another shape than the Program declares.
    """
    _check_executor(executor, "load_vars")
    program = program_of(main_program, "load_vars")
    chosen = chosen_variables(program, vars, predicate)
    if not chosen:
        return
    device = device_of(executor)
    if dirname is None:
        if not isinstance(filename, (bytes, bytearray, memoryview)):
            raise ValueError(
                "load_vars: without dirname, filename must be the contents of a combined file (bytes), "
                f"received {type(filename).__name__}"
            )
        values = core._stored.read_combined(Source(filename, "<memory>"), chosen, device)
    elif not isinstance(dirname, (str, os.PathLike)):
        raise TypeError(f"load_vars: dirname must be a path or None, received {type(dirname).__name__}")
    elif filename is None:
        values = core._stored.read_separate(os.fspath(dirname), chosen, device)
    else:
        values = core._stored.combined_file(os.path.join(dirname, filename), chosen, device)  # type: ignore[arg-type]
    check_shapes(chosen, {name: tuple(value.shape) for name, (value, _) in values.items()})
    core._stored.assign(core.global_scope(), values)


def load_params(executor: Any, dirname: str | None, main_program: Any = None, filename: Any = None) -> None:
    """:func:`load_vars` of the Parameters."""
    load_vars(executor, dirname, main_program, None, is_parameter, filename)


def load_persistables(executor: Any, dirname: str | None, main_program: Any = None, filename: Any = None) -> None:
    """:func:`load_vars` of all persistable variables."""
    load_vars(executor, dirname, main_program, None, is_persistable, filename)


# ---- single values ---------------------------------------------------------------------------------
def get_parameter_value(para: Variable, executor: Any) -> np.ndarray:
    """The value of Parameter `para` in the current scope, as a new array."""
    if not is_parameter(para):
        raise AssertionError(f"get_parameter_value: expected a Parameter, received {para!r}")
    return np.array(core._stored.array_of(core.global_scope(), para.name))


def get_parameter_value_by_name(name: str, executor: Any, program: Program | None = None) -> np.ndarray:
    """The value of the Parameter called `name`, as a new array."""
    return get_parameter_value(program_of(program, "get_parameter_value_by_name").global_block().var(name), executor)


# ---- shared with the other files of this package -----------------------------------------------------
def program_of(program: Any, caller: str) -> Program:
    """`program`, the Program in a CompiledProgram, or the default main Program for None; else TypeError."""
    if program is None:
        return default_main_program()
    inner = getattr(program, "_program", None)
    if isinstance(inner, Program):
        return inner
    if not isinstance(program, Program):
        raise TypeError(
            f"{caller}: The type of input main_program is invalid, expected type is fluid.Program, "
            f"but received {type(program)}"
        )
    return program


def chosen_variables(
    program: Program, vars: Iterable[Variable | str] | None, predicate: Predicate | None
) -> list[Variable]:
    """The variables named by `vars`, else those for which `predicate` holds; each name once, none without data."""
    if vars is None:
        found = [v for v in program.list_vars() if predicate is None or predicate(v)]
    else:
        found = [program.global_block().var(v) if isinstance(v, str) else v for v in vars]
    for var in found:
        if not isinstance(var, Variable):
            raise TypeError(f"expected Variables or their names, received {type(var).__name__}: {str(var)[:60]}")
    return list({v.name: v for v in found if v.type is not VarType.RAW}.values())


def device_of(executor: Any) -> Any:
    """The torch device on which an executor's values live."""
    place: Any = getattr(executor, "place", None)
    return (place if hasattr(place, "torch_device") else core.CPUPlace()).torch_device()


def check_shapes(variables: Iterable[Variable], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """ShapeError unless every Parameter among `variables` has the shape that was read."""
    for var in variables:
        shape = shapes.get(var.name)
        if isinstance(var, Parameter) and shape is not None and shape != tuple(var.shape):
            raise ShapeError(
                f"Variable's shape does not match, the Program requires a parameter with the shape of "
                f"({tuple(var.shape)}), while the loaded parameter (namely [ {var.name} ]) has a shape of  ({shape}). "
                "The files belong to another model, or to another version of this one"
            )


def _check_executor(executor: Any, caller: str) -> None:
    if not hasattr(executor, "run"):
        raise TypeError(f"{caller}: executor must be a fluid.Executor, received {type(executor).__name__}")
