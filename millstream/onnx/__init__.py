"""ONNX: Programs written as ONNX models, and ONNX models read as Programs. Needs the extra ``millstream[onnx]``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from millstream.ir.program import Program
from millstream.onnx.reader.model import OnnxModel, load
from millstream.onnx.torch_models import from_torch
from millstream.onnx.writer.files import export_model, write_model
from millstream.onnx.writer.model import write
from millstream.onnx.writer.refusals import refusals

__all__ = ["OnnxModel", "export", "export_model", "from_torch", "load", "refusals"]


def export(
    program: Program,
    feeds: Sequence[str],
    fetches: Sequence[str],
    values: Callable[[str], Any] | Mapping[str, Any],
    *,
    path: str | os.PathLike[str] | None = None,
    opset: int = 17,
) -> Any:
    """Write what `fetches` need of an inference Program as an ONNX model.

    A feed becomes a graph input of its name; unknown dims are symbolic. A variable with LoD becomes several: its values,
    and ``<name>.lod0``, ``<name>.lod1``, … with the offsets (int64) of each level; fetches alike.

    Args:
        program: in test form (``clone(for_test=True)``).
        values: where the parameters are: a function of the name, a mapping, or a Scope; arrays or tensors.
        path: also write the model there, atomically (beside it ``<path>.data`` when it is beyond 2 GB).
        opset: of the ONNX operators, 17 to 22.

    Returns:
        onnx.ModelProto.

    Raises:
        NotSupportedError: an operator that ONNX can't express (operator, variables, the user's line, the reason), or
            the package onnx is missing. InvalidProgramError: a name is not in the Program. UninitializedError: a
            parameter has no value.
    """
    model = write(program, feeds, fetches, values, opset)
    if path is not None:
        write_model(model, path)
    return model
