"""fluid.save and fluid.load: ``.pdparams``, ``.pdopt`` and ``.pdmodel`` beside each other, and states as dicts."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from millstream.errors import FileFormatError, MissingFileError, StateMismatchError
from millstream.files import states
from millstream.files.atomic import write_bytes
from millstream.fluid import core
from millstream.fluid.io.variables import (
    chosen_variables,
    device_of,
    is_belong_to_optimizer,
    is_parameter,
    is_persistable,
    program_of,
)
from millstream.fluid.log_helper import get_logger
from millstream.ir.program import Program, default_main_program
from millstream.ir.proto import program_to_bytes
from millstream.ir.types import dtype_name, to_var_type
from millstream.ir.variable import Parameter, Variable

_SUFFIXES = (".pdparams", ".pdopt", ".pdmodel")
_OLD = "[ save_params, save_persistables, save_vars ]"
# 1.8.5's name: it writes to stderr by itself, whatever a program does with logging
_log = get_logger("paddle.fluid.io", logging.INFO, "%(asctime)s-%(levelname)s: %(message)s")


def get_program_parameter(program: Program) -> list[Variable]:
    """All Parameters of `program`."""
    return [v for v in program.list_vars() if is_parameter(v)]


def get_program_persistable_vars(program: Program) -> list[Variable]:
    """All variables of `program` that outlive a run and are data."""
    return [v for v in program.list_vars() if is_persistable(v)]


def save(program: Any, model_path: str) -> None:
    """Save Parameters to ``<model_path>.pdparams``, other persistable variables to ``.pdopt``, the Program to ``.pdmodel``.

    `model_path` is directory/name; values are those of the current scope. Raises UninitializedError: one holds nothing
    (no file is written then).
    """
    if not os.path.basename(model_path):
        raise AssertionError(
            "fluid.save: model_path must be of the form directory/name, "
            f"received {model_path!r}, which names a directory"
        )
    program = program_of(program, "fluid.save")
    scope = core.global_scope()
    parameters, others = ({v.name: core._stored.array_of(scope, v.name) for v in _named(program, test)}
                          for test in (is_parameter, is_belong_to_optimizer))
    states.write_state(model_path + ".pdparams", parameters)
    states.write_state(model_path + ".pdopt", others)
    write_bytes(model_path + ".pdmodel", program_to_bytes(program))


def load(program: Any, model_path: str, executor: Any = None, var_list: Iterable[Variable] | None = None) -> None:
    """Load what :func:`save` wrote (or save_params, save_persistables, save_vars) into the current scope.

    Args:
        program: the Program whose variables are loaded.
        model_path: as given to :func:`save`, with or without a suffix; or the directory, or the combined file, of the
            older functions.
        executor: an Executor; needed for the older forms.
        var_list: older forms only: the variables to load (needed for a combined file).

    Raises:
        MissingFileError: no such file. FileFormatError: it is damaged.
        StateMismatchError: a variable is not in the file, or a Parameter has another shape there; nothing is loaded.
    """
    program = program_of(program, "fluid.load")
    prefix = _without_suffix(model_path)
    if not os.path.isfile(prefix + ".pdparams"):
        _load_older(program, model_path, prefix, executor, var_list)
        return
    path = prefix + ".pdparams"
    found = _matching(_named(program, is_parameter), states.read_state(path), path)
    others = _named(program, is_belong_to_optimizer)
    if others:
        path = prefix + ".pdopt"
        if not os.path.isfile(path):
            raise StateMismatchError(
                f"Optimizer file [{path}] not exits: the program holds {others[0].name!r} and others that belong to an "
                "optimizer. Load into the program without optimizer, or copy the file"
            )
        found.update(_matching(others, states.read_state(path), path))
    core._stored.assign_array(core.global_scope(), found, device_of(executor))


def _load_older(
    program: Program, model_path: str, prefix: str, executor: Any, var_list: Iterable[Variable] | None
) -> None:
    if not os.path.exists(model_path):
        raise MissingFileError(f"neither {prefix + '.pdparams'!r} nor {model_path!r} exists")
    _log.warning("%s.pdparams not found, try to load model file saved with %s", model_path, _OLD)
    if executor is None:
        raise ValueError(f"executor is required when loading model file saved with {_OLD}")
    device = device_of(executor)
    if os.path.isdir(model_path):
        wanted = chosen_variables(program, var_list, is_persistable)
        there = [v for v in wanted if os.path.isfile(os.path.join(model_path, v.name))]
        values = core._stored.read_separate(model_path, there, device)
    else:
        if var_list is None:
            raise ValueError(f"var_list is required when loading model file saved with {_OLD}")
        there = chosen_variables(program, var_list, None)
        values = core._stored.combined_file(model_path, there, device)
    for var in there:
        if isinstance(var, Parameter):
            _check_shape(var, tuple(values[var.name][0].shape))
    core._stored.assign(core.global_scope(), values)


def load_program_state(model_path: str, var_list: Iterable[Variable] | None = None) -> dict[str, np.ndarray]:
    """name -> array of what :func:`save`, or the older functions, wrote; the scope is not touched.

    Args:
        model_path: as for :func:`load`.
        var_list: older forms only: which variables (needed for a combined file).

    Where nothing of this name exists the state is empty, as in 1.8.5, and a warning is logged. Raises FileFormatError.
    """
    prefix = _without_suffix(model_path)
    if os.path.isfile(prefix + ".pdparams"):
        found = states.read_state(prefix + ".pdparams")
        if os.path.isfile(prefix + ".pdopt"):
            found.update(states.read_state(prefix + ".pdopt"))
        return found
    if not os.path.exists(model_path):
        _log.warning("load_program_state: neither %r nor %r exists; the state is empty", prefix + ".pdparams", model_path)
        return {}
    _log.warning("%s.pdparams not found, try to load model file saved with %s", model_path, _OLD)
    if os.path.isdir(model_path):
        if var_list is None:
            names = _files_below(model_path)
        else:
            names = [v.name for v in var_list if os.path.isfile(os.path.join(model_path, v.name))]
        try:
            block = default_main_program().global_block()
            values = core._stored.read_separate(model_path, [Variable(block, name) for name in names])
        except FileFormatError as error:
            raise FileFormatError(
                "Failed to load model file , please make sure model file is saved with the following APIs: "
                f"save_params, save_persistables, save_vars ({error})"
            ) from None
    else:
        if var_list is None:
            raise ValueError("var_list can not be None when model_path is a file type")
        values = core._stored.combined_file(model_path, list(var_list))
    return {name: core._stored.to_array(value) for name, (value, _) in values.items()}


def set_program_state(program: Any, state_dict: Mapping[str, np.ndarray]) -> None:
    """Put arrays into the persistable variables of `program` in the current scope; names it lacks give a warning.

    Raises StateMismatchError (an AssertionError too): a variable has no value yet (run the startup program), or
    another shape or dtype than its array; nothing is changed then.
    """
    program = program_of(program, "set_program_state")
    scope = core.global_scope()
    found: dict[str, np.ndarray] = {}
    device = core.CPUPlace().torch_device()
    variables = get_program_persistable_vars(program)
    for var in variables:
        if var.name not in state_dict and not isinstance(var, Parameter):
            continue
        held = scope.find_var(var.name)
        value = None if held is None else held.load()[0]
        if value is None:
            raise StateMismatchError(f"Variable [ {var.name} ] Not found, Please make sure run startup program")
        if var.name not in state_dict:
            continue
        array = np.asarray(state_dict[var.name])
        _check_shape(var, array.shape, tuple(value.shape))
        there = str(core._stored.to_array(value[:0] if value.dim() else value).dtype)
        if str(array.dtype) != there:
            raise StateMismatchError(
                f"Parameter's data type does not match, the Program requires a parameter with a dtype of ({there}), "
                f"while the loaded parameter (namely [ {var.name} ]) has a dtype of  ({array.dtype})."
            )
        found[var.name] = array
        device = value.device
    core._stored.assign_array(scope, found, device)
    names = {v.name for v in variables}
    unused = [name for name in state_dict if name not in names]
    if unused:
        warnings.warn(
            f"This list is not set, Because of Paramerter not found in program. There are: {' '.join(unused)}",
            stacklevel=2,
        )


def _named(program: Program, test: Any) -> list[Variable]:
    return list({v.name: v for v in program.list_vars() if test(v)}.values())


def _without_suffix(path: str) -> str:
    for suffix in _SUFFIXES:
        if path.endswith(suffix):
            return path[: -len(suffix)]
    return path


def _files_below(folder: str) -> list[str]:
    """Paths of all files below `folder`, relative to it, as variable names are."""
    found = []
    for root, _, files in os.walk(folder):
        for file in files:
            found.append(os.path.relpath(os.path.join(root, file), folder).replace(os.sep, "/"))
    return sorted(found)


def _matching(variables: list[Variable], state: Mapping[str, Any], path: str) -> dict[str, np.ndarray]:
    """The arrays of `variables` in `state`, all there and of the right shape."""
    found = {}
    for var in variables:
        array = state.get(var.name)
        if not isinstance(array, np.ndarray):
            raise StateMismatchError(f"Can not find [{var.name}] in model file [{path}]")
        if isinstance(var, Parameter):
            _check_shape(var, array.shape)
        to_var_type(array.dtype)
        found[var.name] = array
    return found


def _check_shape(var: Variable, shape: tuple[int, ...], wanted: tuple[int, ...] | None = None) -> None:
    wanted = tuple(var.shape) if wanted is None else wanted
    if shape != wanted:
        raise StateMismatchError(
            f"Parameter's shape does not match, the Program requires a parameter with the shape of ({wanted}), while the "
            f"loaded parameter (namely [ {var.name} ]) has a shape of  ({shape}); declared {dtype_name(var.dtype)}"
        )
