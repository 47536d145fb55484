"""append_backward and gradients: appending the gradient operators of a Program to it.

Knows no operator by name: which gradient operator belongs to an operator, with which slots, stands in the
declarations (or follows from them). Gradient variables are named as in Fluid: ``x@GRAD``, partial sums
``x@GRAD@RENAME@block0@k``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.ir import names, walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR, grad_name
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR, ROLE_BACKWARD, ROLE_LOSS, Operator
from millstream.ir.types import FLOATING, VarType
from millstream.ir.variable import Parameter, Variable
from millstream.ops._opdef import REGISTRY, OpDef, OpSpec


@dataclass
class _Part:
    """One contribution to a gradient: where its name stands."""

    spec: OpSpec
    slot: str
    index: int

    def rename(self, new: str) -> None:
        self.spec.outputs[self.slot][self.index] = new


class _Builder:
    """Walks a Block's operators backwards and collects gradient operators."""

    def __init__(self, block: Block, no_grad: set[str], fresh_names: bool) -> None:
        self.block = block
        self.no_grad = no_grad
        self.specs: list[OpSpec] = []
        self.parts: dict[str, list[_Part]] = {}
        self.ready: dict[str, str] = {}  # variable -> name of its complete gradient
        self.fresh_names = fresh_names
        self.taken: dict[str, str] = {}

    def name_for(self, var: str) -> str:
        """``var@GRAD``, or a new name where a first pass of gradients already made that one."""
        if not self.fresh_names:
            return grad_name(var)
        if var not in self.taken:
            base = grad_name(var)
            self.taken[var] = names.generate(base) if self.block._has_var_recursive(base) else base
        return self.taken[var]

    def seed(self, var: str, gradient: str) -> None:
        """Start from a given gradient of `var`; several seeds (or later parts) add up."""
        spec = OpSpec("", {}, {"Out": [gradient]})
        self.parts.setdefault(var, []).append(_Part(spec, "Out", 0))

    def complete(self, var: str) -> str | None:
        """The gradient of `var` with all its parts added, or None when nothing contributed."""
        if var in self.ready:
            return self.ready[var]
        parts = self.parts.pop(var, None)
        if not parts:
            return None
        target = self.name_for(var)
        if len(parts) == 1:
            self.ready[var] = parts[0].spec.outputs[parts[0].slot][parts[0].index]
            return self.ready[var]
        partial_names = []
        for k, part in enumerate(parts):
            if part.spec.type:
                new = f"{target}@RENAME@block{self.block.idx}@{k}"
                part.rename(new)
            else:
                new = part.spec.outputs[part.slot][part.index]
            partial_names.append(new)
        self.specs.append(OpSpec("sum", {"X": partial_names}, {"Out": [target]}, {"use_mkldnn": False}))
        self.ready[var] = target
        return target

    def visit(self, op: Operator, wanted: Callable[[str], bool]) -> None:
        """Append the gradient operators of `op`, if gradients reach it and anyone wants what it gives."""
        definition = REGISTRY.find(op.type)
        if definition is None or not definition.differentiable:
            self._forget(op)
            return
        out_grads = {n: self.complete(n) for n in dict.fromkeys(op.output_arg_names)}
        self._forget(op)
        if not any(out_grads.values()) or not any(wanted(n) for n in op.input_arg_names):
            return
        made = definition.grad(op, out_grads, wanted) if callable(definition.grad) else None
        specs = made if made is not None else self._default(op, definition, out_grads, wanted)
        for spec in (s if isinstance(s, OpSpec) else OpSpec(*s) for s in specs):
            spec.forward = op
            self.specs.append(spec)
            self._register(spec, op, wanted)

    def _forget(self, op: Operator) -> None:
        """What was gathered belongs to the values that `op` wrote; earlier values of those names start anew."""
        definition = REGISTRY.find(op.type)
        for slot, outs in op.outputs.items():
            if definition is not None and slot in definition.out_slots and definition.out_slots[slot].inout:
                continue  # an array keeps its other elements
            for name in outs:
                self.ready.pop(name, None)
                self.parts.pop(name, None)

    def _register(self, spec: OpSpec, op: Operator, wanted: Callable[[str], bool]) -> None:
        known = set(op.input_arg_names)
        for slot, outs in spec.outputs.items():
            for k, name in enumerate(outs):
                if name == EMPTY_VAR:
                    continue
                var = name[: -len(names.GRAD_SUFFIX)] if name.endswith(names.GRAD_SUFFIX) else None
                if var is None or var not in known:
                    continue
                outs[k] = self.name_for(var)
                done = self.ready.pop(var, None)
                if done is not None:  # an array whose later elements have their gradients already
                    self.seed(var, done)
                self.parts.setdefault(var, []).append(_Part(spec, slot, k))

    def _default(
        self, op: Operator, definition: OpDef, out_grads: dict[str, str | None], wanted: Callable[[str], bool]
    ) -> list[OpSpec]:
        grad_def = REGISTRY.find(op.type + "_grad")
        if grad_def is None:
            return []
        extra: list[OpSpec] = []
        inputs: dict[str, list[str]] = {}
        for slot in grad_def.inputs:
            if slot.name.endswith(names.GRAD_SUFFIX):
                base = slot.name[: -len(names.GRAD_SUFFIX)]
                args = [out_grads.get(n) or EMPTY_VAR for n in op.output(base)]
                if not slot.optional:
                    args = [self._zeros(n, extra) if a == EMPTY_VAR else a for a, n in zip(args, op.output(base))]
            else:
                args = op.input(slot.name) if slot.name in definition.in_slots else op.output(slot.name)
            if args and any(a != EMPTY_VAR for a in args):
                inputs[slot.name] = args
        outputs = {}
        for slot in grad_def.outputs:
            base = slot.name[: -len(names.GRAD_SUFFIX)]
            if base in definition.nodiff:
                continue
            args = [grad_name(n) if wanted(n) else EMPTY_VAR for n in op.input(base)]
            if any(a != EMPTY_VAR for a in args):
                outputs[slot.name] = args
        if not outputs:
            return []
        attrs = {k: v for k, v in op.attrs.items() if not k.startswith("op_")}
        return [*extra, OpSpec(op.type + "_grad", inputs, outputs, attrs)]

    def _zeros(self, var: str, extra: list[OpSpec]) -> str:
        name = self.name_for(var)
        extra.append(OpSpec("fill_zeros_like", {"X": [var]}, {"Out": [name]}))
        return name


