"""fused_attention between reshapes and transposes that split heads off and join them -> fused_attention with heads."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import Node, node, value
from millstream.passes._rule import Match, Rule

_SPLIT = ("query", "key", "value")


def _split(name: str) -> Node:
    rows = node("reshape|reshape2", f"{name}_rows", X=value(name))
    return node("transpose|transpose2", f"{name}_turn", X=rows)


_attention = node("fused_attention", "attention", Q=_split("query"), K=_split("key"), V=_split("value"))
_joined = node("reshape|reshape2", "join", X=node("transpose|transpose2", "turn", X=_attention))


def _why_not(found: Match) -> str | None:
    if found["attention"].attr("heads"):
        return "the heads are split already"
    for name in (*(f"{n}_turn" for n in _SPLIT), "turn"):
        if found[name].attr("axis") != [0, 2, 1, 3]:
            return f"a transpose has axis {found[name].attr('axis')}, not [0, 2, 1, 3]"
    for name in (*(f"{n}_rows" for n in _SPLIT), "join"):
        op = found[name]
        if op.input("Shape") or op.input("ShapeTensor"):
            return "a reshape takes its shape from a tensor"
    heads = set()
    for name in _SPLIT:
        before, after = found.shape(found.names[name]), found.shape(found[f"{name}_rows"].output("Out")[0])
        if before is None or after is None or len(before) != 3 or len(after) != 4 or min(before[2], *after[2:]) < 0:
            return "what is split into heads is not [batch, rows, heads * width] with a known width"
        if after[2] * after[3] != before[2] or not _keeps_rows(found[f"{name}_rows"], before):
            return f"the reshape {list(before)} -> {list(after)} does more than split the width into heads"
        heads.add(after[2])
    if len(heads) != 1:
        return f"queries, keys and values have {sorted(heads)} heads"
    before, after = found.shape(found["turn"].output("Out")[0]), found.shape(found["join"].output("Out")[0])
    if before is None or after is None or len(after) != 3 or after[2] != before[2] * before[3]:
        return "the result is not joined to [batch, rows, heads * width]"
    if not _keeps_rows(found["join"], before):
        return "the last reshape does more than join the heads"
    seen = [op for op in found.ops if not found.unused(op, "XShape")]
    return "a shape is read" if seen else None


def _keeps_rows(reshape: Operator, before: tuple[int, ...]) -> bool:
    """Whether the first two dims stay: they are copied (0), or the same numbers, or the one dim that is left open."""
    shape = reshape.attr("shape")
    if any(d < 0 for d in shape[2:]) and any(d < 0 for d in before[2:]):
        return False
    same = [s == 0 or (b >= 0 and s == b) for s, b in zip(shape[:2], before[:2])]
    return all(same) or (sum(same) == 1 and shape[same.index(False)] == -1 and all(d >= 0 for d in shape[2:]))


def _build(found: Match) -> Operator:
    attention = found["attention"]
    rows = found.shape(found["query_rows"].output("Out")[0])
    assert rows is not None  # _why_not looked
    inputs = {"Q": [found.names["query"]], "K": [found.names["key"]], "V": [found.names["value"]]}
    inputs["Mask"] = attention.input("Mask")
    outputs = {"Out": found["join"].output("Out")}
    return found.make("fused_attention", inputs, outputs, scale=attention.attr("scale"), heads=rows[2])


register("fuse_attention_heads", Rule("fuse_attention_heads", _joined, _why_not, _build))
