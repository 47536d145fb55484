"""elementwise_sub + square + mean (``square_error_cost`` and its mean) and their gradients -> mean_squared_error and its
gradient.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "fuse_squared_error"
_MEAN_GRADS = ("mean_grad", "mean_grad_of_constant")


class _Place(NamedTuple):
    sub: int
    square: int
    mean: int
    mean_grad: int
    square_grad: int
    sub_grad: int

    def forward(self) -> list[int]:
        return [self.sub, self.square, self.mean]

    def backward(self) -> list[int]:
        return [self.mean_grad, self.square_grad, self.sub_grad]


@program_pass(_NAME)
def fuse_squared_error(work: Work) -> int:
    """Returns how many losses were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose mean stands at `at`, or why it stays as it is."""
    if uses.ops[at].type != "mean":
        return None
    square = _made_by(uses, uses.ops[at].input("X")[0], at, "square")
    sub = None if square is None else _made_by(uses, uses.ops[square].input("X")[0], square, "elementwise_sub")
    if square is None or sub is None:
        return None
    place = _place(uses, sub, square, at)
    return place if isinstance(place, str) else _why_not(uses, place) or place


def _made_by(uses: Uses, name: str, reader: int, kind: str) -> int | None:
    """The position of the operator of type `kind` that makes `name` for the one at `reader`, or None."""
    at = uses.producer(name, reader)
    return at if at is not None and uses.ops[at].type == kind else None


def _place(uses: Uses, sub: int, square: int, mean: int) -> _Place | str:
    """The place with its gradients, or why there is none."""
    cost = uses.ops[mean].input("X")
    found = [p for p in uses.readers[cost[0]] if uses.ops[p].type in _MEAN_GRADS and uses.ops[p].input("X") == cost]
    if len(found) != 1:
        return "the mean has no gradient, or several"
    mean_grad = found[0]
    square_grad = _only_reader(uses, uses.ops[mean_grad].output("X@GRAD")[0], "square_grad")
    if square_grad is None or uses.ops[square_grad].input("X") != uses.ops[square].input("X"):
        return "the gradient of the squares is not read by that of square alone"
    sub_grad = _only_reader(uses, uses.ops[square_grad].output("X@GRAD")[0], "elementwise_sub_grad")
    if sub_grad is None or any(uses.ops[sub_grad].input(s) != uses.ops[sub].input(s) for s in ("X", "Y")):
        return "the gradient of the difference is not read by that of elementwise_sub alone"
    return _Place(sub, square, mean, mean_grad, square_grad, sub_grad)


def _only_reader(uses: Uses, name: str, kind: str) -> int | None:
    """The only reader of the gradient `name`, of type `kind`, or None."""
    readers = uses.readers[name]
    if name == EMPTY_VAR or len(readers) != 1 or uses.ops[readers[0]].type != kind:
        return None
    return readers[0] if uses.ops[readers[0]].input("Out@GRAD") == [name] else None


def _why_not(uses: Uses, place: _Place) -> str | None:
    ops = uses.ops
    sub = ops[place.sub]
    x, y = (uses.block._find_var_recursive(sub.input(slot)[0]) for slot in ("X", "Y"))
    if x is None or y is None or not (x.has_shape and y.has_shape) or tuple(x.shape) != tuple(y.shape):
        return "the operands of the difference may differ in shape"
    if sub.attr("axis") != -1 or x.dtype != y.dtype or x.dtype not in (VarType.FP32, VarType.FP64):
        return "the operands of the difference are spread, or not float32 or float64"
    inside = [ops[p].output("Out")[0] for p in place.forward()[:-1]]
    inside += [ops[p].output("X@GRAD")[0] for p in place.backward()[:-1]]
    why = why_needed(uses, place, inside)
    if why is not None:
        return why
    changed = uses.written_between(sub.input_arg_names, place.sub, place.mean)
    changed = changed or uses.written_between(ops[place.mean_grad].input("Out@GRAD"), place.mean_grad, place.sub_grad)
    return None if changed is None else f"{changed!r} is overwritten in between"


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    sub, _, mean, mean_grad, _, sub_grad = (uses.ops[p] for p in place)
    given = {"X": sub.input("X"), "Y": sub.input("Y")}
    difference = sub.output("Out")
    outputs = {"Difference": difference, "Out": mean.output("Out")}
    forward = operator_like(work, mean, "mean_squared_error", given, outputs)
    given, attrs = {**given, "Difference": difference}, {}
    if mean_grad.type == "mean_grad":
        given["Out@GRAD"] = mean_grad.input("Out@GRAD")
    else:
        attrs["value"] = mean_grad.attr("value")
    backward = operator_like(work, sub_grad, "mean_squared_error_grad", given, sub_grad.outputs, attrs)
    backward.forward = forward
    return {place.mean: forward, place.sub_grad: backward}
