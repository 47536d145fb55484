"""Which engine was fastest, remembered on disk (files/answers.py): what the answer depends on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from typing import Any

import torch

from millstream import version
from millstream.files import answers
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


def recall(asked: dict[str, Any]) -> dict[str, float] | None:
    """Milliseconds by candidate, the fastest first, or None."""
    return answers.recall("engines", asked, "an engine")


def remember(asked: dict[str, Any], milliseconds: dict[str, float]) -> None:
    """Keep an answer."""
    answers.remember("engines", asked, milliseconds, "an engine")
