"""Rules: passes that replace operators which stand as a pattern says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, Operator
from millstream.ir.variable import Variable
from millstream.passes._pattern import Found, Node, chain, matches
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_MAX_WAYS = 64  # of one operator; a pattern with many `maybe` could have more than are worth a look
_MAX_SWEEPS = 1000


@dataclass
class Match:
    """Operators that stand in a Block as a Rule's pattern says, in the Block's order; ``match["name"]`` is a named one.

    Attributes:
        ops, positions: all operators of the pattern.
        names: variables of the pattern's leaves.
    """

    work: Work
    uses: Uses
    ops: list[Operator]
    positions: list[int]
    found: Found

    def __getitem__(self, name: str) -> Operator:
        return self.uses.ops[self.found.positions[name]]

    def get(self, name: str) -> Operator | None:
        """The operator of a node that may be left out, or None."""
        at = self.found.positions.get(name)
        return None if at is None else self.uses.ops[at]

    @property
    def names(self) -> dict[str, str]:
        return dict(self.found.names)

    @property
    def block(self) -> Block:
        return self.uses.block

    def var(self, name: str) -> Variable | None:
        """The declaration of a variable."""
        return self.block._find_var_recursive(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The declared shape of a variable; None when there is none."""
        var = self.var(name)
        return var.shape if var is not None and var.has_shape else None

    def unused(self, op: Operator, *slots: str) -> bool:
        """Whether nobody reads or keeps what `op` writes to `slots`."""
        for name in (n for s in slots for n in op.output(s)):
            if self.uses.readers.get(name) or self.uses.seen_outside(name):
                return False
        return True

    def make(
        self, op_type: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], /, **attrs: Any
    ) -> Operator:
        """The new operator, with the place and role of the last one."""
        last = self.ops[-1]
        role = last.attrs.get(OP_ROLE)
        return Operator(self.block, op_type, inputs, outputs, {**attrs, OP_ROLE: role}, last.site)


@dataclass(frozen=True)
class Rule:
    """Replaces the operators of a pattern by others.

    Attributes:
        name: of the pass.
        pattern: a graph (passes/_pattern.py), or a chain: ``"mul Out:X elementwise_add Out:Input gru"``.
        when: why a place with this pattern must stay, or None.
        build: the new operator or operators; they stand where the last one of the pattern stood.

    No operator of the pattern has a gradient, what it writes inside is read inside only, and what it reads is not
    overwritten before its last operator: that is checked for every rule. The sub-Blocks of a Program that passes own
    are looked through as well.
    """

    name: str
    pattern: str | Node
    when: Callable[[Match], str | None]
    build: Callable[[Match], Operator | list[Operator]]

    def __call__(self, work: Work) -> int:
        root = chain(self.pattern) if isinstance(self.pattern, str) else self.pattern
        return sum(self._block(work, block, root) for block in work.blocks)

    def _block(self, work: Work, block: Block, root: Node) -> int:
        changes = 0
        for _ in range(_MAX_SWEEPS):  # what a sweep made may be part of a further place
            made = self._sweep(work, block, root)
            changes += made
            if not made:
                break
        return changes

    def _sweep(self, work: Work, block: Block, root: Node) -> int:
        if not any(op.type in root.types for op in block.ops):
            return 0
        uses = work.uses(block)
        replaced: dict[int, list[Operator]] = {}
        changes = 0
        for at in range(len(block.ops)):
            found = self._place(work, uses, root, at, replaced)
            if found is None:
                continue
            stay = {p for p, n in found.found.nodes if n.shared and _read_elsewhere(found, p)}
            made = self.build(found)
            replaced.update({p: [] for p in found.positions if p not in stay})
            replaced[found.positions[-1]] = made if isinstance(made, list) else [made]
            changes += 1
        if changes:
            block.ops = [new for i, op in enumerate(block.ops) for new in replaced.get(i, [op])]
            work.program._touch()
        return changes

    def _place(self, work: Work, uses: Uses, root: Node, at: int, replaced: dict[int, Any]) -> Match | None:
        """The first way to match at `at` that may be replaced; the reason against the first is kept when there is none."""
        refusal: tuple[Operator, str] | None = None
        for found in islice(matches(root, at, uses), _MAX_WAYS):
            positions = sorted(p for p, _ in found.nodes)
            if any(p in replaced for p in positions):
                return None  # the next sweep sees it as it is then
            match = Match(work, uses, [uses.ops[p] for p in positions], positions, found)
            why = _unsafe(match) or self.when(match)
            if why is None:
                return match
            refusal = refusal or (match.ops[0], why)
        if refusal is not None:
            work.refuse(self.name, *refusal)
        return None


def body_match(work: Work, block: Block, pattern: Node, besides: frozenset[str] = frozenset()) -> Match | None:
    """The match of a pattern that takes in every operator of `block` (a loop's body), or None.

    Operators of the types `besides` may be left over: what a StaticRNN does to hand on its states.
    """
    uses = work.uses(block)
    wanted = sum(op.type not in besides for op in block.ops)
    for at in reversed(range(len(block.ops))):
        for found in islice(matches(pattern, at, uses), _MAX_WAYS):
            positions = sorted(p for p, _ in found.nodes)
            if len(positions) == wanted:
                return Match(work, uses, [uses.ops[p] for p in positions], positions, found)
    return None


def _read_elsewhere(match: Match, position: int) -> bool:
    uses = match.uses
    return any(
        uses.seen_outside(name) or any(r not in match.positions for r in uses.readers[name])
        for name in uses.ops[position].output_arg_names
    )


def _unsafe(match: Match) -> str | None:
    uses, last = match.uses, match.positions[-1]
    inside: set[str] = set()
    for position, pattern in sorted(match.found.nodes, key=lambda item: item[0]):
        op = uses.ops[position]
        if uses.has_gradient(op):
            return f"there is a gradient of {op.type}"
        if position == last:
            continue
        inside.update(op.outputs.get(pattern.out, ()))
        for name in op.output_arg_names:
            mine = name in op.outputs.get(pattern.out, ())
            if not mine and name in op.input_arg_names:
                continue  # statistics that the operator passes on; the rule's business
            if len(uses.writers[name]) > 1:
                return f"{name!r} is written elsewhere too"
            if pattern.shared:
                continue
            if uses.seen_outside(name):
                return f"{name!r} is fetched, fed or persistable, or leaves its block"
            if any(r not in match.positions for r in uses.readers[name]):
                return f"{name!r} is read elsewhere too"
    for position in match.positions:
        names = [n for n in uses.ops[position].input_arg_names if n not in inside]
        changed = uses.written_between(names, position, last)
        if changed is not None:
            return f"{changed!r} is overwritten before the last operator"
    return None
