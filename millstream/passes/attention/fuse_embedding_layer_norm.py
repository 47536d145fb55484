"""Sum of embeddings (words, positions, sentences) + layer_norm -> fused_embedding_layer_norm."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import Node, constant, node, value
from millstream.passes._rule import Match, Rule

_LOOKUPS = "lookup_table|lookup_table_v2"


def _pattern(count: int) -> Node:
    total: Node | None = None
    for i in range(count):
        found = node(_LOOKUPS, f"lookup{i}", W=constant(f"table{i}"), Ids=value(f"ids{i}"))
        total = found if total is None else node("elementwise_add|sum", f"add{i}", X=total, Y=found)
    assert total is not None
    return node("layer_norm", "norm", out="Y", X=total)


def _lookups(found: Match) -> list[Operator]:
    return [found[name] for name in sorted(found.found.positions) if name.startswith("lookup")]


def _why_not(found: Match) -> str | None:
    norm, lookups = found["norm"], _lookups(found)
    if not found.unused(norm, "Mean", "Variance"):
        return "the statistics of layer_norm are read"
    if len({op.type for op in lookups}) != 1:
        return "lookup_table and lookup_table_v2 are mixed"
    tables, ids = ([found.shape(op.input(slot)[0]) for op in lookups] for slot in ("W", "Ids"))
    if None in tables or None in ids or len({(len(i or ()), (i or ())[1:]) for i in ids}) != 1:
        return f"the ids have shapes {[list(i or ()) for i in ids]}, which may differ"
    first, table = ids[0], found.var(lookups[0].input("W")[0])
    assert first is not None and table is not None
    if any(found.var(op.input("W")[0]).dtype is not table.dtype for op in lookups):  # type: ignore[union-attr]
        return "the tables have several dtypes"
    rank = len(first) - (lookups[0].type == "lookup_table") + 1
    return None if norm.attr("begin_norm_axis") == rank - 1 else "layer_norm goes over more than the tables' width"


def _build(found: Match) -> Operator:
    norm, lookups = found["norm"], _lookups(found)
    inputs = {
        "Ids": [op.input("Ids")[0] for op in lookups], "Tables": [op.input("W")[0] for op in lookups],
        "Scale": norm.input("Scale"), "Bias": norm.input("Bias"),
    }  # fmt: skip
    attrs = {
        "epsilon": norm.attr("epsilon"), "padding_idx": [op.attr("padding_idx") for op in lookups],
        "squeeze": lookups[0].type == "lookup_table",
    }  # fmt: skip
    return found.make("fused_embedding_layer_norm", inputs, {"Out": norm.output("Y")}, **attrs)


_rules = [Rule("fuse_embedding_layer_norm", _pattern(count), _why_not, _build) for count in (3, 2, 4)]
register("fuse_embedding_layer_norm", lambda work: sum(rule(work) for rule in _rules))
