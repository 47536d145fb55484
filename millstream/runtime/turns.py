"""Whether a segment's compiled code or its kernels are faster: measured in turns (segment.py), remembered on disk."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch

from millstream import kernels, ops
from millstream.files import answers
from millstream.ir.operator import Operator

TURNS = 5  # timed calls of the compiled code and of the kernels each
_KIND, _WHAT = "segments", "kernels or compiled code"
# From the second turn on a difference this large decides, where calls are long enough to be timed well: a step of a large
# network takes seconds.
_FEW, _CLEAR, _LONG = 2, 1.2, 0.02


def decided(mine: Sequence[float], kernels: Sequence[float]) -> bool:
    """Whether the seconds of compiled code and kernels say which is faster."""
    count = min(len(mine), len(kernels))
    if count < _FEW:
        return False
    low, high = sorted((min(mine), min(kernels)))
    return count >= TURNS or (low >= _LONG and high >= _CLEAR * low)


@cache
def _installation() -> str:
    """Of what stands in the files that kernels are made of: other ones have other times."""
    found = hashlib.blake2b(digest_size=16)
    for package in (kernels, ops):
        for folder, _, names in sorted(os.walk(os.path.dirname(package.__file__ or ""))):
            for name in sorted(n for n in names if n.endswith(".py")):
                about = os.stat(os.path.join(folder, name))
                found.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _told(op: Operator) -> tuple[Any, ...]:
    """What an operator computes; who wrote it does not matter."""
    attrs = sorted((k, repr(v)) for k, v in op.all_attrs().items() if not k.startswith("op_"))
    return op.type, sorted(op.inputs.items()), sorted(op.outputs.items()), attrs


def question(segment: Iterable[Operator], form: Any) -> dict[str, Any]:
    """What the answer depends on: the operators, the form of their operands, the machine and the code."""
    told = repr(([_told(op) for op in segment], form))
    return {
        "format": 1,
        "segment": hashlib.blake2b(told.encode(), digest_size=20).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, _installation()],
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} x{os.cpu_count()}",
    }


def recall(asked: dict[str, Any]) -> tuple[float, float] | None:
    """Seconds of (compiled code, kernels), or None where nobody measured them."""
    found = answers.recall(_KIND, asked, _WHAT)
    if found is None or found.keys() != {"compiled", "kernels"}:
        return None
    return found["compiled"] / 1e3, found["kernels"] / 1e3


def remember(asked: dict[str, Any], mine: float, kernels: float) -> None:
    """Keep seconds of compiled code and kernels."""
    answers.remember(_KIND, asked, {"compiled": mine * 1e3, "kernels": kernels * 1e3}, _WHAT)
