"""Modules of torch and programs of torch.export as Programs, by way of torch's own ONNX exporter."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from millstream.errors import NotSupportedError
from millstream.onnx._require import onnx_package
from millstream.onnx.reader.model import OnnxModel, load

_CAUSE = 600  # letters of torch's message that are shown


class _Fixed(torch.nn.Module):
    """An exported program, which refuses to be switched between training and evaluation, as a module that keeps still."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.inner = program.module()
        self.training = False

    def train(self, mode: bool = True) -> _Fixed:
        return self

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)


def from_torch(
    model: Any,
    args: Any,
    *,
    names: Sequence[str] | None = None,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    opset: int = 17,
) -> OnnxModel:
    """A torch module, or what ``torch.export.export`` gives, as a Program that can be run, fine-tuned and saved.

    torch.onnx traces the model once over `args` in evaluation mode, so that branches of Python are those taken for them;
    what it writes is read as :func:`millstream.onnx.load` does. Parameters become trainable Parameters.

    Args:
        model: torch.nn.Module, or torch.export.ExportedProgram.
        args: the inputs, a tensor or a tuple of tensors, by which it is traced.
        names: of the inputs; None: x, or x0, x1, …
        dynamic: input name -> dims that may change from call to call. Not of exported programs: sizes that their graphs
            compute are plain numbers to the tracer.
        opset: of the ONNX operators between the two, 17 to 20.

    Raises:
        NotSupportedError: torch can't write the model as ONNX (its message says what), or an operator has no Fluid form.
    """
    onnx_package()
    args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    if names is None:
        names = ["x"] if len(args) == 1 else [f"x{i}" for i in range(len(args))]
    unknown = set(dynamic or ()) - set(names)
    if unknown or len(names) != len(args):
        what = f"dynamic names {sorted(unknown)}" if unknown else f"{len(names)} names for {len(args)} inputs"
        raise ValueError(f"from_torch: {what}; the inputs are {list(names)}")
    if isinstance(model, torch.export.ExportedProgram):
        if dynamic:
            raise NotSupportedError(
                "from_torch: an exported program is traced with the sizes of `args`, which it then has for good; "
                "for dims that change give the torch module itself"
            )
        module: torch.nn.Module = _Fixed(model)
    elif isinstance(model, torch.nn.Module):
        module = model
    else:
        raise TypeError(f"from_torch: expected a torch module or an exported program, received {type(model).__name__}")
    axes = {name: {int(d): f"{name}_{d}" for d in dims} for name, dims in (dynamic or {}).items()}
    written, fast = io.BytesIO(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator has no ONNX form
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            form: dict[str, Any] = {"opset_version": opset, "input_names": list(names), "dynamic_axes": axes}
            torch.onnx.export(module, args, written, dynamo=False, **form)  # type: ignore[arg-type]  # it takes files too
    except Exception as error:  # whatever torch's tracer meets in the user's own code
        cause = f"{type(error).__name__}: {str(error)[:_CAUSE]}"
        raise NotSupportedError(f"from_torch: torch could not write {type(model).__name__} as ONNX: {cause}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return load(written.getvalue())
