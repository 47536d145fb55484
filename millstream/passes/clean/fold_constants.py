"""Operators over parameters and constants alone -> their results, as parameters."""

from __future__ import annotations

import torch

from millstream.errors import MillstreamError
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._evaluate import evaluate, is_pure, renamed
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_LARGEST = 1 << 20  # elements; a larger result would cost more to load than to compute


@program_pass("fold_constants")
def fold_constants(work: Work) -> int:
    """Counts operators removed. What is computed inside a loop moves out of it."""
    if work.parameters is None:
        return 0
    return sum(_sweep(work, block) for block in work.blocks)


def _sweep(work: Work, block: Block) -> int:
    uses = work.uses(block)
    other: dict[str, str] = {}
    results: dict[str, torch.Tensor] = {}
    wanted: set[str] = set()
    kept: list[Operator] = []
    removed = 0

    def known(name: str) -> torch.Tensor | None:
        return results[name] if name in results else work.value(name)

    for op in block.ops:
        values = _folded(op, uses, known)
        if isinstance(values, dict):
            results.update(values)
            removed += 1
            continue
        if values:
            work.refuse("fold_constants", op, values)
        kept.append(op)
        wanted.update(n for n in op.input_arg_names if n in results)
    if removed:
        other.update((name, work.store(name, results[name])) for name in wanted)
        block.ops = [renamed(op, other) if any(n in other for n in op.input_arg_names) else op for op in kept]
        work.program._touch()
    return removed


def _folded(op: Operator, uses: Uses, known: object) -> dict[str, torch.Tensor] | str:
    """The outputs' values by name; else why not, "" where the operator simply has an input that is not constant."""
    if not is_pure(op) or not op.output_arg_names or op.type in ("feed", "fetch", "dequantize_linear"):
        return ""  # engines compute with weights in integers; fold_dequantize is for kernels of our own
    if any(known(n) is None for n in op.input_arg_names):  # type: ignore[operator]
        return ""
    for name in op.output_arg_names:
        if uses.seen_outside(name):
            return f"{name!r} is fetched or seen outside its block"
        if len(uses.writers[name]) > 1 or any(uses.ops[r].sub_blocks() for r in uses.readers[name]):
            return f"{name!r} is written elsewhere too, or read in a sub-block"
        var = uses.block._find_var_recursive(name)
        if var is not None and (var.lod_level > 0 or not var.is_tensor or var.type.name != "LOD_TENSOR"):
            return f"{name!r} is not a plain tensor"
    try:
        values = evaluate(op, known)  # type: ignore[arg-type]
    except (MillstreamError, RuntimeError, ValueError, IndexError, TypeError) as error:
        return f"computing it failed: {error}"
    if isinstance(values, dict):
        largest = max((v.numel() for v in values.values()), default=0)
        if largest > _LARGEST:
            return f"its result has {largest} elements; at most {_LARGEST} are kept"
        if any(v.numel() == 0 for n, v in values.items() if uses.readers.get(n)):
            return "its result is empty"
    return values
