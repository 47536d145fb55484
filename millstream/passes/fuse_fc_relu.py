"""fc + relu -> fc with its activation. Without gradients."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._rule import Match, Rule


def _why_not(found: Match) -> str | None:
    return "fc has an activation already" if found.ops[0].attr("activation_type") else None


def _build(found: Match) -> Operator:
    fc, relu = found.ops
    attrs = {k: fc.attr(k) for k in ("in_num_col_dims", "padding_weights")}
    inputs = {slot: list(names) for slot, names in fc.inputs.items()}
    return found.make("fc", inputs, {"Out": relu.output("Out")}, activation_type="relu", **attrs)


register("fuse_fc_relu", Rule("fuse_fc_relu", "fc Out:X relu", _why_not, _build))
