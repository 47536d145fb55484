"""Lowering: a Block becomes the Python source of one function over local variables.

A local ``vN`` holds a variable's value, ``lN`` its LoD where it may have one; constants (kernels with their
attributes bound, Scope tensors) are free names of the function. Nothing is looked up by name while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from millstream.errors import InvalidProgramError
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.ops._grad import connected, differentiable, taped
from millstream.ops._infer import lod_sources
from millstream.ops._opdef import OpDef, Slot
from millstream.ops._values import BlockFrame, Ragged
from millstream.passes.pipelines import PLAN as PLAN_PASSES
from millstream.runtime.liveness import (
    Pairing,
    asked_outputs,
    copied_operands,
    definition_of,
    live_ops,
    missing_value,
    pair_gradients,
)  # fmt: skip


@dataclass
class Code:
    """An emitted function.

    Attributes:
        source: Python text; its name is `step` (global Block) or `body` (sub-Block).
        constants: free names of the source.
        op_of_line, local: source line -> Operator, variable name -> number of its local: for error messages.
        scope_vars: names of Scope variables it binds, in the order of the `bind` argument.
        may_have_lod: outer variables that may have a LoD after a run of a sub-Block; of a global Block, variables of the
            Scope that are read as if they had none and get one: the next run would read it.
    """

    source: str
    constants: dict[str, Any]
    op_of_line: dict[int, Operator]
    local: dict[str, str] = field(default_factory=dict)
    scope_vars: list[str] = field(default_factory=list)
    reads_first: set[str] = field(default_factory=set)
    may_have_lod: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Options:
    """How to lower.

    Attributes:
        tape: emit a sub-Block for autograd (its operators stay connected).
        check_nan: check every output for NaN and Inf.
        profile: time every operator.
        device: where new tensors are made.
        passes: names of the passes that change a Plan's copy of the global Block first.
        capture: compile runs of operators (runtime/capture.py); not while profiling or checking for NaN.
    """

    tape: bool = False
    check_nan: bool = False
    profile: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    passes: tuple[str, ...] = PLAN_PASSES
    capture: bool = False


class Emitter:
    """Emits one Block."""

    def __init__(self, block: Block, options: Options, make_body: Callable[..., Any]) -> None:
        self.block = block
        self.options = options
        self.make_body = make_body
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {"Ragged": Ragged, "BlockFrame": BlockFrame, "copy": torch.Tensor.clone}
        self.op_of_line: dict[int, Operator] = {}
        self.local: dict[str, str] = {}  # variable name -> number of its local, once it has a value
        self.has_lod: set[str] = set()
        self.state_lods: set[str] = set()  # variables of the Scope that may come with a LoD
        self.loaded: set[str] = set()  # variables of the Scope that are read
        self.defined: set[str] = set()
        self.fed: tuple[str, ...] = ()  # for the error about a variable that is not
        self.scope_vars: list[str] = []
        self.scope_index: dict[str, int] = {}
        self.reads_first: set[str] = set()
        self.outer: set[str] | None = None  # sub-Block: names that come from `env`
        self.scope: Any = None
        self.pairing = Pairing()
        self.last_use: dict[str, int] = {}
        self.copied: dict[int, set[str]] = {}
        self.keep: set[str] = set()

    # ---- locals and constants ----------------------------------------------------------------
    def line(self, text: str, op: Operator | None = None) -> None:
        self.lines.append("    " + text)
        if op is not None:
            self.op_of_line[len(self.lines) + 1] = op

    def const(self, prefix: str, value: Any) -> str:
        name = f"{prefix}{len(self.constants)}"
        self.constants[name] = value
        return name

    def v(self, name: str) -> str:
        number = self.local.get(name)
        if number is None:
            number = self.local[name] = str(len(self.local))
        return "v" + number

    def lod(self, name: str) -> str:
        return "l" + self.local[name] if name in self.has_lod else "()"

    def read(self, name: str, op: Operator, may_be_unset: bool = False) -> str:
        """The expression for a variable's value, loading it from the Scope at its first use."""
        if name == EMPTY_VAR:
            return "None"
        if name not in self.defined:
            self._load(name, op, may_be_unset)
        return self.v(name)

    def _load(self, name: str, op: Operator, may_be_unset: bool = False) -> None:
        if self.outer is not None:
            local = self.v(name)
            self.line(f"{local} = env.get({name!r})", op)
            if name in self.has_lod:
                self.line(f"{self.lod(name)} = lods.get({name!r}, ())", op)
            self.defined.add(name)
            return
        var = self.block._find_var_recursive(name)
        holder = self.scope.find_var(name) if self.scope is not None else None
        if (var is None or not var.persistable) and holder is None:
            if var is None or var.type is not VarType.LOD_TENSOR_ARRAY:
                raise missing_value(self.block, name, op, self.fed)
            self.line(f"{self.v(name)} = None", op)  # an array that nothing was written to has no elements
            self.defined.add(name)
            return
        if name in self.state_lods or (holder is not None and getattr(holder.obj, "_lod", None)):
            self.has_lod.add(name)
            self.state_lods.add(name)
        self.loaded.add(name)
        slot = self._bind(name)
        if not may_be_unset:
            self.reads_first.add(name)
        local = self.v(name)
        if name in self.has_lod:
            self.line(f"{local}, l{self.local[name]} = s{slot}.load()", op)
        elif self._dense(name):
            self.line(f"{local} = t{slot}._t", op)
        else:
            self.line(f"{local} = s{slot}.load()[0]", op)
        self.defined.add(name)

    def _dense(self, name: str) -> bool:
        var = self.block._find_var_recursive(name)
        return var is not None and var.type is VarType.LOD_TENSOR

    def _bind(self, name: str) -> int:
        if name not in self.scope_index:
            self.scope_index[name] = len(self.scope_vars)
            self.scope_vars.append(name)
        return self.scope_index[name]

    def _store(self, name: str, owned: bool = False) -> None:
        """Write a persistable variable back to the Scope.

        What the Scope holds owns its memory (optimizers update it in place): a value that may share memory with
        another one is copied. `owned` says that it does not.
        """
        if self.outer is not None:
            return
        slot = self._bind(name)
        if self._dense(name) and name not in self.has_lod:
            value = self.v(name) if owned else f"ctx.own({self.v(name)}, t{slot}._t)"
            self.line(f"t{slot}._t = {value}")
        else:
            self.line(f"s{slot}.store({self.v(name)}, {self.lod(name)})")

    # ---- operators ---------------------------------------------------------------------------
    def emit(self, ops: list[Operator], keep: set[str]) -> None:
        """Emit all operators; locals in `keep` live to the end."""
        self._prepare(ops, keep)
        for i, op in enumerate(ops):
            self._one(i, op)
            self._after(i, op)
            self._free(i, op)

    def _prepare(self, ops: list[Operator], keep: set[str]) -> None:
        self.keep = keep
        if self.outer is None:
            self.pairing = pair_gradients(ops)
        for i, op in enumerate(ops):
            for name in walk.reads_of(op):
                self.last_use[name] = i
            for name in op.output_arg_names:
                self.last_use.setdefault(name, i)
                self.last_use[name] = max(self.last_use[name], i)
        self.copied = copied_operands(ops, self.last_use, keep)

    def _one(self, i: int, op: Operator) -> None:
        self._save(self.pairing.save_before.get(i), op)
        if self.options.profile:
            self._load_early(op)
            self.line(f"ctx.enter({self._seen(op, op.input_arg_names)})", op)
        if definition_of(op).block:
            self._block_op(i, op)
        elif i in self.pairing.forward and self._uses_handle(i, op):
            self._grad_of_taped(i, op)
        else:
            self._plain_op(i, op)

    def _uses_handle(self, i: int, op: Operator) -> bool:
        return i not in self.pairing.anew and self.pairing.forward[i] in self.pairing.taped and (
            definition_of(op).derived_from is not None or definition_of(op).block
        )

    def _save(self, saved: dict[str, str] | None, op: Operator) -> None:
        for name, key in (saved or {}).items():
            source = self.read(name, op)
            self.line(f"{self.v(key)} = {source}", op)
            self.defined.add(key)
            if name in self.has_lod:
                self.has_lod.add(key)
                self.line(f"{self.lod(key)} = {self.lod(name)}", op)

    def _argument(self, i: int, slot: Slot, op: Operator) -> str:
        names = op.inputs.get(slot.name, ())
        swaps = self.pairing.use.get(i, {})
        parts = []
        for name in names:
            name = swaps.get(f"{slot.name}/{name}", name)
            # an optional state that the operator itself writes (random_crop's seed) is unset before the first run
            value = self.read(name, op, slot.optional and name in op.output_arg_names)
            if name in self.copied.get(i, ()):
                value = f"copy({value})"
            parts.append(f"Ragged({value}, {self.lod(name)})" if slot.ragged and value != "None" else value)
        if slot.many:
            return "[" + ", ".join(parts) + "]"
        return parts[0] if parts else "None"

    def _present_value(self, slot: Slot, op: Operator) -> str:
        names = op.outputs.get(slot.name, ())
        return self.read(names[0], op) if names and self._available(names[0]) else "None"

    def _plain_op(self, i: int, op: Operator) -> None:
        definition = definition_of(op)
        args = [self._argument(i, slot, op) for slot in definition.inputs]
        args += [self._present_value(slot, op) for slot in definition.outputs if slot.inout]
        attrs = definition.kernel_attrs(op.attrs)
        if "want" in definition.reserved:
            last_use = {} if self.options.tape or i in self.pairing.taped else self.last_use
            attrs["want"] = asked_outputs(i, op, last_use, self.keep)
        kernel, extra = self._kernel(definition, op, attrs)
        if self.options.tape:
            kernel = partial(differentiable(definition), **kernel[1]) if kernel[1] else differentiable(definition)
        else:
            kernel = partial(kernel[0], **kernel[1]) if kernel[1] else kernel[0]
        call = f"({', '.join([*args, *extra])})"
        targets = [self._target(slot, op) for slot in definition.outputs]
        if i in self.pairing.taped:
            kernel = taped(connected(definition, kernel), tuple(s.name in self.pairing.wanted[i] for s in definition.inputs))
            left = targets[0] if len(targets) == 1 else f"({', '.join(targets)})"
            self.line(f"{left}, h{i} = {self.const('k', kernel)}{call}", op)
        else:
            name = self.const("k", kernel)
            self.line(f"{', '.join(targets)} = {name}{call}" if targets else f"{name}{call}", op)
        self._lods(i, definition, op)

    def _kernel(self, definition: OpDef, op: Operator, attrs: dict[str, Any]) -> tuple[Any, list[str]]:
        extra = []
        if "rng" in definition.reserved:
            seed = int(attrs.get("seed", 0) or 0)
            extra.append(f"rng=ctx.seeded({seed})" if seed else "rng=ctx.rng")
        if "ctx" in definition.reserved:
            extra.append("ctx=ctx")
        if "device" in definition.reserved:
            attrs["device"] = self.options.device
        if "aliased" in definition.reserved:
            attrs["aliased"] = frozenset(s for s, names in op.outputs.items() if {*names} & {*op.input_arg_names})
        if "counts" in definition.reserved:
            attrs["counts"] = tuple(len(op.outputs.get(s.name, ())) for s in definition.outputs)
        if "names" in definition.reserved:
            attrs["names"] = {**op.inputs, **op.outputs}
        if "state" in definition.reserved:
            attrs["state"] = {}
        return (definition.kernel, attrs), extra

    def _target(self, slot: Slot, op: Operator) -> str:
        names = op.outputs.get(slot.name, ())
        if not names:
            return "_"
        parts = []
        for name in names:
            if name == EMPTY_VAR:
                parts.append("_")
                continue
            local = self.v(name)
            self.defined.add(name)
            if slot.ragged:
                self.has_lod.add(name)
                local = f"({local}, l{self.local[name]})"
            parts.append(local)
        if slot.many:
            return f"({', '.join(parts)},)" if any(n != EMPTY_VAR for n in names) else "_"
        return parts[0]

    def _lods(self, i: int, definition: OpDef, op: Operator) -> None:
        plain = [(s, n) for s in definition.outputs if not s.ragged for n in op.outputs.get(s.name, ()) if n != EMPTY_VAR]
        inputs = [n for n in op.input_arg_names if n != EMPTY_VAR]
        if not self.has_lod:
            return
        if callable(definition.lod):
            if any(n in self.has_lod for n in inputs):
                self._lods_by_call(definition, op, plain, inputs)
            else:
                self.has_lod.difference_update(n for _, n in plain)
            return
        sources = lod_sources(definition)
        for slot, name in plain:
            source = self._lod_source(i, op, sources.get(slot.name, ""), slot.name, name)
            if source is not None and source in self.has_lod:
                if name != source:
                    self.line(f"l{self.local[name]} = {self.lod(source)}", op)
                    self.has_lod.add(name)
            elif source is not None or name not in inputs:  # written onto its input, and no rule speaks: it keeps its LoD
                self.has_lod.discard(name)

    def _lod_source(self, i: int, op: Operator, source: str, slot: str, name: str) -> str | None:
        """The variable whose LoD `name` in output `slot` takes, or None. A gradient may take that of the variable which it
        is the gradient of, whether or not it reads that."""
        names = op.inputs.get(source, ())
        if not names and i in self.pairing.forward:
            names = self._ops[self.pairing.forward[i]].inputs.get(source, ())
        k = op.outputs[slot].index(name) if source + "@GRAD" == slot else 0
        return names[k] if k < len(names) else None

    def _lods_by_call(self, definition: OpDef, op: Operator, plain: list[tuple[Slot, str]], inputs: list[str]) -> None:
        def gather(kind: Callable[[str], str]) -> str:
            items = []
            for s in definition.inputs:
                names = [n for n in op.inputs.get(s.name, ()) if n != EMPTY_VAR]
                if names:
                    parts = [kind(n) for n in names]
                    items.append(f"{s.name!r}: " + ("[" + ", ".join(parts) + "]" if s.many else parts[0]))
            return "{" + ", ".join(items) + "}"

        rule, attrs = self.const("r", definition.lod), self.const("a", definition.kernel_attrs(op.attrs))
        given = " or ".join(self.lod(n) for n in inputs if n in self.has_lod)  # without a LoD no rule has anything to say
        self.line(f"q = {rule}({gather(self.lod)}, {attrs}, {gather(self.v)}) if {given} else {{}}", op)
        for slot, name in plain:
            silent = self.lod(name) if name in op.input_arg_names else "()"
            self.has_lod.add(name)
            if slot.many:
                k = op.outputs[slot.name].index(name)
                self.line(f"l{self.local[name]} = q[{slot.name!r}][{k}] if {slot.name!r} in q else {silent}", op)
            else:
                self.line(f"l{self.local[name]} = q.get({slot.name!r}, {silent})", op)

    def _grad_of_taped(self, i: int, op: Operator) -> None:
        definition = definition_of(op)
        forward = definition.derived_from
        assert forward is not None
        j = self.pairing.forward[i]
        douts = []
        for slot in forward.outputs:
            names = op.inputs.get(slot.name + "@GRAD", ())
            parts = [self.read(n, op) for n in names]
            douts.append("[" + ", ".join(parts) + "]" if slot.many else (parts[0] if parts else "None"))
        targets = []
        for slot in forward.inputs:
            names = op.outputs.get(slot.name + "@GRAD", ())
            targets.append(self._target(Slot(slot.name + "@GRAD", many=slot.many), op) if names else "_")
        self.line(f"{', '.join(targets)}, = h{j}.backward(({', '.join(douts)},){self._retain(j)})", op)
        self._lods(i, definition, op)

    def _retain(self, j: int) -> str:
        self.pairing.taped[j] -= 1
        return ", retain=True" if self.pairing.taped[j] else ""

    # ---- operators with sub-Blocks -------------------------------------------------------------
    def _block_op(self, i: int, op: Operator) -> None:
        definition = definition_of(op)
        is_grad = op.type.endswith("_grad")
        reads = [n for n in dict.fromkeys([*walk.reads_of(op), *walk.writes_of(op)]) if n != EMPTY_VAR]
        if is_grad:
            reads = [n for n in op.input_arg_names if n != EMPTY_VAR]
        present = [n for n in reads if self._available(n)]
        for name in present:
            self.read(name, op)
        copied = self.copied.get(i, ())
        env = ", ".join(f"{n!r}: copy({self.v(n)})" if n in copied else f"{n!r}: {self.v(n)}" for n in present)
        lods = "{" + ", ".join(f"{n!r}: {self.lod(n)}" for n in present if n in self.has_lod) + "}"
        writes = [n for n in walk.writes_of(op) if n != EMPTY_VAR] if not is_grad else op.output_arg_names
        tape = i in self.pairing.taped
        body = None
        known = {n for n in present if n in self.has_lod}
        if op.sub_blocks() and not is_grad:
            exports = definition.extra["exports"](op) if "exports" in definition.extra else []
            body = self.make_body(op.sub_blocks()[0], known, tape or self.options.tape, exports)
            known |= body.may_have_lod
        frame = f"BlockFrame({{{env}}}, {lods}, {self.const('i', op.inputs)}, {self.const('o', op.outputs)}, "
        frame += f"{self.const('b', body.run) if body else None}, ctx)"
        attrs = definition.kernel_attrs(op.attrs)
        if "sub_block" in attrs:
            attrs["sub_block"] = None  # the kernel runs frame.body instead
        kernel = self.const("k", partial(definition.kernel, **attrs))
        self.line(f"f = {frame}", op)
        extra = ""
        if tape:
            wanted = frozenset(self._wanted_names(i))
            extra = f", tape={self.const('w', wanted)}"
        elif is_grad:
            extra = f", handle=h{self.pairing.forward[i]}" if i in self.pairing.forward else ", handle=None"
        self.line(f"{f'h{i} = ' if tape else ''}{kernel}(f{extra})", op)
        for name in dict.fromkeys(writes):
            if name == EMPTY_VAR:
                continue
            self.line(f"{self.v(name)} = f.env.get({name!r})", op)
            self.defined.add(name)
            var = self.block._find_var_recursive(name)
            if name in known or (var is not None and var.lod_level > 0):
                self.has_lod.add(name)
                self.line(f"l{self.local[name]} = f.lods.get({name!r}, ())", op)
        self.line("f = None")

    def _wanted_names(self, i: int) -> list[str]:
        slots = self.pairing.wanted[i]
        op = self._ops[i]
        return [n for s in slots for n in op.inputs.get(s, ())]

    def _available(self, name: str) -> bool:
        if name in self.defined:
            return True
        if self.outer is not None:
            return name in self.outer
        var = self.block._find_var_recursive(name)
        holder = self.scope.find_var(name) if self.scope is not None else None
        if holder is not None and holder.obj is not None:
            return True
        return var is not None and var.persistable

    # ---- after an operator ---------------------------------------------------------------------
    def _after(self, i: int, op: Operator) -> None:
        self._save(self.pairing.save_after.get(i), op)
        written = walk.writes_of(op) if op.sub_blocks() else op.output_arg_names
        outs = [n for n in dict.fromkeys(written) if n != EMPTY_VAR and n in self.defined]
        if self.options.tape:
            for name in outs:
                var = self.block._find_var_recursive(name)
                if var is not None and var.stop_gradient:
                    self.line(f"{self.v(name)} = ctx.detach({self.v(name)})", op)
        if self.options.profile:
            self.line(f"ctx.leave({self._seen(op, outs)})", op)
        if self.options.check_nan and outs:
            names = self.const("n", (op, tuple(outs)))
            self.line(f"ctx.check_finite({names}, ({''.join(self.v(n) + ', ' for n in outs)}))", op)
        self._persist(outs, op)

    def _load_early(self, op: Operator) -> None:
        """Load what the operator reads of the Scope or of an outer Block, so that a profiler sees it."""
        if definition_of(op).block:
            return
        for name in op.input_arg_names:
            if name == EMPTY_VAR or name in self.defined:
                continue
            holder = self.scope.find_var(name) if self.scope is not None else None
            if name in (self.outer or ()) or (self.outer is None and holder is not None and holder.obj is not None):
                self.read(name, op)

    def _seen(self, op: Operator, names: list[str]) -> str:
        """What a profiler is told: the operator, names of variables, and their values."""
        known = tuple(n for n in dict.fromkeys(names) if n in self.defined and n != EMPTY_VAR)
        return f"{self.const('o', op)}, {self.const('n', known)}, ({''.join(self.v(n) + ', ' for n in known)})"

    def _persist(self, outs: list[str], op: Operator) -> None:
        for name in outs:
            var = self.block._find_var_recursive(name)
            if var is not None and var.persistable:
                self._store(name, owned="Param" in definition_of(op).in_slots)

    def _free(self, i: int, op: Operator) -> None:
        dead = []
        for name in dict.fromkeys([*walk.reads_of(op), *op.output_arg_names]):
            if self.last_use.get(name) == i and name not in self.keep and name in self.defined and name != EMPTY_VAR:
                dead.append(name)
        j = self.pairing.forward.get(i)
        handle = [f"h{j}"] if j is not None and j in self.pairing.taped and not self.pairing.taped[j] else []
        if dead or handle:
            self.line(" = ".join([self.v(n) for n in dead] + handle) + " = None")

    def run_ops(self, ops: list[Operator], keep: set[str]) -> None:
        self._ops = ops
        self.emit(ops, keep)


