"""mul + elementwise_add of a bias (+ relu, sigmoid or tanh) and their gradients -> dense_layer and its gradient.

The bias starts the product's sums, and the activation is taken while they are near.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "fuse_dense_layers"
_ACTIVATIONS = ("relu", "sigmoid", "tanh")
_DTYPES = (VarType.FP32, VarType.FP64, VarType.BF16)


@dataclass
class _Place:
    """Positions of the operators; `act` and `act_grad` are None where nothing is activated."""

    mul: int
    add: int
    add_grad: int
    mul_grad: int
    act: int | None = None
    act_grad: int | None = None

    def forward(self) -> list[int]:
        return [p for p in (self.mul, self.add, self.act) if p is not None]

    def backward(self) -> list[int]:
        return [p for p in (self.act_grad, self.add_grad, self.mul_grad) if p is not None]


@program_pass(_NAME)
def fuse_dense_layers(work: Work) -> int:
    """Returns how many layers were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose sum stands at `at`, or why it stays as it is."""
    if uses.ops[at].type != "elementwise_add":
        return None
    mul = uses.producer(uses.ops[at].input("X")[0], at)
    if mul is None or uses.ops[mul].type != "mul" or not uses.has_gradient(uses.ops[mul]):
        return None
    place = _place(uses, mul, at)
    return place if isinstance(place, str) else _why_not(uses, place) or place


def _place(uses: Uses, mul: int, add: int) -> _Place | str:
    """The place with its gradients, or why there is none."""
    out = uses.ops[add].output("Out")[0]
    act = act_grad = None
    for reader in uses.readers[out]:
        if uses.ops[reader].type in _ACTIVATIONS and uses.ops[reader].input("X") == [out] and reader > add:
            act = reader
    if act is not None and (len(uses.readers[out]) > 1 or uses.seen_outside(out)):
        act = None  # the sum itself is needed; it makes a layer without the activation
    gradient = None
    if act is not None:
        result = uses.ops[act].output("Out")[0]
        act_grad = uses.reader(result, uses.ops[act].type + "_grad", "Out")
        if act_grad is None:
            return "the activation has no gradient, or several"
        gradient = uses.ops[act_grad].output("X@GRAD")[0]
    add_grad = _gradient_of(uses, add, gradient)
    if add_grad is None:
        return "elementwise_add has no gradient, or several"
    of_product = uses.ops[add_grad].output("X@GRAD")
    mul_grad = uses.reader(of_product[0], "mul_grad", "Out@GRAD") if of_product else None
    if mul_grad is None or any(uses.ops[mul_grad].input(s) != uses.ops[mul].input(s) for s in ("X", "Y")):
        return "mul has no gradient, or several"
    return _Place(mul, add, add_grad, mul_grad, act, act_grad)


def _gradient_of(uses: Uses, add: int, gradient: str | None) -> int | None:
    """The gradient of the sum at `add`: what reads `gradient`, or where that is not known what was made for it."""
    if gradient is not None:
        found = uses.reader(gradient, "elementwise_add_grad", "Out@GRAD")
        return found if found is not None and uses.ops[found].input("Y") == uses.ops[add].input("Y") else None
    op = uses.ops[add]
    found_all = [
        p for p in uses.readers[op.input("Y")[0]]
        if uses.ops[p].type == "elementwise_add_grad" and uses.ops[p].input("Y") == op.input("Y") and _is_of(uses.ops[p], op)
    ]  # fmt: skip
    return found_all[0] if len(found_all) == 1 else None


def _is_of(grad: Operator, add: Operator) -> bool:
    """Whether `grad` is the gradient of `add`."""
    return grad.forward is add if grad.forward is not None else grad.input("X") == add.input("X")


def _why_not(uses: Uses, place: _Place) -> str | None:
    mul, add, add_grad = (uses.ops[p] for p in (place.mul, place.add, place.add_grad))
    x, w, bias = (uses.block._find_var_recursive(n) for n in (mul.input("X")[0], mul.input("Y")[0], add.input("Y")[0]))
    if x is None or w is None or bias is None or not (x.has_shape and w.has_shape and bias.has_shape):
        return "a shape is not known"
    rows = mul.attr("x_num_col_dims")
    if len(w.shape) != 2 or mul.attr("y_num_col_dims") != 1 or w.type is not VarType.LOD_TENSOR:
        return f"Y of mul is no matrix, or is flattened: {list(w.shape)}"
    if not w.has_dtype or w.dtype not in _DTYPES or not x.has_dtype or x.dtype != w.dtype:
        return "the weight, or what it multiplies, is not float32, float64 or bfloat16"
    if tuple(bias.shape) != (w.shape[1],) or bias.dtype != w.dtype or add.attr("axis") not in (-1, rows):
        return f"what is added has shape {list(bias.shape)}, not that of a bias over {w.shape[1]} columns"
    mul_grad = uses.ops[place.mul_grad]
    if add_grad.attr("axis") != add.attr("axis") or mul_grad.attr("x_num_col_dims") != rows:
        return "a gradient has other attributes"
    inside = [n for p in place.forward()[:-1] for n in uses.ops[p].output("Out")]
    inside += [n for p in place.backward()[:-1] for n in uses.ops[p].output("X@GRAD")]
    return why_needed(uses, place, inside) or _moved(uses, place)


def _moved(uses: Uses, place: _Place) -> str | None:
    """Why the product can't wait for the activation, or the gradients for that of the product."""
    last = place.forward()[-1]
    out = uses.ops[last].output("Out")
    if len(uses.writers[out[0]]) > 1:
        return f"{out[0]!r} is written elsewhere too"
    for p in place.forward():  # a bias may be cast between the product and the sum
        given = [n for n in uses.ops[p].input_arg_names if n not in uses.ops[p].output_arg_names]
        changed = uses.written_between([n for n in given if not set(uses.writers[n]) & set(place.forward())], p, last)
        if changed is not None:
            return f"{changed!r} is overwritten before the activation"
    first, last = place.backward()[0], place.backward()[-1]
    given = uses.ops[first].input("Out@GRAD")
    changed = uses.written_between([n for n in given if n not in out], first, last)
    if changed is not None or set(given) & set(out):
        return f"{changed or out[0]!r} is overwritten between the gradients"
    touched = uses.touched_between(uses.ops[place.add_grad].output("Y@GRAD"), place.add_grad, last + 1)
    return None if touched is None else f"{touched!r} is read or written before the gradient of the product"


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    mul, add, add_grad, mul_grad = (uses.ops[p] for p in (place.mul, place.add, place.add_grad, place.mul_grad))
    act = None if place.act is None else uses.ops[place.act]
    attrs = {"rows": mul.attr("x_num_col_dims"), "activation": "" if act is None else act.type}
    inputs = {"X": mul.input("X"), "W": mul.input("Y"), "Bias": add.input("Y")}
    outputs = {"Out": uses.ops[place.forward()[-1]].output("Out")}
    forward = operator_like(work, mul, "dense_layer", inputs, outputs, attrs)
    given = {"X": mul.input("X"), "W": mul.input("Y"), "Out@GRAD": uses.ops[place.backward()[0]].input("Out@GRAD")}
    if act is not None:
        given["Out"] = act.output("Out")
    wanted = {"X@GRAD": mul_grad.output("X@GRAD"), "W@GRAD": mul_grad.output("Y@GRAD")}
    wanted["Bias@GRAD"] = add_grad.output("Y@GRAD")
    wanted = {slot: names for slot, names in wanted.items() if names}
    backward = operator_like(work, mul_grad, "dense_layer_grad", given, wanted, attrs)
    backward.forward = forward
    return {place.forward()[-1]: forward, place.mul_grad: backward}
