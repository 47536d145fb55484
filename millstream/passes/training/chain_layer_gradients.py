"""dense_layer_grad behind dense_layer_grad: the gradient of the activation between two layers is taken by the one that makes
what it reads, while that is in the cache."""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_GRAD = "dense_layer_grad"


@program_pass("chain_layer_gradients")
def chain_layer_gradients(work: Work) -> int:
    """Returns how many activations' gradients were moved."""
    uses = work.uses(work.block)
    behind: dict[int, str] = {}  # position -> the activation that the gradient there takes on
    bare: set[int] = set()
    for at, op in enumerate(uses.ops):
        if op.type != _GRAD or not op.attr("activation"):
            continue
        maker = _maker(uses, at, op)
        if isinstance(maker, str):
            work.refuse("chain_layer_gradients", op, maker)
        elif maker is not None:
            behind[maker] = op.attr("activation")
            bare.add(at)
    replaced: dict[int, Operator | None] = {}
    for at in {*behind, *bare}:
        op = uses.ops[at]
        inputs = {slot: op.input(slot) for slot in ("X", "W", "Out@GRAD")}
        kept = "" if at in bare else op.attr("activation")
        if kept:
            inputs["Out"] = op.input("Out")
        attrs = {"rows": op.attr("rows"), "activation": kept, "behind": behind.get(at, "")}
        new = replaced[at] = operator_like(work, op, _GRAD, inputs, op.outputs, attrs)
        new.forward = op.forward
    replace_all(work, replaced)
    return len(bare)


def _maker(uses: Uses, at: int, op: Operator) -> int | str | None:
    """The position of the gradient that makes what `op` reads and can take its activation, or why it can't, or None."""
    given, out = op.input("Out@GRAD")[0], op.input("Out")[0]
    maker = uses.producer(given, at)
    if maker is None or uses.ops[maker].type != _GRAD or uses.ops[maker].output("X@GRAD") != [given]:
        return None
    if uses.ops[maker].input("X") != [out]:
        return None
    if uses.seen_outside(given) or len(uses.writers[given]) > 1 or uses.readers[given] != [at]:
        return f"{given!r} is seen, read or written elsewhere too"
    if uses.written_between([out], maker, at):
        return f"{out!r} is overwritten between the gradients"
    return maker
