"""Models written for other runtimes: ONNX, OpenVINO's IR, and Fluid directories with passes applied."""

from __future__ import annotations

import os
import shutil
import tempfile

from millstream.errors import NotSupportedError
from millstream.files.atomic import write_bytes
from millstream.inference import engines
from millstream.inference.engines import openvino_engine
from millstream.inference.model import Model
from millstream.ir.proto import program_to_bytes
from millstream.passes import pipelines
from millstream.runtime import stored

KINDS = ("onnx", "openvino", "fluid")
# PaddlePaddle's plain conv2d kernel leaves Bias and activation attributes aside: only its MKL-DNN one reads them
_FLUID = tuple(name for name in pipelines.FLUID if not name.startswith("fuse_conv"))


def export(model: Model, kind: str, path: str, opset: int = 17) -> list[str]:
    """Write `model` for another runtime; the files appear whole or not at all.

    Args:
        kind: "onnx" (`path` is a file), "openvino" (`path`.xml and .bin, float32), or "fluid" (`path` is a directory with
            ``__model__`` and ``__params__``, as PaddlePaddle reads it, passes applied).

    Returns:
        The files written.

    Raises:
        NotSupportedError: an operator can't be said there, or a package is missing. ValueError: there is no such kind.
    """
    from millstream import onnx  # at first use: its operators take 5 MiB and 0.1 s

    if kind not in KINDS:
        raise ValueError(f"export: the kind must be one of {', '.join(KINDS)}, received {kind!r}")
    if kind == "fluid":
        return _fluid(model, path)
    work = model.optimized(model.program, pipelines.EXPORT)
    model.keep(work.values)
    if kind == "onnx":
        onnx.export(work.program, model.feeds, model.fetches, model.parameter, path=path, opset=opset)
        return [path]
    engines.need("openvino")
    proto = onnx.export(work.program, model.feeds, model.fetches, model.parameter, opset=opset)
    return _openvino(proto.SerializeToString(), path)


def _fluid(model: Model, path: str) -> list[str]:
    work = model.optimized(model.program, _FLUID)
    model.keep(work.values)
    needed = {v.name for v in work.program.list_vars() if v.persistable}
    names = [n for n in model.scope.local_var_names() if n in needed]
    if os.path.isfile(path):
        raise NotSupportedError(f"export: {path!r} is a file; a Fluid model is a directory")
    files = [os.path.join(path, "__params__"), os.path.join(path, "__model__")]
    data = program_to_bytes(work.program)
    os.makedirs(path, exist_ok=True)
    stored.save_combined(model.scope, files[0], names)
    write_bytes(files[1], data)
    return files[::-1]


def _openvino(data: bytes, path: str) -> list[str]:
    import openvino

    stem = path.removesuffix(".xml")
    folder = os.path.dirname(os.path.abspath(stem))
    os.makedirs(folder, exist_ok=True)
    made = openvino_engine.core().read_model(data)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        inside = os.path.join(scratch, "model.xml")
        openvino.save_model(made, inside, compress_to_fp16=False)
        files = [stem + ".bin", stem + ".xml"]
        for end, target in zip((".bin", ".xml"), files):
            shutil.move(inside.removesuffix(".xml") + end, target)
    return files[::-1]
