"""A sum of looked-up rows (the wide part of a model: a weight for each id of each slot) -> the sum of their concat's parts.

:func:`fuse_lookups` then makes one lookup of them all, and one set of rows for each table.
"""

from __future__ import annotations

from typing import Any

from millstream.ir.names import EMPTY_VAR, grad_name
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training.fuse_lookups import lookups_of, pooled_lookups_of

_NAME = "lay_out_sums"
_FEWEST = 3  # parts: two lookups and an addition are no slower


@program_pass(_NAME)
def lay_out_sums(work: Work) -> int:
    """Returns how many sums were taken apart."""
    uses = work.uses(work.block)
    replaced: dict[int, list[Operator]] = {}
    changes = 0
    for at, op in enumerate(uses.ops):
        if op.type != "sum" or len(op.input("X")) < _FEWEST or not _only_lookups(uses, at):
            continue
        copies = _copies(uses, at)
        why = copies if isinstance(copies, str) else _in_the_way(uses, copies)
        if why is not None or isinstance(copies, str):
            work.refuse(_NAME, op, why or "")
            continue
        width = uses.block._find_var_recursive(op.output("Out")[0]).shape[1]  # type: ignore[union-attr]
        replaced[at] = _forward(work, op, width)
        if copies:
            replaced.update((p, []) for p in copies)
            replaced[copies[0]] = _backward(work, uses, op, copies, replaced[at][0], width)
        changes += 1
    if changes:
        work.block.ops = [new for i, op in enumerate(uses.ops) for new in replaced.get(i, [op])]
        work.program._touch()
    return changes


def _only_lookups(uses: Uses, at: int) -> bool:
    """Whether all parts of the sum are rows, or sums of rows, of one width that nobody else sees."""
    out = uses.block._find_var_recursive(uses.ops[at].output("Out")[0])
    names = uses.ops[at].input("X")
    if out is None or not out.has_shape or len(out.shape) != 2 or out.shape[1] < 1 or out.lod_level:
        return False
    parts = [uses.block._find_var_recursive(n) for n in names]
    if any(p is None or tuple(p.shape[1:]) != tuple(out.shape[1:]) or p.lod_level for p in parts):
        return False
    return len(lookups_of(uses, at)) == len(names) or len(pooled_lookups_of(uses, at).lookups) == len(names)


def _copies(uses: Uses, at: int) -> list[int] | str:
    """Positions of the operators that hand the sum's gradient on to its parts, or why they can't be replaced."""
    op = uses.ops[at]
    out, gradient = op.output("Out")[0], grad_name(op.output("Out")[0])
    found = []
    for name in op.input("X"):
        made = [p for p in uses.writers[grad_name(name)] if p > at]
        if not made:
            continue
        copy = uses.ops[made[0]]
        plain = copy.type == "scale" and copy.attr("scale") == 1.0 and not copy.attr("bias")
        if len(made) > 1 or not plain or copy.input("X") != [gradient] or uses.seen_outside(copy.output("Out")[0]):
            return f"the gradient of {name!r} is not that of the sum alone"
        found.append(made[0])
    if uses.has_gradient(op) and not found:
        return "its gradient is not handed on as it is"
    return found if len(uses.writers[out]) == 1 else f"{out!r} is written twice"


def _in_the_way(uses: Uses, copies: list[int]) -> str | None:
    """Why the copies can't all be made where the first one is."""
    if not copies:
        return None
    changed = uses.written_between(uses.ops[copies[0]].input("X"), copies[0], copies[-1])
    return f"{changed!r} is overwritten between the gradients" if changed is not None else None


def _new(work: Work, like: Operator, kind: str, inputs: dict[str, Any], outputs: dict[str, Any], **attrs: Any) -> Operator:
    return operator_like(work, like, kind, inputs, outputs, attrs)


def _forward(work: Work, op: Operator, width: int) -> list[Operator]:
    out = work.block._find_var_recursive(op.output("Out")[0])
    assert out is not None
    count = len(op.input("X"))
    side, apart = f"{out.name}.parts", f"{out.name}.apart"
    work.block.create_var(name=side, shape=[out.shape[0], count * width], dtype=out.dtype)
    work.block.create_var(name=apart, shape=[out.shape[0], count, width], dtype=out.dtype)
    shape = f"{apart}.shape"
    work.block.create_var(name=shape, shape=[0, out.shape[0], count * width], dtype=out.dtype)
    return [
        _new(work, op, "concat", {"X": op.input("X")}, {"Out": [side]}, axis=1),
        _new(work, op, "reshape2", {"X": [side]}, {"Out": [apart], "XShape": [shape]}, shape=[-1, count, width]),
        _new(work, op, "reduce_sum", {"X": [apart]}, {"Out": [out.name]}, dim=[1], keep_dim=False),
    ]


def _backward(work: Work, uses: Uses, op: Operator, copies: list[int], concat: Operator, width: int) -> list[Operator]:
    first = uses.ops[copies[0]]
    side = concat.output("Out")[0]
    gradient = grad_name(side)
    whole = work.block._find_var_recursive(side)
    assert whole is not None
    work.block.create_var(name=gradient, shape=whole.shape, dtype=whole.dtype)
    made = {uses.ops[p].output("Out")[0] for p in copies}
    parts = [g if (g := grad_name(n)) in made else EMPTY_VAR for n in op.input("X")]
    count = len(op.input("X"))
    back = _new(work, first, "concat_grad", {"X": op.input("X"), "Out@GRAD": [gradient]}, {"X@GRAD": parts}, axis=1)
    back.forward = concat
    return [_new(work, first, "expand", {"X": first.input("X")}, {"Out": [gradient]}, expand_times=[1, count]), back]
