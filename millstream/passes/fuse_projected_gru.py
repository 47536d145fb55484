"""fc + gru -> projected_gru: projection and recurrence in one kernel. Without gradients."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._rule import Match, Rule


def _why_not(found: Match) -> str | None:
    fc, gru = found.ops
    if fc.attr("activation_type") or fc.attr("padding_weights") or fc.attr("in_num_col_dims") != 1:
        return "fc has an activation, padded weights or more than one dim of rows"
    if not found.unused(gru, "BatchGate", "BatchResetHiddenPrev", "BatchHidden"):
        return "the gates of gru are read"
    return None


def _build(found: Match) -> Operator:
    fc, gru = found.ops
    inputs = {
        "X": fc.input("Input"), "H0": gru.input("H0"), "WeightX": fc.input("W"), "BiasX": fc.input("Bias"),
        "WeightH": gru.input("Weight"), "Bias": gru.input("Bias"),
    }  # fmt: skip
    attrs = {k: gru.attr(k) for k in ("activation", "gate_activation", "is_reverse", "origin_mode")}
    return found.make("projected_gru", inputs, {"Hidden": gru.output("Hidden")}, **attrs)


register("fuse_projected_gru", Rule("fuse_projected_gru", "fc Out:Input gru", _why_not, _build))
