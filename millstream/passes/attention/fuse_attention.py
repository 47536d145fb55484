"""matmul, [scale], [+ mask], softmax, matmul -> fused_attention. Dropout in test form is gone by then."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import either, maybe, node, value
from millstream.passes._rule import Match, Rule

_TURNED = "transpose|transpose2"


_query = maybe("scale", "before", value("q"))
_key = either(node(_TURNED, "turn", X=value("k")), value("k"))
_scores = maybe("scale", "after", node("matmul", "scores", X=_query, Y=_key))
_weights = node("softmax", "softmax", X=maybe("elementwise_add", "masked", _scores, Y=value("mask")))
_sum = node("matmul", "sum", X=_weights, Y=value("v"))


def _why_not(found: Match) -> str | None:
    scores, last = found["scores"], found["sum"]
    q, k, v = (found.shape(found.names[n]) for n in "qkv")
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) >= 3:
        return "the ranks of queries, keys and values are not known, not equal or less than 3"
    if last.attr("transpose_X") or last.attr("transpose_Y") or last.attr("alpha") != 1.0 or scores.attr("transpose_X"):
        return "a product is transposed or scaled in another way than attention's"
    turn = found.get("turn")
    if turn is not None:
        if scores.attr("transpose_Y"):
            return "the keys are transposed twice"
        if not found.unused(turn, "XShape"):
            return "the shape of the keys is read"
        k = tuple(k[d] for d in _rest(turn))
    elif not scores.attr("transpose_Y"):
        return "the keys are not transposed"
    axis, rank = found["softmax"].attr("axis"), len(q)
    if axis not in (-1, rank - 1):
        return f"softmax goes along axis {axis}, not the last one"
    if any(a >= 0 and b >= 0 and a != b for a, b in zip(q[:-2], k[:-2])):
        return f"queries {list(q)} and keys {list(k)} have other batch dims"
    for name in ("before", "after"):
        scale = found.get(name)
        if scale is not None and (scale.attr("bias") != 0.0 or scale.input("ScaleTensor")):
            return "a scale has a bias or takes its factor from a tensor"
    return _mask_why_not(found, len(q))


def _rest(turn: Operator) -> list[int]:
    """The axes of what is left of a transpose of the keys when the one that attention does itself is taken off it."""
    *batch, row, column = turn.attr("axis")
    return [*batch, column, row]


def _mask_why_not(found: Match, rank: int) -> str | None:
    masked = found.get("masked")
    if masked is None:
        return None
    var, mask = found.var(found.names["mask"]), found.shape(found.names["mask"])
    q = found.var(found.names["q"])
    if mask is None or var is None or q is None or var.dtype is not q.dtype:
        return "the mask's shape is not known, or its dtype is another one"
    axis = masked.attr("axis")
    at_the_end = len(mask) == rank or (len(mask) < rank and axis in (-1, rank - len(mask)))
    if masked.input("Y") != [found.names["mask"]] or not at_the_end:
        return f"the mask of shape {list(mask)} is added at axis {axis}, not at the last dims"
    return None


def _build(found: Match) -> list[Operator]:
    scale = found["scores"].attr("alpha")
    for name in ("before", "after"):
        op = found.get(name)
        scale *= op.attr("scale") if op is not None else 1.0
    inputs = {slot: [found.names[leaf]] for slot, leaf in (("Q", "q"), ("K", "k"), ("V", "v"))}
    if found.get("masked") is not None:
        inputs["Mask"] = [found.names["mask"]]
    made = []
    turn = found.get("turn")
    if turn is not None and _rest(turn) != sorted(turn.attr("axis")):  # [0, 2, 3, 1] of keys by heads: [0, 2, 1, 3] first
        made.append(_turned(found, turn))
        inputs["K"] = made[0].output("Out")
    made.append(found.make("fused_attention", inputs, {"Out": found["sum"].output("Out")}, scale=scale, heads=0))
    return made


def _turned(found: Match, turn: Operator) -> Operator:
    out = found.var(turn.output("Out")[0])
    shape = found.shape(found.names["k"])
    assert out is not None and shape is not None  # _why_not looked
    axis = _rest(turn)
    name = f"{out.name}.rows"
    found.block.create_var(name=name, shape=[shape[d] for d in axis], dtype=out.dtype)
    return found.make("transpose", {"X": [found.names["k"]]}, {"Out": [name]}, axis=axis)


register("fuse_attention", Rule("fuse_attention", _sum, _why_not, _build))
