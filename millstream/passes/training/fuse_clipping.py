"""GradientClipByGlobalNorm, …ByNorm and …ByValue of many gradients -> one operator for all that are dense.

The global norm takes one pass over the gradients; where it stays below the limit they are not touched at all.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from millstream.ir.operator import ROLE_OPTIMIZE, Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_clipping"
_ALONE = {"clip": ("clip_gradients", ("min", "max")), "clip_by_norm": ("clip_gradients_by_norm", ("max_norm",))}


class _Norm(NamedTuple):
    """Where the factor of a global norm is made: positions, and what goes into it."""

    last: int  # the division
    inner: tuple[int, ...]  # all others that go
    grads: list[str]
    squares: list[str]
    limit: str  # with all its digits


@program_pass(_NAME)
def fuse_clipping(work: Work) -> int:
    """Returns how many operators were made."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    for at, op in enumerate(uses.ops):
        if op.type != "elementwise_div":
            continue
        norm = _norm(work, uses, at)
        if norm is not None:
            replaced.update(dict.fromkeys(norm.inner))
            inputs = {"X": norm.grads, "Squares": norm.squares}
            outputs, attrs = {"Out": op.output("Out")}, {"clip_norm": norm.limit}
            replaced[at] = operator_like(work, op, "global_norm_factor", inputs, outputs, attrs)
            _group_scaled(work, uses, op.output("Out")[0], replaced)
    _group_alone(work, uses, replaced)
    replace_all(work, replaced)
    return sum(op is not None for op in replaced.values())


# ---- the factor of a global norm -----------------------------------------------------------------
def _made_by(uses: Uses, name: str, before: int, kind: str) -> int | None:
    """The position of the operator of type `kind` that alone writes `name`, which is nobody else's business."""
    at = uses.producer(name, before)
    hidden = at is not None and uses.ops[at].type == kind and len(uses.writers[name]) == 1
    return at if hidden and not uses.seen_outside(name) else None


def _norm(work: Work, uses: Uses, at: int) -> _Norm | None:
    """limit / max(limit, sqrt(sum of squares)) whose division stands at `at`."""
    (limit,), (greater,) = uses.ops[at].input("X"), uses.ops[at].input("Y")
    positions = [_made_by(uses, greater, at, "elementwise_max"), _made_by(uses, limit, at, "fill_constant")]
    if None in positions or uses.readers[greater] != [at]:
        return None
    largest, filled = (uses.ops[p] for p in positions if p is not None)
    if largest.input("X") != [limit] or filled.attr("shape") != [1] or any(filled.inputs.values()):
        return None
    if set(uses.readers[limit]) != {positions[0], at}:
        return None
    found = _root_of_sum(uses, largest.input("Y")[0], positions[0] or 0)
    if found is None:
        return None
    inner = [p for p in (*positions, *found) if p is not None]
    grads, squares = [], []
    for name in uses.ops[found[1]].input("X"):
        squared = _squared(work, uses, name, found[1], at)
        if squared is None:
            squares.append(name)
        else:
            grads.append(squared[0])
            inner += squared[1]
    limit_text = filled.attr("str_value") or repr(filled.attr("value"))
    return _Norm(at, tuple(inner), grads, squares, limit_text) if grads else None


def _root_of_sum(uses: Uses, name: str, before: int) -> tuple[int, int] | None:
    """Positions of sqrt and sum that make `name` for the operator at `before` alone."""
    root = _made_by(uses, name, before, "sqrt")
    if root is None or uses.readers[name] != [before]:
        return None
    total = uses.ops[root].input("X")[0]
    added = _made_by(uses, total, root, "sum")
    return (root, added) if added is not None and uses.readers[total] == [root] else None


def _squared(work: Work, uses: Uses, name: str, total: int, last: int) -> tuple[str, list[int]] | None:
    """The dense gradient whose sum of squares is `name`, and the positions of square and reduce_sum."""
    summed = _made_by(uses, name, total, "reduce_sum")
    if summed is None or uses.readers[name] != [total] or not uses.ops[summed].attr("reduce_all"):
        return None
    square = uses.ops[summed].input("X")[0]
    squared = _made_by(uses, square, summed, "square")
    if squared is None or uses.readers[square] != [summed]:
        return None
    grad = uses.ops[squared].input("X")[0]
    if not _dense(work, grad) or uses.written_between([grad], squared, last):
        return None
    return grad, [squared, summed]


def _dense(work: Work, name: str) -> bool:
    var = work.block._find_var_recursive(name)
    return var is not None and var.type is VarType.LOD_TENSOR


# ---- groups --------------------------------------------------------------------------------------
def _group_scaled(work: Work, uses: Uses, factor: str, replaced: dict[int, Operator | None]) -> None:
    """The products of gradients with `factor` -> scale_gradients."""
    positions = [
        r for r in uses.readers[factor]
        if uses.ops[r].type == "elementwise_mul" and uses.ops[r].input("Y") == [factor] and _plain(work, uses, r)
    ]  # fmt: skip
    _group(work, uses, positions, "scale_gradients", {"Factor": [factor]}, {}, replaced)


def _group_alone(work: Work, uses: Uses, replaced: dict[int, Operator | None]) -> None:
    """clip, and clip_by_norm, of gradients with the same limits."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for at, op in enumerate(uses.ops):
        if op.type not in _ALONE or not op.role & ROLE_OPTIMIZE or op.inputs.get("Min") or op.inputs.get("Max"):
            continue
        if _plain(work, uses, at):
            groups[op.type, tuple(op.attr(a) for a in _ALONE[op.type][1]), _dtype(work, op)].append(at)
    for (kind, values, _), positions in groups.items():
        fused, names = _ALONE[kind]
        _group(work, uses, positions, fused, {}, dict(zip(names, values)), replaced)


def _plain(work: Work, uses: Uses, at: int) -> bool:
    op = uses.ops[at]
    (x,), (out,) = op.input("X"), op.output("Out")
    return x != out and _dense(work, x) and uses.writers[out][0] == at and not uses.has_gradient(op)


def _dtype(work: Work, op: Operator) -> Any:
    var = work.block._find_var_recursive(op.input("X")[0])
    return var.dtype if var is not None and var.has_dtype else None


def _group(
    work: Work, uses: Uses, positions: list[int], kind: str, inputs: dict[str, list[str]], attrs: dict[str, Any],
    replaced: dict[int, Operator | None],
) -> None:  # fmt: skip
    """One operator in the place of the last of `positions`; those that can't wait for it stay."""
    if not positions:
        return
    last = positions[-1]
    taken = [p for p in positions if p == last or _can_wait(uses, p, last)]
    if len(taken) < 2:
        return
    ops = [uses.ops[p] for p in taken]
    given = {"X": [op.input("X")[0] for op in ops], **inputs}
    outputs = {"Out": [op.output("Out")[0] for op in ops]}
    replaced.update(dict.fromkeys(taken))
    replaced[last] = operator_like(work, ops[-1], kind, given, outputs, attrs)


def _can_wait(uses: Uses, at: int, last: int) -> bool:
    op = uses.ops[at]
    if uses.written_between(op.input_arg_names, at, last):
        return False
    out = op.output("Out")[0]
    return all(q > last or q == at for q in [*uses.readers.get(out, ()), *uses.writers[out]])
