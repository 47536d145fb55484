"""sum of SelectedRows that only sgd, adagrad or adam reads -> join_rows: these add repeats of a row up themselves."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._work import Work

_ADD_UP = ("sgd", "adagrad", "adam")


@program_pass("skip_row_merge")
def skip_row_merge(work: Work) -> int:
    """Returns how many sums were replaced."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "sum" or not all(_sparse(work, n) for n in op.input("X")):
            continue
        out = op.output("Out")[0]
        readers = uses.readers[out]
        if uses.seen_outside(out) or len(uses.writers[out]) > 1 or not readers:
            continue
        if all(uses.ops[r].type in _ADD_UP and uses.ops[r].input("Grad") == [out] for r in readers):
            replaced[at] = operator_like(work, op, "join_rows", op.inputs, op.outputs)
    replace_all(work, replaced)
    return len(replaced)


def _sparse(work: Work, name: str) -> bool:
    var = work.block._find_var_recursive(name)
    return var is not None and var.type is VarType.SELECTED_ROWS
