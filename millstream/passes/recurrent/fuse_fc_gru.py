"""fc (or mul) + gru -> fusion_gru, Fluid's own operator; its one bias is the sum of the two."""

from __future__ import annotations

from typing import Any

import torch

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node
from millstream.passes._rule import Match, Rule

PROJECTION = node("fc|mul", "projection")
_gru = node("gru", "gru", out="Hidden", Input=PROJECTION, Weight=constant("weight"))


def rows_of(projection: Operator) -> dict[str, list[str]] | str:
    """The input and weight of a plain product over rows, or why it is another one."""
    if projection.type == "fc":
        if projection.attr("activation_type") or projection.attr("padding_weights"):
            return "fc has an activation or padded weights"
        rows, x, w = projection.attr("in_num_col_dims"), projection.input("Input"), projection.input("W")
    else:
        rows, x, w = projection.attr("x_num_col_dims"), projection.input("X"), projection.input("Y")
        if projection.attr("y_num_col_dims") != 1:
            return "Y of mul is not a matrix"
    return {"X": x, "WeightX": w} if rows == 1 else "the product has more than one dim of rows"


def not_fusable(found: Match, projection: Operator, layer: Operator, gates: tuple[str, ...]) -> str | None:
    """What speaks against one operator for a projection and a recurrent layer."""
    rows = rows_of(projection)
    if isinstance(rows, str):
        return rows
    if len(found.shape(rows["X"][0]) or ()) != 2 or len(found.shape(rows["WeightX"][0]) or ()) != 2:
        return "what is projected is not a matrix of rows"
    if not found.unused(layer, *gates):
        return f"the gates of {layer.type} are read"
    biases = [*projection.input("Bias"), *layer.input("Bias")]
    if projection.input("Bias") and any(found.work.value(n) is None for n in biases):
        return "there are two biases and their values are not known"
    return None


def joined_bias(found: Match, projection: Operator, layer: Operator) -> list[str]:
    """The variable that holds both biases; the projection's belongs to the first elements of the layer's."""
    mine, its = projection.input("Bias"), layer.input("Bias")
    if not mine:
        return its
    added: Any = found.work.value(mine[0])
    total: Any = found.work.value(its[0]) if its else torch.zeros((1, added.numel()), dtype=added.dtype)
    total = total.reshape(1, -1).clone()
    total[0, : added.numel()] += added.reshape(-1)
    return [found.work.store(mine[0], total)]


def _why_not(found: Match) -> str | None:
    gru = found["gru"]
    if gru.attr("origin_mode"):
        return "fusion_gru does not know origin_mode"
    return not_fusable(found, found["projection"], gru, ("BatchGate", "BatchResetHiddenPrev", "BatchHidden"))


def _build(found: Match) -> Operator:
    projection, gru = found["projection"], found["gru"]
    rows = rows_of(projection)
    assert isinstance(rows, dict)  # _why_not looked
    inputs = {**rows, "H0": gru.input("H0"), "WeightH": gru.input("Weight"), "Bias": joined_bias(found, projection, gru)}
    attrs = {k: gru.attr(k) for k in ("activation", "gate_activation", "is_reverse")}
    outputs = {"Hidden": gru.output("Hidden")}
    for slot in ("ReorderedH0", "XX", "BatchedInput", "BatchedOut"):  # Fluid wants them all to be there
        outputs[slot] = [found.work.declare(found.block, gru.output("Hidden")[0])]
    return found.make("fusion_gru", inputs, outputs, **attrs)


register("fuse_fc_gru", Rule("fuse_fc_gru", _gru, _why_not, _build))
