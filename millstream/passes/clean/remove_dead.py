"""Operators whose results nobody uses are removed."""

from __future__ import annotations

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ops._opdef import REGISTRY
from millstream.passes._pass import program_pass
from millstream.passes._work import Work, keeps_statistics


@program_pass("remove_dead")
def remove_dead(work: Work) -> int:
    """Counts operators removed, in sub-Blocks too."""
    return sum(_sweep(work, block) for block in work.blocks)


def _sweep(work: Work, block: Block) -> int:
    uses = work.uses(block)
    need: set[str] = set()
    kept: list[Operator] = []
    for op in reversed(block.ops):
        passed_on = set(op.input_arg_names) if keeps_statistics(op) else set()
        written = [n for n in walk.writes_of(op) if n not in passed_on]
        live = op.type in ("feed", "fetch") or op.is_target or _acts(op)
        if live or any(n in need or uses.seen_outside(n) for n in written):
            kept.append(op)
            need.update(walk.reads_of(op))
    removed = len(block.ops) - len(kept)
    if removed:
        block.ops = kept[::-1]
        work.program._touch()
    return removed


def _acts(op: Operator) -> bool:
    found = REGISTRY.find(op.type)
    if found is None or found.side_effect:
        return True
    return any(_acts(inner) for block in op.sub_blocks() for inner in block.ops)
