"""Updates of one kind (sgd, momentum, adam, rmsprop, …) with the same attributes and rate -> one operator over lists.

L2 decay (``scale`` of the parameter and ``sum`` with the gradient, which make two tensors of the parameter's size) goes
into the update.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.ops._opdef import REGISTRY
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work


class Kind(NamedTuple):
    lists: tuple[str, ...]  # input slots that become lists; each has an output slot: see _out
    attrs: tuple[str, ...] = ()
    read: tuple[str, ...] = ()  # lists that are read only
    unused: tuple[str, ...] = ()  # input slots that the operator has and does not look at
    optional: tuple[str, ...] = ()  # of `lists`: may be missing
    renamed: tuple[tuple[str, str], ...] = ()  # attribute -> its name in the fused operator

    def names(self) -> tuple[str, ...]:
        return (*self.lists, *self.read)


class _Decay(NamedTuple):
    rate: float
    grad: str  # the gradient without it
    positions: tuple[int, int]  # of scale and sum


KINDS = {
    "sgd": Kind(("Param",)),
    "momentum": Kind(("Param", "Velocity"), ("mu", "use_nesterov")),
    "adam": Kind(
        ("Param", "Moment1", "Moment2", "Beta1Pow", "Beta2Pow"), ("beta1", "beta2", "epsilon")
    ),
    "adagrad": Kind(("Param", "Moment"), ("epsilon",)),
    "decayed_adagrad": Kind(("Param", "Moment"), ("decay", "epsilon")),
    "adadelta": Kind(("Param", "AvgSquaredGrad", "AvgSquaredUpdate"), ("rho", "epsilon")),
    "rmsprop": Kind(
        ("Param", "MeanSquare", "MeanGrad", "Moment"), ("epsilon", "decay", "momentum", "centered"),
        optional=("MeanGrad",),
    ),
    "ftrl": Kind(("Param", "SquaredAccumulator", "LinearAccumulator"), ("l1", "l2", "lr_power")),
    "adamax": Kind(("Param", "Moment", "InfNorm"), ("beta1", "beta2", "epsilon"), read=("Beta1Pow",)),
    "lamb": Kind(
        ("Param", "Moment1", "Moment2"), ("beta1", "beta2", "epsilon", "weight_decay"), unused=("Beta1Pow", "Beta2Pow"),
        renamed=(("weight_decay", "lamb_decay"),),
    ),
    "lars_momentum": Kind(("Param", "Velocity"), ("mu", "lars_coeff", "lars_weight_decay")),
}  # fmt: skip
_RATE = "LearningRate"
_TAKE_HALF = ("sgd", "momentum", "adam")  # kernels that read gradients of bfloat16


def out_slot(slot: str) -> str:
    """The output slot of an input slot."""
    return {"SquaredAccumulator": "SquaredAccumOut", "LinearAccumulator": "LinearAccumOut"}.get(slot, slot + "Out")


@program_pass("fuse_optimizers")
def fuse_optimizers(work: Work) -> int:
    """Group the updates; the new operator stands where the last of its group stood."""
    uses = work.uses(work.block)
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    decays: dict[int, _Decay] = {}
    for i, op in enumerate(work.block.ops):
        kind = KINDS.get(op.type)
        if kind is None:
            continue
        why = _why_not(work, uses, op, kind)
        if why is not None:
            work.refused.append(("fuse_optimizers", op, why))
            continue
        found = _decay(uses, i, op)
        if isinstance(found, str):
            work.refuse("fuse_optimizers", op, found)
        elif found is not None:
            decays[i] = found
        rate = decays[i].rate if i in decays else 0.0
        key = (op.type, _rate(uses, i, op), *(op.attr(a) for a in kind.attrs), _dtype(work, op), rate)
        groups[key].append(i)
    replaced: dict[int, Operator | None] = {}
    for key, positions in groups.items():
        if len(positions) < 2 and positions[0] not in decays:
            continue
        why = _in_the_way(uses, positions, decays)
        if why is not None:
            work.refused.append(("fuse_optimizers", uses.ops[positions[0]], why))
            continue
        replaced.update(dict.fromkeys(positions))
        replaced.update((at, None) for p in positions if p in decays for at in decays[p].positions)
        replaced.update((at, None) for p in positions[:-1] for at in _own_rate(uses, p))
        fused = replaced[positions[-1]] = _build(work, uses, key[0], positions, decays)
        if fused is not None and key[0] in _TAKE_HALF:
            replaced.update(dict.fromkeys(_skip_casts(uses, fused, positions, decays)))
    replace_all(work, replaced)
    return sum(op is not None for op in replaced.values())


def _dtype(work: Work, op: Operator) -> Any:
    var = work.block._find_var_recursive(op.input("Param")[0])
    return var.dtype if var is not None and var.has_dtype else None


def _why_not(work: Work, uses: Uses, op: Operator, kind: Kind) -> str | None:
    for slot in kind.lists:
        there = len(op.input(slot)) == 1 or (slot in kind.optional and not op.input(slot))
        if op.input(slot) != op.output(out_slot(slot)) or not there:
            return f"{slot} is not updated in place"
    known = (*kind.names(), *kind.unused, "Grad", _RATE)
    extra = [s for s, names in op.inputs.items() if names and s not in known]
    if extra:
        return f"it has {', '.join(extra)}"
    grad = work.block._find_var_recursive(op.input("Grad")[0])
    if grad is None or grad.type is not VarType.LOD_TENSOR:
        return "its gradient is not dense"
    touched = [n for s in kind.lists for n in op.input(s)]
    if len(set(touched)) != len(touched) or any(len(uses.writers[n]) > 1 for n in touched):
        return "it, or another operator too, updates one of its variables twice"
    return None


def _rate(uses: Uses, at: int, op: Operator) -> tuple[Any, ...]:
    """What tells rates apart: a rate that a parameter multiplies by a factor of its own is one for all with that factor."""
    scaled = [uses.ops[p] for p in _own_rate(uses, at)]
    if scaled:
        return scaled[0].input("X")[0], scaled[0].attr("scale")
    return tuple(op.input(_RATE))


def _own_rate(uses: Uses, at: int) -> list[int]:
    """The position of the `scale` that makes the rate of the update at `at`, if nobody else takes that rate."""
    for name in uses.ops[at].inputs.get(_RATE, ()):
        made = uses.producer(name, at)
        if made is None or uses.ops[made].type != "scale" or uses.seen_outside(name) or uses.readers[name] != [at]:
            continue
        scale = uses.ops[made]
        plain = not scale.attr("bias") and not scale.input("ScaleTensor") and len(uses.writers[name]) == 1
        if plain and all(w < made for w in uses.writers[scale.input("X")[0]]):
            return [made]
    return []


def _decay(uses: Uses, at: int, op: Operator) -> _Decay | str | None:
    """The L2 decay in the gradient of the update at `at`; None when there is none, or why it must stay."""
    grad, param = op.input("Grad")[0], op.input("Param")[0]
    added = uses.producer(grad, at)
    if added is None or uses.ops[added].type != "sum" or len(uses.ops[added].input("X")) != 2:
        return None
    for plain, term in (uses.ops[added].input("X"), uses.ops[added].input("X")[::-1]):
        scaled = uses.producer(term, added)
        if term == plain or scaled is None or uses.ops[scaled].type != "scale":
            continue
        scale = uses.ops[scaled]
        if scale.input("X") == [param] and not scale.attr("bias") and not scale.input("ScaleTensor"):
            var = uses.block._find_var_recursive(plain)
            if var is None or var.type is not VarType.LOD_TENSOR:
                return "the gradient that its L2 decay joins is sparse"
            why = _decay_is_seen(uses, at, added, grad, term)
            return why or _Decay(scale.attr("scale"), plain, (scaled, added))
    return None


def _decay_is_seen(uses: Uses, at: int, added: int, grad: str, term: str) -> str | None:
    """Why the decayed gradient `grad`, made at `added`, or the decay `term` must exist."""
    for name in (grad, term):
        if uses.seen_outside(name):
            return f"{name!r}, with L2 decay in it, is fetched, fed or persistable"
    if len(uses.writers[term]) > 1 or uses.readers[term] != [added] or uses.written_between([grad], added, at):
        return f"{term!r} or {grad!r} is written or read elsewhere too"
    if any(r > added and r != at for r in uses.readers[grad]):
        return f"{grad!r}, with L2 decay in it, is read elsewhere too"
    return None


def _in_the_way(uses: Uses, positions: list[int], decays: dict[int, _Decay]) -> str | None:
    """Why the updates can't wait for the last of them."""
    mine = set(positions)
    for p in positions:
        op = uses.ops[p]
        if p in decays:
            last_term = decays[p].positions[1]
            if uses.written_between([decays[p].grad], last_term, positions[-1]):
                return f"{decays[p].grad!r} is overwritten between the updates"
        changed = uses.written_between([n for n in op.input_arg_names if n not in op.output_arg_names], p, positions[-1])
        if changed is not None:
            return f"{changed!r} is overwritten between the updates"
        for name in op.output_arg_names:
            if any(p < r <= positions[-1] and (r not in mine or r != p) for r in uses.readers.get(name, ())):
                return f"{name!r} is read between the updates"
    return None


