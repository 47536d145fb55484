"""What function passes (patterns of no fixed size) need: is it safe to take these operators out, and how it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, Operator
from millstream.passes._uses import Uses
from millstream.passes._work import Work


def not_removable(uses: Uses, positions: list[int], last: int) -> str | None:
    """Why the operators at `positions` can't become one at `last`: their results must be read there and inside only."""
    inside = {n for p in positions if p != last for n in uses.ops[p].output_arg_names}
    taken = {*positions, last}
    for p in sorted(taken):
        op = uses.ops[p]
        if uses.has_gradient(op):
            return f"there is a gradient of {op.type}"
        changed = uses.written_between([n for n in op.input_arg_names if n not in inside], p, last)
        if changed is not None:
            return f"{changed!r} is overwritten before the last operator"
    for name in inside:
        if uses.seen_outside(name) or len(uses.writers[name]) > 1 or any(r not in taken for r in uses.readers[name]):
            return f"{name!r} is read or written elsewhere too, or seen outside"
    return None


def replace(work: Work, block: Block, positions: list[int], last: int, made: Operator) -> None:
    """Put `made` where `last` stood and take the others out."""
    gone = set(positions) - {last}
    made._attrs[OP_ROLE] = block.ops[last].role
    block.ops = [made if i == last else op for i, op in enumerate(block.ops) if i not in gone]
    work.program._touch()


def replace_all(work: Work, replaced: Mapping[int, Operator | None]) -> None:
    """Put operators in the places of others, by position in the global Block; None takes one out."""
    if replaced:
        work.block.ops = [op for op in (replaced.get(i, op) for i, op in enumerate(work.block.ops)) if op is not None]
        work.program._touch()


def operator_like(
    work: Work, like: Operator, kind: str, inputs: dict[str, Any], outputs: dict[str, Any],
    attrs: Mapping[str, Any] | None = None,
) -> Operator:  # fmt: skip
    """A new operator of the global Block that has the role of `like` and was written where that was."""
    return Operator(work.block, kind, inputs, outputs, {**(attrs or {}), OP_ROLE: like.role}, like.site)
