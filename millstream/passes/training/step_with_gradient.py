"""The gradient of a dense layer + sgd of its weight -> one operator: the weight moves while its gradient is in the cache."""

from __future__ import annotations

from math import prod

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "step_with_gradient"
_LEAST = 1 << 14  # numbers of a weight below which it had better go with the others, in one call


@program_pass(_NAME)
def step_with_gradient(work: Work) -> int:
    """Returns how many weights move with their gradients."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "sgd":
            continue
        maker = _maker(uses, at, op)
        if isinstance(maker, str):
            work.refuse(_NAME, op, maker)
        elif maker is not None:
            replaced[at], replaced[maker] = None, _build(work, uses.ops[maker], op)
    replace_all(work, replaced)
    return len(replaced) // 2


def _maker(uses: Uses, at: int, op: Operator) -> int | str | None:
    """The position of the gradient that can move what the update at `at` does, or why there is none, or None."""
    grad, param, rate = (op.input(slot)[0] for slot in ("Grad", "Param", "LearningRate"))
    made = uses.producer(grad, at)
    if made is None or uses.ops[made].type != "dense_layer_grad" or uses.ops[made].input("W") != [param]:
        return None
    var, x = (uses.block._find_var_recursive(name) for name in (param, uses.ops[made].input("X")[0]))
    if var is None or not var.has_shape or prod(var.shape) < _LEAST or uses.ops[made].output("W@GRAD") != [grad]:
        return None
    if x is None or not x.has_dtype or not var.has_dtype or x.dtype != var.dtype:  # products of bfloat16
        return None
    why = uses.why_kept([grad], [at])
    if why is not None:
        return why
    if op.output("ParamOut") != [param] or uses.writers[param] != [at] or param in uses.keep:
        return f"{param!r} is fetched, or written elsewhere too"
    # what else reads the weight before it moves may keep a view of it for a gradient of its own
    others = [p for p in uses.readers[param] if p < at and p != made and (p > made or uses.ops[p].type != "dense_layer")]
    if others:
        return f"{uses.ops[others[0]].type} reads {param!r}, too"
    if any(made <= p < at for p in uses.writers.get(rate, ())):
        return f"the rate {rate!r} is made behind the gradient"
    return made


def _build(work: Work, grad: Operator, update: Operator) -> Operator:
    inputs = {slot: grad.input(slot) for slot in ("X", "W", "Out", "Out@GRAD") if grad.input(slot)}
    inputs["LearningRate"] = update.input("LearningRate")
    outputs = {slot: grad.output(slot) for slot in ("X@GRAD", "Bias@GRAD") if grad.output(slot)}
    attrs = {name: grad.attr(name) for name in ("rows", "activation", "behind")}
    made = operator_like(work, grad, "dense_layer_step", inputs, {**outputs, "WOut": update.output("ParamOut")}, attrs)
    made.forward = grad.forward
    return made
