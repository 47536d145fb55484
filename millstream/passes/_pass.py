"""What a pass is, how it is found, and how passes run.

A pass is a function ``f(work) -> int`` that changes ``work.program`` and returns how many changes it made, or a
:class:`Rule`, which replaces a chain of operators. Passes replace Operators and never edit them: the Program may share
them with the one the user holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module, metadata

from millstream.errors import InvalidProgramError
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR, forward_name, strip_grad
from millstream.ir.operator import OP_ROLE, Operator
from millstream.ir.program import Program
from millstream.ir.variable import Variable
from millstream.ir.verify import verify

ENTRY_POINTS = "millstream.passes"


@dataclass
class Work:
    """A Program under change.

    Attributes:
        program: what passes change.
        keep: variables that are read from outside (fetches) or written from there (feeds).
        done: (pass, number of changes), in order.
        refused: (pass, operator, why), of each place where a rule's pattern stood and it did nothing.
    """

    program: Program
    keep: frozenset[str] = frozenset()
    done: list[tuple[str, int]] = field(default_factory=list)
    refused: list[tuple[str, Operator, str]] = field(default_factory=list)

    @property
    def block(self) -> Block:
        """The global Block."""
        return self.program.global_block()

    def explain(self) -> str:
        """What was done and what was refused, as text."""
        lines = [f"{name}: {count} changes" for name, count in self.done]
        return "\n".join(lines + [f"{name} refused {op.type} ({_outputs(op)}): {why}" for name, op, why in self.refused])


def _outputs(op: Operator) -> str:
    return ", ".join(n for n in op.output_arg_names[:3] if n != EMPTY_VAR)


Pass = Callable[[Work], int]


class Uses:
    """Who reads and writes each variable of a Block, by position."""

    def __init__(self, block: Block) -> None:
        self.readers: defaultdict[str, list[int]] = defaultdict(list)
        self.writers: defaultdict[str, list[int]] = defaultdict(list)
        self.ops = block.ops
        self._forwards: set[int] = set()
        self._graded: set[str] = set()
        for i, op in enumerate(block.ops):
            reads = walk.reads_of(op)
            for name in dict.fromkeys(reads):
                self.readers[name].append(i)
            for name in dict.fromkeys(walk.writes_of(op)):
                self.writers[name].append(i)
            if op.forward is not None:
                self._forwards.add(id(op.forward))
            self._graded.update(g for n in reads if "@GRAD" in n for g in (strip_grad(n), forward_name(n)))

    def has_gradient(self, op: Operator) -> bool:
        """Whether an operator computes the gradient of `op`."""
        return id(op) in self._forwards or any(n in self._graded for n in op.output_arg_names)

    def written_between(self, names: Iterable[str], first: int, last: int) -> str | None:
        """A variable of `names` that an operator after `first` and before `last` writes, or None."""
        for name in names:
            if any(first < w < last for w in self.writers.get(name, ())):
                return name
        return None


@dataclass
class Match:
    """Operators that stand in a Block as a Rule's pattern says, first to last."""

    work: Work
    uses: Uses
    ops: list[Operator]
    positions: list[int]

    def var(self, name: str) -> Variable | None:
        """The declaration of a variable."""
        return self.work.block._find_var_recursive(name)

    def unused(self, op: Operator, *slots: str) -> bool:
        """Whether nobody reads or keeps what `op` writes to `slots`."""
        for name in (n for s in slots for n in op.output(s)):
            var = self.var(name)
            if self.uses.readers.get(name) or name in self.work.keep or (var is not None and var.persistable):
                return False
        return True

    def make(self, op_type: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], **attrs: object) -> Operator:
        """The new operator, with the place and role of the last one."""
        last = self.ops[-1]
        role = last.attrs.get(OP_ROLE)
        made = Operator(self.work.block, op_type, inputs, outputs, {**attrs, OP_ROLE: role}, last.site)
        return made