def _no_grad_names(block: Block, given: Any) -> set[str]:
    found = {v.name for b in block.program.blocks for v in b.vars.values() if v.stop_gradient}
    for item in given or ():
        if isinstance(item, Variable):
            found.add(item.name)
        elif isinstance(item, str):
            found.add(item)
        else:
            raise TypeError(f"no_grad_set takes names or Variables, received {type(item).__name__}")
    return found


def _wanted(block: Block, reached: set[str], no_grad: set[str]) -> Callable[[str], bool]:
    def test(name: str) -> bool:
        if name == EMPTY_VAR or name in no_grad or name not in reached:
            return False
        var = block._find_var_recursive(name)
        if var is None or not var.is_tensor:
            return False
        return not var.has_dtype or var.dtype in FLOATING or var.type is VarType.LOD_TENSOR_ARRAY

    return test


def _reached_from(ops: Sequence[Operator], sources: set[str] | None, no_grad: set[str]) -> set[str]:
    """Variables that depend on `sources` (all variables when None)."""
    if sources is None:
        return {n for op in ops for n in (*walk.reads_of(op), *op.output_arg_names)}
    reached = set(sources)
    for op in ops:
        if any(n in reached and n not in no_grad for n in walk.reads_of(op)):
            reached.update(n for n in walk.writes_of(op))
    return reached


