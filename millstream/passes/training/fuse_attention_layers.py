"""matmul, [+ mask], softmax, matmul of bfloat16 and their gradients -> attention_layer and attention_layer_grad.

Other types gain nothing: their operators stay.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "fuse_attention_layers"


@dataclass
class _Place:
    """Positions of the operators; `add` and `add_grad` are None where no mask is added."""

    scores: int
    softmax: int
    sum: int
    sum_grad: int
    softmax_grad: int
    scores_grad: int
    add: int | None = None
    add_grad: int | None = None

    def forward(self) -> list[int]:
        return [p for p in (self.scores, self.add, self.softmax, self.sum) if p is not None]

    def backward(self) -> list[int]:
        return [p for p in (self.sum_grad, self.softmax_grad, self.add_grad, self.scores_grad) if p is not None]


@program_pass(_NAME)
def fuse_attention_layers(work: Work) -> int:
    """Returns how many were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose softmax stands at `at`."""
    if uses.ops[at].type != "softmax" or not uses.has_gradient(uses.ops[at]):
        return None
    place = _place(uses, at)
    return place if isinstance(place, str) else _why_not(uses, place) or place


def _place(uses: Uses, softmax: int) -> _Place | str:
    """The place with its gradients, or why there is none."""
    ops, add = uses.ops, None
    scores = uses.producer(ops[softmax].input("X")[0], softmax)
    if scores is not None and ops[scores].type == "elementwise_add":
        add = scores
        scores = uses.producer(ops[add].input("X")[0], add)
    if scores is None or ops[scores].type != "matmul":
        return "softmax reads no product"
    weights = ops[softmax].output("Out")[0]
    last = uses.reader(weights, "matmul", "X")
    if last is None or last < softmax:
        return "no product, or several, read the weights"
    sum_grad = uses.reader(weights, "matmul_grad", "X")
    if sum_grad is None or ops[sum_grad].input("Y") != ops[last].input("Y"):
        return "the last product has no gradient, or several"
    softmax_grad = _after(uses, ops[sum_grad].output("X@GRAD"), "softmax_grad")
    if softmax_grad is None or ops[softmax_grad].input("Out") != [weights]:
        return "softmax has no gradient, or several"
    given, add_grad = ops[softmax_grad].output("X@GRAD"), None
    if add is not None:
        add_grad = _after(uses, given, "elementwise_add_grad")
        if add_grad is None or any(n != EMPTY_VAR for n in ops[add_grad].output("Y@GRAD")):
            return "the mask has a gradient, or the sum has none"
        given = ops[add_grad].output("X@GRAD")
    scores_grad = _after(uses, given, "matmul_grad")
    if scores_grad is None or any(ops[scores_grad].input(s) != ops[scores].input(s) for s in ("X", "Y")):
        return "the first product has no gradient, or several"
    return _Place(scores, softmax, last, sum_grad, softmax_grad, scores_grad, add, add_grad)


def _after(uses: Uses, names: list[str], kind: str) -> int | None:
    """The one operator that reads a gradient."""
    return uses.reader(names[0], kind, "Out@GRAD") if len(names) == 1 else None


def _why_not(uses: Uses, place: _Place) -> str | None:
    ops, find = uses.ops, uses.block._find_var_recursive
    scores, last = ops[place.scores], ops[place.sum]
    q, k, v = (find(n) for n in (*scores.input("X"), *scores.input("Y"), *last.input("Y")))
    for var in (q, k, v):
        if var is None or not var.has_shape or not var.has_dtype or var.dtype is not VarType.BF16:
            return "queries, keys or values are not bfloat16, or a shape is not known"
    assert q is not None and k is not None and v is not None
    if not len(q.shape) == len(k.shape) == len(v.shape) in (3, 4) or _differ(q.shape[:-2], k.shape[:-2], v.shape[:-2]):
        return f"queries {list(q.shape)}, keys {list(k.shape)} and values {list(v.shape)} have not one batch of 3 or 4 dims"
    form = scores.attr("transpose_X"), scores.attr("transpose_Y"), last.attr("transpose_X"), last.attr("transpose_Y")
    if form != (False, True, False, False) or last.attr("alpha") != 1.0 or max(_heads(scores), _heads(last)) > 1:
        return "a product is transposed, scaled or cut in another way than attention's"
    if ops[place.softmax].attr("axis") not in (-1, len(q.shape) - 1):
        return "softmax goes along another axis than the last one"
    for one, grad in ((place.scores, place.scores_grad), (place.sum, place.sum_grad)):
        if any(ops[one].attr(a) != ops[grad].attr(a) for a in ("transpose_X", "transpose_Y", "alpha")):
            return "a gradient has other attributes"
    return _mask_why_not(uses, place, len(q.shape)) or why_needed(uses, place, _inside(uses, place)) or _moved(uses, place)


def _heads(product: Operator) -> int:
    return product.attr("head_number") or 1


def _differ(*batches: tuple[int, ...]) -> bool:
    return any(a >= 0 and b >= 0 and a != b for one in batches for a, b in zip(one, batches[0]))


def _mask_why_not(uses: Uses, place: _Place, rank: int) -> str | None:
    if place.add is None:
        return None
    add = uses.ops[place.add]
    scores, mask = (uses.block._find_var_recursive(add.input(s)[0]) for s in ("X", "Y"))
    if mask is None or not mask.has_shape or mask.type is not VarType.LOD_TENSOR or scores is None or not scores.has_shape:
        return "the mask's shape is not known"
    if not mask.has_dtype or mask.dtype is not VarType.BF16:
        return "the mask is not bfloat16"
    whole = len(mask.shape) == rank or (len(mask.shape) < rank and add.attr("axis") in (-1, rank - len(mask.shape)))
    if not whole or any(m != 1 and m != s for m, s in zip(mask.shape[::-1], scores.shape[::-1])):
        return f"the mask of shape {list(mask.shape)} is not sure to be spread over scores of shape {list(scores.shape)}"
    return None


def _inside(uses: Uses, place: _Place) -> list[str]:
    """Values that the place makes for itself."""
    inside = [n for p in place.forward()[:-1] for n in uses.ops[p].output("Out")]
    return inside + [n for p in place.backward()[1:] for n in uses.ops[p].input("Out@GRAD")]


def _moved(uses: Uses, place: _Place) -> str | None:
    """Why the scores can't wait for the last product, or the gradients of queries and keys come before the others."""
    inside = {n for p in (*place.forward(), *place.backward()) for n in uses.ops[p].output_arg_names}
    for p in place.forward():
        changed = uses.written_between([n for n in uses.ops[p].input_arg_names if n not in inside], p, place.sum)
        if changed is not None:
            return f"{changed!r} is overwritten before the last product"
    scores, last = uses.ops[place.scores], uses.ops[place.sum]
    given = [*scores.input("X"), *scores.input("Y"), *last.input("Y")]
    if (changed := uses.written_between(given, place.sum, place.scores_grad)) is not None:
        return f"{changed!r} is overwritten before the gradients"
    if len(uses.writers[last.output("Out")[0]]) > 1:
        return f"{last.output('Out')[0]!r} is written elsewhere too"
    # Written at the place of the first gradient: nobody may want what stood there, from that operator on.
    early = uses.touched_between(uses.ops[place.scores_grad].output_arg_names, place.sum_grad - 1, place.scores_grad)
    return None if early is None else f"{early!r} is read or written among the gradients"


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    ops = uses.ops
    scores, last, sum_grad, scores_grad = (ops[p] for p in (place.scores, place.sum, place.sum_grad, place.scores_grad))
    rows = {"Q": scores.input("X"), "K": scores.input("Y"), "V": last.input("Y")}
    mask = {"Mask": ops[place.add].input("Y")} if place.add is not None else {}
    weights = ops[place.softmax].output("Out")
    scale = {"scale": scores.attr("alpha")}
    outputs = {"Out": last.output("Out"), "Weights": weights}
    forward = operator_like(work, last, "attention_layer", {**rows, **mask}, outputs, scale)
    given = {**rows, "Weights": weights, "Out@GRAD": sum_grad.input("Out@GRAD")}
    wanted = {"Q@GRAD": scores_grad.output("X@GRAD"), "K@GRAD": scores_grad.output("Y@GRAD")}
    wanted["V@GRAD"] = sum_grad.output("Y@GRAD")
    wanted = {slot: names for slot, names in wanted.items() if names}
    backward = operator_like(work, sum_grad, "attention_layer_grad", given, wanted, scale)
    backward.forward = forward
    return {place.sum: forward, place.sum_grad: backward}
