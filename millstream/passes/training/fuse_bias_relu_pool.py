"""elementwise_add of a convolution's bias + relu + pool2d (maxima of 2 x 2) with their gradients -> one operator each way.

The sum and its relu are nowhere kept: the greatest of a window is the same before both.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed

_NAME = "fuse_bias_relu_pool"
_WINDOW = {
    "pooling_type": "max", "ksize": [2, 2], "strides": [2, 2], "global_pooling": False, "adaptive": False,
    "ceil_mode": False,
}  # fmt: skip


class _Place(NamedTuple):
    add: int
    relu: int
    pool: int
    pool_grad: int
    relu_grad: int
    add_grad: int

    def forward(self) -> list[int]:
        return [self.add, self.relu, self.pool]

    def backward(self) -> list[int]:
        return [self.pool_grad, self.relu_grad, self.add_grad]


@program_pass(_NAME)
def fuse_bias_relu_pool(work: Work) -> int:
    """Returns how many places were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose pooling stands at `at`, or why it stays as it is."""
    ops = uses.ops
    if ops[at].type != "pool2d" or any(ops[at].attr(name) != value for name, value in _WINDOW.items()):
        return None
    relu = uses.producer(ops[at].input("X")[0], at)
    if relu is None or ops[relu].type != "relu":
        return None
    add = uses.producer(ops[relu].input("X")[0], relu)
    if add is None or ops[add].type != "elementwise_add" or ops[add].attr("axis") != 1:
        return None
    conv = uses.producer(ops[add].input("X")[0], add)
    if conv is None or ops[conv].type not in ("conv2d", "depthwise_conv2d"):
        return None
    grads = _gradients(uses, add, relu, at)
    if grads is None:
        return "there are no gradients of all three, or several"
    place = _Place(add, relu, at, *grads)
    return _why_not(uses, place) or place


def _gradients(uses: Uses, add: int, relu: int, pool: int) -> tuple[int, int, int] | None:
    """Those of the pooling, the relu and the sum, where each reads what the one before it makes."""
    ops = uses.ops
    first = uses.reader(ops[pool].output("Out")[0], "pool2d_grad", "Out")
    if first is None or ops[first].input("X") != ops[pool].input("X"):
        return None
    second = uses.reader(ops[first].output("X@GRAD")[0], "relu_grad", "Out@GRAD")
    if second is None or ops[second].input("Out") != ops[relu].output("Out"):
        return None
    third = uses.reader(ops[second].output("X@GRAD")[0], "elementwise_add_grad", "Out@GRAD")
    if third is None or ops[third].input("Y") != ops[add].input("Y") or not ops[third].output("X@GRAD"):
        return None
    return first, second, third


def _why_not(uses: Uses, place: _Place) -> str | None:
    add, pool, pool_grad, relu_grad = (uses.ops[p] for p in (place.add, place.pool, place.pool_grad, place.relu_grad))
    x, bias = (uses.block._find_var_recursive(add.input(slot)[0]) for slot in ("X", "Y"))
    if x is None or bias is None or not (x.has_shape and x.has_dtype and bias.has_shape and bias.has_dtype):
        return "a shape or type is not known"
    if not x.dtype == bias.dtype == VarType.FP32 or len(x.shape) != 4 or list(bias.shape) != [x.shape[1]]:
        return "X is no map of float32, or the bias no number for each of its channels"
    plain = not any(pool.attr("paddings") or []) and pool.attr("padding_algorithm") in (None, "EXPLICIT", "VALID")
    if not plain or pool.attr("data_format") not in (None, "NCHW", "AnyLayout"):
        return "the windows are padded, or the channels last"
    read = [add.input(slot)[0] for slot in ("X", "Y")]
    changed = uses.written_between(read, place.add, place.add_grad)
    if changed is not None or len(uses.writers[pool.output("Out")[0]]) > 1:
        return f"{changed or pool.output('Out')[0]!r} is overwritten in between"
    inside = [*add.output("Out"), *pool.input("X"), *pool_grad.output("X@GRAD"), *relu_grad.output("X@GRAD")]
    return why_needed(uses, place, inside)


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    add, pool, pool_grad, add_grad = (uses.ops[p] for p in (place.add, place.pool, place.pool_grad, place.add_grad))
    inputs = {"X": add.input("X"), "Bias": add.input("Y")}
    forward = operator_like(work, pool, "bias_relu_pool", inputs, {"Out": pool.output("Out")})
    given = {**inputs, "Out": pool.output("Out"), "Out@GRAD": pool_grad.input("Out@GRAD")}
    made = {"X@GRAD": add_grad.output("X@GRAD"), "Bias@GRAD": add_grad.output("Y@GRAD")}
    backward = operator_like(work, add_grad, "bias_relu_pool_grad", given, made)
    backward.forward = forward
    return {place.pool: forward, place.add_grad: backward}
