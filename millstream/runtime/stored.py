"""Variables of a Scope to and from parameter files; a group is decoded whole before the Scope changes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from millstream.errors import MissingFileError, UninitializedError
from millstream.files import records
from millstream.files.atomic import atomic_write, variable_path
from millstream.files.source import Source
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.ops._values import NO_LOD, LoD, SelectedRows
from millstream.ops.files import open_parameters, read_value, to_array, to_tensor, write_value
from millstream.runtime.scope import Scope

Value = tuple[Any, LoD]  # kernel value (tensor or SelectedRows) and LoD
CPU = torch.device("cpu")


def value_of(scope: Scope, name: str) -> Value:
    """What variable `name` holds; UninitializedError when that is nothing."""
    var = scope.find_var(name)
    value, lod = (None, NO_LOD) if var is None else var.load()
    if value is None:
        raise UninitializedError(
            f"variable {name!r} holds nothing in this scope, so it can't be saved; run the startup program first"
        )
    return value, lod


def array_of(scope: Scope, name: str) -> np.ndarray:
    """The tensor of variable `name` as an array (shares memory)."""
    value, _ = value_of(scope, name)
    return to_array(value.to_dense() if isinstance(value, SelectedRows) else value)


def assign(scope: Scope, values: Mapping[str, Value]) -> None:
    """Put kernel values into the variables (made where they do not exist); bound Plans see them."""
    for name, (value, lod) in values.items():
        var = scope.find_var(name) or scope.var(name)
        var.store(value, lod)


def assign_array(scope: Scope, arrays: Mapping[str, np.ndarray], device: torch.device = CPU) -> None:
    """Put copies of arrays into the variables."""
    assign(scope, {n: (to_tensor(np.ascontiguousarray(a), device), NO_LOD) for n, a in arrays.items()})


# ---- writing ---------------------------------------------------------------------------------------
def save_separate(scope: Scope, dirname: str, names: Iterable[str]) -> None:
    """One file per variable, named like it, each written atomically."""
    values = {name: value_of(scope, name) for name in names}
    paths = {name: variable_path(dirname, name) for name in values}
    for name, (value, lod) in values.items():
        with atomic_write(paths[name]) as fh:
            write_value(fh, value, lod)


def save_combined(scope: Scope, path: str, names: Iterable[str]) -> None:
    """All variables in one file, in the order of their sorted names."""
    values = [value_of(scope, name) for name in sorted(names)]
    with atomic_write(path) as fh:
        for value, lod in values:
            write_value(fh, value, lod)


def combined_bytes(scope: Scope, names: Iterable[str]) -> bytes:
    """The contents of the file :func:`save_combined` would write."""
    buffer = io.BytesIO()
    for name in sorted(names):
        write_value(buffer, *value_of(scope, name))
    return buffer.getvalue()


# ---- reading ---------------------------------------------------------------------------------------
def read_separate(dirname: str, variables: Sequence[Variable], device: torch.device = CPU) -> dict[str, Value]:
    """name -> value of one file per variable.

    Raises MissingFileError and FileFormatError (each with the path); nothing is assigned.
    """
    if not os.path.isdir(dirname):
        raise MissingFileError(f"parameter directory {dirname!r} does not exist")
    found = {}
    paths = [variable_path(dirname, var.name) for var in variables]  # all names are judged before a file is opened
    for var, path in zip(variables, paths):
        source = open_parameters(path)
        found[var.name] = read_value(source, var.type is VarType.SELECTED_ROWS, device)
        records.finish(source, "the tensor")
    return found


def read_combined(source: Source, variables: Sequence[Variable], device: torch.device = CPU) -> dict[str, Value]:
    """name -> value of a combined file that holds exactly these variables; raises FileFormatError."""
    found = {}
    origin = source.name
    for var in sorted(variables, key=_name):
        source.name = f"{origin} (variable {var.name!r})"
        found[var.name] = read_value(source, var.type is VarType.SELECTED_ROWS, device)
    source.name = origin
    records.finish(source, f"the last of {len(found)} variables")
    return found


def combined_file(path: str, variables: Sequence[Variable], device: torch.device = CPU) -> dict[str, Value]:
    """:func:`read_combined` of the file `path`."""
    return read_combined(open_parameters(path), variables, device)


def _name(var: Variable) -> str:
    return var.name
