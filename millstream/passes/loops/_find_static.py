"""Finding what StaticRNN builds: a `recurrent` operator, whose Block is one step, and its gradient."""

from __future__ import annotations

from millstream.ir.names import EMPTY_VAR
from millstream.ir.variable import Variable
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.loops._find import Loop, Memory, Refused, refuse_unless


class StaticFinder:
    """Reads one `recurrent` of the global Block; raises Refused where the row machine can't take its place."""

    def __init__(self, work: Work, uses: Uses, at: int) -> None:
        self.work, self.uses = work, uses
        self.loop = Loop(at, uses.ops[at])
        self.block = self.loop.operator.sub_blocks()[0]
        self.inner = Uses(self.block)

    def find(self) -> Loop:
        loop, op = self.loop, self.loop.operator
        refuse_unless(not any(o.sub_blocks() for o in self.block.ops), "its Block holds another Block")
        refuse_unless(not op.attr("reverse"), "it runs backwards")
        loop.gone.add(loop.at)
        for name in op.input("inputs"):
            outside = self.work.block._find_var_recursive(name)
            dims = list(outside.shape) if outside is not None and outside.has_shape else []
            known = len(dims) > 1 and all(d > 0 for d in dims[2:])
            refuse_unless(known, f"step input {name!r} has no rows of known shape")
            loop.steps[name] = name
        loop.shape = op.input("inputs")[0]
        states = zip(op.attr("ex_states") or [], op.attr("states") or [], op.input("initial_states"))
        loop.memories = [Memory(read, becomes, init) for read, becomes, init in states]
        loop.outputs = [(name, name) for name in op.output("outputs")]
        loop.body = list(self.block.ops)
        made = [n for o in loop.body for n in o.output_arg_names if n != EMPTY_VAR]
        refuse_unless(len(made) == len(set(made)), "a variable of its Block is written twice")
        refuse_unless(all(n in self.block.vars for n in made), "its Block writes a variable of the Block around it")
        refuse_unless(
            all(m.becomes in made or m.becomes == m.read for m in loop.memories), "a state is not made in its Block"
        )
        self._gradient()
        self._overwritten()
        return loop

    def _gradient(self) -> None:
        loop = self.loop
        found = [
            i for i, op in enumerate(self.uses.ops)
            if op.type == "recurrent_grad" and (op.sub_blocks() == [self.block] or op.forward is loop.operator)
        ]  # fmt: skip
        refuse_unless(len(found) <= 1, "it has two gradients")
        if not found:
            return
        grad = self.uses.ops[found[0]]
        refuse_unless(not self.uses.has_gradient(grad), "its gradient has a gradient")
        loop.grad_at = found[0]
        loop.gone.add(found[0])
        for name, gradient in zip(grad.input("outputs"), grad.input("outputs@GRAD")):
            if gradient != EMPTY_VAR:
                loop.given[name] = gradient
        for slot in ("inputs", "initial_states", "parameters"):
            for name, target in zip(grad.input(slot), grad.output(slot + "@GRAD")):
                if target != EMPTY_VAR:
                    loop.targets.setdefault(name, []).append(target)

    def _overwritten(self) -> None:
        loop = self.loop
        end = loop.grad_at if loop.grad_at is not None else loop.at
        for name in (n for n in loop.operator.input_arg_names if n != EMPTY_VAR):
            if any(loop.at < w < end for w in self.uses.writers[name]):
                raise Refused(f"{name!r} is written before the loop is done with it")

    def var(self, name: str) -> Variable | None:
        return self.block._find_var_recursive(name)
