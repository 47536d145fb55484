"""Operators that compute the same of the same -> one."""

from __future__ import annotations

from typing import Any

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._evaluate import is_pure, meaning, renamed
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work


@program_pass("merge_common")
def merge_common(work: Work) -> int:
    """Counts operators removed."""
    return sum(_sweep(work, block) for block in work.blocks)


def _sweep(work: Work, block: Block) -> int:
    uses = work.uses(block)
    known: dict[tuple[Any, ...], Operator] = {}
    other: dict[str, str] = {}
    kept: list[Operator] = []
    removed = 0
    for at, op in enumerate(block.ops):
        if other and any(n in other for n in op.input_arg_names):
            op = renamed(op, other)
        if not is_pure(op) or any(len(uses.writers[n]) > 1 for n in op.output_arg_names):
            kept.append(op)
            continue
        versions = tuple((s, n, sum(w < at for w in uses.writers.get(n, ()))) for s, ns in op.inputs.items() for n in ns)
        key = (op.type, versions, meaning(op), tuple((s, len(n)) for s, n in op.outputs.items() if n))
        first = known.get(key)
        if first is None:
            known[key] = op
        elif not _in_the_way(uses, op):
            for slot, names in op.outputs.items():
                other.update(zip(names, first.outputs[slot]))
            removed += 1
            continue
        kept.append(op)
    if removed:
        block.ops = kept
        work.program._touch()
    return removed


def _in_the_way(uses: Uses, op: Operator) -> bool:
    """Whether somebody needs the outputs of `op` under their own names."""
    return any(
        uses.seen_outside(name) or any(uses.ops[r].sub_blocks() for r in uses.readers.get(name, ()))
        for name in op.output_arg_names
    )
