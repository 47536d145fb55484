"""Operators in test form: `is_test` where a Program that was saved while training still lacks it; dropout -> scale."""

from __future__ import annotations

from millstream.ir import walk
from millstream.ir.operator import OP_ROLE, Operator
from millstream.passes._pass import program_pass
from millstream.passes._work import Work


@program_pass("set_is_test")
def set_is_test(work: Work) -> int:
    """Counts operators that change. A dropout that still scales its input becomes a scale."""
    changes = 0
    for block in work.blocks:
        uses = work.uses(block)
        for i, op in enumerate(block.ops):
            new = op
            if op.has_attr("is_test") and not op.attr("is_test"):
                new = walk.copy_op(op, block)
                new._attrs = {**op.attrs, "is_test": True}
            if op.type == "dropout":
                new = _as_scale(new, [n for n in op.output("Mask") if uses.readers.get(n) or uses.seen_outside(n)])
            if new is not op:
                block.ops[i] = new
                changes += 1
    if changes:
        work.program._touch()
    return changes


def _as_scale(op: Operator, mask_readers: list[str]) -> Operator:
    keep = 1.0 - op.attr("dropout_prob")
    if mask_readers or keep == 1.0 or op.attr("dropout_implementation") == "upscale_in_train":
        return op  # remove_identities takes it
    attrs = {"scale": keep, "bias": 0.0, "bias_after_scale": True, OP_ROLE: op.role}
    return Operator(op.block, "scale", {"X": op.input("X")}, {"Out": op.output("Out")}, attrs, op.site)
