"""softmax + cross_entropy of hard labels, with their gradients -> softmax_cross_entropy and its gradient.

The gradient of a softmax under a cross entropy is the softmax less the label: neither the gradient of the probabilities
nor its sum over the classes need be made.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "fuse_softmax_cross_entropy"
_GRADS = {"cross_entropy": "cross_entropy_grad", "cross_entropy2": "cross_entropy_grad2"}


class _Place(NamedTuple):
    softmax: int
    loss: int
    loss_grad: int
    softmax_grad: int

    def forward(self) -> list[int]:
        return [self.softmax, self.loss]

    def backward(self) -> list[int]:
        return [self.loss_grad, self.softmax_grad]


@program_pass(_NAME)
def fuse_softmax_cross_entropy(work: Work) -> int:
    """Returns how many losses were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose loss stands at `at`, or why it stays as it is."""
    op = uses.ops[at]
    if op.type not in _GRADS or op.attrs.get("soft_label"):
        return None
    before = uses.producer(op.input("X")[0], at)
    if before is None or uses.ops[before].type != "softmax":
        return None
    place = _place(uses, before, at)
    return place if isinstance(place, str) else _why_not(uses, place) or place


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
    softmax, loss, loss_grad, _ = (uses.ops[p] for p in place)
    out, axis = uses.block._find_var_recursive(softmax.output("Out")[0]), softmax.attr("axis")
    if axis != -1 and (out is None or not out.has_shape or axis != len(out.shape) - 1):
        return "the softmax is not over the last axis"
    why = why_needed(uses, place, [loss_grad.output("X@GRAD")[0], *loss.output("XShape"), *loss.output("MatchX")])
    if why is not None:
        return why
    labels, given = loss.input("Label"), loss_grad.input("Y@GRAD")
    changed = uses.written_between(labels, place.softmax, place.softmax_grad)
    changed = changed or uses.written_between(given, place.loss_grad, place.softmax_grad)
    return None if changed is None else f"{changed!r} is overwritten in between"


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    softmax, loss, loss_grad, softmax_grad = (uses.ops[p] for p in place)
    kind, attrs = "softmax_cross_entropy", {"ignore_index": loss.attr("ignore_index")}
    inputs = {"X": softmax.input("X"), "Label": loss.input("Label")}
    outputs = {"Softmax": softmax.output("Out"), "Y": loss.output("Y")}
    forward = operator_like(work, loss, kind, inputs, outputs, attrs)
    given = {"Softmax": softmax.output("Out"), "Label": loss.input("Label"), "Y@GRAD": loss_grad.input("Y@GRAD")}
    wanted = {"X@GRAD": softmax_grad.output("X@GRAD")}
    backward = operator_like(work, softmax_grad, kind + "_grad", given, wanted, attrs)
    backward.forward = forward
    return {place.softmax: forward, place.softmax_grad: backward}
