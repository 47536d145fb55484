"""The sum of a map's two gradients, one of them a 1x1 convolution's -> the convolution, which begins with the other one.

So has the input of a residual block two gradients: that of its first convolution and that of the shortcut. The second one
is read where the first would have been zeros, and no pass over both is left.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_added_gradient"


@program_pass(_NAME)
def fuse_added_gradient(work: Work) -> int:
    """Returns how many sums were left to convolutions."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "sum" or len(set(op.input("X"))) != 2 or len(op.input("X")) != 2:
            continue
        found = [_conv(work, uses, at, *names) for names in (op.input("X"), reversed(op.input("X")))]
        places = [p for p in found if isinstance(p, int) and p not in replaced]
        if places:
            replaced[at], replaced[places[0]] = None, _taking(work, uses, at, places[0])
        elif why := next((why for why in found if isinstance(why, str)), None):
            work.refuse(_NAME, op, why)
    replace_all(work, replaced)
    return len(replaced) // 2


def _conv(work: Work, uses: Uses, at: int, mine: str, other: str) -> int | str | None:
    """The position of the convolution whose gradient `mine` can begin with `other`, or why not; None: `mine` is none's."""
    conv = uses.producer(mine, at)
    if conv is None or uses.ops[conv].type != "normed_conv2d_grad" or uses.ops[conv].output("Input@GRAD") != [mine]:
        return None
    grad, out = uses.ops[conv], uses.ops[at].output("Out")
    filters = work.block._find_var_recursive(grad.input("Filter")[0])
    if grad.input("NormScale") or grad.input("Added") or filters is None or tuple(filters.shape[2:]) != (1, 1):
        return "the convolution normalises its input, or is not 1x1"
    before = uses.producer(other, at)
    if before is None or before > conv:
        return f"{other!r} is not known yet"
    touched = uses.touched_between(out, conv, at) or next((n for n in out if n in grad.input_arg_names), None)
    if touched is not None or out[0] in (mine, other):
        return f"{out[0]!r} is read or written in between"
    if uses.has_gradient(grad) or uses.has_gradient(uses.ops[at]):
        return "its gradient has a gradient"
    return uses.why_kept([mine], (conv, at)) or conv


def _taking(work: Work, uses: Uses, at: int, conv: int) -> Operator:
    grad = uses.ops[conv]
    (mine,) = grad.output("Input@GRAD")
    inputs = {s: grad.input(s) for s in grad.input_names}
    inputs["Added"] = [n for n in uses.ops[at].input("X") if n != mine]
    outputs = {s: grad.output(s) for s in grad.output_names}
    outputs["Input@GRAD"] = uses.ops[at].output("Out")
    made = operator_like(work, grad, grad.type, inputs, outputs, grad.attrs)
    made.forward = grad.forward
    return made
