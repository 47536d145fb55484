"""concat of a sequence and rows expanded to it + fc -> fusion_seqexpand_concat_fc.

The share of the expanded rows in the product is computed once a sequence instead of once a row.
"""

from __future__ import annotations

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import not_removable, replace
from millstream.passes._uses import Uses
from millstream.passes._work import Work


@program_pass("fuse_seqexpand_concat_fc")
def fuse_seqexpand_concat_fc(work: Work) -> int:
    """Counts places."""
    changes = 0
    for block in work.blocks:
        while _one(work, block):
            changes += 1
    return changes


def _one(work: Work, block: Block) -> bool:
    uses = work.uses(block)
    for at, fc in enumerate(block.ops):
        if fc.type != "fc":
            continue
        joint = uses.producer(fc.input("Input")[0], at)
        concat = block.ops[joint] if joint is not None else fc
        if joint is None or concat.type != "concat" or len(concat.input("X")) < 2:
            continue
        first, *rest = concat.input("X")
        expands = [_expand(uses, name, first, joint) for name in rest]
        taken = [p for p in expands if p is not None]
        if len(taken) != len(rest):
            continue
        why = _why_not(block, fc, concat, [block.ops[p] for p in taken], first)
        why = why or not_removable(uses, [joint, *taken], at)
        if why is not None:
            work.refuse("fuse_seqexpand_concat_fc", concat, why)
            continue
        inputs = {
            "X": [first, *(block.ops[p].input("X")[0] for p in taken)],
            "FCWeight": fc.input("W"), "FCBias": fc.input("Bias"),
        }  # fmt: skip
        outputs = {"Out": fc.output("Out"), "FCOut": [work.declare(block, fc.output("Out")[0])]}
        attrs = {"fc_activation": fc.attr("activation_type") or "identity"}
        made = Operator(block, "fusion_seqexpand_concat_fc", inputs, outputs, attrs, fc.site)
        replace(work, block, [joint, *taken], at, made)
        return True
    return False


def _expand(uses: Uses, name: str, like: str, before: int) -> int | None:
    """The operator that expands rows to the sequences of `like`, or None."""
    at = uses.producer(name, before)
    if at is None or uses.ops[at].type not in ("sequence_expand", "sequence_expand_as"):
        return None
    return at if uses.ops[at].input("Y") == [like] else None


def _why_not(block: Block, fc: Operator, concat: Operator, expands: list[Operator], first: str) -> str | None:
    rows, var = block._var_recursive(concat.output("Out")[0]), block._var_recursive(first)
    if concat.input("AxisTensor") or len(rows.shape) != 2 or concat.attr("axis") not in (1, -1):
        return "concat does not join matrices side by side"
    if fc.attr("padding_weights") or fc.attr("in_num_col_dims") != 1:
        return "fc has padded weights or several dims of rows"
    if var.lod_level != 1:
        return f"{first!r} has {var.lod_level} LoD levels, not 1"
    for op in expands:
        x = block._var_recursive(op.input("X")[0])
        if x.lod_level != 0 or len(x.shape) != 2:
            return f"{x.name!r} is itself a sequence"
        if op.type == "sequence_expand" and op.attr("ref_level") not in (-1, 0):
            return f"ref_level is {op.attr('ref_level')}"
    return None
