"""What a Plan needs to know of a Block before it emits code: live operators, gradient pairs, versions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from millstream.errors import UninitializedError
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR, forward_name, strip_grad
from millstream.ir.operator import Operator
from millstream.ops._opdef import REGISTRY, OpDef

PLUMBING = frozenset({"feed", "fetch"})


def has_side_effect(op: Operator) -> bool:
    """Whether the operator (or one in its sub-Blocks) must run even if nobody uses its outputs."""
    found = REGISTRY.find(op.type)
    if found is not None and found.side_effect:
        return True
    return any(has_side_effect(inner) for block in op.sub_blocks() for inner in block.ops)


def live_ops(block: Block, fetches: list[str], keep_all: bool = False) -> list[Operator]:
    """Operators whose results are fetched, persist, or have side effects, in order."""
    need = set(fetches)
    kept: list[Operator] = []
    for op in reversed(block.ops):
        if op.type in PLUMBING:
            continue
        live = keep_all or has_side_effect(op)
        if not live:
            for name in walk.writes_of(op):
                if name in need:
                    live = True
                    break
                var = block._find_var_recursive(name)
                if var is not None and var.persistable:
                    live = True
                    break
        if live:
            kept.append(op)
            need.update(walk.reads_of(op))
    kept.reverse()
    return kept


@dataclass
class Pairing:
    """Gradient operators and their forwards, by position in the list of live operators.

    Attributes:
        forward: position of a gradient operator -> position of its forward.
        taped: positions of forwards that leave an autograd handle -> number of gradient operators that use it.
        wanted: for a taped forward, input slots whose gradients are needed.
        saved: (forward position, name, before/after) values that later operators overwrite; gradient operators
            read the saved copy: gradient position -> {name: saved key}.
        anew: positions of gradients that are differentiated themselves: they compute their forward again under autograd.
    """

    forward: dict[int, int] = field(default_factory=dict)
    taped: dict[int, int] = field(default_factory=dict)
    wanted: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    save_before: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    save_after: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    use: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    anew: set[int] = field(default_factory=set)


def pair_gradients(ops: list[Operator]) -> Pairing:
    """Find the forward of each gradient operator; Programs are not SSA, so positions of writes are compared.

    Operators that autodiff appended here know their forward; those read from a file are matched by output names.
    """
    result = Pairing()
    writes: defaultdict[str, list[int]] = defaultdict(list)
    makers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    position = {id(op): i for i, op in enumerate(ops)}
    for i, op in enumerate(ops):
        if op.forward is not None and id(op.forward) in position:
            result.forward[i] = position[id(op.forward)]
        elif (base := REGISTRY.forward_type(op.type)) is not None:
            j = _find_forward(op, base, makers, ops)
            if j is not None:
                result.forward[i] = j
        for name in walk.writes_of(op) if op.sub_blocks() else op.output_arg_names:
            writes[name].append(i)
            makers[op.type, name].append(i)
    result.anew = {j for i, j in result.forward.items() if _is_derived(ops[i]) and j in result.forward}
    known: dict[int, tuple[frozenset[str], frozenset[str]]] = {}  # once a forward: `sum` has a gradient for each operand
    for i, j in result.forward.items():
        if j not in known:
            known[j] = frozenset(ops[j].input_arg_names), frozenset(ops[j].output_arg_names)
        _pair(result, ops, i, j, writes, *known[j])
    return result


def _is_derived(op: Operator) -> bool:
    definition = REGISTRY.find(op.type)
    return definition is not None and definition.derived_from is not None


def _find_forward(
    op: Operator, base: str, makers: dict[tuple[str, str], list[int]], ops: list[Operator]
) -> int | None:
    names = [n for s, names in op.inputs.items() if s.endswith("@GRAD") for n in names if n != EMPTY_VAR]
    candidates = [c for n in names for c in (strip_grad(n), forward_name(n))]
    candidates += [n for s, names in op.inputs.items() if not s.endswith("@GRAD") for n in names]
    for name in dict.fromkeys(candidates):
        for j in reversed(makers.get((base, name), ())):
            if _same_call(op, ops[j]):
                return j
    return None


def _same_call(grad: Operator, forward: Operator) -> bool:
    """Whether the variables that `grad` has in the slots of `forward` are those of `forward` (a copy has others)."""
    for slot, names in grad.inputs.items():
        there = forward.inputs.get(slot)
        if there is None:
            there = forward.outputs.get(slot)
        if there is not None and names and names != there:
            return False
    return True


def _pair(
    result: Pairing, ops: list[Operator], i: int, j: int, writes: dict[str, list[int]], ins: frozenset[str],
    outs: frozenset[str],
) -> None:  # fmt: skip
    """Note how gradient `i` gets what its forward `j` had; `ins` and `outs`: what the forward reads and writes."""
    op, forward = ops[i], ops[j]
    definition = REGISTRY.find(op.type)
    forward_def = REGISTRY.find(forward.type)
    if definition is None or forward_def is None:
        return
    is_gradient = op.type == forward_def.grad_type
    if is_gradient and i not in result.anew and (definition.derived_from is not None or forward_def.block):
        result.taped[j] = result.taped.get(j, 0) + 1
        for slot in op.outputs:
            if any(n != EMPTY_VAR for n in op.outputs[slot]):
                result.wanted[j].add(slot[: -len("@GRAD")])
        return
    for slot, names in op.inputs.items():
        if slot.endswith("@GRAD"):
            continue
        for name in names:
            if name not in ins and name not in outs:
                continue
            later = [w for w in writes.get(name, ()) if j < w < i]
            made_here = name in outs and (slot in forward.outputs or name not in ins)
            overwritten_by_itself = name in outs and not made_here
            if later or overwritten_by_itself:
                key = f"{name}#{j}{'a' if made_here else 'b'}"
                (result.save_after if made_here else result.save_before)[j][name] = key
                result.use[i][f"{slot}/{name}"] = key


def copied_operands(ops: list[Operator], last_use: dict[str, int], keep: set[str]) -> dict[int, set[str]]:
    """Position -> variables that the operator there takes a copy of.

    Optimizers update in place. What lies in the memory of a parameter (`old = p * 1.0`, see `shares` in ops/_opdef.py)
    and is read after the update would change with it.

    Args:
        last_use: variable -> position of the last operator that reads or writes it.
        keep: variables that are read after all operators.
    """
    updates: defaultdict[str, list[int]] = defaultdict(list)
    for i, op in enumerate(ops):
        for name in _updated_in_place(op):
            updates[name].append(i)
    copied: defaultdict[int, set[str]] = defaultdict(set)
    until: dict[str, int] = {}  # the last position at which a variable's memory is read, by whichever name

    def end_of(name: str) -> int:
        return max(until.get(name, -1), len(ops) if name in keep else last_use.get(name, -1))

    for i in reversed(range(len(ops)) if updates else ()):
        op = ops[i]
        if not _shares(op):
            continue
        end = max((end_of(n) for n in walk.writes_of(op) if n != EMPTY_VAR), default=-1)
        for name in walk.reads_of(op):
            if any(i < u < end for u in updates.get(name, ())):
                copied[i].add(name)
            else:
                until[name] = max(until.get(name, -1), end)
    return copied


def asked_outputs(i: int, op: Operator, last_use: dict[str, int], keep: set[str]) -> tuple[bool, ...]:
    """Of each output slot of the operator at `i`, whether it is asked for.

    What is there for a gradient alone (`~`) is not where nobody reads it: a layer_norm without gradient makes no variance.

    Args:
        last_use, keep: as for :func:`copied_operands`; no uses at all: nothing is left out.
    """

    def asked(name: str) -> bool:
        if last_use.get(name) != i or name in keep:
            return True
        var = op.block._find_var_recursive(name)
        return var is not None and var.persistable

    found = []
    for slot in definition_of(op).outputs:
        names = [n for n in op.outputs.get(slot.name, ()) if n != EMPTY_VAR]
        found.append(any(asked(n) for n in names) if slot.intermediate else bool(names))
    return tuple(found)


def _shares(op: Operator) -> bool:
    return bool(definition_of(op).extra.get("shares") or op.sub_blocks())


def in_memory_of_state(block: Block) -> set[str]:
    """Variables that may lie in the memory of persistable ones."""
    found = {v.name for v in block.vars.values() if v.persistable}
    state = set(found)
    for op in block.ops:
        if op.type not in PLUMBING and _shares(op) and not found.isdisjoint(walk.reads_of(op)):
            found.update(walk.writes_of(op))
    return found - state


def _updated_in_place(op: Operator) -> set[str]:
    definition = REGISTRY.find(op.type)
    if definition is not None and "Param" in definition.in_slots:
        return set(op.input_arg_names).intersection(op.output_arg_names)
    return {name for block in op.sub_blocks() for inner in block.ops for name in _updated_in_place(inner)}


def missing_value(block: Block, name: str, op: Operator, fed: tuple[str, ...]) -> UninitializedError:
    """The error about a variable that has no value when `op` reads it; `fed` are those that have one from the user."""
    var = block._find_var_recursive(name)
    what = var.describe() if var is not None else name
    if var is not None and var.is_data:
        given = f"fed are {', '.join(map(repr, fed))}" if fed else "feed names no variable of the program"
        text = f"variable {what} is not fed: operator {op.type} needs it; {given}"
    else:
        text = f"variable {what} has no value when operator {op.type} reads it: nothing before it writes it, "
        text += "and it is not fed"
    if op.site is not None:
        text += f"\n    at {op.site}"
    return UninitializedError(text)


def definition_of(op: Operator) -> OpDef:
    """The declaration of an operator; UnknownOperatorError with the operator's place when there is none."""
    return REGISTRY.get(op.type)
