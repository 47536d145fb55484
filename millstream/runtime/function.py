"""A Program's global Block as a function of tensors that autograd can differentiate."""

from __future__ import annotations

from typing import Any

import torch

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.program import Program
from millstream.ops._values import LoD
from millstream.runtime.liveness import live_ops
from millstream.runtime.lower import Code, Emitter, Options, lower_body
from millstream.runtime.plan import Body, Context


class ProgramFunction:
    """Runs the global Block of `program` over values given by name.

    Args:
        inputs: names of the variables that are given values: feeds and parameters.
        fetches: names of the results.

    Attributes:
        written: persistable variables that a run gives new values, moving averages for example.
    """

    def __init__(self, program: Program, inputs: list[str], fetches: list[str], device: torch.device) -> None:
        self.program = program
        self.inputs = inputs
        self.fetches = fetches
        block = program.global_block()
        self.ops = live_ops(block, fetches)
        changed = dict.fromkeys(n for op in self.ops for n in walk.writes_of(op))
        self.written = [n for n in changed if _persistable(block, n)]
        self._options = Options(tape=True, device=device)
        self._bodies: list[Body] = []
        self._by_lods: dict[frozenset[str], Body] = {}

    def _make_body(self, block: Block, known_lods: set[str], tape: bool, exports: list[str]) -> Body:
        body = Body(lower_body(block, known_lods, self._options, self._make_body, exports))
        self._bodies.append(body)
        return body

    def _lowered(self, with_lod: frozenset[str]) -> Body:
        body = self._by_lods.get(with_lod)
        if body is not None:
            return body
        emitter = Emitter(self.program.global_block(), self._options, self._make_body)
        emitter.outer = set(self.inputs)
        emitter.has_lod = set(with_lod)
        for name in with_lod:
            emitter.v(name)
        results = list(dict.fromkeys([*self.fetches, *self.written]))
        emitter.run_ops(self.ops, set(results))
        for name in results:
            if name not in emitter.defined:
                emitter.line(f"{emitter.v(name)} = env.get({name!r})")
            emitter.line(f"env[{name!r}] = {emitter.v(name)}")
            if name in emitter.has_lod:
                emitter.line(f"lods[{name!r}] = {emitter.lod(name)}")
        if not emitter.lines:
            emitter.line("pass")
        source = "\n".join(["def body(env, lods, ctx):", *emitter.lines])
        body = Body(Code(source, emitter.constants, emitter.op_of_line, emitter.local))
        self._by_lods[with_lod] = body
        return body

    def run(self, env: dict[str, Any], lods: dict[str, LoD], ctx: Context) -> None:
        """Give `env` (and `lods`) the values of the fetches and of what is written.

        Call it with torch's gradients enabled to get results that are connected to the inputs.
        """
        self._lowered(frozenset(n for n, lod in lods.items() if lod)).run(env, lods, ctx)


def _persistable(block: Block, name: str) -> bool:
    var = block._find_var_recursive(name)
    return var is not None and var.persistable
