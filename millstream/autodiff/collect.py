"""Collecting the gradient operators of a run of operators, last one first, and appending them to a Block.

Knows no operator by name: which gradient operator belongs to an operator, with which slots, stands in the
declarations (or follows from them). Gradients are named as in Fluid: ``x@GRAD``, partial sums
``x@GRAD@RENAME@block0@k``; where an earlier pass over the Program already made ``x@GRAD``: ``grad/grad/x@GRAD``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.ir import names
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR, GRAD_SUFFIX, grad_name
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR, ROLE_BACKWARD, Operator
from millstream.ir.types import FLOATING, VarType
from millstream.ir.variable import Variable
from millstream.ops._again import one_way, refusal
from millstream.ops._opdef import REGISTRY, OpDef, OpSpec

Wanted = Callable[[str], bool]
_PASSES = "gradient_passes"


def count_pass(block: Block) -> int:
    """Note one more pass of gradients over the Program; returns how many there are now."""
    options = block.program._options
    options[_PASSES] = options.get(_PASSES, 0) + 1
    return int(options[_PASSES])


@dataclass
class _Part:
    """One contribution to a gradient: where its name stands."""

    spec: OpSpec
    slot: str
    index: int

    @property
    def name(self) -> str:
        return self.spec.outputs[self.slot][self.index]

    @name.setter
    def name(self, new: str) -> None:
        self.spec.outputs[self.slot][self.index] = new


class Collector:
    """Visits operators backwards and collects gradient operators in `specs`.

    Attributes:
        complete_names: complete gradient -> variable, for callbacks and op_role_var.
    """

    def __init__(self, block: Block, passes: int) -> None:
        self.block = block
        self.passes = passes
        self.specs: list[OpSpec] = []
        self.complete_names: dict[str, str] = {}
        self._parts: dict[str, list[_Part]] = {}
        self._ready: dict[str, str] = {}  # variable -> name of its complete gradient
        self._names: dict[str, str] = {}
        self._again: dict[str, str] = {}  # variable -> a gradient operator that reads it and is differentiated
        self._unread: list[tuple[str, list[_Part]]] = []  # gradients of values whose makers need none

    def name_for(self, var: str) -> str:
        """``var@GRAD``; a prefix tells gradients of later passes from those that the Program has already."""
        found = self._names.get(var)
        if found is None:
            found = grad_name(var)
            if self.passes > 1 and self.block._has_var_recursive(found):
                found = "grad/" * self.passes + found
            self._names[var] = found
            self.complete_names[found] = var
        return found

    def seed(self, var: str, gradient: str) -> None:
        """Start from a given gradient of `var`; several seeds add up."""
        self.complete_names.setdefault(gradient, var)
        self._parts.setdefault(var, []).append(_Part(OpSpec("", {}, {"Out": [gradient]}), "Out", 0))

    def complete(self, var: str) -> str | None:
        """The gradient of `var` with all its parts added up, or None when nothing contributed."""
        if var in self._ready:
            return self._ready[var]
        parts = self._parts.pop(var, None)
        if not parts:
            return None
        # in Fluid what flows into a target from other targets takes the place of the target's own gradient
        parts = [p for p in parts if p.spec.type] or parts
        if len(parts) == 1:
            self._ready[var] = parts[0].name
            return parts[0].name
        target = self.name_for(var)
        for k, part in enumerate(parts):
            if part.spec.type:
                part.name = f"{target}@RENAME@block{self.block.idx}@{k}"
        addends = [part.name for part in parts]
        if target in addends:  # a seed has the name: the sum needs another
            target = names.generate(target)
            self.complete_names[target] = var
        self.specs.append(OpSpec("sum", {"X": addends}, {"Out": [target]}, {"use_mkldnn": False}))
        self._ready[var] = target
        return target

    def finish(self) -> None:
        """Add up what no operator asked for (parameters), in the order of the first contributions."""
        order = {id(spec): k for k, spec in enumerate(self.specs)}
        left = [*self._unread, *self._parts.items()]
        for var, parts in sorted(left, key=lambda item: order.get(id(item[1][0].spec), -1)):
            self._parts[var] = parts
            self.complete(var)

    def visit(self, op: Operator, wanted: Wanted) -> None:
        """Collect the gradient operators of `op`, if gradients reach it and anyone wants what it gives."""
        definition = REGISTRY.find(op.type)
        if definition is None or not definition.differentiable or not any(wanted(n) for n in op.input_arg_names):
            outs = dict.fromkeys(op.output_arg_names)
            self._unread += [(n, self._parts[n]) for n in outs if len(self._parts.get(n, ())) > 1]
            self._forget(op)
            return
        out_grads = {n: self.complete(n) for n in dict.fromkeys(op.output_arg_names)}
        self._forget(op)
        if not any(out_grads.values()):
            return
        made = definition.grad(op, out_grads, wanted) if callable(definition.grad) else None
        origin = self._origin(op, definition)
        specs = made if made is not None else self._default(op, definition, out_grads, wanted, origin)
        read = {*op.input_arg_names, *(origin.input_arg_names if origin is not None else ())}
        for spec in (s if isinstance(s, OpSpec) else OpSpec(*s) for s in specs):
            spec.forward = op if origin is None else origin
            self.specs.append(spec)
            self._register(spec, read)

    def _forget(self, op: Operator) -> None:
        """What was gathered belongs to the values that `op` wrote; earlier values of those names start anew."""
        definition = REGISTRY.find(op.type)
        for slot, outs in op.outputs.items():
            if definition is not None and slot in definition.out_slots and definition.out_slots[slot].inout:
                continue  # an array keeps its other elements
            for name in outs:
                self._ready.pop(name, None)
                self._parts.pop(name, None)

    def _register(self, spec: OpSpec, read: set[str]) -> None:
        """Keep what `spec` contributes to the gradients of `read`, the variables that its forward reads."""
        for slot, outs in spec.outputs.items():
            for k, name in enumerate(outs):
                var = name[: -len(GRAD_SUFFIX)] if name.endswith(GRAD_SUFFIX) else None
                if var is None or var not in read:
                    continue
                outs[k] = self.name_for(var)
                self._ready.pop(var, None)
                self._again[var] = spec.forward.type
                self._parts.setdefault(var, []).append(_Part(spec, slot, k))

    def _default(
        self, op: Operator, definition: OpDef, out_grads: dict[str, str | None], wanted: Wanted, origin: Operator | None
    ) -> list[OpSpec]:
        """``<op>_grad`` with the slots of its declaration: inputs and outputs of `op` and the gradients of these.

        Args:
            origin: the operator that `op` is the gradient of, if its inputs are wanted too.
        """
        grad_def = REGISTRY.find(definition.grad_type) if definition.grad_type is not None else None
        if grad_def is None:
            return []
        for slot_name in one_way(definition, grad_def):
            if any(out_grads.get(n) and self._again.get(n) == grad_def.name for n in op.output(slot_name)):
                raise refusal(op.type, f"its gradient reads {slot_name}")
        extra: list[OpSpec] = []
        inputs: dict[str, list[str]] = {}
        reached = False  # some outputs pass no gradient on (lstm's Cell)
        for slot in grad_def.inputs:
            base = slot.name[: -len(GRAD_SUFFIX)]
            if slot.name in definition.in_slots:
                args = op.input(slot.name)
            elif slot.name in definition.out_slots:
                args = op.output(slot.name)
            elif origin is not None and slot.name in origin.inputs:
                args = origin.input(slot.name)
            else:
                args = [out_grads.get(n) or EMPTY_VAR for n in op.output(base)]
                reached = reached or any(a != EMPTY_VAR for a in args)
                if not slot.optional:
                    args = [self._zeros(n, extra) if a == EMPTY_VAR else a for a, n in zip(args, op.output(base))]
            if any(a != EMPTY_VAR for a in args):
                inputs[slot.name] = args
        outputs: dict[str, list[str]] = {}
        for slot in grad_def.outputs:
            base = slot.name[: -len(GRAD_SUFFIX)]
            if base in definition.nodiff:
                continue
            args = op.input(base) if origin is None or base in definition.in_slots else origin.input(base)
            args = [grad_name(n) if wanted(n) else EMPTY_VAR for n in args]
            if any(a != EMPTY_VAR for a in args):
                outputs[slot.name] = args
        if not outputs or not reached:
            return []
        attrs = {k: v for k, v in op.attrs.items() if not k.startswith("op_")}
        return [*extra, OpSpec(grad_def.name, inputs, outputs, attrs)]

    def _origin(self, op: Operator, definition: OpDef) -> Operator | None:
        """The operator that `op` is the gradient of, where the gradient of `op` is that of a formula (ops/_again.py)."""
        grad_def = REGISTRY.find(definition.grad_type) if definition.grad_type is not None else None
        if grad_def is None or (base := grad_def.extra.get("again_of")) is None:
            return None
        return op.forward or _forward_of(self.block, op, base.name)

    def _zeros(self, var: str, extra: list[OpSpec]) -> str:
        name = self.name_for(var)
        extra.append(OpSpec("fill_zeros_like", {"X": [var]}, {"Out": [name]}))
        return name


def _forward_of(block: Block, grad: Operator, type: str) -> Operator:
    """The operator that `grad`, which came from a file, is the gradient of."""
    for op in reversed(block.ops[: block.ops.index(grad)]):
        if op.type == type and all(
            grad.input(slot) == names for slot, names in (*op.inputs.items(), *op.outputs.items()) if slot in grad.inputs
        ):
            return op
    raise refusal(type, "the operator of this gradient is not in the Program")


def wanted_test(block: Block, reached: set[str], no_grad: set[str]) -> Wanted:
    """Whether a variable is to get a gradient: a floating-point tensor, reached, and not excluded."""

    def test(name: str) -> bool:
        if name == EMPTY_VAR or name in no_grad or name not in reached:
            return False
        var = block._find_var_recursive(name)
        if var is None or not var.is_tensor:
            return False
        return not var.has_dtype or var.dtype in FLOATING or var.type is VarType.LOD_TENSOR_ARRAY

    return test


def append_specs(
    block: Block, collector: Collector, params: Iterable[str] = (), callbacks: Sequence[Callable[..., Any]] = ()
) -> None:
    """Append the collected operators with their variables.

    Args:
        params: operators that write the gradient of one of these say so in op_role_var.
        callbacks: called as ``f(block=, context=)`` after each operator; `context` maps complete gradients to variables.
    """
    program = block.program
    chosen = set(params)
    for spec in collector.specs:
        role_vars: list[str] = []
        for name in (n for outs in spec.outputs.values() for n in outs if n != EMPTY_VAR):
            var = collector.complete_names.get(name)
            declare_gradient(block, name, var)
            if var in chosen:
                role_vars += [str(var), name]
        with program._role_guard(ROLE_BACKWARD, role_vars):
            site = spec.forward.site if spec.forward is not None else None
            op = block._make_op(spec.type, spec.inputs, spec.outputs, spec.attrs, site)
            if spec.forward is not None:  # it stands where its forward stands, also for readers of the graph
                for name in ("op_namescope", "op_device"):
                    op._attrs.pop(name, None)
                    if name in spec.forward.attrs:
                        op._attrs[name] = spec.forward.attrs[name]
            op._attrs[OP_ROLE] = ROLE_BACKWARD
            op.forward = spec.forward
            if not role_vars:
                op._attrs.pop(OP_ROLE_VAR, None)
            block.ops.append(op)
            block._finish(op, False)
        with program._role_guard(ROLE_BACKWARD, []):
            for callback in callbacks:
                callback(block=block, context=collector.complete_names)


def declare_gradient(block: Block, name: str, var: str | None) -> Variable:
    """The gradient variable `name` of `var` (found in the name when None), declared if it is new."""
    found = block._find_var_recursive(name)
    if found is not None:
        return found
    like = block._find_var_recursive(names.forward_name(name) if var is None else var)
    made = block.create_var(name=name)
    if like is not None:
        made._dtype = like._dtype
        made._shape = like._shape
        if like.type is VarType.LOD_TENSOR_ARRAY:
            made._type = like.type
    return made
