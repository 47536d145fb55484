"""Embedding (multiplied out by fold_embedding_fc) + lstm -> fused_embedding_fc_lstm."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule
from millstream.passes.recurrent.fuse_fc_lstm import lstm_settings

_lookup = node("lookup_table", "lookup", W=constant("table"), Ids=value("ids"))
_lstm = node("lstm", "lstm", out="Hidden", Input=_lookup, Weight=constant("weight"), Bias=constant("bias"))


def _why_not(found: Match) -> str | None:
    lookup, lstm = found["lookup"], found["lstm"]
    if not found.unused(lstm, "BatchGate", "BatchCellPreAct"):
        return "the gates of lstm are read"
    if lookup.attr("padding_idx") != -1:
        return "the embedding has a padding_idx"
    if found.work.value(found.names["table"]) is None or found.work.value(found.names["bias"]) is None:
        return "the values of the table and the bias are not known"
    return None if len(found.shape(found.names["ids"]) or ()) == 2 else "the ids are not [rows, 1]"


def _build(found: Match) -> Operator:
    lstm, work = found["lstm"], found.work
    table, bias = work.value(found.names["table"]), work.value(found.names["bias"])
    assert table is not None and bias is not None  # _why_not looked
    gates = bias.reshape(1, -1)[:, : table.shape[1]]
    inputs = {
        "Ids": [found.names["ids"]], "Embeddings": [work.store(found.names["table"], table + gates)],
        "WeightH": lstm.input("Weight"), "Bias": lstm.input("Bias"), "H0": lstm.input("H0"), "C0": lstm.input("C0"),
    }  # fmt: skip
    outputs = {slot: lstm.output(slot) for slot in ("Hidden", "Cell")}
    for slot in ("XX", "BatchedInput", "BatchedHidden", "BatchedCell", "ReorderedH0", "ReorderedC0"):
        outputs[slot] = [work.declare(found.block, lstm.output("Hidden")[0])]
    return found.make("fused_embedding_fc_lstm", inputs, outputs, **lstm_settings(lstm))


register("fuse_embedding_lstm", Rule("fuse_embedding_lstm", _lstm, _why_not, _build))
