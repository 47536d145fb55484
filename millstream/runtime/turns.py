"""Whether compiled code or the kernels are faster: measured in turns, remembered on disk.

Who waits for a processor that others use looks slow on the clock and not in processor time; who computes by several threads
is quicker on the clock than in processor time. So both are kept of each turn, and an answer in which they disagree on a busy
machine is good for this process alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from millstream import kernels, ops
from millstream.files import answers
from millstream.ir.operator import Operator

TURNS = 5  # timed calls of the compiled code and of the kernels each
PATIENCE = 3  # so many times the turns where clock and processor time disagree
_KIND, _WHAT = "segments", "kernels or compiled code"
# From the second turn on a difference this large decides, where calls are long enough to be timed well: a step of a large
# network takes seconds.
_FEW, _CLEAR, _LONG = 2, 1.2, 0.02
_EVEN = 1.03  # less apart than this is as fast
_ALONE = 0.9  # of its time on the clock a call has at least computed, when nobody took its processor away

Time = tuple[float, float]  # seconds on the clock; seconds of processor time of all threads


@dataclass(frozen=True)
class Verdict:
    """Seconds of compiled code and of the kernels; `sure`: also good for later processes."""

    compiled: float
    kernels: float
    sure: bool = True


def verdict(mine: Sequence[Time], kernels: Sequence[Time]) -> Verdict | None:
    """What the times of compiled code and kernels say; None: too little yet."""
    count = min(len(mine), len(kernels))
    if count < _FEW:
        return None
    clock, processor = ((min(t[k] for t in mine), min(t[k] for t in kernels)) for k in (0, 1))
    apart = [max(pair) / max(min(pair), 1e-9) for pair in (clock, processor)]
    if count < TURNS and (min(clock) < _LONG or min(apart) < _CLEAR):
        return None
    if (clock[0] <= clock[1]) == (processor[0] <= processor[1]) or max(apart) < _EVEN:
        return Verdict(*clock)
    if count < TURNS:
        return None
    if all(min(times)[1] >= _ALONE * min(times)[0] for times in (mine, kernels)):
        return Verdict(*clock)  # one of the two uses more threads
    return Verdict(*processor, sure=False) if count >= PATIENCE * TURNS else None


@dataclass
class Trial:
    """Calls of compiled code and of the kernels in turn."""

    mine: list[Time] = field(default_factory=list)
    kernels: list[Time] = field(default_factory=list)

    @property
    def by_kernels(self) -> bool:
        """Whose turn it is."""
        return len(self.kernels) < len(self.mine)

    def time(self, call: Callable[..., Any], *args: Any) -> Any:
        """The result of ``call(*args)``, which is the one whose turn it is."""
        mine = self.kernels if self.by_kernels else self.mine
        clock, processor = time.perf_counter(), time.process_time()
        found = call(*args)
        mine.append((time.perf_counter() - clock, time.process_time() - processor))
        return found

    def verdict(self) -> Verdict | None:
        """After as many turns of each: what they say."""
        return verdict(self.mine, self.kernels) if len(self.mine) == len(self.kernels) else None


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
    blocks = op.sub_blocks()
    holds = {k for k, v in op.all_attrs().items() if any(v is b or (isinstance(v, list) and b in v) for b in blocks)}
    attrs = sorted((k, repr(v)) for k, v in op.all_attrs().items() if not k.startswith("op_") and k not in holds)
    inside = [_told(inner) for block in blocks for inner in block.ops]
    return op.type, sorted(op.inputs.items()), sorted(op.outputs.items()), attrs, inside


def question(segment: Iterable[Operator], form: Any) -> dict[str, Any]:
    """What the answer depends on: the operators, the form of their operands, the machine and the code."""
    told = repr(([_told(op) for op in segment], form))
    return {
        "format": 2,
        "segment": hashlib.blake2b(told.encode(), digest_size=20).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, _installation()],
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} x{os.cpu_count()}",
    }


def recall(asked: dict[str, Any]) -> Verdict | None:
    """What was found before, or None where nobody measured it."""
    found = answers.recall(_KIND, asked, _WHAT)
    if found is None or found.keys() != {"compiled", "kernels"}:
        return None
    return Verdict(found["compiled"] / 1e3, found["kernels"] / 1e3)


def remember(asked: dict[str, Any], found: Verdict) -> None:
    """Keep what was found, if it is sure."""
    if found.sure:
        answers.remember(_KIND, asked, {"compiled": found.compiled * 1e3, "kernels": found.kernels * 1e3}, _WHAT)
