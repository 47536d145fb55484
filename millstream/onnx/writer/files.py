"""Models on disk: written atomically, with the large tensors in a file beside it when they are too large for one."""

from __future__ import annotations

import os
from typing import Any

from millstream.errors import MissingFileError
from millstream.files.atomic import atomic_write, write_bytes
from millstream.ir import walk
from millstream.ir.proto import program_from_bytes
from millstream.ir.types import VarType
from millstream.onnx._require import onnx_package
from millstream.onnx.writer.model import write
from millstream.ops.files import open_parameters
from millstream.runtime import stored

LARGEST_FILE = 2**31 - 2**20  # protobuf reads no message beyond 2 GB
_ALIGN = 4096
_NO_DATA = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER, VarType.RAW})


def write_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a ModelProto to `path`; tensors of 1 KB and more go to ``<path>.data`` when it is beyond 2 GB."""
    total = sum(len(t.raw_data) for t in model.graph.initializer)
    if total < LARGEST_FILE:
        write_bytes(path, model.SerializeToString(deterministic=True))
        return
    onnx = onnx_package()
    name = os.path.basename(os.path.realpath(path)) + ".data"
    small = type(model)()
    small.CopyFrom(_without_data(model))
    with atomic_write(os.path.join(os.path.dirname(os.path.realpath(path)), name)) as data:
        for tensor in model.graph.initializer:
            twin = small.graph.initializer.add()
            if len(tensor.raw_data) < 1024:
                twin.CopyFrom(tensor)
                continue
            data.write(b"\0" * (-data.tell() % _ALIGN))
            twin.name, twin.data_type = tensor.name, tensor.data_type
            twin.dims.extend(tensor.dims)
            twin.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", name), ("offset", data.tell()), ("length", len(tensor.raw_data))):
                twin.external_data.add(key=key, value=str(value))
            data.write(tensor.raw_data)
    write_bytes(path, small.SerializeToString(deterministic=True))


def _without_data(model: Any) -> Any:
    """A copy of a model without its initializers, made without ever copying these."""
    small = type(model)()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if hasattr(value, "extend") or isinstance(value, list) or (field.message_type is not None and hasattr(value, "add")):
            getattr(small, field.name).extend(value)
        elif field.message_type is not None:
            getattr(small, field.name).CopyFrom(value)
        else:
            setattr(small, field.name, value)
    small.graph.name = model.graph.name
    small.graph.node.extend(model.graph.node)
    small.graph.input.extend(model.graph.input)
    small.graph.output.extend(model.graph.output)
    return small


def export_model(
    model_dir: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    model_filename: str | None = None,
    params_filename: str | None = None,
    opset: int = 17,
) -> Any:
    """Write a model saved by ``save_inference_model`` (a file a parameter, or one for all) as the ONNX file `path`.

    Returns the ModelProto. Raises MissingFileError and FileFormatError for what is missing or damaged,
    NotSupportedError for operators that ONNX can't express; `path` is then as it was.
    """
    folder = os.fspath(model_dir)
    source = os.path.join(folder, model_filename or "__model__")
    if not os.path.isfile(source):
        raise MissingFileError(f"program file {source!r} does not exist; it was perhaps saved with another model_filename")
    with open(source, "rb") as fh:
        program = program_from_bytes(fh.read(), source)
    feeds, fetches = walk.ends(program, source)
    persistable = list({v.name: v for v in program.list_vars() if v.persistable and v.type not in _NO_DATA}.values())
    if params_filename:
        opened = open_parameters(os.path.join(folder, params_filename))
        found = stored.read_combined(opened, persistable)
    else:
        found = stored.read_separate(folder, persistable)
    model = write(program, feeds, fetches, {name: value for name, (value, _) in found.items()}, opset)
    write_model(model, path)
    return model
