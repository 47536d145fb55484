"""``fluid.dygraph.checkpoint``: states in ``.pdparams`` and ``.pdopt`` files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError, MissingFileError
from millstream.files.states import STRUCTURED_NAMES, read_state, write_state
from millstream.runtime.eager import ParamBase, VarBase

__all__ = ["load_dygraph", "save_dygraph"]


def save_dygraph(state_dict: dict[str, Any], model_path: str) -> None:
    """Write a Layer's state_dict() to ``<model_path>.pdparams``, or an optimizer's to ``<model_path>.pdopt``.

    A state with parameters goes to .pdparams. Raises InvalidProgramError: the state is empty, or `model_path` names
    no file.
    """
    if not os.path.basename(model_path):
        raise InvalidProgramError(f"save_dygraph: 'model_path' must be directory/filename, received {model_path!r}")
    if not state_dict:
        raise InvalidProgramError("save_dygraph: the state is empty, there is nothing to save")
    suffix = ".pdopt"
    state: dict[str, Any] = {}
    table: dict[str, str] = {}
    for key, value in state_dict.items():
        if isinstance(value, ParamBase):
            suffix = ".pdparams"
        if isinstance(value, VarBase):
            state[key] = value.numpy()
            table[key] = value.name
        else:
            state[key] = _plain(value)
    state[STRUCTURED_NAMES] = table
    folder = os.path.dirname(model_path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    write_state(model_path + suffix, state)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, VarBase):
        return value.numpy()
    return value


def load_dygraph(model_path: str, keep_name_table: bool = False) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(parameters, optimizer state or None) of ``<model_path>.pdparams`` and ``.pdopt``, as numpy arrays by name.

    Args:
        model_path: with or without one of the two suffixes.
        keep_name_table: keep the entry that says which parameter each structured name stands for.

    Raises MissingFileError: there is no .pdparams file.
    """
    for suffix in (".pdparams", ".pdopt"):
        if model_path.endswith(suffix):
            model_path = model_path[: -len(suffix)]
            break
    path = model_path + ".pdparams"
    if not os.path.exists(path):
        raise MissingFileError(f"load_dygraph: parameter file {path} does not exist")
    params = read_state(path)
    if not keep_name_table:
        params.pop(STRUCTURED_NAMES, None)
    found = {k: np.asarray(v) if not isinstance(v, dict) else v for k, v in params.items()}
    path = model_path + ".pdopt"
    return found, read_state(path) if os.path.exists(path) else None
