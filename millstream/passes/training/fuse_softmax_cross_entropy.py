"""softmax + cross_entropy of hard labels, with their gradients -> softmax_cross_entropy and its gradient.

The gradient of a softmax under a cross entropy is the softmax less the label: neither the gradient of the probabilities
nor its sum over the classes need be made.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.operator import OP_ROLE, Operator
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_softmax_cross_entropy"
_GRADS = {"cross_entropy": "cross_entropy_grad", "cross_entropy2": "cross_entropy_grad2"}


class _Place(NamedTuple):
    softmax: int
    loss: int
    loss_grad: int
    softmax_grad: int


@program_pass(_NAME)
def fuse_softmax_cross_entropy(work: Work) -> int:
    """Returns how many losses were fused."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    changes = 0
    for at, op in enumerate(uses.ops):
        if op.type not in _GRADS or op.attrs.get("soft_label"):
            continue
        before = uses.producer(op.input("X")[0], at)
        if before is None or uses.ops[before].type != "softmax" or before in replaced:
            continue
        place = _place(uses, before, at)
        why = place if isinstance(place, str) else _why_not(uses, place)
        if why is not None or isinstance(place, str):
            work.refuse(_NAME, op, why or "")
            continue
        replaced.update(dict.fromkeys(place))
        replaced[place.softmax], replaced[place.softmax_grad] = _build(work, uses, place)
        changes += 1
    if changes:
        work.block.ops = [op for op in (replaced.get(i, op) for i, op in enumerate(uses.ops)) if op is not None]
        work.program._touch()
    return changes


def _place(uses: Uses, softmax: int, loss: int) -> _Place | str:
    """The place with its gradients, or why there is none."""
    p, y = uses.ops[softmax].output("Out")[0], uses.ops[loss].output("Y")[0]
    kind = _GRADS[uses.ops[loss].type]
    grads = [
        q for name in uses.ops[loss].input("Label") for q in uses.readers[name]
        if uses.ops[q].type == kind and _is_of(uses.ops[q], uses.ops[loss])
    ]  # fmt: skip
    if len(grads) != 1:
        return "the loss has no gradient, or several"
    gradient = uses.ops[grads[0]].output("X@GRAD")[0]
    readers = uses.readers[gradient]
    if len(readers) != 1 or uses.ops[readers[0]].type != "softmax_grad" or uses.ops[readers[0]].input("Out") != [p]:
        return "the gradient of the probabilities is not read by softmax's gradient alone"
    if len(uses.writers[p]) > 1 or len(uses.writers[y]) > 1:
        return f"{p!r} or {y!r} is written elsewhere too"
    return _Place(softmax, loss, grads[0], readers[0])


def _is_of(grad: Operator, loss: Operator) -> bool:
    """Whether `grad` is the gradient of `loss`."""
    if grad.forward is not None:
        return grad.forward is loss
    shared = "MatchX" if loss.type == "cross_entropy2" else "X"
    return grad.input(shared) == (loss.output(shared) or loss.input(shared)) and grad.input("Label") == loss.input("Label")


def _why_not(uses: Uses, place: _Place) -> str | None:
    softmax, loss, loss_grad, softmax_grad = (uses.ops[p] for p in place)
    out, axis = uses.block._find_var_recursive(softmax.output("Out")[0]), softmax.attr("axis")
    if axis != -1 and (out is None or not out.has_shape or axis != len(out.shape) - 1):
        return "the softmax is not over the last axis"
    if uses.has_gradient(loss_grad) or uses.has_gradient(softmax_grad):
        return "its gradient has a gradient"
    inside = [loss_grad.output("X@GRAD")[0], *loss.output("XShape"), *loss.output("MatchX")]
    why = uses.why_kept(inside, place)
    if why is not None:
        return why
    labels, given = loss.input("Label"), loss_grad.input("Y@GRAD")
    changed = uses.written_between(labels, place.softmax, place.softmax_grad)
    changed = changed or uses.written_between(given, place.loss_grad, place.softmax_grad)
    return None if changed is None else f"{changed!r} is overwritten in between"


def _build(work: Work, uses: Uses, place: _Place) -> tuple[Operator, Operator]:
    softmax, loss, loss_grad, softmax_grad = (uses.ops[p] for p in place)
    attrs = {"ignore_index": loss.attr("ignore_index")}
    outputs = {"Softmax": softmax.output("Out"), "Y": loss.output("Y")}
    forward = Operator(
        work.block, "softmax_cross_entropy", {"X": softmax.input("X"), "Label": loss.input("Label")}, outputs,
        {**attrs, OP_ROLE: loss.role}, loss.site,
    )  # fmt: skip
    given = {"Softmax": softmax.output("Out"), "Label": loss.input("Label"), "Y@GRAD": loss_grad.input("Y@GRAD")}
    backward = Operator(
        work.block, "softmax_cross_entropy_grad", given, {"X@GRAD": softmax_grad.output("X@GRAD")},
        {**attrs, OP_ROLE: softmax_grad.role}, softmax_grad.site,
    )  # fmt: skip
    backward.forward = forward
    return forward, backward
