"""Finding what DynamicRNN builds: the operators around a `while`, what its Block reads and writes, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.variable import Variable
from millstream.passes._uses import Uses
from millstream.passes._work import Work


class Refused(Exception):
    """Why a loop stays as it is."""


@dataclass
class Memory:
    """A state: `read` in the Block is what `becomes` was one step before.

    Attributes:
        init: variable of the global Block with the first rows, or a number for all of them.
        ranked: init's rows stand in the order of the rank table (longest sequence first), not of the sequences.
        gradient: where the gradient of `init` is wanted.
    """

    read: str
    becomes: str
    init: str | float
    ranked: bool = False
    gradient: str | None = None


@dataclass
class Loop:
    """A DynamicRNN, or a StaticRNN.

    Attributes:
        at: position of the `while`; grad_at: of its gradient, or None.
        steps: variable of the Block -> sequences of the global Block.
        statics: variable of the Block -> variable of the global Block.
        outputs: (variable of the Block, sequences of the global Block that it becomes).
        body: operators of the Block but those that only move values in and out.
        gone: positions of operators that the rewritten loop replaces.
        shape: StaticRNN: a step input, [steps, batch, …], as all inputs and results are; else None.
        given: result -> its gradient; targets: variable of the global Block -> gradients to be written.
    """

    at: int
    operator: Operator
    grad_at: int | None = None
    shape: str | None = None
    steps: dict[str, str] = field(default_factory=dict)
    statics: dict[str, str] = field(default_factory=dict)
    memories: list[Memory] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    body: list[Operator] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    given: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)


def refuse_unless(holds: object, why: str) -> None:
    if not holds:
        raise Refused(why)


class Finder:
    """Reads one `while` of the global Block; raises Refused where it is not a DynamicRNN's."""

    def __init__(self, work: Work, uses: Uses, at: int) -> None:
        self.work, self.uses, self.ops = work, uses, uses.ops
        self.loop = Loop(at, uses.ops[at])
        self.block = self.loop.operator.sub_blocks()[0]
        self.inner = Uses(self.block)
        self.arrays: dict[str, str] = {}  # array of step inputs -> its sequences
        self.memory_arrays: dict[str, Memory] = {}
        self.out_arrays: dict[str, str] = {}  # array -> variable of the Block
        self.reordered: dict[str, str] = {}  # reordered static input -> original
        self.grad: Operator | None = None

    def find(self) -> Loop:
        refuse_unless(not any(op.sub_blocks() for op in self.block.ops), "its Block holds another Block")
        self._counter()
        self._read_block()
        self._outputs()
        self._gradient()
        self._written_elsewhere()
        return self.loop

    # ---- the forward loop ------------------------------------------------------------------------
    def _maker(self, name: str) -> Operator | None:
        """The operator of the global Block whose `name` the loop reads."""
        position = self.uses.producer(name, self.loop.at)
        return None if position is None else self.ops[position]

    def _counter(self) -> None:
        """i = 0; while i < max_sequence_len: ...; i += 1."""
        condition = self.loop.operator.input("Condition")[0]
        compares = [op for op in self.block.ops if condition in op.output_arg_names]
        first = self._maker(condition)
        refuse_unless(
            len(compares) == 1 and compares[0].type == "less_than" and first is not None and first.type == "less_than",
            "its condition is not one comparison",
        )
        assert first is not None
        self.counter, self.limit = compares[0].input("X")[0], compares[0].input("Y")[0]
        same = first.input("X") == [self.counter] and first.input("Y") == [self.limit]
        start, longest = self._maker(self.counter), self._maker(self.limit)
        refuse_unless(
            same and start is not None and start.type == "fill_constant" and float(start.attr("value")) == 0
            and longest is not None and longest.type == "max_sequence_len",
            "it does not count the steps of a rank table",
        )  # fmt: skip
        assert longest is not None
        self.table = longest.input("RankTable")[0]
        moves = [i for i, op in enumerate(self.block.ops) if self.counter in op.output_arg_names]
        refuse_unless(
            len(moves) == 1 and self.block.ops[moves[0]].type == "increment" and self.block.ops[moves[0]].attr("step") == 1
            and self.inner.writers[condition][0] > moves[0],
            "its counter does not go up by one",
        )  # fmt: skip
        self.moved = moves[0]
        maker = self._maker(self.table)
        refuse_unless(maker is not None and maker.type == "lod_rank_table" and maker.attr("level") == 0, "no rank table")
        assert maker is not None
        self.ranked = maker.input("X")[0]

    def _read_block(self) -> None:
        raw: dict[str, str] = {}  # a memory before it is cut to the running sequences -> its array
        for i, op in enumerate(self.block.ops):
            if op.type in ("increment", "less_than") and set(op.output_arg_names) & {
                self.counter, *self.loop.operator.input("Condition"),
            }:  # fmt: skip
                continue
            if op.type == "read_from_array" and op.input("I") == [self.counter]:
                refuse_unless(i < self.moved, "an array is read after the counter moved")
                self._reads_array(op, raw)
            elif op.type == "shrink_rnn_memory" and op.input("RankTable") == [self.table]:
                self._shrinks(op, raw)
            elif op.type == "write_to_array" and op.input("I") == [self.counter]:
                self._writes_array(i, op)
            else:
                self.loop.body.append(op)
        for name in raw:
            readers = self.inner.readers[name]
            refuse_unless(all(self.block.ops[r].type == "shrink_rnn_memory" for r in readers), "a state is read whole")
        for memory in self.memory_arrays.values():
            refuse_unless(memory.read and memory.becomes, "a state is not read, or not updated")
        self.loop.memories = list(self.memory_arrays.values())
        made = {n for op in self.loop.body for n in op.output_arg_names if n != EMPTY_VAR}
        outer = [n for n in made if n not in self.block.vars]
        refuse_unless(not outer, f"its Block writes {outer[0] if outer else ''!r} of the Block around it")
        twice = [n for n in made if len(self.inner.writers[n]) > 1]
        refuse_unless(not twice, f"{twice[0] if twice else ''!r} is written twice")

    def _reads_array(self, op: Operator, raw: dict[str, str]) -> None:
        array, out = op.input("X")[0], op.output("Out")[0]
        writers = [self.ops[w] for w in self.uses.writers[array] if w < self.loop.at]
        refuse_unless(len(writers) == 1, f"array {array!r} is not written once before it")
        maker = writers[0]
        if maker.type == "lod_tensor_to_array" and maker.input("RankTable") == [self.table]:
            refuse_unless(not self.inner.writers[array], f"array {array!r} is written in its Block")
            self.arrays[array] = self.loop.steps[out] = maker.input("X")[0]
        else:
            refuse_unless(maker.type == "write_to_array", f"array {array!r} is neither a step input nor a state")
            refuse_unless(array not in self.memory_arrays, f"state {array!r} is read twice")
            self.memory_arrays[array] = self._initial(maker)
            raw[out] = array

    def _initial(self, write: Operator) -> Memory:
        name = write.input("X")[0]
        maker = self._maker(name)
        if maker is not None and maker.type == "fill_constant_batch_size_like" and self._is_batch(maker):
            return Memory("", "", float(maker.attr("value")))
        if maker is not None and maker.type == "reorder_lod_tensor_by_rank" and maker.input("RankTable") == [self.table]:
            return Memory("", "", maker.input("X")[0])
        return Memory("", "", name, ranked=True)

    def _is_batch(self, filled: Operator) -> bool:
        """Whether a filled tensor has one row a sequence: that many rows as the first step of a step input."""
        maker = self._maker(filled.input("Input")[0])
        if maker is None or maker.type != "read_from_array":
            return False
        source = self._maker(maker.input("X")[0])
        steps = source is not None and source.type == "lod_tensor_to_array" and source.input("RankTable") == [self.table]
        return bool(steps and filled.attr("input_dim_idx") == 0 and filled.attr("output_dim_idx") == 0)

    def _shrinks(self, op: Operator, raw: dict[str, str]) -> None:
        name, out = op.input("X")[0], op.output("Out")[0]
        if name in raw:
            memory = self.memory_arrays[raw[name]]
            refuse_unless(not memory.read, f"state {raw[name]!r} is read twice")
            memory.read = out
            return
        maker = self._maker(name) if name not in self.block.vars else None
        refuse_unless(
            maker is not None and maker.type == "reorder_lod_tensor_by_rank" and maker.input("RankTable") == [self.table],
            f"static input {name!r} is not in the order of the rank table",
        )
        assert maker is not None
        self.loop.statics[out] = self.reordered[name] = maker.input("X")[0]

    def _writes_array(self, i: int, op: Operator) -> None:
        array, name = op.output("Out")[0], op.input("X")[0]
        if array in self.memory_arrays:
            refuse_unless(i > self.moved and not self.memory_arrays[array].becomes, f"state {array!r} is written twice")
            self.memory_arrays[array].becomes = name
        else:
            refuse_unless(i < self.moved and array not in self.out_arrays, f"array {array!r} is written twice")
            self.out_arrays[array] = name

    def _outputs(self) -> None:
        own = {self.loop.at}
        for array, name in self.out_arrays.items():
            refuse_unless(not self.uses.seen_outside(array), f"array {array!r} is fetched")
            for r in self.uses.readers[array]:
                op = self.ops[r]
                if r in own or self._is_gradient_part(op):
                    continue
                plain = op.type == "array_to_lod_tensor" and op.input("RankTable") == [self.table]
                refuse_unless(plain and r > self.loop.at, f"array {array!r} is read by {op.type}")
                self.loop.outputs.append((name, op.output("Out")[0]))
                self.loop.gone.add(r)
            others = [w for w in self.uses.writers[array] if w != self.loop.at and not self._is_gradient_part(self.ops[w])]
            refuse_unless(not others, f"array {array!r} is written elsewhere too")
        self.loop.gone.add(self.loop.at)

    # ---- its gradient ----------------------------------------------------------------------------
    def _is_gradient_part(self, op: Operator) -> bool:
        return op.type in ("while_grad", "array_to_lod_tensor_grad")

    def _gradient(self) -> None:
        loop = self.loop
        found = [i for i, op in enumerate(self.ops) if op.type == "while_grad" and op.sub_blocks() == [self.block]]
        found = found or [i for i, op in enumerate(self.ops) if op.forward is loop.operator]
        refuse_unless(len(found) <= 1, "it has two gradients")
        if not found:
            return
        loop.grad_at = found[0]
        self.grad = grad = self.ops[found[0]]
        refuse_unless(not self.uses.has_gradient(grad), "its gradient has a gradient")
        loop.gone.add(found[0])
        for name in grad.input("Out@GRAD"):
            if name != EMPTY_VAR:
                self._incoming(name)
        for name, target in zip(grad.input("X"), grad.output("X@GRAD")):
            if target != EMPTY_VAR:
                self._outgoing(name, target)

    def _incoming(self, name: str) -> None:
        """`name`, the gradient of an output array, comes from that of the sequences that the array became."""
        position = self.uses.producer(name, self.loop.grad_at or 0)
        maker = self.ops[position] if position is not None else None
        refuse_unless(
            maker is not None
            and maker.type == "array_to_lod_tensor_grad"
            and self.uses.readers[name] == [self.loop.grad_at],
            f"gradient {name!r} is not that of its sequences",
        )
        assert maker is not None and position is not None
        result = maker.input("Out")
        array = maker.input("X")[0]
        if not result:
            result = [r for v, r in self.loop.outputs if self.out_arrays.get(array) == v]
        refuse_unless(len(result) == 1 and result[0] not in self.loop.given, f"gradient {name!r} has several sources")
        self.loop.given[result[0]] = maker.input("Out@GRAD")[0]
        self.loop.gone.add(position)

    def _outgoing(self, name: str, target: str) -> None:
        """Who takes the gradient `target` of the `while`'s input `name`."""
        readers = self.uses.readers[target]
        wanted = self.loop.targets
        if name in self.arrays or name in self.reordered:
            source = self.arrays.get(name) or self.reordered[name]
            kinds = ("lod_tensor_to_array_grad", "reorder_lod_tensor_by_rank_grad")
            for r in readers:
                refuse_unless(self.ops[r].type in kinds, f"gradient {target!r} is read by {self.ops[r].type}")
                wanted.setdefault(source, []).append(self.ops[r].output("X@GRAD")[0])
                self.loop.gone.add(r)
            refuse_unless(not self.uses.seen_outside(target), f"gradient {target!r} is fetched")
        elif name in self.memory_arrays:
            memory = self.memory_arrays[name]
            for r in readers:
                refuse_unless(self.ops[r].type == "read_from_array", f"gradient {target!r} is read by {self.ops[r].type}")
                self._of_initial(memory, r)
            refuse_unless(not self.uses.seen_outside(target), f"gradient {target!r} is fetched")
        elif name in self.out_arrays or name in (self.counter, self.limit, self.table):
            refuse_unless(not readers, f"gradient {target!r} is read")
        else:
            wanted.setdefault(name, []).append(target)

    def _of_initial(self, memory: Memory, position: int) -> None:
        out = self.ops[position].output("Out")[0]
        self.loop.gone.add(position)
        readers = [r for r in self.uses.readers[out] if r > position]
        if isinstance(memory.init, float):
            refuse_unless(not readers and not self.uses.seen_outside(out), f"gradient {out!r} of a constant is read")
        elif memory.ranked:
            self.loop.targets.setdefault(memory.init, []).append(out)
        else:
            for r in readers:
                refuse_unless(
                    self.ops[r].type == "reorder_lod_tensor_by_rank_grad", f"gradient {out!r} is read by {self.ops[r].type}"
                )
                self.loop.targets.setdefault(memory.init, []).append(self.ops[r].output("X@GRAD")[0])
                self.loop.gone.add(r)

    def _written_elsewhere(self) -> None:
        """What the loop writes is read by nobody else, and what it reads does not change before its gradient."""
        loop = self.loop
        inside = {loop.at, *([loop.grad_at] if loop.grad_at is not None else []), *loop.gone}
        for name in loop.operator.output("Out"):
            later = [r for r in self.uses.readers[name] if r > loop.at and r not in inside]
            refuse_unless(not later, f"{name!r} is read behind it by {self.ops[later[0]].type if later else ''}")
            refuse_unless(not self.uses.seen_outside(name), f"{name!r} is fetched")
        taken = [*loop.steps.values(), *loop.statics.values(), *(m.init for m in loop.memories if isinstance(m.init, str))]
        end = loop.grad_at if loop.grad_at is not None else max(loop.gone)
        for name in [*taken, *self.outside()]:
            for w in self.uses.writers[name]:
                refuse_unless(not loop.at < w < end, f"{name!r} is written before the loop is done with it")
        first = min(self.uses.writers[n][0] for n in (*self.arrays, self.limit) if self.uses.writers[n])
        for name in taken:
            changed = self.uses.written_between([name], first, loop.at) and len(self.uses.writers[name]) > 1
            refuse_unless(not changed, f"{name!r} is written again before the loop")

    def outside(self) -> list[str]:
        """Variables around the Block that its operators read as they are."""
        inner = {*self.loop.steps, *self.loop.statics, *(m.read for m in self.loop.memories)}
        inner.update(n for op in self.loop.body for n in op.output_arg_names)
        return [n for op in self.loop.body for n in op.input_arg_names if n not in inner and n != EMPTY_VAR]

    def var(self, name: str) -> Variable | None:
        return self.block._find_var_recursive(name)
