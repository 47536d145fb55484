"""sequence_pool of several sequences [+ cvm] + concat -> fused_seqpool_concat."""

from __future__ import annotations

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import not_removable, replace
from millstream.passes._work import Work

_KINDS = ("SUM", "AVERAGE", "SQRT")


@program_pass("fuse_seqpool_concat")
def fuse_seqpool_concat(work: Work) -> int:
    """Counts places."""
    changes = 0
    for block in work.blocks:
        while _one(work, block):
            changes += 1
    return changes


def _one(work: Work, block: Block) -> bool:
    uses = work.uses(block)
    for at, op in enumerate(block.ops):
        names = op.input("X") if op.type == "concat" else []
        if len(names) < 2 or len(set(names)) != len(names):
            continue
        found = [uses.producer(n, at) for n in names]
        counts = [p for p in found if p is not None and block.ops[p].type == "cvm"]
        if counts and len(counts) == len(names):
            found = [uses.producer(block.ops[p].input("X")[0], p) for p in counts]
        elif counts:
            continue
        pools = [p for p in found if p is not None and block.ops[p].type == "sequence_pool"]
        if len(pools) != len(names) or len(set(pools)) != len(pools):
            continue
        taken = [block.ops[p] for p in (*pools, *counts)]
        why = _why_not(block, op, taken[: len(pools)], taken[len(pools) :]) or not_removable(uses, [*pools, *counts], at)
        if why is not None:
            work.refuse("fuse_seqpool_concat", op, why)
            continue
        first = block.ops[pools[0]]
        inputs = {"X": [block.ops[p].input("X")[0] for p in pools]}
        attrs = {"pooltype": first.attr("pooltype"), "pad_value": first.attr("pad_value"), "shows": ""}
        if counts:
            attrs["shows"] = "keep" if block.ops[counts[0]].attr("use_cvm") else "drop"
        made = Operator(block, "fused_seqpool_concat", inputs, {"Out": op.output("Out")}, attrs, op.site)
        replace(work, block, [*pools, *counts], at, made)
        return True
    return False


def _why_not(block: Block, concat: Operator, pools: list[Operator], counts: list[Operator]) -> str | None:
    if len({op.attr("use_cvm") for op in counts}) > 1:
        return "some shows and clicks are kept, others not"
    kinds = {(p.attr("pooltype"), p.attr("pad_value")) for p in pools}
    if len(kinds) != 1 or pools[0].attr("pooltype") not in _KINDS:
        return f"the pools are {sorted(k for k, _ in kinds)}; they must be one of {', '.join(_KINDS)}"
    out = block._find_var_recursive(concat.output("Out")[0])
    rank = len(out.shape) if out is not None else 0
    if concat.input("AxisTensor") or rank != 2 or concat.attr("axis") not in (1, -1):
        return "concat does not join matrices side by side"
    return None