def lower_global(
    block: Block, feeds: dict[str, bool], fetches: list[str], scope: Any, options: Options, make_body: Callable[..., Any],
    emitter: Emitter | None = None, state_lods: Iterable[str] = (),
) -> Code:  # fmt: skip
    """The function ``step(feed, feed_lods, tensors, vars, ctx)`` of a global Block.

    Args:
        feeds: fed variable -> whether it comes with a LoD.
        fetches: variables whose (value, LoD) pairs it returns.
        emitter: another kind of Emitter over `block` (runtime/capture.py has one).
        state_lods: variables of the Scope to be read with their LoD, beside those that have one now.
    """
    ops = live_ops(block, fetches)
    emitter = emitter or Emitter(block, options, make_body)
    emitter.scope = scope
    emitter.state_lods = set(state_lods)
    emitter.fed = tuple(feeds)
    for k, (name, with_lod) in enumerate(feeds.items()):
        emitter.line(f"{emitter.v(name)} = feed[{k}]")
        emitter.defined.add(name)
        if with_lod:
            emitter.has_lod.add(name)
            emitter.line(f"{emitter.lod(name)} = feed_lods[{k}]")
        var = block._find_var_recursive(name)
        if var is not None and var.persistable:
            emitter._store(name)
    emitter.run_ops(ops, set(fetches))
    results = []
    for name in fetches:
        if name not in emitter.defined:
            if block._find_var_recursive(name) is None:
                raise InvalidProgramError(f"fetch: {name!r} is not a variable of the program")
            emitter._load(name, Operator(block, "fetch"))
        results.append(f"({emitter.v(name)}, {emitter.lod(name)})")
    emitter.line(f"return [{', '.join(results)}]")
    names = emitter.scope_vars
    head = "def step(feed, feed_lods, tensors, scope_vars, ctx):"
    unpack = []
    if names:
        unpack.append("    " + "".join(f"t{k}, " for k in range(len(names))) + "= tensors")
        unpack.append("    " + "".join(f"s{k}, " for k in range(len(names))) + "= scope_vars")
    return Code(
        source="\n".join([head, *unpack, *emitter.lines]),
        constants=emitter.constants,
        op_of_line={n + len(unpack): op for n, op in emitter.op_of_line.items()},
        local=emitter.local,
        scope_vars=names,
        reads_first=emitter.reads_first,
        may_have_lod=(emitter.loaded & emitter.has_lod) - emitter.state_lods,
    )