def _skip_casts(uses: Uses, fused: Operator, positions: list[int], decays: dict[int, _Decay]) -> list[int]:
    """Make `fused` read bfloat16 gradients themselves; the positions of the casts to float32 that nobody needs any more."""
    found, grads = [], fused.input("Grad")
    for k, p in enumerate(positions):
        reader = decays[p].positions[1] if p in decays else p
        made = uses.producer(grads[k], reader)
        if made is None or uses.ops[made].type != "cast" or uses.ops[made].attr("in_dtype") != VarType.BF16:
            continue
        source, mine = uses.ops[made].input("X"), {reader, p}  # the sum of a decay may write into the gradient
        alone = mine.issuperset(uses.readers[grads[k]]) and {made, *mine}.issuperset(uses.writers[grads[k]])
        if alone and not uses.seen_outside(grads[k]) and uses.written_between(source, made, positions[-1]) is None:
            grads[k] = source[0]
            found.append(made)
    fused.inputs["Grad"] = grads
    return found


def _build(work: Work, uses: Uses, kind_name: str, positions: list[int], decays: dict[int, _Decay]) -> Operator:
    kind, ops = KINDS[kind_name], [uses.ops[p] for p in positions]
    last = ops[-1]
    inputs = {slot: [n for op in ops for n in op.input(slot)] for slot in kind.names()}
    inputs["Grad"] = [decays[p].grad if p in decays else uses.ops[p].input("Grad")[0] for p in positions]
    if last.inputs.get(_RATE):
        inputs[_RATE] = last.input(_RATE)
    outputs = {out_slot(slot): list(inputs[slot]) for slot in kind.lists}
    attrs = {dict(kind.renamed).get(a, a): last.attr(a) for a in kind.attrs}
    if positions[0] in decays:
        attrs["weight_decay"] = decays[positions[0]].rate
    assert REGISTRY.find("fused_" + kind_name) is not None
    return operator_like(work, last, "fused_" + kind_name, inputs, outputs, attrs)
