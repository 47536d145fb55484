"""batch_norm_line_grad of relu(batch_norm + another map) -> the 1x1 convolution that makes the relu's gradient.

So ends a residual block before the first convolution of the next one, whose gradient begins with that of the shortcut
(fuse_added_gradient): while rows of it are in the cache they become those of the sum, and what the normalisation needs is
summed up. The map of the relu's gradient, and a pass over four maps, are gone.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_summed_gradient"
_GIVEN = {"X": "Summed", "Scale": "SummedScale", "SavedMean": "SummedMean", "SavedVariance": "SummedInverse"}
_MADE = {"dZ": "Input@GRAD", "Scale@GRAD": "NormScale@GRAD", "Bias@GRAD": "NormBias@GRAD", "Line": "InputLine"}


@program_pass(_NAME)
def fuse_summed_gradient(work: Work) -> int:
    """Returns how many gradients were left to convolutions."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "batch_norm_line_grad" or not op.input("Y"):
            continue
        found = _conv(uses, at)
        if isinstance(found, int):
            replaced[at], replaced[found] = None, _taking(work, uses, at, found)
        elif found is not None:
            work.refuse(_NAME, op, found)
    replace_all(work, replaced)
    return len(replaced) // 2


def _conv(uses: Uses, at: int) -> int | str | None:
    """The position of the convolution that can take over the gradient at `at`, or why not; None: there is none."""
    op = uses.ops[at]
    (given,) = op.input("Y@GRAD")
    conv = uses.producer(given, at)
    if conv is None or uses.ops[conv].type != "normed_conv2d_grad" or uses.ops[conv].output("Input@GRAD") != [given]:
        return None
    grad = uses.ops[conv]
    if grad.input("Input") != op.input("Y") or not grad.input("Added"):
        return "the convolution reads another map, or nothing is added to its gradient"
    if uses.has_gradient(grad) or uses.has_gradient(op):
        return "its gradient has a gradient"
    made = [n for slot in _MADE for n in op.output(slot)]
    touched = uses.touched_between(made, conv, at) or next((n for n in made if n in grad.input_arg_names), None)
    if touched is not None:
        return f"{touched!r} is read or written in between"
    changed = uses.written_between([n for slot in ("Y", *_GIVEN) for n in op.input(slot)], conv, at)
    if changed is not None:
        return f"{changed!r} is written in between"
    return uses.why_kept([given], (conv, at)) or conv


def _taking(work: Work, uses: Uses, at: int, conv: int) -> Operator:
    op, grad = uses.ops[at], uses.ops[conv]
    inputs = {s: grad.input(s) for s in grad.input_names}
    inputs.update({mine: op.input(slot) for slot, mine in _GIVEN.items()})
    outputs = {s: grad.output(s) for s in grad.output_names if s not in _MADE.values()}
    outputs.update({mine: op.output(slot) for slot, mine in _MADE.items() if op.output(slot)})
    made = operator_like(work, grad, grad.type, inputs, outputs, grad.attrs)
    made.forward = grad.forward
    return made
