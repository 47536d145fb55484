"""Two recurrences over the same rows in opposite directions + concat -> one operator. Without gradients.

projected_gru twice becomes projected_bigru; lookup + gru twice (what fold_embedding_fc leaves of embeddings and their
projections) becomes embedded_bigru over one table.
"""

from __future__ import annotations

import torch

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import not_removable, replace
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_SETTINGS = ("activation", "gate_activation", "origin_mode")
_LOOKUPS = ("lookup_table", "lookup_table_v2")


@program_pass("fuse_bigru")
def fuse_bigru(work: Work) -> int:
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
        if len(names) != 2 or names[0] == names[1]:
            continue
        found = [uses.producer(n, at) for n in names]
        layers = [p for p in found if p is not None and block.ops[p].type in ("projected_gru", "gru")]
        if len(layers) != 2:
            continue
        one, two = (block.ops[p] for p in layers)
        if one.type == "gru":
            lookups = [uses.producer(o.input("Input")[0], p) for o, p in ((one, layers[0]), (two, layers[1]))]
            kinds = [block.ops[p].type for p in lookups if p is not None]
            if two.type != "gru" or len(kinds) != 2 or kinds[0] != kinds[1] or kinds[0] not in _LOOKUPS:
                continue
            removed = [*(p for p in lookups if p is not None), *layers]
        else:
            removed = layers
        why = _why_not(work, uses, op, [block.ops[p] for p in removed]) or not_removable(uses, removed, at)
        if why is not None:
            work.refuse("fuse_bigru", op, why)
            continue
        made = _rows(block, op, one, two) if one.type != "gru" else _ids(work, block, op, removed)
        replace(work, block, removed, at, made)
        return True
    return False


def _why_not(work: Work, uses: Uses, concat: Operator, ops: list[Operator]) -> str | None:
    one, two = ops[-2:]
    out = uses.block._find_var_recursive(concat.output("Out")[0])
    if concat.input("AxisTensor") or out is None or len(out.shape) != 2 or concat.attr("axis") not in (1, -1):
        return "concat does not join matrices side by side"
    if one.type != two.type or any(one.attr(a) != two.attr(a) for a in _SETTINGS):
        return "the two layers have different activations"
    if bool(one.attr("is_reverse")) == bool(two.attr("is_reverse")):
        return "both layers run in the same direction"
    if one.input("H0") or two.input("H0"):
        return "a layer has an initial state"
    if one.type != "gru":
        return None if one.input("X") == two.input("X") else "the layers read different rows"
    return _tables_differ(work, uses, ops)


def _tables_differ(work: Work, uses: Uses, ops: list[Operator]) -> str | None:
    (first, second), layers = ops[:2], ops[2:]
    if first.input("Ids") != second.input("Ids"):
        return "the layers read different ids"
    if any(lookup.attr("padding_idx") != -1 for lookup in (first, second)):
        return "an embedding has a padding id"
    for layer in layers:
        for slot in ("BatchGate", "BatchResetHiddenPrev", "BatchHidden"):
            if any(uses.readers.get(n) or uses.seen_outside(n) for n in layer.output(slot)):
                return "the gates of gru are read"
    tables = [work.value(lookup.input("W")[0]) for lookup in (first, second)]
    if any(t is None or t.dtype is not torch.float32 or t.dim() != 2 for t in tables):
        return "the value of a table is not known"
    return None


def _rows(block: Block, concat: Operator, one: Operator, two: Operator) -> Operator:
    inputs = {"X": one.input("X")}
    for layer, mark in ((one, ""), (two, "2")):
        inputs.update({slot + mark: layer.input(slot) for slot in ("WeightX", "BiasX", "WeightH", "Bias")})
    return _made(block, concat, "projected_bigru", inputs, one)


def _ids(work: Work, block: Block, concat: Operator, removed: list[int]) -> Operator:
    first, second, one, two = (block.ops[p] for p in removed)
    tables = [work.value(lookup.input("W")[0]) for lookup in (first, second)]
    table = work.store(first.input("W")[0], torch.cat([t for t in tables if t is not None], 1))
    inputs = {"Ids": first.input("Ids"), "Table": [table], "WeightH": one.input("Weight"), "Bias": one.input("Bias")}
    inputs.update({"WeightH2": two.input("Weight"), "Bias2": two.input("Bias")})
    return _made(block, concat, "embedded_bigru", inputs, one)


def _made(block: Block, concat: Operator, kind: str, inputs: dict[str, list[str]], first: Operator) -> Operator:
    attrs = {a: first.attr(a) for a in (*_SETTINGS, "is_reverse")}
    return Operator(block, kind, inputs, {"Hidden": concat.output("Out")}, attrs, concat.site)
