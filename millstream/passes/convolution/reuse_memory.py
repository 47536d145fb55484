"""Sums in the memory of their operand: a packed_conv2d that is the last reader of what it adds writes over it.

All else that could share memory does so already: Plans let go of a value after its last reader, and what one operator
frees the allocator hands to the next; chains of elementwise operators are one call (fuse_elementwise).
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._evaluate import renamed
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

NAME = "reuse_memory"
# their results are memory of their own, that nothing else looks at
_FRESH = frozenset({"packed_conv2d", "conv2d", "depthwise_conv2d"})


@program_pass(NAME)
def reuse_memory(work: Work) -> int:
    """Counts operators whose result takes the memory of an input."""
    changes = 0
    for block in work.blocks:
        uses = work.uses(block)
        for at, op in enumerate(list(block.ops)):
            if op.type != "packed_conv2d" or not op.input("ResidualData") or op.attr("reuse"):
                continue
            why = _why_not(uses, at, op)
            if why is not None:
                work.refuse(NAME, op, why)
                continue
            made = renamed(op, {})
            made._attrs["reuse"] = True
            block.ops[at] = made
            changes += 1
    if changes:
        work.program._touch()
    work.notes.append((NAME, "other values are freed after their last reader and their memory handed on by the allocator"))
    return changes


def _why_not(uses: Uses, at: int, op: Operator) -> str | None:
    (name,) = op.input("ResidualData")
    if name in (*op.input("Input"), *op.input("Bias")):
        return f"{name!r} is its input too"
    if uses.seen_outside(name) or len(uses.writers[name]) != 1:
        return f"{name!r} is fetched, fed, persistable or written twice"
    if uses.block.ops[uses.writers[name][0]].type not in _FRESH:
        return f"{name!r} may share memory with something else"
    if any(reader > at for reader in uses.readers[name]):
        return f"{name!r} is read later"
    others = [uses.block.ops[r].type for r in uses.readers[name] if r != at]
    if any(kind not in _FRESH for kind in others):
        return f"something else may share the memory of {name!r}"
    return None
