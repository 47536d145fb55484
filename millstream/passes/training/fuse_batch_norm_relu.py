"""batch_norm + relu, leaky_relu, relu6, swish or hard_swish, or batch_norm + elementwise_add + relu, and gradients -> one
operator each way.

A training step reads and writes each map fewer times so: the sums of the gradient take relu's zeros in on the way.
"""

from __future__ import annotations

import math

from millstream.ir.operator import Operator
from millstream.ops.nn._bend import HARD_SWISH, SWISH
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._chain import Chain, not_alike, through_sum, why_apart
from millstream.passes.training._places import fuse_places

_NAME = "fuse_batch_norm_relu"
_ATTRS = ("momentum", "epsilon", "data_layout")
_CURVES = {  # activations whose gradients read X, how kernels know them, and the attributes for which they do
    "swish": (SWISH, {"beta": 1.0}), "hard_swish": (HARD_SWISH, {"threshold": 6.0, "scale": 6.0, "offset": 3.0}),
}  # fmt: skip
_OTHER_CURVE = -math.inf


@program_pass(_NAME)
def fuse_batch_norm_relu(work: Work) -> int:
    """Returns how many places were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> Chain | None:
    """The place whose relu stands at `at`; why there is none is said of the batch_norm."""
    if uses.ops[at].type not in ("relu", "leaky_relu", "relu6", *_CURVES):
        return None
    refusals = []
    for norm, add, mine in _norms(uses, at):
        place = _place(uses, at, norm, add, mine)
        why = place if isinstance(place, str) else _why_not(work, uses, place)
        if why is None and isinstance(place, Chain):
            return place
        refusals.append((uses.ops[norm], why or ""))
    if refusals:
        work.refuse(_NAME, *refusals[0])
    return None


def _norms(uses: Uses, relu: int) -> list[tuple[int, int | None, str]]:
    """(batch_norm, elementwise_add or None, slot of it) whose result relu takes; the later operand of a sum first."""
    before = uses.producer(uses.ops[relu].input("X")[0], relu)
    if before is None:
        return []
    if uses.ops[before].type == "batch_norm":
        return [(before, None, "X")]
    if uses.ops[before].type != "elementwise_add" or uses.ops[relu].type != "relu":
        return []
    found: list[tuple[int, int | None, str]] = []
    for slot in ("Y", "X"):
        at = uses.producer(uses.ops[before].input(slot)[0], before)
        if at is not None and uses.ops[at].type == "batch_norm":
            found.append((at, before, slot))
    return found


def _place(uses: Uses, relu: int, norm: int, add: int | None, mine: str) -> Chain | str:
    """The place with its gradients, or why there is none."""
    op = uses.ops[relu]
    read = ("X", op.input("X")[0]) if op.type in _CURVES else ("Out", op.output("Out")[0])
    relu_grad = uses.reader(read[1], op.type + "_grad", read[0])
    if relu_grad is None:
        return "relu has no gradient, or several"
    gradient = uses.ops[relu_grad].output("X@GRAD")[0]
    add_grad = None
    if add is not None:
        found = through_sum(uses, gradient, mine)
        if found is None:
            return "elementwise_add has no gradient, or several"
        add_grad, gradient = found
    norm_grad = uses.reader(gradient, "batch_norm_grad", "Y@GRAD")
    if norm_grad is None:
        return "batch_norm has no gradient, or several"
    saved = uses.ops[norm].output("SavedMean")
    if uses.ops[norm_grad].input("SavedMean") != saved or uses.ops[norm_grad].input("X") != uses.ops[norm].input("X"):
        return "the gradient is another batch_norm's"
    return Chain(norm, relu, relu_grad, norm_grad, add, add_grad, mine)


def _why_not(work: Work, uses: Uses, place: Chain) -> str | None:
    ops = uses.ops
    norm = ops[place.first]
    if norm.attr("is_test") or norm.attr("use_global_stats") or norm.attr("fuse_with_relu"):
        return "it does not normalise with the batch's statistics, or has a relu already"
    slope, most = bend = _bend(ops[place.relu])
    if bend != _bend(ops[place.relu_grad]):
        return "the activation's gradient is another one's"
    if slope == _OTHER_CURVE or (ops[place.relu].type not in _CURVES and not 0 <= slope <= 1) or not most > 0:
        return "kernels do not take the slope of leaky_relu, the threshold of relu6, or the form of a swish"
    if place.add is not None and (why := not_alike(work, uses, place.add)) is not None:
        return why
    return why_apart(uses, place, "Y")


def _bend(op: Operator) -> tuple[float, float]:
    """What an activation, or its gradient, multiplies numbers below 0 by, or which curve it is, and the most it gives."""
    curve = _CURVES.get(op.type.removesuffix("_grad"))
    if curve is not None:
        plain = all(op.attr(name) in (None, value) for name, value in curve[1].items())
        return curve[0] if plain else _OTHER_CURVE, math.inf
    if op.type.startswith("relu6"):
        return 0.0, op.attr("threshold")
    return op.attr("alpha") if op.type.startswith("leaky") else 0.0, math.inf


def _build(work: Work, uses: Uses, place: Chain) -> dict[int, Operator]:
    norm, relu, norm_grad = (uses.ops[p] for p in (place.first, place.relu, place.first_grad))
    relu_grad = uses.ops[place.relu_grad]
    attrs = {a: norm.attr(a) for a in _ATTRS if norm.attr(a) is not None}
    inputs = {s: norm.input(s) for s in ("X", "Scale", "Bias", "Mean", "Variance", "MomentumTensor") if norm.input(s)}
    outputs = {s: norm.output(s) for s in ("MeanOut", "VarianceOut", "SavedMean", "SavedVariance")}
    outputs["Y"] = relu.output("Out")
    given = {s: norm.input(s) for s in ("X", "Scale", "Bias")}
    given.update((s, norm.output(s)) for s in ("SavedMean", "SavedVariance"))
    given.update({"Y": relu.output("Out"), "Y@GRAD": relu_grad.input("Out@GRAD")})
    wanted = {s: norm_grad.output(s) for s in ("X@GRAD", "Scale@GRAD", "Bias@GRAD") if norm_grad.output(s)}
    if place.add is not None and place.add_grad is not None:
        inputs["Residual"] = uses.ops[place.add].input(place.other)
        if gradient := uses.ops[place.add_grad].output(place.other + "@GRAD"):
            wanted["Residual@GRAD"] = gradient
    attrs["slope"], attrs["most"] = _bend(relu)
    forward = operator_like(work, norm, "batch_norm_relu", inputs, outputs, attrs)
    attrs = {**attrs, "residual": place.add is not None}
    attrs.pop("momentum", None)
    backward = operator_like(work, norm_grad, "batch_norm_relu_grad", given, wanted, attrs)
    backward.forward = forward
    return {place.relu: forward, place.relu_grad: backward}