def lower_body(
    block: Block, known_lods: set[str], options: Options, make_body: Callable[..., Any], exports: list[str]
) -> Code:
    """The function ``body(env, lods, ctx)`` of a sub-Block.

    Args:
        known_lods: outer variables that may have a LoD when the body starts.
        exports: variables of the Block itself that the caller reads from `env` afterwards.
    """
    writes = list(dict.fromkeys([*walk.outer_writes(block), *exports]))
    reads = walk.outer_reads(block) + walk.given(block)
    lods = set(known_lods)
    while True:  # a value that the body writes may have a LoD when the next iteration reads it
        emitter = Emitter(block, options, make_body)
        emitter.outer = set(reads) | set(writes)
        emitter.has_lod = {n for n in lods if n in emitter.outer}
        for name in emitter.has_lod:
            emitter.v(name)
        ops = [op for op in block.ops if op.type not in ("feed", "fetch")]
        emitter.run_ops(ops, set(writes))
        after = lods | {n for n in writes if n in emitter.has_lod}
        if after == lods:
            break
        lods = after
    for name in writes:
        if name in emitter.defined:
            emitter.line(f"env[{name!r}] = {emitter.v(name)}")
            if name in emitter.has_lod:
                emitter.line(f"lods[{name!r}] = {emitter.lod(name)}")
            else:
                emitter.line(f"lods.pop({name!r}, None)")
    if not emitter.lines:
        emitter.line("pass")
    return Code(
        source="\n".join(["def body(env, lods, ctx):", *emitter.lines]),
        constants=emitter.constants,
        op_of_line=emitter.op_of_line,
        local=emitter.local,
        may_have_lod=lods,
    )
