"""save, load, save_combine, load_combine: tensors to and from files in Fluid's own form (see millstream.files.records)."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

import numpy as np
import torch

from millstream.errors import EnforceNotMet, FileFormatError, MissingFileError, UninitializedError
from millstream.files import records
from millstream.files.atomic import atomic_write
from millstream.files.source import Source
from millstream.ops._opdef import Long, Longs, op
from millstream.ops._values import Ragged, SelectedRows


def to_array(t: torch.Tensor) -> np.ndarray:
    """The elements of a tensor as a record holds them (no copy on CPU): bfloat16 as its bits in uint16."""
    t = t.detach()
    if t.dtype is torch.bfloat16:
        return t.contiguous().view(torch.int16).cpu().numpy().view(np.uint16)
    return t.cpu().numpy()


def to_tensor(array: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """A torch tensor with the elements of a record, in memory that torch allocates.

    numpy aligns to 16 bytes, torch to 64: vector loads that cross cache lines made kernels a fifth to a half slower.
    """
    if array.dtype == np.uint16:
        t = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        t = torch.from_numpy(array)
    return t.clone() if device is None or device.type == "cpu" else t.to(device)


def write_value(fh: BinaryIO, value: Any, lod: Any = (), as_fp16: bool = False) -> None:
    """Write a kernel value (tensor with LoD, or SelectedRows) as one record."""
    if isinstance(value, SelectedRows):
        records.write_selected_rows(fh, to_array(value.rows), value.height, _half(value.values, as_fp16))
    else:
        records.write_lod_tensor(fh, _half(value, as_fp16), lod)


def read_value(source: Source, rows: bool | None, device: torch.device, as_fp16: bool = False) -> tuple[Any, Any]:
    """(kernel value, LoD) of the next record; `rows` says whether it is SelectedRows, None: whichever it can be."""
    start = source.pos
    if not rows:
        try:
            array, lod = records.read_lod_tensor(source)
        except FileFormatError as error:
            if rows is False:
                raise
            source.seek(start)
            try:
                return read_value(source, True, device, as_fp16)
            except FileFormatError:
                raise error from None
        return to_tensor(array.astype(np.float16) if as_fp16 else array, device), lod
    found = records.read_selected_rows(source)
    value = found.value.astype(np.float16) if as_fp16 else found.value
    return SelectedRows(to_tensor(found.rows, device), to_tensor(value, device), found.height), ()


def open_parameters(path: str) -> Source:
    """A Source over all bytes of a parameter file; MissingFileError when there is none."""
    if not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "does not exist"
        raise MissingFileError(
            f"parameter file {path!r} {what}. Saved with another filename=, or not all files were copied?"
        )
    with open(path, "rb") as fh:
        return Source(fh.read(), path)


def _half(t: torch.Tensor, as_fp16: bool) -> np.ndarray:
    return to_array(t.half() if as_fp16 and t.is_floating_point() else t)


def _check_overwrite(path: str, overwrite: bool) -> None:
    if not overwrite and os.path.exists(path):
        raise EnforceNotMet(f"save: {path!r} exists and overwrite is false")


def _initialized(x: Ragged, what: str) -> Ragged:
    if x.values is None:
        raise UninitializedError(f"{what}: an input variable holds nothing yet")
    return x


@op("save", slots="X# -> kLookupTablePath?", infer=False, grad=False, side_effect=True)
def save(x, *, file_path: str, overwrite: bool = True, save_as_fp16: bool = False):
    """Write X (tensor with LoD, or SelectedRows) to `file_path`, atomically; missing directories are made."""
    _check_overwrite(file_path, overwrite)
    _initialized(x, "save")
    with atomic_write(file_path) as fh:
        write_value(fh, x.values, x.lod, save_as_fp16)


@op("save_combine", slots="X*# -> Y?", infer=False, grad=False, side_effect=True)
def save_combine(
    x, *, file_path: str, overwrite: bool = True, save_as_fp16: bool = False, save_to_memory: bool = False
):
    """Write all X one after the other, in the order given, to `file_path`; `save_to_memory`: into Y (bytes) instead."""
    values = [_initialized(v, "save_combine") for v in x]
    if save_to_memory:
        buffer = io.BytesIO()
        for v in values:
            write_value(buffer, v.values, v.lod, save_as_fp16)
        return buffer.getvalue()
    _check_overwrite(file_path, overwrite)
    with atomic_write(file_path) as fh:
        for v in values:
            write_value(fh, v.values, v.lod, save_as_fp16)
    return None


@op("load", slots="-> Out#", infer=False, grad=False, side_effect=True)
def load(*, file_path: str, load_as_fp16: bool = False, seek: Long = -1, shape: Longs = [], device):
    """Out = the tensor (or SelectedRows) in the file; dtype, shape and LoD are the file's.

    With `seek` >= 0: the `shape` elements that start at element `seek`, counted in elements.
    """
    source = open_parameters(file_path)
    value, lod = read_value(source, None, device, load_as_fp16)
    records.finish(source, "the tensor")
    if seek >= 0:
        count = int(np.prod(shape))
        flat = value.reshape(-1)
        if not shape or seek + count > flat.numel():
            raise FileFormatError(
                f"load: {file_path!r} holds {flat.numel()} elements; elements {seek} to {seek + count} "
                f"(shape {list(shape)}) are not in it"
            )
        return Ragged(flat[seek : seek + count].reshape(list(shape)), ())
    return Ragged(value, lod)


@op("load_combine", slots="-> Out*#", infer=False, grad=False, side_effect=True)
def load_combine(
    *, file_path: str, load_as_fp16: bool = False, model_from_memory: bool = False, device, counts
):
    """Out = the records of a combined file, in order; `model_from_memory`: `file_path` is the contents themselves."""
    if model_from_memory:
        source = Source(file_path.encode(errors="surrogateescape"), "<memory>")
    else:
        source = open_parameters(file_path)
    found = [Ragged(*read_value(source, None, device, load_as_fp16)) for _ in range(counts[0])]
    records.finish(source, f"the last of {len(found)} variables")
    return found
