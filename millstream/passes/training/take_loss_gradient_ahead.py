"""softmax_cross_entropy whose gradient is known beforehand (the mean's, of a constant): both are made in one walk."""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "take_loss_gradient_ahead"


class _Place(NamedTuple):
    loss: int
    share: int
    grad: int

    def forward(self) -> list[int]:
        return [self.loss]

    def backward(self) -> list[int]:
        return [self.share, self.grad]


@program_pass(_NAME)
def take_loss_gradient_ahead(work: Work) -> int:
    """Returns how many losses were taken with their gradient."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose loss stands at `at`, or why it stays as it is."""
    op = uses.ops[at]
    if op.type != "softmax_cross_entropy":
        return None
    softmax, y = op.output("Softmax")[0], op.output("Y")[0]
    grad = uses.reader(softmax, "softmax_cross_entropy_grad", "Softmax")
    if grad is None or uses.ops[grad].forward is not op:
        return None
    share = uses.producer(uses.ops[grad].input("Y@GRAD")[0], grad)
    if share is None or uses.ops[share].type != "mean_grad_of_constant" or uses.ops[share].input("X") != [y]:
        return None
    place = _Place(at, share, grad)
    return _why_not(uses, place) or place


def _why_not(uses: Uses, place: _Place) -> str | None:
    loss, share, grad = (uses.ops[p] for p in place)
    made = grad.output("X@GRAD")
    touched = uses.touched_between(made, place.loss, place.grad) or uses.written_between(
        [*loss.output("Y"), *loss.input("Label")], place.loss, place.grad
    )
    if touched is not None or set(made) & set(loss.input_arg_names):
        return f"{touched or made[0]!r} is used between the loss and its gradient"
    return why_needed(uses, place, [*loss.output("Softmax"), *share.output("X@GRAD")])


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    loss, share, grad = (uses.ops[p] for p in place)
    attrs = {"ignore_index": loss.attr("ignore_index"), "value": share.attr("value")}
    outputs = {"X@GRAD": grad.output("X@GRAD"), "Y": loss.output("Y")}
    inputs = {"X": loss.input("X"), "Label": loss.input("Label")}
    return {place.loss: operator_like(work, loss, "softmax_cross_entropy_ahead", inputs, outputs, attrs)}
