"""A dense layer of few columns under a softmax's cross entropy whose mean has a constant gradient, with all their gradients
-> classify_ahead, one operator for the end of a classifier's forward and the beginning of its backward pass."""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, taken, why_needed

_NAME = "classify_ahead"
_CLASSES = 16  # from which on the layer's products are no narrow ones
# the loss -> its slots for scores and losses
_LOSSES = {"softmax_cross_entropy": ("X", "Y"), "softmax_with_cross_entropy": ("Logits", "Loss")}


class _Place(NamedTuple):
    layer: int
    loss: int
    mean: int | None
    share: int
    loss_grad: int
    layer_grad: int

    def forward(self) -> list[int]:
        return [p for p in (self.layer, self.loss, self.mean) if p is not None]

    def backward(self) -> list[int]:
        return [self.share, self.loss_grad, self.layer_grad]


@program_pass(_NAME)
def classify_ahead(work: Work) -> int:
    """Returns how many classifiers were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose loss stands at `at`, or why it stays as it is."""
    op = uses.ops[at]
    if op.type not in _LOSSES or op.attrs.get("soft_label"):
        return None
    given, made = _LOSSES[op.type]
    layer = uses.producer(op.input(given)[0], at)
    if layer is None or not _is_narrow(uses, layer):
        return None
    found = _backward(uses, layer, at)
    if found is None:
        return None
    readers = [p for p in uses.readers[op.output(made)[0]] if uses.ops[p].type == "mean"]
    place = _Place(layer, at, readers[0] if len(readers) == 1 else None, *found)
    return _why_not(uses, place) or place


def _is_narrow(uses: Uses, at: int) -> bool:
    """Whether a layer without an activation, float32, with few columns stands there."""
    op = uses.ops[at]
    if op.type != "dense_layer" or op.attr("activation"):
        return False
    x, w = (uses.block._find_var_recursive(op.input(slot)[0]) for slot in ("X", "W"))
    if x is None or w is None or not (x.has_dtype and w.has_dtype and w.has_shape):
        return False
    return x.dtype == w.dtype == VarType.FP32 and 1 < w.shape[1] < _CLASSES


def _backward(uses: Uses, layer: int, loss: int) -> tuple[int, int, int] | None:
    """The gradients of the mean, of the loss and of the layer, or None where these are not as they should be."""
    op = uses.ops[loss]
    given, made = _LOSSES[op.type]
    softmax = op.output("Softmax")
    grad = uses.reader(softmax[0], op.type + "_grad", "Softmax") if softmax else None
    if grad is None or uses.ops[grad].forward is not op:
        return None
    share = uses.producer(uses.ops[grad].input(made + "@GRAD")[0], grad)
    if share is None or uses.ops[share].type != "mean_grad_of_constant" or uses.ops[share].input("X") != op.output(made):
        return None
    back = uses.reader(uses.ops[grad].output(given + "@GRAD")[0], "dense_layer_grad", "Out@GRAD")
    if back is None or any(uses.ops[back].input(s) != uses.ops[layer].input(s) for s in ("X", "W")):
        return None
    whole = uses.ops[back].output("W@GRAD") and uses.ops[back].output("Bias@GRAD") and not uses.ops[back].attr("activation")
    return (share, grad, back) if whole else None


def _why_not(uses: Uses, place: _Place) -> str | None:
    """Why what is made at several places may not be made at the loss."""
    layer, loss, share, loss_grad, layer_grad = (
        uses.ops[p] for p in (place.layer, place.loss, place.share, place.loss_grad, place.layer_grad)
    )
    given, made = _LOSSES[loss.type]
    axis, scores = loss.attrs.get("axis", -1), uses.block._find_var_recursive(layer.output("Out")[0])
    if axis != -1 and (scores is None or not scores.has_shape or axis != len(scores.shape) - 1):
        return "the softmax is not over the last axis"
    within = taken(place)
    early = [n for slot in ("X@GRAD", "W@GRAD", "Bias@GRAD") for n in layer_grad.output(slot)]
    inputs = [*layer.input_arg_names, *loss.input("Label")]
    average = uses.ops[place.mean].output("Out") if place.mean is not None else []
    touched = (
        uses.touched_between(layer.output("Out"), place.layer, place.loss)
        or uses.written_between(inputs, place.layer, place.layer_grad)
        or uses.touched_between(early, place.loss, place.layer_grad, within)
        or uses.touched_between(average, place.loss, place.mean or place.loss)
        or next((n for n in early if n in inputs), None)
    )
    if touched is not None:
        return f"{touched!r} is used between the layer and its gradient"
    several = next((n for n in (*layer.output("Out"), *loss.output("Softmax"), *loss.output(made))
                    if len(uses.writers[n]) > 1), None)  # fmt: skip
    if several is not None:
        return f"{several!r} is written elsewhere too"
    return why_needed(uses, place, [*share.output("X@GRAD"), *loss_grad.output(given + "@GRAD")])


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    layer, loss, share, layer_grad = (uses.ops[p] for p in (place.layer, place.loss, place.share, place.layer_grad))
    _, made = _LOSSES[loss.type]
    inputs = {**{slot: layer.input(slot) for slot in ("X", "W", "Bias")}, "Label": loss.input("Label")}
    outputs = {
        "Scores": layer.output("Out"), "Softmax": loss.output("Softmax"), "Y": loss.output(made),
        "Mean": uses.ops[place.mean].output("Out") if place.mean is not None else [],
        **{slot: layer_grad.output(slot) for slot in ("X@GRAD", "W@GRAD", "Bias@GRAD")},
    }  # fmt: skip
    within = taken(place)
    for slot in ("Scores", "Softmax"):  # not needed: not made
        if uses.why_kept(outputs[slot], within) is None:
            outputs[slot] = []
    attrs = {
        "rows": layer.attr("rows"), "behind": layer_grad.attr("behind"), "ignore_index": loss.attr("ignore_index"),
        "with_logits": loss.type == "softmax_with_cross_entropy", "value": share.attr("value"),
    }  # fmt: skip
    return {place.loss: operator_like(work, loss, _NAME, inputs, outputs, attrs)}
