"""Gradients of sums read their operands for the shapes only: where a bias was added, the output's gradient serves as well.

The sum's first operand (a convolution's or product's result) then dies with the sum instead of living until the backward
pass.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._work import Work

_TYPES = frozenset({"elementwise_add_grad", "elementwise_sub_grad"})


@program_pass("release_operands")
def release_operands(work: Work) -> int:
    """X of such a gradient becomes Out@GRAD; returns how many."""
    changes = 0
    uses = work.uses(work.block)
    ops = list(work.block.ops)
    for i, op in enumerate(ops):
        if op.type not in _TYPES or not op.input("Out@GRAD") or op.input("X") == op.input("Out@GRAD"):
            continue
        why = "it has a gradient itself" if uses.has_gradient(op) else _why_not(work, op)
        if why is not None:
            work.refused.append(("release_operands", op, why))
            continue
        inputs = {**op.inputs, "X": list(op.input("Out@GRAD"))}
        ops[i] = Operator(work.block, op.type, inputs, op.outputs, op.all_attrs(), op.site)
        ops[i].forward = op.forward
        changes += 1
    if changes:
        work.block.ops = ops
        work.program._touch()
    return changes


def _why_not(work: Work, op: Operator) -> str | None:
    find = work.block._find_var_recursive
    x, y, dout = (find(op.input(slot)[0]) for slot in ("X", "Y", "Out@GRAD"))
    if x is None or y is None or dout is None or not (x.has_shape and y.has_shape):
        return "a shape is not known"
    if dout.type is not VarType.LOD_TENSOR or not y.persistable:
        return "Y is not a parameter" if dout.type is VarType.LOD_TENSOR else "the gradient is sparse"
    if not _only_y_is_spread(tuple(x.shape), tuple(y.shape), op.attr("axis")):
        return f"X of shape {list(x.shape)} may be spread over Y of shape {list(y.shape)}"
    return None


def _only_y_is_spread(x: tuple[int, ...], y: tuple[int, ...], axis: int) -> bool:
    """Whether X + Y is sure to have X's shape."""
    if axis >= 0:
        while len(y) > 1 and y[-1] == 1:  # trailing ones of Y drop, as in Fluid
            y = y[:-1]
    start = len(x) - len(y) if axis < 0 else axis
    if start < 0 or start + len(y) > len(x):
        return False
    return all(b == 1 or a == b for a, b in zip(x[start:], y))
