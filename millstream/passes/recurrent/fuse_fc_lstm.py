"""fc (or mul) + lstm -> fusion_lstm; its one bias is the sum of the two."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node
from millstream.passes._rule import Match, Rule
from millstream.passes.recurrent.fuse_fc_gru import PROJECTION, joined_bias, not_fusable, rows_of

_LSTM = ("use_peepholes", "is_reverse", "gate_activation", "cell_activation", "candidate_activation")

# Either result of lstm may be the one that is used: the pattern only says where the lstm stands.
_lstm = node("lstm", "lstm", out="Hidden", Input=PROJECTION, Weight=constant("weight"), Bias=constant("bias"))


def lstm_settings(lstm: Operator) -> dict[str, object]:
    """The attributes that lstm and its fused forms share."""
    return {k: lstm.attr(k) for k in _LSTM}


def _why_not(found: Match) -> str | None:
    return not_fusable(found, found["projection"], found["lstm"], ("BatchGate", "BatchCellPreAct"))


def _build(found: Match) -> Operator:
    projection, lstm = found["projection"], found["lstm"]
    rows = rows_of(projection)
    assert isinstance(rows, dict)  # _why_not looked
    inputs = {
        **rows, "WeightH": lstm.input("Weight"), "Bias": joined_bias(found, projection, lstm), "H0": lstm.input("H0"),
        "C0": lstm.input("C0"),
    }  # fmt: skip
    outputs = {slot: lstm.output(slot) for slot in ("Hidden", "Cell")}
    for slot in ("XX", "BatchedInput", "BatchedHidden", "BatchedCell", "ReorderedH0", "ReorderedC0", "CheckedCell"):
        outputs[slot] = [found.work.declare(found.block, lstm.output("Hidden")[0])]
    return found.make("fusion_lstm", inputs, outputs, **lstm_settings(lstm))


register("fuse_fc_lstm", Rule("fuse_fc_lstm", _lstm, _why_not, _build))