def _append(block: Block, specs: Iterable[OpSpec], params: set[str], callbacks: Sequence[Any]) -> dict[str, Operator]:
    """Append the collected operators with their variables; returns gradient name -> operator."""
    program = block.program
    made: dict[str, Operator] = {}
    for spec in specs:
        role_vars: list[str] = []
        for slot, outs in spec.outputs.items():
            for name in outs:
                if name == EMPTY_VAR:
                    continue
                _declare_grad(block, name)
                base = names.strip_grad(name)
                if base in params:
                    role_vars += [base, name]
        with program._role_guard(ROLE_BACKWARD, role_vars):
            site = spec.forward.site if spec.forward is not None else None
            op = block._make_op(spec.type, spec.inputs, spec.outputs, spec.attrs, site)
            op._attrs[OP_ROLE] = ROLE_BACKWARD
            if not role_vars:
                op._attrs.pop(OP_ROLE_VAR, None)
            block.ops.append(op)
            block._finish(op, False)
        for name in op.output_arg_names:
            made[name] = op
        for callback in callbacks:
            callback(block=block, context=made)
    return made


def _declare_grad(block: Block, name: str) -> None:
    if block._has_var_recursive(name):
        return
    like = block._find_var_recursive(names.strip_grad(name))
    var = block.create_var(name=name)
    if like is not None:
        var._dtype = like._dtype
        var._shape = like._shape
        if like.type is VarType.LOD_TENSOR_ARRAY:
            var._type = like.type


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Variable):
        raise TypeError(f"append_backward takes the loss Variable, received {type(loss).__name__}")
    size = 1
    for d in loss.shape:
        size *= d
    if loss.has_shape and size != 1:
        raise InvalidProgramError(
            f"append_backward: the loss must have one element, received {loss.describe()}; "
            "take its mean first (fluid.layers.mean)"
        )


def append_backward(
    loss: Variable,
    parameter_list: Any = None,
    no_grad_set: Any = None,
    callbacks: Any = None,
    checkpoints: Any = None,
) -> list[tuple[Parameter, Variable]]:
    """Append the operators that compute d loss / d parameter for every trainable Parameter.

    Args:
        loss: a Variable of shape [1].
        parameter_list: Parameters (or names) to differentiate for; all trainable ones when None.
        no_grad_set: Variables (or names) through which no gradient flows.
        callbacks: called as f(block=, context=) after each appended operator.
        checkpoints: Variables to keep; what lies between is recomputed (see autodiff.recompute).

    Returns:
        (parameter, gradient) pairs, in the order of the parameters.

    Raises:
        InvalidProgramError: the loss has more than one element.
    """
    _check_loss(loss)
    block = loss.block
    program = block.program
    if loss.op is not None:
        loss.op._set_attr(OP_ROLE, int(loss.op.attrs.get(OP_ROLE, 0)) | ROLE_LOSS)
    no_grad = _no_grad_names(block, no_grad_set)
    params = _parameters(program, parameter_list)
    with program._role_guard(ROLE_BACKWARD | ROLE_LOSS, []):
        seed = block.create_var(name=loss.grad_name, shape=loss.shape, dtype=loss.dtype)
        fill = block.append_op(
            "fill_constant",
            outputs={"Out": seed},
            attrs={"shape": [1], "value": 1.0, "dtype": loss.dtype, "force_cpu": False},
        )
        fill._attrs.pop(OP_ROLE_VAR, None)
    path = walk.needed_ops(block, [loss.name])
    path = [op for op in path if not op.role & ROLE_BACKWARD]
    builder = _Builder(block, no_grad, False)
    builder.seed(loss.name, seed.name)
    reached = _reached_from(path, None, no_grad)
    _walk_back(builder, path, _wanted(block, reached, no_grad))
    found = {p.name: builder.complete(p.name) for p in params}
    _append(block, builder.specs, set(found), _clip_callbacks(callbacks))
    pairs: list[tuple[Parameter, Variable]] = []
    for p in params:
        name = found[p.name]
        if name is not None and p.name not in no_grad:
            grad = block._var_recursive(name)
            pairs.append((p, grad))
            if grad.op is not None:
                grad.op._set_attr(OP_ROLE_VAR, _with_pair(grad.op.attrs.get(OP_ROLE_VAR, []), p.name, name))
    return pairs