@dataclass(frozen=True)
class Rule:
    """Replaces a chain of operators by one.

    Attributes:
        name: of the pass.
        pattern: ``"mul Out:X elementwise_add Out:Input gru"``: types and, between them, the output slot of one and the
            input slot of the next.
        when: why a place with this pattern must stay, or None.
        build: the new operator.

    The variables inside the chain are read by the next operator only, no operator of the chain has a gradient, and what
    they read is not overwritten before the chain ends: that is checked for every rule.
    """

    name: str
    pattern: str
    when: Callable[[Match], str | None]
    build: Callable[[Match], Operator]

    def __call__(self, work: Work) -> int:
        types, links = self.pattern.split()[::2], [tuple(w.split(":")) for w in self.pattern.split()[1::2]]
        block = work.block
        uses = Uses(block)
        replaced: dict[int, Operator | None] = {}
        changes = 0
        for i, op in enumerate(block.ops):
            if op.type != types[0] or i in replaced:
                continue
            found = _follow(work, uses, i, types, links)
            if found is None or any(p in replaced for p in found.positions):
                continue
            why = _unsafe(found, links) or self.when(found)
            if why is not None:
                work.refused.append((self.name, op, why))
                continue
            replaced.update(dict.fromkeys(found.positions[:-1]))
            replaced[found.positions[-1]] = self.build(found)
            changes += 1
        if changes:
            kept = [replaced.get(i, op) for i, op in enumerate(block.ops)]
            block.ops = [op for op in kept if op is not None]
            work.program._touch()
        return changes


def _follow(work: Work, uses: Uses, start: int, types: list[str], links: list[tuple[str, ...]]) -> Match | None:
    positions = [start]
    for (out, into), wanted in zip(links, types[1:]):
        names = uses.ops[positions[-1]].outputs.get(out, [])
        after = [r for r in uses.readers.get(names[0], ()) if r > positions[-1]] if len(names) == 1 else []
        if not after or uses.ops[after[0]].type != wanted or uses.ops[after[0]].inputs.get(into) != names:
            return None
        positions.append(after[0])
    return Match(work, uses, [uses.ops[p] for p in positions], positions)


def _unsafe(found: Match, links: list[tuple[str, ...]]) -> str | None:
    uses, last = found.uses, found.positions[-1]
    for op in found.ops:
        if uses.has_gradient(op):
            return f"there is a gradient of {op.type}"
    for (out, _), op, at in zip(links, found.ops, found.positions):
        name = op.outputs[out][0]
        var = found.var(name)
        if name in found.work.keep or (var is not None and var.persistable):
            return f"{name!r} is fetched, fed or persistable"
        if len(uses.readers[name]) > 1 or len(uses.writers[name]) > 1:
            return f"{name!r} is read or written elsewhere too"
        changed = uses.written_between(op.input_arg_names, at, last)
        if changed is not None:
            return f"{changed!r} is overwritten before the last operator"
    return None


# ---- registry ----------------------------------------------------------------------------------------
_PASSES: dict[str, Pass] = {}


def register(name: str, what: Pass) -> Pass:
    """Make a pass known by `name`; ValueError when there is one already."""
    if name in _PASSES:
        raise ValueError(f"pass {name!r} is registered twice")
    _PASSES[name] = what
    return what


def program_pass(name: str) -> Callable[[Pass], Pass]:
    """Register the decorated function."""
    return lambda function: register(name, function)


def find(name: str) -> Pass:
    """The pass `name`: registered, a module of this package, or an entry point of the group `millstream.passes`.

    Raises InvalidProgramError when there is none.
    """
    if name not in _PASSES:
        module = f"{__package__}.{name}"
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
                made = point.load()
                if name not in _PASSES:
                    register(name, made)
    if name not in _PASSES:
        raise InvalidProgramError(f"there is no pass {name!r}; known are {', '.join(sorted(_PASSES)) or 'none'}")
    return _PASSES[name]


# ---- running -----------------------------------------------------------------------------------------
def work_on(program: Program, ops: list[Operator] | None = None, keep: Iterable[str] = ()) -> Work:
    """A Work over `program` that leaves it as it is.

    The global Block is a new one with `ops` (the Program's own when None); sub-Blocks, Operators and Variables are shared.
    """
    root = program.global_block()
    twin = Program()
    twin.global_block().vars = dict(root.vars)
    twin.global_block().ops = list(root.ops if ops is None else ops)
    twin.blocks.extend(program.blocks[1:])
    twin._seed = program._seed
    return Work(twin, frozenset(keep))


def run(work: Work, names: Iterable[str], check: bool = False) -> Work:
    """Run passes in order; with `check`, verify the Program before the first and after each.

    Raises InvalidProgramError: a pass left a Program that is not valid. Another exception of a pass gets a note. Both
    name the passes that had run.
    """
    if check:
        verify(work.program, work.keep, after=" (before the first pass)")
    for name in names:
        before = ", ".join(done for done, _ in work.done) or "none"
        try:
            work.done.append((name, find(name)(work)))
        except Exception as error:
            error.add_note(f"in pass {name!r}; passes that had run: {before}")
            raise
        if check:
            verify(work.program, work.keep, after=f" after pass {name!r} (passes that had run: {before})")
    return work
