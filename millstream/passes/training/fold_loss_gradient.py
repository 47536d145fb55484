"""fill_constant (the gradient of a loss, 1) + mean_grad -> mean_grad_of_constant."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._work import Work


@program_pass("fold_loss_gradient")
def fold_loss_gradient(work: Work) -> int:
    """Returns how many pairs were replaced."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "mean_grad":
            continue
        gradient = op.input("Out@GRAD")[0]
        filled = uses.producer(gradient, at)
        if filled is None or not _is_constant(work, uses.ops[filled], op):
            continue
        if uses.seen_outside(gradient) or len(uses.writers[gradient]) > 1 or uses.readers[gradient] != [at]:
            continue
        attrs = {"value": uses.ops[filled].attr("value")}
        new = operator_like(work, op, "mean_grad_of_constant", {"X": op.input("X")}, op.outputs, attrs)
        new.forward = op.forward
        replaced.update({filled: None, at: new})
    replace_all(work, replaced)
    return len(replaced) // 2


def _is_constant(work: Work, op: Operator, mean_grad: Operator) -> bool:
    """Whether `op` fills one element of the type of the mean's operand with a number that is known."""
    if op.type != "fill_constant" or any(op.inputs.values()) or op.attr("str_value") or op.attr("shape") != [1]:
        return False
    x = work.block._find_var_recursive(mean_grad.input("X")[0])
    return x is not None and x.has_dtype and x.dtype == op.attr("dtype")