def _with_pair(role_vars: list[str], param: str, grad: str) -> list[str]:
    return role_vars if param in role_vars else [*role_vars, param, grad]


def _walk_back(builder: _Builder, path: list[Operator], wanted: Callable[[str], bool]) -> None:
    for op in reversed(path):
        builder.visit(op, wanted)


def _parameters(program: Any, parameter_list: Any) -> list[Parameter]:
    if parameter_list is None:
        return [p for p in program.global_block().all_parameters() if p.trainable]
    found = []
    for item in parameter_list:
        name = item if isinstance(item, str) else getattr(item, "name", None)
        if name is None:
            raise TypeError(f"parameter_list takes Parameters or names, received {type(item).__name__}")
        found.append(program.global_block().var(name))
    return found


def _clip_callbacks(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def gradients(targets: Any, inputs: Any, target_gradients: Any = None, no_grad_set: Any = None) -> list[Variable | None]:
    """Append operators for the gradients of `targets` with respect to `inputs`.

    Args:
        targets, inputs: Variables or lists of them.
        target_gradients: one gradient per target (ones where None).
        no_grad_set: Variables (or names) through which no gradient flows.

    Returns:
        One Variable per input; None where no target depends on it.
    """
    return calc_gradient(targets, inputs, target_gradients, no_grad_set)


def calc_gradient(
    targets: Any, inputs: Any, target_gradients: Any = None, no_grad_set: Any = None
) -> list[Variable | None]:
    """See :func:`gradients`."""
    targets, inputs = _as_list(targets), _as_list(inputs)
    given = _as_list(target_gradients) if target_gradients is not None else [None] * len(targets)
    if len(given) != len(targets):
        raise InvalidProgramError(f"gradients: {len(targets)} targets but {len(given)} target_gradients")
    for v in (*targets, *inputs):
        if not isinstance(v, Variable):
            raise TypeError(f"gradients takes Variables, received {type(v).__name__}")
    block = targets[0].block
    no_grad = _no_grad_names(block, no_grad_set)
    path = walk.needed_ops(block, [t.name for t in targets])
    builder = _Builder(block, no_grad, True)
    for target, gradient in zip(targets, given):
        builder.seed(target.name, _seed_gradient(builder, block, target, gradient))
    names_in = {v.name for v in inputs}
    reached = _reached_from(path, names_in, no_grad)
    input_done: dict[str, str | None] = {}
    wanted = _wanted(block, reached, no_grad)
    first_maker = {n: op for op in path for n in op.output_arg_names if n in names_in}
    for op in reversed(path):
        for name in names_in & set(op.output_arg_names):
            if first_maker.get(name) is op:
                input_done[name] = builder.complete(name)
        builder.visit(op, wanted)
    for name in names_in:
        if name not in input_done:
            input_done[name] = builder.complete(name)
    _append(block, builder.specs, set(), [])
    results: list[Variable | None] = []
    for v in inputs:
        name = input_done.get(v.name)
        results.append(block._var_recursive(name) if name and v.name not in no_grad else None)
    return results




def _seed_gradient(builder: _Builder, block: Block, target: Variable, gradient: Any) -> str:
    if gradient is not None:
        if gradient.has_shape and target.has_shape and gradient.shape != target.shape:
            raise InvalidProgramError(
                f"gradients: the gradient {gradient.describe()} must have the shape of its target {target.describe()}"
            )
        return str(gradient.name)
    name = builder.name_for(target.name)
    with block.program._role_guard(ROLE_BACKWARD, []):
        seed = block.create_var(name=name, shape=target.shape, dtype=target.dtype)
        block.append_op("fill_any_like", {"X": target}, {"Out": seed}, {"value": 1.0, "dtype": target.dtype})
    return name


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
