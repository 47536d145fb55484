"""DynamicRNN (while, arrays, rank table, and their gradients) and StaticRNN -> row operators around one `row_loop`.

The operators of a step fall in three: what needs no state runs once over the rows of all steps before the loop, what no
state needs runs so behind it, and only what is between stays a loop, run by ops/recurrent/row_loop.py. The gradient
operators of the new operators take the place of `while_grad` and write the same variables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from millstream.autodiff.collect import Collector, declare_gradient
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import OP_ROLE, ROLE_BACKWARD, Operator
from millstream.ir.types import FLOATING, VarType
from millstream.ops._infer import lod_sources
from millstream.ops._opdef import REGISTRY
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.loops._find import Finder, Loop, Refused, refuse_unless
from millstream.passes.loops._find_static import StaticFinder
from millstream.passes.loops._padded import PaddedWriter
from millstream.passes.loops._rowwise import SAME, why_not
from millstream.passes.loops._write import Writer

NAME = "fuse_rnn"
STEP, LOOP, CONSTANT = "step", "loop", "constant"  # where a value comes from; a static input has its own name
_FINDERS: dict[str, Any] = {"while": Finder, "recurrent": StaticFinder}
_NUMBERS = ("fill_constant", "fill_constant_batch_size_like")


@program_pass(NAME)
def fuse_rnn(work: Work) -> int:
    """Rewrite every DynamicRNN and StaticRNN that the row machine can run; returns how many."""
    changes = 0
    for op in [op for op in work.block.ops if op.type in _FINDERS]:
        uses = work.uses(work.block)
        try:
            finder = _FINDERS[op.type](work, uses, next(i for i, o in enumerate(work.block.ops) if o is op))
            _Rewrite(work, uses, finder).apply()
            changes += 1
        except Refused as why:
            work.refuse(NAME, op, str(why))
    return changes


@dataclass
class _Rewrite:
    """Rewrites one loop; nothing changes before all of it is known to work."""

    work: Work
    uses: Uses
    finder: Finder | StaticFinder
    origin: dict[str, str] = field(default_factory=dict)  # variable of the Block -> where it comes from
    name: dict[str, str] = field(default_factory=dict)  # variable of the Block -> variable of the global Block
    made: list[Operator] = field(default_factory=list)
    declared: list[tuple[str, Any]] = field(default_factory=list)
    same: set[str] = field(default_factory=set)  # variables of the Block that are the same in every step

    def apply(self) -> None:
        loop = self.finder.find()
        refuse_unless(loop.steps, "it has no step input")
        if loop.shape is not None:
            self._flatten(loop)
        elif isinstance(self.finder, Finder):
            refuse_unless(self.finder.ranked in loop.steps.values(), "the rank table is not that of a step input")
        before, core, behind = self._split(loop)
        for op in before:
            self._hoist(op)
        self._core(loop, core, behind)
        for op in behind:
            self._hoist(op)
        self._results(loop)
        gradients = self._gradients(loop) if loop.grad_at is not None else []
        self._replace(loop, gradients)

    def _flatten(self, loop: Loop) -> None:
        """Step inputs [steps, batch, …] as rows [steps * batch, …]."""
        for name, source in loop.steps.items():
            var = self.finder.var(name)  # the Block's own: a step's rows
            rows = loop.steps[name] = self._beside(name)
            assert var is not None
            attrs = {"shape": [-1, *var.shape[1:]]}
            outs = {"Out": [rows], "XShape": [self._beside(name)]}
            self.made.append(Operator(self.work.block, "reshape2", {"X": [source]}, outs, attrs, loop.operator.site))

    # ---- where each operator goes ------------------------------------------------------------------
    def _split(self, loop: Loop) -> tuple[list[Operator], list[Operator], list[Operator]]:
        origin = self.origin
        origin.update(dict.fromkeys(loop.steps, STEP))
        origin.update((name, source) for name, source in loop.statics.items())
        origin.update((m.read, LOOP) for m in loop.memories)
        needed = {m.becomes for m in loop.memories}
        feeds_back = set()
        for op in reversed(loop.body):
            if needed.intersection(op.output_arg_names):
                needed.update(op.input_arg_names)
                feeds_back.add(id(op))
        before, core, behind = [], [], []
        for op in loop.body:
            where = self._where(op)
            if where == CONSTANT or (where != LOOP and self._why_not(op) is None):
                before.append(op)
            elif id(op) not in feeds_back and where in (LOOP, STEP) and self._behind(op):
                behind.append(op)
            else:
                where = LOOP
                core.append(op)
            origin.update((n, where) for n in op.output_arg_names if n != EMPTY_VAR)
        return before, core, behind

    def _where(self, op: Operator) -> str:
        """Where the results of `op` come from, going by its inputs."""
        inside = op.type != "fill_constant_batch_size_like" or op.input("Input")[0] in self.origin
        refuse_unless(inside, "a constant has the batch size of a variable outside of the loop")
        kinds = {self.origin.get(n, CONSTANT) for n in op.input_arg_names if n != EMPTY_VAR} - {CONSTANT}
        if op.type in _NUMBERS:
            return CONSTANT
        if not kinds and self._is_same(op):
            self.same.update(n for n in op.output_arg_names if n != EMPTY_VAR)
            return CONSTANT
        refuse_unless(kinds, f"{op.type} of constants in every step")
        return kinds.pop() if len(kinds) == 1 else LOOP

    def _is_same(self, op: Operator) -> bool:
        """Whether `op` may run once before the loop: keys that a cell makes of the encoder's states in every step."""
        inside = self.finder.inner.block.vars
        known = all(n not in inside or n in self.same for n in op.input_arg_names)
        return known and op.type in SAME and self.finder.loop.shape is not None

    def _rows(self) -> set[str]:
        return {n for n, where in self.origin.items() if where != CONSTANT}

    def _why_not(self, op: Operator) -> str | None:
        why = why_not(op, self._rows(), self.finder.var)
        if why is None and any(self.origin.get(n) == CONSTANT for n in op.input_arg_names):
            why = "an operand is a constant of the step"
        return why or self._loses_sequences(op)

    def _loses_sequences(self, op: Operator) -> str | None:
        """Why the results of `op` would not have the sequences of its rows."""
        definition = REGISTRY.get(op.type)
        if self.finder.loop.shape is not None:
            return None
        if callable(definition.lod) or definition.block:
            return "its LoD is computed"
        sources = lod_sources(definition)
        for slot in definition.outputs:
            if not any(self.finder.inner.readers.get(n) for n in op.output(slot.name)):
                continue
            source = op.input(sources.get(slot.name, ""))
            if not source or self.origin.get(source[0], CONSTANT) == CONSTANT:
                return f"{slot.name} does not take the sequences of its rows"
        return None

    def _behind(self, op: Operator) -> bool:
        """Whether `op` may run behind the loop: none of its inputs are rows that a sequence keeps."""
        wide = self._kept_rows.intersection(op.input_arg_names)
        return not wide and self._why_not(op) is None

    @property
    def _kept_rows(self) -> set[str]:
        """Variables of the loop that have other rows than one for each running sequence."""
        found = set(self.finder.loop.statics)
        for op in self.finder.loop.body:
            expands = op.type in ("sequence_expand", "sequence_expand_as")
            if expands or (op.type != "sequence_pool" and found.intersection(op.input_arg_names)):
                found.update(op.output_arg_names)
        return found

    # ---- operators outside the loop ----------------------------------------------------------------
    def _hoist(self, op: Operator) -> None:
        """Append `op` over the rows of all steps."""
        if op.type in _NUMBERS:  # only the core reads them, and knows the number
            return
        inputs = {s: [self._outside(n) for n in names] for s, names in op.inputs.items()}
        outputs = {s: [self._new(n) for n in names] for s, names in op.outputs.items()}
        attrs = op.all_attrs()
        if attrs.get("is_sparse"):  # the gradients that a loop gives are dense: what reads them counts on that
            attrs["is_sparse"] = False
        self.made.append(Operator(self.work.block, op.type, inputs, outputs, attrs, op.site))

    def _outside(self, name: str) -> str:
        loop = self.finder.loop
        if name in self.name or name == EMPTY_VAR:
            return self.name.get(name, name)
        return loop.steps.get(name) or loop.statics.get(name) or name

    def _new(self, name: str) -> str:
        """A new variable of the global Block for `name` of the Block, over the rows of all steps."""
        if name != EMPTY_VAR:
            self.name[name] = self._beside(name)
        return self.name.get(name, name)

    def _beside(self, name: str) -> str:
        """A new variable of the global Block that is declared as `name` of the Block is, and does not stand for it."""
        block, number = self.work.block, 0
        taken = {n for n, _ in self.declared}
        while block._has_var_recursive(new := f"{name}.rows_{number}") or new in taken:
            number += 1
        self.declared.append((new, self.finder.var(name)))
        return new

    # ---- the loop ----------------------------------------------------------------------------------
    def _core(self, loop: Loop, core: list[Operator], behind: list[Operator]) -> None:
        """Append `row_loop` for what stays a loop; nothing when there are no states."""
        wanted = [n for op in behind for n in op.input_arg_names if self._in_core(n, core, loop)]
        wanted += [n for n, _ in loop.outputs if self._in_core(n, core, loop) or self._is_kept(n)]
        outs = list(dict.fromkeys(wanted))
        if not outs:
            return
        writer = Writer(self.finder.var) if loop.shape is None else PaddedWriter(self.finder.var)
        self._inputs(loop, core, outs, writer)
        for op in loop.body:
            if op.type in _NUMBERS:
                writer.write(op)
        self._outer_numbers(core, writer)
        self._masks(loop, core, writer)
        for op in core:
            stopped = [n for n in op.output_arg_names if n != EMPTY_VAR and self._stopped(n)]
            refuse_unless(not stopped or loop.grad_at is None, f"{stopped[0] if stopped else ''!r} stops gradients")
            writer.write(op)
        for memory in loop.memories:
            if memory.read in writer.made:
                writer.becomes(memory.read, memory.becomes)
        for name in outs:
            writer.output(name)
        consts = [self._outside(n) for n in writer.consts]
        inputs = {"Steps": writer.steps, "Statics": writer.statics, "Inits": writer.inits, "Consts": consts}
        tape = self._beside(loop.memories[0].read if loop.memories else loop.outputs[0][0])
        outputs = {"Outs": [self._new(n) for n in outs], "Tape": [tape]}
        attrs = {"code": writer.text(), "widths": writer.widths, "train": loop.grad_at is not None}
        inputs["Shape"] = [loop.shape] if loop.shape is not None else []
        inputs = {slot: names for slot, names in inputs.items() if names}
        self.made.append(Operator(self.work.block, "row_loop", inputs, outputs, attrs, loop.operator.site))

    def _outer_numbers(self, core: list[Operator], writer: Writer) -> None:
        """Tell the writer which variables of the global Block are filled with one number."""
        for name in {n for op in core for n in op.input_arg_names if n not in self.origin}:
            position = self.uses.producer(name, self.finder.loop.at)
            maker = self.uses.ops[position] if position is not None and len(self.uses.writers[name]) == 1 else None
            filled = maker is not None and maker.type == "fill_constant" and not maker.input_arg_names
            if maker is not None and filled and all(d == 1 for d in maker.attr("shape")):
                writer.number(name, float(maker.attr("str_value") or maker.attr("value")))

    def _masks(self, loop: Loop, core: list[Operator], writer: Writer) -> None:
        """Draw the factors of the core's dropouts for all steps: dropout of ones."""
        block, source = self.work.block, next(iter(loop.steps.values()))
        for op in core:
            if op.type != "dropout" or op.attr("is_test"):
                continue
            out = op.output("Out")[0]
            var = self.finder.var(out)
            drawn = op.attr("seed") or op.attr("fix_seed") or op.input("Seed")
            refuse_unless(not drawn, "the seed of a dropout gives every step the same mask")
            refuse_unless(var is not None and var.has_shape and len(var.shape) == 2, "dropout of other rows")
            assert var is not None
            column, line, ones, mask, factors = (self._beside(out) for _ in range(5))
            for kind, ins, outs, attrs in (
                ("fill_any_like", {"X": [source]}, {"Out": [column]}, {"value": 1.0, "dtype": int(VarType.FP32)}),
                ("slice", {"Input": [column]}, {"Out": [line]}, {"axes": [1], "starts": [0], "ends": [1]}),
                ("expand", {"X": [line]}, {"Out": [ones]}, {"expand_times": [1, var.shape[1]]}),
                ("dropout", {"X": [ones]}, {"Out": [factors], "Mask": [mask]}, op.all_attrs()),
            ):
                self.made.append(Operator(block, kind, ins, outs, attrs, op.site))
            writer.step(out, source)  # for its width
            writer.steps[-1] = factors
            writer.masks[out] = f"{out}@MASK"
            writer.made[f"{out}@MASK"] = writer.made.pop(out)

    def _stopped(self, name: str) -> bool:
        var = self.finder.var(name)
        return var is not None and var.stop_gradient and var.has_dtype and var.dtype in FLOATING

    def _in_core(self, name: str, core: list[Operator], loop: Loop) -> bool:
        return any(name in op.output_arg_names for op in core) or any(name == m.read for m in loop.memories)

    def _is_kept(self, name: str) -> bool:
        """Whether `name` is made of static inputs alone: as a result of a step it stands in each step of its sequence."""
        return self.origin.get(name, CONSTANT) not in (STEP, LOOP, CONSTANT)

    def _inputs(self, loop: Loop, core: list[Operator], outs: list[str], writer: Writer) -> None:
        """Declare the rows that the core reads: states, step inputs or what was made of them, static inputs."""
        read = [*(n for op in core for n in op.input_arg_names), *outs, *(m.becomes for m in loop.memories)]
        for memory in loop.memories:
            writer.memory(memory.read, memory.init, memory.ranked)
        for name in dict.fromkeys(read):
            where = self.origin.get(name, CONSTANT)
            inside = any(name in op.output_arg_names for op in core) or any(m.read == name for m in loop.memories)
            if where == CONSTANT and not inside and isinstance(writer, PaddedWriter) and self._is_padded(name):
                writer.outer[name] = self._outside(name)
            if where == CONSTANT or inside:
                continue
            source = self._outside(name)
            if where == STEP:
                writer.step(name, source)
            else:
                lod = self._lod_root(self._static_source(name, loop))
                writer.static(name, source, lod)
        if not writer.steps:  # the loop must know how many steps there are
            name = next(iter(loop.steps))
            writer.step(name, loop.steps[name])

    def _is_padded(self, name: str) -> bool:
        """Whether a variable around a StaticRNN may have rows for each sequence of the batch."""
        var = self.finder.var(name)
        if var is None or var.persistable or not var.has_shape or not var.has_dtype or var.dtype != VarType.FP32:
            return False
        return len(var.shape) in (2, 3) and var.shape[0] == -1

    def _static_source(self, name: str, loop: Loop) -> str:
        return self.origin[name] if name not in loop.statics else loop.statics[name]

    def _lod_root(self, name: str) -> str | None:
        """The variable whose LoD `name` has; None when it has none."""
        var = self.work.block._find_var_recursive(name)
        if var is None or var.lod_level == 0:
            return None
        refuse_unless(var.lod_level == 1, f"static input {name!r} has {var.lod_level} LoD levels")
        while True:
            position = self.uses.producer(name, self.finder.loop.at)
            if position is None:
                return name
            op = self.uses.ops[position]
            definition = REGISTRY.find(op.type)
            sources = lod_sources(definition) if definition is not None else {}
            slot = next((s for s, names in op.outputs.items() if name in names), "")
            source = op.input(sources.get(slot, ""))
            if not source:
                return name
            name = source[0]

    def _results(self, loop: Loop) -> None:
        """Give the results the names that the Program knows."""
        renamed: dict[str, str] = {}
        read = {n for op in self.made for n in op.input_arg_names}
        names = [name for name, _ in loop.outputs]
        for name, result in loop.outputs:
            made = self.name.get(name)
            # A gradient given for a result must not meet one that flows in: what is read elsewhere is copied.
            if loop.shape is not None:
                refuse_unless(self.origin.get(name, CONSTANT) != CONSTANT, f"{name!r} is the same in every step")
                inputs = {"X": [self._outside(name)], "Like": [loop.shape]}
                self.made.append(Operator(self.work.block, "rows_to_steps", inputs, {"Out": [result]}))
            elif made is not None and made not in read and names.count(name) == 1:
                renamed[made] = result
            else:
                refuse_unless(name in self.origin, f"{name!r} is the same in every step")
                source = self._outside(name)
                self.made.append(Operator(self.work.block, "assign", {"X": [source]}, {"Out": [result]}))
        for op in self.made:
            for slots in (op.inputs, op.outputs):
                for slot, names in slots.items():
                    slots[slot] = [renamed.get(n, n) for n in names]
        self.declared = [(n, var) for n, var in self.declared if n not in renamed]

    # ---- its gradient ------------------------------------------------------------------------------
    def _gradients(self, loop: Loop) -> list[Operator]:
        block = self.work.block
        self._declare()
        collector = Collector(block, 2)  # names of gradients that the Program has are taken
        for result, gradient in loop.given.items():
            collector.seed(result, gradient)
        reached = set(loop.targets)
        for op in self.made:
            if reached.intersection(op.input_arg_names):
                reached.update(n for n in op.output_arg_names if n != EMPTY_VAR and not self._stops(n))
        for op in reversed(self.made):
            collector.visit(op, lambda name: name in reached and self._float(name))
        collector.finish()
        final: dict[str, str] = {}
        extra: list[tuple[str, str, str]] = []
        for name, targets in loop.targets.items():
            complete = collector.complete(name)
            if complete is None or complete in final or complete in loop.given.values():
                kind = "fill_zeros_like" if complete is None else "assign"
                extra.append((kind, complete or name, targets[0]))
                extra += [("fill_zeros_like", name, target) for target in targets[1:]]
                continue
            final[complete] = targets[0]
            extra += [("fill_zeros_like", name, target) for target in targets[1:]]  # the Program adds them up
        found = []
        for spec in collector.specs:
            ins, outs = ({s: [final.get(n, n) for n in v] for s, v in d.items()} for d in (spec.inputs, spec.outputs))
            for name in (n for v in spec.outputs.values() for n in v if n != EMPTY_VAR):
                declare_gradient(block, final.get(name, name), collector.complete_names.get(name))
            site = spec.forward.site if spec.forward is not None else None
            op = Operator(block, spec.type, ins, outs, {**spec.attrs, OP_ROLE: ROLE_BACKWARD}, site)
            op.forward = spec.forward
            found.append(op)
        for kind, source, target in extra:
            attrs = {OP_ROLE: ROLE_BACKWARD}
            found.append(Operator(block, kind, {"X": [source]}, {"Out": [target]}, attrs))
        return found

    def _stops(self, name: str) -> bool:
        var = self.work.block._find_var_recursive(name)
        return var is not None and var.stop_gradient

    def _float(self, name: str) -> bool:
        var = self.work.block._find_var_recursive(name)
        return var is not None and var.type is VarType.LOD_TENSOR and (not var.has_dtype or var.dtype in FLOATING)

    # ---- the Program -------------------------------------------------------------------------------
    def _declare(self) -> None:
        for name, like in self.declared:
            var = self.work.block.create_var(name=name)
            if like is not None and like.has_shape:
                var._shape, var._dtype = like._shape, like._dtype
                var.stop_gradient = like.stop_gradient
                var.lod_level = 1 if self.finder.loop.shape is None else 0
        self.declared = []

    def _replace(self, loop: Loop, gradients: list[Operator]) -> None:
        self._declare()
        ops: list[Operator] = []
        for i, op in enumerate(self.uses.ops):
            if i == loop.at:
                ops += self.made
            elif i == loop.grad_at:
                ops += gradients
            elif i not in loop.gone:
                ops.append(op)
        self.work.block.ops = ops
        self.work.program._touch()
