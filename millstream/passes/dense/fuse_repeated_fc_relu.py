"""Two or more fully connected layers with relu, one after another -> fusion_repeated_fc_relu."""

from __future__ import annotations

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import not_removable, replace
from millstream.passes._uses import Uses
from millstream.passes._work import Work


@program_pass("fuse_repeated_fc_relu")
def fuse_repeated_fc_relu(work: Work) -> int:
    """Counts places."""
    changes = 0
    for block in work.blocks:
        while _one(work, block):
            changes += 1
    return changes


def _one(work: Work, block: Block) -> bool:
    uses = work.uses(block)
    for at in reversed(range(len(block.ops))):
        layers = _layers(uses, at)
        if len(layers) < 2:
            continue
        why = not_removable(uses, layers[:-1], at)
        if why is not None:
            work.refuse("fuse_repeated_fc_relu", block.ops[layers[0]], why)
            continue
        ops = [block.ops[p] for p in layers]
        inputs = {"X": ops[0].input("Input"), "W": [o.input("W")[0] for o in ops], "Bias": [o.input("Bias")[0] for o in ops]}
        outputs = {"ReluOut": [o.output("Out")[0] for o in ops[:-1]], "Out": ops[-1].output("Out")}
        replace(work, block, layers[:-1], at, Operator(block, "fusion_repeated_fc_relu", inputs, outputs, {}, ops[-1].site))
        return True
    return False


def _layers(uses: Uses, at: int) -> list[int]:
    """Positions of the layers that end at `at`, first to last; each result is read by the next layer alone."""
    found: list[int] = []
    position: int | None = at
    while position is not None and _is_layer(uses, uses.ops[position]):
        if found and len(uses.readers[uses.ops[position].output("Out")[0]]) != 1:
            break
        found.insert(0, position)
        position = uses.producer(uses.ops[position].input("Input")[0], position)
    return found


def _is_layer(uses: Uses, op: Operator) -> bool:
    if op.type != "fc" or op.attr("activation_type") != "relu" or op.attr("padding_weights") or not op.input("Bias"):
        return False
    x = uses.block._find_var_recursive(op.input("Input")[0])
    return x is not None and x.has_shape and len(x.shape) == 2 and op.attr("in_num_col_dims") == 1
