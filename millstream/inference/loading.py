"""Models from files and buffers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from millstream.errors import EnforceNotMet, FileFormatError, MissingFileError
from millstream.files.source import Source
from millstream.inference.config import check_gpu
from millstream.inference.model import Model
from millstream.ir.proto import program_from_bytes
from millstream.ir.types import VarType
from millstream.ops.files import open_parameters
from millstream.passes import pipelines
from millstream.runtime import stored

# (Program, parameters) by the names that Fluid's users give them; None: one file per parameter
PAIRS = (
    ("__model__", "__params__"), ("__model__", "params"), ("__model__", "weights"), ("model", "params"),
    ("__model__", None), ("model", None),
)  # fmt: skip


def load_model(
    folder: str,
    prog: str | bytes,
    params: str | bytes,
    device: torch.device,
    profile: bool = False,
    optimize: bool = True,
    pass_names: Sequence[str] = pipelines.INFER,
) -> Model:
    """The Model in `folder` (``__model__`` and a file per parameter), or of a Program and combined parameters.

    Raises MissingFileError, FileFormatError: files missing or damaged; UnknownOperatorError: an operator is unknown.
    """
    if not folder and not (prog and params):
        raise EnforceNotMet("the config names no model: either model_dir or (prog_file, params_file) should be set")
    if isinstance(prog, bytes):
        data, source = prog, "<program buffer>"
    else:
        source = os.path.join(folder, "__model__") if folder else prog
        data = read_program(source)
    model = Model(program_from_bytes(data, source), source, device, profile, optimize, pass_names)
    variables = model.persistables()
    if folder:
        values = stored.read_separate(folder, variables, device)
    elif isinstance(params, bytes):
        values = stored.read_combined(Source(params, "<parameter buffer>"), variables, device)
    else:
        values = stored.combined_file(params, variables, device)
    stored.assign(model.scope, values)
    return model


def read_program(path: str) -> bytes:
    """The bytes of a Program file."""
    if not os.path.isfile(path):
        raise MissingFileError(
            f"Cannot open file {path}: there is no such program file. A directory with another name for it "
            "is given as AnalysisConfig(prog_file, params_file)"
        )
    with open(path, "rb") as fh:
        return fh.read()


def from_path(
    path: str, model_filename: str | None, params_filename: str | None, device: torch.device, profile: bool,
    optimize: bool, pass_names: Sequence[str] = pipelines.INFER,
) -> Model:  # fmt: skip
    """The Model in a directory that save_inference_model wrote, whichever names its files have."""
    if not os.path.exists(path):
        raise MissingFileError(f"millstream.load: there is no {path!r}{_state_hint(path)}")
    if path.endswith((".pdparams", ".pdopt")):
        raise FileFormatError(f"millstream.load: {path!r} holds parameters and no Program{_STATE}")
    if os.path.isfile(path):
        folder, model_filename = os.path.split(path)
    else:
        folder = path
    prog, params = _names(folder, model_filename, params_filename)
    source = os.path.join(folder, prog)
    model = Model(program_from_bytes(read_program(source), source), source, device, profile, optimize, pass_names)
    variables = model.persistables()
    if params is None:
        _check_separate(folder, prog, [v.name for v in variables])
        values = stored.read_separate(folder, variables, device)
    else:
        values = stored.read_combined(open_parameters(os.path.join(folder, params)), variables, device)
    stored.assign(model.scope, values)
    return model


def _check_separate(folder: str, prog: str, names: list[str]) -> None:
    """Raise a MissingFileError that says what to do where no parameter has a file of its own."""
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing and len(missing) == len(names):
        others = {n for n in os.listdir(folder or ".") if n != prog}
        raise MissingFileError(
            f"millstream.load: {folder!r} has no file for any of the {len(names)} parameters of {prog} "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}), it holds {_some(others)}. If they are in one "
            f"file, name it: params_filename=…"
        )


def from_onnx(
    path: str, device: torch.device, profile: bool, optimize: bool, pass_names: Sequence[str] = pipelines.INFER
) -> Model:
    """The Model in an ONNX file; errors as millstream.onnx.load."""
    from millstream import onnx  # at first use: its operators take 5 MiB and 0.1 s

    found = onnx.load(path)
    program = found.program
    block = program.global_block()
    feed = block.create_var(name="feed", type=VarType.FEED_MINIBATCH, persistable=True)
    for col, name in enumerate(found.feed_names):
        block._prepend_op(type="feed", inputs={"X": [feed]}, outputs={"Out": [block.var(name)]}, attrs={"col": col})
    fetch = block.create_var(name="fetch", type=VarType.FETCH_LIST, persistable=True)
    for col, name in enumerate(found.fetch_names):
        block.append_op(type="fetch", inputs={"X": [name]}, outputs={"Out": [fetch]}, attrs={"col": col})
    model = Model(program, path, device, profile, optimize, pass_names)
    stored.assign_array(model.scope, found.values, device)
    return model


def _names(folder: str, prog: str | None, params: str | None) -> tuple[str, str | None]:
    """Names of the Program file and the file of combined parameters (None: one file per parameter)."""
    inside = set(os.listdir(folder or "."))
    for name in (prog, params):
        if name is not None and name not in inside:
            raise MissingFileError(f"millstream.load: {folder!r} has no file {name!r}; it holds {_some(inside)}")
    if prog is not None and params is not None:
        return prog, params
    if prog is not None:
        stem = prog.removesuffix(".pdmodel")
        if prog != stem and stem + ".pdiparams" not in inside and stem + ".pdparams" in inside:
            raise FileFormatError(f"millstream.load: {os.path.join(folder, prog)!r} is no model to serve{_STATE}")
        paired = [p for p in (stem + ".pdiparams",) if prog != stem and p in inside]
        paired += [p for m, p in PAIRS if m == prog and p in inside]
        return prog, paired[0] if paired else None
    stems = sorted(n.removesuffix(".pdmodel") for n in inside if n.endswith(".pdmodel"))
    found: list[tuple[str, str | None]] = [(s + ".pdmodel", s + ".pdiparams") for s in stems if s + ".pdiparams" in inside]
    if not found:
        found = [(m, params or p) for m, p in PAIRS if m in inside and (p is None or p in inside)]
    if not found and any(n.endswith((".pdparams", ".pdmodel")) for n in inside):
        raise MissingFileError(f"millstream.load: {folder!r} holds {_some(inside)}, no model to serve{_STATE}")
    if not found:
        raise MissingFileError(
            f"millstream.load: {folder!r} holds no model that is known by its name ({_some(inside)}); a directory of "
            "save_inference_model has __model__. Name the files: load(dir, model_filename=…, params_filename=…)"
        )
    if len(stems) > 1 and found[0][0].endswith(".pdmodel"):
        names = ", ".join(stems)
        raise FileFormatError(f"millstream.load: {folder!r} holds several models ({names}); say which: model_filename=…")
    return found[0]


_STATE = (
    ": files of fluid.save, fluid.save_dygraph (.pdparams, .pdopt, .pdmodel) are for training further. Load them "
    "(fluid.load, fluid.load_dygraph) where the network is built, then write fluid.io.save_inference_model, or "
    "dygraph.TracedLayer.save_inference_model"
)


def _state_hint(path: str) -> str:
    """What to say of a prefix of the files that fluid.save wrote."""
    return _STATE if any(os.path.isfile(path + end) for end in (".pdparams", ".pdmodel")) else ""


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return (", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")) or "nothing"


def device_of(use_gpu: bool, gpu: int) -> torch.device:
    """The torch device; NotSupportedError when there is none."""
    if use_gpu:
        check_gpu(gpu)
    return torch.device("cuda", gpu) if use_gpu else torch.device("cpu")
