"""Who reads and writes each variable of a Block, and which of them somebody outside the Block sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR, forward_name, strip_grad
from millstream.ir.operator import Operator


class Uses:
    """Who reads and writes each variable of a Block, by position.

    Attributes:
        keep: variables that must keep their values although nobody in the Block may read them.
    """

    def __init__(self, block: Block, keep: frozenset[str] = frozenset()) -> None:
        self.readers: defaultdict[str, list[int]] = defaultdict(list)
        self.writers: defaultdict[str, list[int]] = defaultdict(list)
        self.block = block
        self.ops = block.ops
        self.keep = keep
        self._forwards: set[int] = set()
        self._gradients_read: list[str] = []
        self._graded: set[str] | None = None
        self._origins: list[int] = []
        self._bit: dict[str, int] = {}
        for i, op in enumerate(block.ops):
            holds = op.sub_blocks()
            reads = walk.reads_of(op) if holds else op.input_arg_names
            for name in dict.fromkeys(reads):
                self.readers[name].append(i)
                if "@GRAD" in name:
                    self._gradients_read.append(name)
            for name in dict.fromkeys(walk.writes_of(op) if holds else op.output_arg_names):
                self.writers[name].append(i)
            if op.forward is not None:
                self._forwards.add(id(op.forward))

    def has_gradient(self, op: Operator) -> bool:
        """Whether an operator computes the gradient of `op`."""
        if id(op) in self._forwards:
            return True
        if self._graded is None:
            self._graded = {g for n in dict.fromkeys(self._gradients_read) for g in (strip_grad(n), forward_name(n))}
        return any(n in self._graded for n in op.output_arg_names)

    def written_between(self, names: Iterable[str], first: int, last: int) -> str | None:
        """A variable of `names` that an operator after `first` and before `last` writes, or None."""
        for name in names:
            if any(first < w < last for w in self.writers.get(name, ())):
                return name
        return None

    def touched_between(self, names: Iterable[str], first: int, last: int, besides: Iterable[int] = ()) -> str | None:
        """A variable of `names` that an operator between the two, none at `besides`, reads or writes, or None."""
        for name in names:
            near = {*self.readers.get(name, ()), *self.writers.get(name, ())}
            if name != EMPTY_VAR and any(first < p < last for p in near.difference(besides)):
                return name
        return None

    def seen_outside(self, name: str) -> bool:
        """Whether `name` is fetched, fed, persistable, or (in a sub-Block) a variable of a Block around this one."""
        if name in self.keep or (self.block.parent_idx >= 0 and name not in self.block.vars):
            return True
        var = self.block._find_var_recursive(name)
        return var is not None and var.persistable

    def why_kept(self, names: Iterable[str], taken: Iterable[int]) -> str | None:
        """Why one of `names` must exist when the operators at `taken` become others: somebody else sees it; or None."""
        within = set(taken)
        for name in names:
            if self.seen_outside(name):
                return f"{name!r} is fetched, fed or persistable"
            if len(self.writers[name]) > 1 or not within.issuperset(self.readers[name]):
                return f"{name!r} is read or written elsewhere too"
        return None

    def reader(self, name: str, kind: str, slot: str) -> int | None:
        """The position of the one operator of type `kind` that reads `name` alone in `slot`, or None."""
        found = [p for p in self.readers[name] if self.ops[p].type == kind and self.ops[p].input(slot) == [name]]
        return found[0] if len(found) == 1 and name != EMPTY_VAR else None

    def producer(self, name: str, before: int) -> int | None:
        """The position of the operator whose `name` an operator at `before` reads, or None."""
        found = None
        for position in self.writers.get(name, ()):
            if position >= before:
                break
            found = position
        return found

    def origins(self, name: str, before: int) -> int:
        """What `name`, as an operator at `before` reads it, comes from: a bit for each variable that is neither made in
        the Block nor persistable. Each operator is looked at once, however often this is asked.
        """
        producer = self.producer(name, before)
        if producer is None:
            var = self.block._find_var_recursive(name)
            if var is not None and var.persistable:
                return 0
            return 1 << self._bit.setdefault(name, len(self._bit))
        while len(self._origins) <= producer:
            at, found = len(self._origins), 0
            for given in self.ops[at].input_arg_names:
                found |= self.origins(given, at) if given != EMPTY_VAR else 0
            self._origins.append(found)
        return self._origins[producer]
