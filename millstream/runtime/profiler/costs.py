"""What one call of an operator computes and moves, and what this machine can do at most."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple

import torch

from millstream.config import settings
from millstream.files.atomic import write_bytes
from millstream.ir.operator import Operator
from millstream.kernels.gemm import product, steady_product
from millstream.kernels.threads import numba_is_loaded
from millstream.ops._opdef import REGISTRY, OpDef
from millstream.ops._values import SelectedRows
from millstream.runtime.liveness import definition_of

_SUFFIX = "@GRAD"


class Cost(NamedTuple):
    """Floating-point operations, and bytes of inputs and outputs."""

    flops: int
    bytes: int


class Peaks(NamedTuple):
    """Most that was measured here: operations a second of a float32 matrix product, bytes a second of a copy."""

    flops: float
    bytes: float


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors that a value holds: itself, the rows of SelectedRows, the items of an array, the values of sequences."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, SelectedRows):
        yield value.values
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def _shape(value: Any) -> tuple[int, ...]:
    first = next(tensors(value), None)
    return tuple(first.shape) if first is not None else ()


def _size(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors(value))


def cost_of(op: Operator, names: Sequence[str], ins: Sequence[Any], outs_named: Iterable[tuple[str, Any]]) -> Cost:
    """The cost of one call: `ins` are the values of the variables `names`.

    The operations are the declaration's ``flops=`` (ops/_flops.py), for a gradient those of the forward for each of at
    most two operands; else one for each output element.
    """
    values = dict(zip(names, ins))
    outs = dict(outs_named)
    written = sum(_size(outs.get(name)) for name in op.output_arg_names)
    definition = definition_of(op)
    forward = REGISTRY.forward_type(op.type)
    declared = REGISTRY.find(forward) if forward is not None else None
    if _only_looks(declared or definition, ins, outs.values()):
        return Cost(0, 0)
    picked = (declared or definition).extra.get("picks")
    read = sum(_size(values.get(n)) for slot, used in op.inputs.items() if slot != picked for n in used)
    moved = read + written * (2 if picked and declared is None else 1)  # of what is picked from, as much as is written
    simple = sum(prod(_shape(outs[n])) for n in op.output_arg_names if n in outs)
    rule = (declared or definition).extra.get("flops")
    if rule is None:
        return Cost(simple, moved)
    shapes = {slot: [_shape(values.get(n)) for n in names] for slot, names in op.inputs.items()}
    results = {slot: [_shape(outs.get(n)) for n in names] for slot, names in op.outputs.items()}
    times = 1
    if declared is not None:
        times = min(2, sum(any(n in outs for n in names) for names in op.outputs.values()))
        results = {slot.removesuffix(_SUFFIX): s for slot, s in shapes.items() if slot.endswith(_SUFFIX)}
    try:
        return Cost(times * rule(shapes, results, op.all_attrs()), moved)
    except (KeyError, IndexError):  # an operand was not at hand: in a recomputed gradient, say
        return Cost(simple, moved)


def _only_looks(definition: OpDef, ins: Iterable[Any], outs: Iterable[Any]) -> bool:
    """Whether all that an operator gives is memory of its inputs: a reshape computes and moves nothing."""
    if not definition.extra.get("shares"):
        return False
    given = {t.untyped_storage().data_ptr() for value in ins for t in tensors(value)}
    made = [t for value in outs for t in tensors(value) if t.numel()]
    return bool(made) and all(t.untyped_storage().data_ptr() in given for t in made)


def measured_peaks() -> Peaks:
    """The machine's peaks with torch's threads as they stand, measured once and kept in the cache directory."""
    path = os.path.join(settings().cache_dir, "peaks.json")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    kernels = "tiles" if numba_is_loaded() else "libraries"
    key = f"{platform.node()} {platform.machine()} {platform.processor()} {cores}, torch {torch.__version__}, {kernels}"
    known: dict[str, list[float]] = {}
    try:
        with open(path, encoding="utf-8") as kept:
            known = json.load(kept)
        return Peaks(*map(float, known[key]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    peaks = measure_peaks()
    known = known if isinstance(known, dict) else {}
    known[key] = list(peaks)
    with suppress(OSError):  # then it is measured again next time
        write_bytes(path, json.dumps(known).encode())
    return peaks


def measure_peaks(side: int = 512, megabytes: int = 32) -> Peaks:
    """Best of many short products and copies, so that other work on the machine matters little.

    Products are those of operators, which are faster than torch.mm on some processors, and of several forms.
    """
    flops = 0.0
    for m, k, n in ((side, side, side), (side // 2, side, 2 * side), (side // 2, 2 * side, side // 2)):
        a, b = torch.rand(m, k), torch.rand(k, n)
        with torch.no_grad():
            shortest = min(_best(lambda by=by, a=a, b=b: by(a, b), 20) for by in (torch.mm, steady_product, product))
        flops = max(flops, 2.0 * m * k * n / shortest)
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), 40)
    return Peaks(flops, 2.0 * source.numel() * 4 / copy)


def _best(call: Any, times: int) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)
