"""Whole-step capture: runs of operators in a Block become segments that torch's compiler turns into one piece of code.

A :class:`CapturingEmitter` writes the Block as usual, but puts consecutive operators that can be captured into functions of
their own, called through :class:`millstream.runtime.segment.Segment`. What it could not take, and why, is in
``Capture.refused``. Nothing here compiles: see segment.py.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.ops._opdef import OpDef
from millstream.ops._values import TORCH_DTYPE
from millstream.runtime.liveness import definition_of
from millstream.runtime.lower import Code, Emitter, Options
from millstream.runtime.segment import Segment

_LOCAL = re.compile(r"\bv\d+\b")
_FREED = re.compile(r"\s+(v\d+ = )+None")
_RNG = re.compile(r"rng=(ctx\.\w+(?:\(\d+\))?)")
TRYING = "still being tried: compiled code takes turns with the kernels"  # what `explain` says until it is known
SHORTEST = 2  # operators: a call of compiled code costs more than one kernel saves
GRADIENTS = 50  # times the usual difference: they are sums of what nearly cancels, through all layers
MOST_STATE = 64 << 20  # bytes that an update in compiled code may move: it makes new tensors beside the old ones


@dataclass
class Capture:
    """What one Plan captures, kept while the Plan is lowered again without the operators that refused.

    Attributes:
        refused: id of an Operator -> (Operator, why it runs outside of compiled code).
        segments: of the present lowering, in order.
        made: all of them by operators, arguments and results: lowering again keeps what is compiled, and turns taken.
        stale: an operator refused since; the Plan must be lowered again.
        whole: what was found of whole steps, with segments and without; empty while nothing is known.
    """

    refused: dict[int, tuple[Operator, str]] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    made: dict[tuple[Any, ...], Segment] = field(default_factory=dict)
    stale: bool = False
    whole: str = ""

    @property
    def settled(self) -> bool:
        """Whether each segment is known to be faster than its kernels, or is not compiled."""
        return not self.stale and all(segment.settled for segment in self.segments)

    def refuse(self, op: Operator, why: str) -> None:
        """Leave `op` out from the next lowering on."""
        if id(op) not in self.refused:
            self.refused[id(op)] = (op, why)
            self.stale = True

    def explain(self) -> str:
        """How many operators each segment holds and its state; then the operators left out, by type and reason."""
        lines = [f"segment {k}: {len(s.ops)} operators, {s.state()}" for k, s in enumerate(self.segments)]
        if self.stale or (self.segments and not self.whole):
            lines.append(TRYING)
        elif self.whole:
            lines.append(self.whole)
        reasons: defaultdict[tuple[str, str], int] = defaultdict(int)
        for op, why in self.refused.values():
            reasons[op.type, why] += 1
        return "\n".join(lines + [f"{count} x {kind} not captured: {why}" for (kind, why), count in reasons.items()])


class CapturingEmitter(Emitter):
    """Emits a global Block with its capturable operators in segments."""

    def __init__(self, block: Block, options: Options, make_body: Callable[..., Any], capture: Capture) -> None:
        super().__init__(block, options, make_body)
        self.capture = capture
        capture.segments, capture.stale = [], False

    # ---- which operators ---------------------------------------------------------------------
    def emit(self, ops: list[Operator], keep: set[str]) -> None:
        self._prepare(ops, keep)
        self._untape(ops)
        i = 0
        while i < len(ops):
            end = self._segment(ops, i) if self._why_not(i, ops[i]) is None else i
            if end == i:
                self._one(i, ops[i])
                self._after(i, ops[i])
                self._free(i, ops[i])
                end = i + 1
            i = end
        made, present = self.capture.made, self.capture.segments
        self.capture.made = {key: segment for key, segment in made.items() if segment in present}

    def _why_not(self, i: int, op: Operator) -> str | None:
        """Why operator `i` stays outside, or None; it depends on what is known of LoDs so far."""
        known = self.capture.refused.get(id(op))
        if known is not None:
            return known[1]
        why = self._structure(i, op, definition_of(op))
        if why is not None:
            self.capture.refused[id(op)] = (op, why)
        return why

    def _structure(self, i: int, op: Operator, definition: OpDef) -> str | None:
        why = _by_declaration(op, definition)
        if why is not None:
            return why
        if "captured" in definition.extra and self._state(op) > MOST_STATE:
            return f"its kernel moves {self._state(op) >> 20} MiB of state in place, compiled code would make as much anew"
        if callable(definition.lod) and any(n in self.has_lod for n in op.input_arg_names):
            return "the LoD of its result is computed"
        if i in self.pairing.taped or (i in self.pairing.forward and self._uses_handle(i, op)):
            return "its gradient is autograd's, and its variables are overwritten before that"
        for name in (*op.input_arg_names, *op.output_arg_names):
            var = self.block._find_var_recursive(name) if name != EMPTY_VAR else None
            if var is not None and var.type is not VarType.LOD_TENSOR:
                return f"{name!r} is a {var.type.name}, not a dense tensor"
        return None

    def _state(self, op: Operator) -> int:
        """Bytes of the variables that the operator writes where it has read them, as far as they are known."""
        return sum(
            math.prod(var.shape) * TORCH_DTYPE[var.dtype].itemsize
            for name in {*op.input_arg_names} & {*op.output_arg_names}
            if (var := self.block._find_var_recursive(name)) is not None and var.has_shape and var.type is VarType.LOD_TENSOR
        )

    def _untape(self, ops: list[Operator]) -> None:
        """Derived gradients compute their forward again (the compiler shares the work) where both are captured.

        Autograd's handle can't leave compiled code. Where a variable of the forward is overwritten before the gradient,
        the handle stays, and both operators outside.
        """
        writes: defaultdict[str, list[int]] = defaultdict(list)
        for i, op in enumerate(ops):
            for name in walk.writes_of(op):
                writes[name].append(i)
        for i, j in list(self.pairing.forward.items()):
            if j not in self.pairing.taped or definition_of(ops[j]).block or not self._uses_handle(i, ops[i]):
                continue
            if id(ops[i]) in self.capture.refused or id(ops[j]) in self.capture.refused:
                continue
            both = (ops[i], ops[j])
            if any(_by_declaration(op, definition_of(op)) for op in both) or definition_of(ops[j]).reserved & {"rng", "ctx"}:
                continue
            names = [n for n in (*ops[j].input_arg_names, *ops[j].output_arg_names) if n != EMPTY_VAR]
            if any(j < w for n in names for w in writes[n]):
                continue
            del self.pairing.forward[i]
            self.pairing.taped[j] -= 1
        self.pairing.taped = {j: n for j, n in self.pairing.taped.items() if n}

    def _kernel(self, definition: OpDef, op: Operator, attrs: dict[str, Any]) -> tuple[Any, list[str]]:
        (kernel, attrs), extra = super()._kernel(definition, op, attrs)
        if id(op) not in self.capture.refused:
            kernel = definition.extra.get("captured", kernel)
        return (kernel, attrs), extra

    # ---- one segment ---------------------------------------------------------------------------
    def _segment(self, ops: list[Operator], first: int) -> int:
        """Write operators from `first` on as a segment; returns the position after its last one (`first`: too short)."""
        end = first
        while end < len(ops) and self._may_follow(end, ops[end]):
            end += 1
        if end - first < SHORTEST:
            return first
        outside, lines_of_ops = self.lines, self.op_of_line
        inside: list[str] = []
        places: list[Operator] = []
        self.op_of_line = {}
        for i in range(first, end):
            for name in self._reads(i, ops[i]):
                self.read(name, ops[i])
            self.lines = inside
            self._one(i, ops[i])
            self._save(self.pairing.save_after.get(i), ops[i])
            self._free_inside(i, ops[i])
            self.lines = outside
            _move_lods(inside, len(places), outside)
            places += [ops[i]] * (len(inside) - len(places))
        self.op_of_line = lines_of_ops
        self._call(ops, first, end, inside, places)
        return end

    def _free_inside(self, i: int, op: Operator) -> None:
        """Let go of what nobody reads after operator `i`; what goes to the Scope is a result of the segment."""
        names = [n for n in dict.fromkeys([*walk.reads_of(op), *op.output_arg_names]) if self.last_use.get(n) == i]
        dead = [n for n in names if n in self.defined and n not in self.keep and not self._persistable(n)]
        if dead:
            self.line(" = ".join(self.v(n) for n in dead) + " = None")

    def _may_follow(self, i: int, op: Operator) -> bool:
        if self._why_not(i, op) is not None:
            return False
        return not any(n in self.has_lod for n in op.input_arg_names) or not callable(definition_of(op).lod)

    def _reads(self, i: int, op: Operator) -> list[str]:
        """What the segment needs from outside for operator `i`: loaded before it is called."""
        definition = definition_of(op)
        names = [*self.pairing.save_before.get(i, {}).keys()]
        swaps = self.pairing.use.get(i, {})
        for slot in definition.inputs:
            names += [swaps.get(f"{slot.name}/{n}", n) for n in op.inputs.get(slot.name, ())]
        for slot in definition.outputs:
            here = op.outputs.get(slot.name, ())
            names += [here[0]] if slot.inout and here and self._available(here[0]) else []
        return [n for n in names if n != EMPTY_VAR and n not in self.defined]

    def _call(self, ops: list[Operator], first: int, end: int, inside: list[str], places: list[Operator]) -> None:
        """The segment's function, the line that calls it, what it writes to the Scope, and what dies with it."""
        generators: dict[str, str] = {}
        text = [_RNG.sub(lambda m: f"rng={generators.setdefault(m[1], f'g{len(generators)}')}", line) for line in inside]
        if any("ctx=ctx" in line for line in text):
            generators["ctx"] = "ctx"
        given, made = _flow(text)
        name_of = {"v" + number: name for name, number in self.local.items()}
        last = end - 1
        results = [v for v in made if self.last_use.get(name_of[v], last) > last or name_of[v] in self.keep]
        results += [v for v in made if v not in results and self._persistable(name_of[v])]
        results += [v for v in made if v not in results and "#" in name_of[v]]  # copies that later gradients read
        head = f"def segment({', '.join([*given, *generators.values()])}):"
        source = "\n".join([head, *text, f"    return ({''.join(v + ', ' for v in results)})"])
        constants = {name: self.constants[name] for name in re.findall(r"\w+", source) if name in self.constants}
        code = Code(source, constants, {n + 2: op for n, op in enumerate(places)})
        updates = {n for op in ops[first:end] if "captured" in definition_of(op).extra for n in op.output_arg_names}
        near = [0 if n in updates else GRADIENTS if "@GRAD" in n else 1 for n in map(name_of.__getitem__, results)]
        key = tuple(map(id, ops[first:end])), *(tuple(name_of[v] for v in local) for local in (given, results))
        call = self.capture.made.get(key)
        if call is None:
            call = self.capture.made[key] = Segment(code, list(ops[first:end]), len(given), near, self.capture.refuse)
        self.capture.segments.append(call)
        arguments = [*given, *generators]
        targets = "".join(v + ", " for v in results)
        run = f"{self.const('c', call)}({', '.join(arguments)})"
        self.line(f"{targets}= {run}" if results else run, ops[last])
        for op in ops[first:end]:
            self._persist([n for n in dict.fromkeys(op.output_arg_names) if n != EMPTY_VAR and n in self.defined], op)
        dead = [v for v in (*given, *results) if self.last_use.get(name_of[v], end) <= last and name_of[v] not in self.keep]
        if dead:
            self.line(" = ".join(dict.fromkeys(dead)) + " = None")

    def _persistable(self, name: str) -> bool:
        var = self.block._find_var_recursive(name)
        return var is not None and var.persistable


