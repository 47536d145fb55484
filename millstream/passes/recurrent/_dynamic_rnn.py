"""How a DynamicRNN stands in a Program: what its steps read, carry and leave, without what its body computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._uses import Uses
from millstream.passes._work import Work

FRAME = frozenset({"read_from_array", "shrink_rnn_memory", "write_to_array", "increment", "less_than"})
"""Types of the operators in its body that hand values in and out."""


@dataclass(frozen=True)
class State:
    """A memory: `before` in the body becomes `after`; `start` is its first value, in the order of the sequences
    (`in_order`) or of the rank table."""

    before: str
    after: str
    start: str
    in_order: bool


@dataclass
class DynamicRNN:
    """Attributes:
    loop, at: the while operator and its position.
    sequence: the variable with LoD whose sequences it walks through.
    steps: variable of the body -> sequence that it is one step of.
    statics: variable of the body -> variable outside that is seen whole, for the sequences that still run.
    states: the memories.
    results: (variable of the body, array_to_lod_tensor that gathers it).
    """

    loop: Operator
    at: int
    sequence: str
    steps: dict[str, str] = field(default_factory=dict)
    statics: dict[str, str] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    results: list[tuple[str, Operator]] = field(default_factory=list)

    @property
    def body(self) -> Block:
        return self.loop.sub_blocks()[0]


class _Frame:
    """Reads one; `Unlike` says what stands otherwise than layers.DynamicRNN puts it."""

    def __init__(self, work: Work, uses: Uses, at: int) -> None:
        self.uses, self.at, self.loop = uses, at, uses.ops[at]
        self.inner = work.uses(self.loop.sub_blocks()[0])

    def outside(self, name: str, kind: str) -> Operator:
        """The one operator before the loop that writes `name`, of type `kind`."""
        written = [p for p in self.uses.writers[name] if p != self.at]
        op = self.uses.ops[written[0]] if len(written) == 1 and written[0] < self.at else None
        if op is None or op.type != kind:
            raise Unlike(f"{name!r} is not what one {kind} before the loop leaves")
        return op

    def inside(self, kind: str) -> list[Operator]:
        return [op for op in self.inner.ops if op.type == kind]

    def read(self) -> DynamicRNN:
        tests = [op for op in self.inside("less_than") if op.output("Out") == self.loop.input("Condition")]
        if len(tests) != 1 or len(self.inside("less_than")) != 1:
            raise Unlike("its condition is not one comparison")
        self.counter = tests[0].input("X")[0]
        counted = self.inside("increment")
        if len(counted) != 1 or counted[0].input("X") != [self.counter] or counted[0].attr("step") != 1.0:
            raise Unlike("it does not count by one")
        self.counts_at = self.inner.ops.index(counted[0])
        zero = self.outside(self.counter, "fill_constant")
        if zero.attr("value") != 0.0 or zero.attr("str_value") not in ("", "0", "0.0", None):
            raise Unlike("it does not count from zero")
        length = self.outside(tests[0].input("Y")[0], "max_sequence_len")
        self.table = length.input("RankTable")[0]
        ranked = self.outside(self.table, "lod_rank_table")
        if ranked.attr("level"):
            raise Unlike("it walks through an inner LoD level")
        found = DynamicRNN(self.loop, self.at, ranked.input("X")[0])
        self._reads(found)
        self._writes(found)
        return found

    def _reads(self, found: DynamicRNN) -> None:
        shrunk = {op.input("X")[0]: op for op in self.inside("shrink_rnn_memory")}
        for op in shrunk.values():
            if op.input("RankTable") != [self.table] or op.input("I") != [self.counter]:
                raise Unlike("a memory shrinks by another table")
        arrays: dict[str, Operator] = {}
        for op in self.inside("read_from_array"):
            if op.input("I") != [self.counter] or self.inner.ops.index(op) > self.counts_at:
                raise Unlike("an array is read at another place than the step's")
            arrays[op.input("X")[0]] = op
        for name, op in shrunk.items():
            if not any(name in read.output("Out") for read in arrays.values()):
                found.statics[op.output("Out")[0]] = self.outside(name, "reorder_lod_tensor_by_rank").input("X")[0]
        self.carried: dict[str, tuple[str, str, bool]] = {}
        for array, op in arrays.items():
            name = op.output("Out")[0]
            if name in shrunk:
                start = self.outside(array, "write_to_array")
                self.carried[array] = (shrunk[name].output("Out")[0], *self._start(start.input("X")[0]))
            else:
                found.steps[name] = self.outside(array, "lod_tensor_to_array").input("X")[0]

    def _start(self, name: str) -> tuple[str, bool]:
        writers = self.uses.writers[name]
        op = self.uses.ops[writers[0]] if len(writers) == 1 else None
        if op is None or op.type != "reorder_lod_tensor_by_rank":
            return name, False
        if op.input("RankTable") != [self.table]:
            raise Unlike("a memory's first value is ordered by another table")
        return op.input("X")[0], True

    def _writes(self, found: DynamicRNN) -> None:
        for op in self.inside("write_to_array"):
            array, value = op.output("Out")[0], op.input("X")[0]
            if op.input("I") != [self.counter]:
                raise Unlike("an array is written at another place than the step's")
            late = self.inner.ops.index(op) > self.counts_at
            if array in self.carried:
                before, start, in_order = self.carried.pop(array)
                found.states.append(State(before, value, start, in_order))
                wanted = True
            else:
                found.results.append((value, self._gathered(array)))
                wanted = False
            if late is not wanted:
                raise Unlike("an array is written at another place than the step's")
        if self.carried:
            raise Unlike("a memory does not change")
        gathered = {op.input("X")[0] for _, op in found.results}
        for name in {*self.loop.output("Out"), *self.loop.output("StepScopes")} - gathered:
            if self.uses.seen_outside(name) or any(p > self.at for p in self.uses.readers[name]):
                raise Unlike(f"{name!r} is read after the loop")

    def _gathered(self, array: str) -> Operator:
        readers = [self.uses.ops[p] for p in self.uses.readers[array] if p != self.at]
        if len(readers) != 1 or readers[0].type != "array_to_lod_tensor" or self.uses.seen_outside(array):
            raise Unlike(f"the array {array!r} is read otherwise than as a sequence")
        if readers[0].input("RankTable") != [self.table]:
            raise Unlike("a result is gathered by another table")
        return readers[0]


class Unlike(Exception):
    """Why a loop is no DynamicRNN."""


def dynamic_rnn(work: Work, uses: Uses, at: int) -> DynamicRNN | str:
    """The DynamicRNN whose `while` stands at position `at` of `uses`, or why it is none."""
    try:
        return _Frame(work, uses, at).read()
    except Unlike as why:
        return str(why)
