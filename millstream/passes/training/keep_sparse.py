"""Dense gradients of large tables that only sgd or adagrad reads -> SelectedRows.

A row that nothing looked up has a gradient of zero, with which these two change nothing: the tensor of zeros, as large as
the table, is neither filled nor read.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "keep_sparse"
_TABLES = {  # gradient -> slots of the table and of its gradient
    "lookup_table_grad": ("W", "W@GRAD"),
    "lookup_table_v2_grad": ("W", "W@GRAD"),
    "nce_grad": ("Weight", "Weight@GRAD"),
    "hierarchical_sigmoid_grad": ("W", "W@GRAD"),
}
_ROW_BY_ROW = ("sgd", "adagrad")
_LARGE = 1 << 18  # numbers in a table: filling and reading fewer costs less than finding rows


@program_pass(_NAME)
def keep_sparse(work: Work) -> int:
    """Returns how many gradients became sparse."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator] = {}
    for at, op in enumerate(uses.ops):
        if op.type not in _ROW_BY_ROW or op.input("Param") != op.output("ParamOut"):
            continue
        makers = _makers(uses, op.input("Grad")[0], at)
        if makers is None or not _is_large(uses, op.input("Param")[0]):
            continue
        for position in makers:
            replaced[position] = _sparse(work, uses.ops[position])
        replaced[at] = _reading_rows(op, op.input("Grad"))
    if replaced:
        work.block.ops = [replaced.get(i, op) for i, op in enumerate(uses.ops)]
        work.program._touch()
    return len(replaced)


def _makers(uses: Uses, grad: str, reader: int) -> list[int] | None:
    """Positions of the operators that make `grad` from rows alone: gradients of lookups and the sum of them; or None."""
    if uses.seen_outside(grad) or len(uses.writers[grad]) != 1 or uses.readers[grad] != [reader]:
        return None
    at = uses.writers[grad][0]
    op = uses.ops[at]
    if op.type == "sum":
        found = [at]
        for part in op.input("X"):
            makers = _makers(uses, part, at) if op.input("X").count(part) == 1 else None
            if makers is None:
                return None
            found += makers
        return found
    if op.type not in _TABLES or op.attr("is_sparse") or op.attrs.get("padding_idx", -1) != -1:
        return None
    return [at] if op.output(_TABLES[op.type][1]) == [grad] else None


def _is_large(uses: Uses, table: str) -> bool:
    var = uses.block._find_var_recursive(table)
    if var is None or var.type is not VarType.LOD_TENSOR or var.dtype not in (VarType.FP32, VarType.FP64):
        return False
    return len(var.shape) == 2 and min(var.shape) > 0 and var.shape[0] * var.shape[1] >= _LARGE


def _rows(name: str) -> str:
    return f"{name}.rows"


def _sparse(work: Work, op: Operator) -> Operator:
    """The operator that makes rows instead, and their variable."""
    slot = "Out" if op.type == "sum" else _TABLES[op.type][1]
    old = work.block._find_var_recursive(op.output(slot)[0])
    assert old is not None
    name = _rows(old.name)
    work.block.create_var(name=name, shape=old.shape, dtype=old.dtype, type=VarType.SELECTED_ROWS)
    outputs = {**op.outputs, slot: [name]}
    if op.type == "sum":
        return Operator(op.block, "sum", {**op.inputs, "X": [_rows(n) for n in op.input("X")]}, outputs, op.attrs, op.site)
    made = Operator(op.block, op.type, op.inputs, outputs, {**op.attrs, "is_sparse": True}, op.site)
    made.forward = op.forward
    return made


def _reading_rows(op: Operator, grads: list[str]) -> Operator:
    return Operator(op.block, op.type, {**op.inputs, "Grad": [_rows(n) for n in grads]}, op.outputs, op.attrs, op.site)