def _by_declaration(op: Operator, definition: OpDef) -> str | None:
    if definition.block:
        return "it has a sub-Block"
    outside = {"names"} if definition.extra.get("draws") else {"ctx", "names"}
    if "captured" not in definition.extra:  # that form has no use for a state
        outside.add("state")
    if definition.side_effect or definition.reserved & outside:
        return "it speaks with the world outside of its tensors"
    if any(s.ragged and op.input(s.name) for s in definition.inputs) or any(s.ragged for s in definition.outputs):
        return "it works on sequences (LoD)"
    return None


def _move_lods(inside: list[str], start: int, outside: list[str]) -> None:
    """LoDs are values of the host: lines that pass them on (``l3 = l1``) go outside of the segment."""
    lods = [line for line in inside[start:] if re.match(r"\s+l\d+ = ", line)]
    inside[start:] = [line for line in inside[start:] if line not in lods]
    outside.extend(lods)


def _flow(lines: list[str]) -> tuple[list[str], list[str]]:
    """(locals that the lines read before they write them, locals that they write), each in order."""
    given: dict[str, None] = {}
    made: dict[str, None] = {}
    for line in lines:
        if _FREED.fullmatch(line):
            continue
        left, _, right = line.partition(" = ")
        for local in _LOCAL.findall(right if _ else left):
            if local not in made:
                given[local] = None
        if _:
            made.update(dict.fromkeys(_LOCAL.findall(left)))
    return list(given), list(made)
