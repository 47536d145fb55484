"""Which engine was fastest, remembered on disk: one JSON file a question, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from functools import cache
from typing import Any

import torch

from millstream import version
from millstream.config import settings
from millstream.files.atomic import write_bytes
from millstream.inference import engines
from millstream.inference.model import Model
from millstream.ir.proto import program_to_bytes
from millstream.ops.files import to_array

FORMAT = 1


@cache
def machine() -> str:
    """What of this machine timings depend on: its processor and how many there are."""
    from llvmlite.binding import get_host_cpu_name

    return f"{platform.system()} {platform.machine()} {get_host_cpu_name()} x{os.cpu_count()}"


def digest(model: Model) -> str:
    """A name for the Program and the values of its parameters."""
    total = hashlib.blake2b(program_to_bytes(model.program), digest_size=20)
    for var in sorted(model.persistables(), key=lambda v: v.name):
        value = model.parameter(var.name)
        if isinstance(value, torch.Tensor):
            total.update(f"{var.name}{list(value.shape)}{value.dtype}".encode())
            total.update(to_array(value.cpu()).tobytes())
    return total.hexdigest()


def question(model_digest: str, shapes: Any, threads: int, precision: str) -> dict[str, Any]:
    """What the fastest engine depends on."""
    versions = {"millstream": version.millstream, "torch": torch.__version__}
    versions.update({name: engines.version(name) for name in engines.available()})
    return {
        "format": FORMAT,
        "model": model_digest,
        "shapes": json.loads(json.dumps(shapes)),
        "threads": threads,
        "precision": precision,
        "versions": versions,
        "machine": machine(),
    }


def path_of(asked: dict[str, Any]) -> str:
    """The file with the answer."""
    name = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
    return os.path.join(settings().cache_dir, "engines", name + ".json")


def recall(asked: dict[str, Any]) -> dict[str, float] | None:
    """Milliseconds by candidate, the fastest first, or None. A file that can't be right is ignored with a warning."""
    path = path_of(asked)
    try:
        with open(path, "rb") as fh:
            data = fh.read(1 << 20)
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"the remembered choice of an engine can't be read and is made again: {error}", stacklevel=2)
        return None
    try:
        found = json.loads(data)
        if found["question"] != asked:
            raise ValueError("it answers another question")
        times = {str(k): float(v) for k, v in found["milliseconds"].items()}
        if not times or not all(0 < t < 1e9 for t in times.values()):
            raise ValueError("its times can't be right")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(f"the remembered choice of an engine in {path} is damaged and made again: {error}", stacklevel=2)
        return None
    return dict(sorted(times.items(), key=lambda item: item[1]))


def remember(asked: dict[str, Any], milliseconds: dict[str, float]) -> None:
    """Keep an answer; a directory that can't be written is no error, only a warning."""
    path = path_of(asked)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_bytes(path, json.dumps({"question": asked, "milliseconds": milliseconds}, indent=1).encode())
    except OSError as error:
        warnings.warn(f"the choice of an engine can't be remembered: {error}", stacklevel=2)
