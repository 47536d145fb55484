"""elementwise_mul of a map by a number a channel + elementwise_add + relu, and their gradients -> one operator each way.

So ends a residual block with squeeze-and-excitation. Maps are read and written three times instead of seven, on the way back
five times instead of a dozen.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._chain import Chain, not_alike, through_sum, why_apart
from millstream.passes.training._places import fuse_places

_NAME = "fuse_scaled_sum"


@program_pass(_NAME)
def fuse_scaled_sum(work: Work) -> int:
    """Returns how many places were fused."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> Chain | str | None:
    """The place whose relu stands at `at`."""
    ops = uses.ops
    if ops[at].type != "relu":
        return None
    add = uses.producer(ops[at].input("X")[0], at)
    if add is None or ops[add].type != "elementwise_add":
        return None
    refusal = None
    for slot in ("Y", "X"):
        mul = uses.producer(ops[add].input(slot)[0], add)
        if mul is None or ops[mul].type != "elementwise_mul" or not is_by_channel(work, ops[mul]):
            continue
        found = _place(work, uses, Chain(mul, at, -1, -1, add, None, slot))
        if not isinstance(found, str):
            return found
        refusal = refusal or found
    return refusal


def is_by_channel(work: Work, mul: Operator) -> bool:
    """Whether elementwise_mul's X [N, C, H, W] is multiplied by Y [N, C] or [N, C, 1, 1]."""
    x, y = (work.block._find_var_recursive(mul.input(slot)[0]) for slot in ("X", "Y"))
    if x is None or y is None or not x.has_shape or not y.has_shape or len(x.shape) != 4:
        return False
    axis, shape = mul.attr("axis"), tuple(y.shape)
    spread = (len(shape) == 2 and axis == 0) or (len(shape) == 4 and shape[2:] == (1, 1) and axis in (-1, 0))
    return spread and shape[1] == x.shape[1] > 0 and x.dtype == y.dtype and min(x.shape[2:]) != 1


def _place(work: Work, uses: Uses, chain: Chain) -> Chain | str:
    """The place with its gradients, or why there is none."""
    ops, add = uses.ops, chain.add
    relu_grad = uses.reader(ops[chain.relu].output("Out")[0], "relu_grad", "Out")
    if relu_grad is None:
        return "relu has no gradient, or several"
    found = through_sum(uses, ops[relu_grad].output("X@GRAD")[0], chain.mine)
    if found is None or add is None:
        return "elementwise_add has no gradient, or several"
    mul_grad = uses.reader(found[1], "elementwise_mul_grad", "Out@GRAD")
    if mul_grad is None or any(not ops[mul_grad].output(slot) for slot in ("X@GRAD", "Y@GRAD")):
        return "elementwise_mul has no gradient, or several"
    mul = ops[chain.first]
    if any(ops[mul_grad].input(slot) != mul.input(slot) for slot in ("X", "Y")):
        return "the gradient is another elementwise_mul's"
    chain = Chain(chain.first, chain.relu, relu_grad, mul_grad, add, found[0], chain.mine)
    return not_alike(work, uses, add) or why_apart(uses, chain, "Out") or chain


def _build(work: Work, uses: Uses, chain: Chain) -> dict[int, Operator]:
    ops = uses.ops
    mul, relu, relu_grad, mul_grad = (ops[p] for p in (chain.first, chain.relu, chain.relu_grad, chain.first_grad))
    assert chain.add is not None and chain.add_grad is not None
    attrs = {"axis": mul.attr("axis")}
    read = {"X": mul.input("X"), "Scale": mul.input("Y")}
    inputs = {**read, "Residual": ops[chain.add].input(chain.other)}
    forward = operator_like(work, mul, "scaled_sum_relu", inputs, {"Out": relu.output("Out")}, attrs)
    given = {**read, "Out": relu.output("Out"), "Out@GRAD": relu_grad.input("Out@GRAD")}
    wanted = {"X@GRAD": mul_grad.output("X@GRAD"), "Scale@GRAD": mul_grad.output("Y@GRAD")}
    if gradient := ops[chain.add_grad].output(chain.other + "@GRAD"):
        wanted["Residual@GRAD"] = gradient
    backward = operator_like(work, mul_grad, "scaled_sum_relu_grad", given, wanted, attrs)
    backward.forward = forward
    return {chain.relu: forward, chain.relu_grad: backward}
