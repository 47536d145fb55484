"""batch_norm + relu or leaky_relu, or batch_norm + elementwise_add + relu, and their gradients -> one operator each way.

A training step reads and writes each map fewer times so: the sums of the gradient take relu's zeros in on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, taken, why_needed

_NAME = "fuse_batch_norm_relu"
_ATTRS = ("momentum", "epsilon", "data_layout")


@dataclass
class _Place:
    """Positions of the operators; `add` and `add_grad` are None where nothing is added."""

    norm: int
    relu: int
    relu_grad: int
    norm_grad: int
    add: int | None = None
    add_grad: int | None = None
    mine: str = "X"  # the slot of elementwise_add that takes the normalised map

    def forward(self) -> list[int]:
        return [p for p in (self.norm, self.add, self.relu) if p is not None]

    def backward(self) -> list[int]:
        return [p for p in (self.relu_grad, self.add_grad, self.norm_grad) if p is not None]

    @property
    def other(self) -> str:
        return "Y" if self.mine == "X" else "X"


@program_pass(_NAME)
def fuse_batch_norm_relu(work: Work) -> int:
    """Returns how many places were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | None:
    """The place whose relu stands at `at`; why there is none is said of the batch_norm."""
    if uses.ops[at].type not in ("relu", "leaky_relu"):
        return None
    refusals = []
    for norm, add, mine in _norms(uses, at):
        place = _place(uses, at, norm, add, mine)
        why = place if isinstance(place, str) else _why_not(work, uses, place)
        if why is None and isinstance(place, _Place):
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


def _place(uses: Uses, relu: int, norm: int, add: int | None, mine: str) -> _Place | str:
    """The place with its gradients, or why there is none."""
    out = uses.ops[relu].output("Out")[0]
    relu_grad = uses.reader(out, uses.ops[relu].type + "_grad", "Out")
    if relu_grad is None:
        return "relu has no gradient, or several"
    gradient = uses.ops[relu_grad].output("X@GRAD")[0]
    add_grad = None
    if add is not None:
        add_grad = uses.reader(gradient, "elementwise_add_grad", "Out@GRAD")
        if add_grad is None or not uses.ops[add_grad].output(mine + "@GRAD"):
            return "elementwise_add has no gradient, or several"
        gradient = uses.ops[add_grad].output(mine + "@GRAD")[0]
    norm_grad = uses.reader(gradient, "batch_norm_grad", "Y@GRAD")
    if norm_grad is None:
        return "batch_norm has no gradient, or several"
    saved = uses.ops[norm].output("SavedMean")
    if uses.ops[norm_grad].input("SavedMean") != saved or uses.ops[norm_grad].input("X") != uses.ops[norm].input("X"):
        return "the gradient is another batch_norm's"
    return _Place(norm, relu, relu_grad, norm_grad, add, add_grad, mine)


def _why_not(work: Work, uses: Uses, place: _Place) -> str | None:
    ops = uses.ops
    norm = ops[place.norm]
    if norm.attr("is_test") or norm.attr("use_global_stats") or norm.attr("fuse_with_relu"):
        return "it does not normalise with the batch's statistics, or has a relu already"
    if not 0 <= _slope(ops[place.relu]) <= 1 or _slope(ops[place.relu]) != _slope(ops[place.relu_grad]):
        return "the slope of leaky_relu is not between 0 and 1"
    if place.add is not None and (why := _not_alike(work, uses, place.add)) is not None:
        return why
    inside = [norm.output("Y")[0], ops[place.relu_grad].output("X@GRAD")[0]]
    if place.add is not None and place.add_grad is not None:
        inside += [ops[place.add].output("Out")[0], ops[place.add_grad].output(place.mine + "@GRAD")[0]]
    return why_needed(uses, place, inside) or _moved(uses, place)


def _slope(op: Operator) -> float:
    """What a relu or leaky_relu, or its gradient, multiplies numbers below 0 by."""
    return op.attr("alpha") if op.type.startswith("leaky") else 0.0


def _not_alike(work: Work, uses: Uses, at: int) -> str | None:
    """Why the operands of a sum may differ in shape."""
    add = uses.ops[at]
    x, y = (work.block._find_var_recursive(add.input(slot)[0]) for slot in ("X", "Y"))
    if x is None or y is None or not x.has_shape or not y.has_shape or tuple(x.shape) != tuple(y.shape):
        return "what is added may have another shape"
    if any(d < 0 for d in x.shape[1:]) or x.dtype != y.dtype or add.input("X") == add.input("Y"):
        return "what is added may have another shape, or is of another type"
    if x.shape[0] < 0:
        first, second = (_fed(work, uses, add.input(slot)[0], at) for slot in ("X", "Y"))
        if first != second:
            return "what is added may have a batch of its own: it comes from other feeds"
    return None


def _fed(work: Work, uses: Uses, name: str, at: int) -> set[str]:
    """What `name`, as read at `at`, comes from: values that are neither made here nor persistable."""
    left, seen, found = [(name, at)], set[int](), set[str]()
    while left:
        name, at = left.pop()
        producer = uses.producer(name, at)
        if producer is None:
            var = work.block._find_var_recursive(name)
            if var is None or not var.persistable:
                found.add(name)
        elif producer not in seen:
            seen.add(producer)
            left += [(given, producer) for given in uses.ops[producer].input_arg_names if given != EMPTY_VAR]
    return found


def _moved(uses: Uses, place: _Place) -> str | None:
    """Why the forwards can't wait for relu, or the gradients can't stand where relu's stands."""
    ops = uses.ops
    mine = set(taken(place))
    if len(uses.writers[ops[place.relu].output("Out")[0]]) > 1:
        return f"{ops[place.relu].output('Out')[0]!r} is written elsewhere too"
    for first, last, names in (
        (place.norm, place.relu, ops[place.norm].input_arg_names),
        (place.relu_grad, place.norm_grad, ops[place.norm_grad].input_arg_names),
    ):
        changed = uses.written_between([n for n in names if not set(uses.writers[n]) <= mine], first, last)
        if changed is not None:
            return f"{changed!r} is overwritten in between"
    early, late = (place.norm, place.relu), (place.relu_grad, place.norm_grad)
    for p, (first, last) in ((place.norm, early), (place.norm_grad, late), (place.add_grad, late)):
        touched = None if p is None else uses.touched_between(ops[p].output_arg_names, first, last, mine)
        if touched is not None:
            return f"{touched!r} is read or written in between"
    return None


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    norm, relu, norm_grad = (uses.ops[p] for p in (place.norm, place.relu, place.norm_grad))
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
    attrs["slope"] = _slope(relu)
    forward = operator_like(work, norm, "batch_norm_relu", inputs, outputs, attrs)
    attrs = {**attrs, "residual": place.add is not None}
    attrs.pop("momentum", None)
    backward = operator_like(work, norm_grad, "batch_norm_relu_grad", given, wanted, attrs)
    backward.forward = forward
    return {place.relu: forward, place.relu_grad: backward}
