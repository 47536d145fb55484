"""A Program as an eager layer: run on eager variables, differentiated with the rest of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from millstream.errors import InvalidProgramError
from millstream.fluid.dygraph.base import _need_eager, to_variable
from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.io import save_inference_model
from millstream.ir import mode
from millstream.ir.program import Program, program_guard
from millstream.ir.variable import Variable
from millstream.ops._values import NO_LOD
from millstream.runtime.eager import RESULTS, ParamBase, VarBase
from millstream.runtime.executor import Executor
from millstream.runtime.function import ProgramFunction
from millstream.runtime.plan import Context
from millstream.runtime.scope import Scope, global_scope, scope_guard

__all__ = ["PartialProgramLayer"]


class PartialProgramLayer(Layer):
    """`main_program` from `inputs` to `outputs`.

    Args:
        inputs, outputs: Variables of the Program.
        parameters: eager variables that give the Program's persistable variables of the same name their values.
    """

    def __init__(self, main_program: Program, inputs: Any, outputs: Any, parameters: Any = None) -> None:
        super().__init__()
        self._program = main_program
        self._inputs = [v.name for v in inputs]
        self._outputs = [v.name for v in outputs]
        self._holders: dict[str, VarBase] = {p.name: p for p in parameters or ()}
        for name, param in self._holders.items():
            if isinstance(param, ParamBase):
                self.add_parameter(name, param)
        self._function: ProgramFunction | None = None

    def forward(self, inputs: Sequence[VarBase]) -> list[VarBase]:  # type: ignore[override]
        """One eager variable for each of the Program's outputs."""
        tracer = _need_eager("a Program as a layer")
        if len(inputs) != len(self._inputs):
            raise InvalidProgramError(f"the Program has {len(self._inputs)} inputs, received {len(inputs)}")
        values = [to_variable(v) for v in inputs]
        if self._function is None:
            names = [*self._inputs, *self._holders]
            self._function = ProgramFunction(self._program, names, self._outputs, tracer.device)
        env = {n: v.tensor for n, v in zip(self._inputs, values)}
        env |= {n: p.tensor for n, p in self._holders.items()}
        lods = {n: v._lod for n, v in zip(self._inputs, values) if v._lod}
        wants = tracer.has_grad and any(not v.stop_gradient for v in (*values, *self._holders.values()))
        with torch.set_grad_enabled(wants):
            self._function.run(env, lods, Context(global_scope(), tracer.rng, None, tracer.device))
        for name in self._function.written:
            if name in self._holders and env[name] is not None:
                self._holders[name]._replace(env[name].detach())
        return [self._wrap(env[n], lods.get(n, NO_LOD)) for n in self._outputs]

    @staticmethod
    def _wrap(value: Any, lod: Any) -> VarBase:
        connected = isinstance(value, torch.Tensor) and value.requires_grad
        out = VarBase(value, stop_gradient=not connected, lod=lod)
        if connected:
            RESULTS.add(out)
        return out

    def values_into(self, scope: Scope) -> None:
        """Give `scope` the present values of the Program's parameters."""
        for name, param in self._holders.items():
            scope.var(name).get_tensor()._t = param.tensor.detach()

    def save(self, dirname: str, feed: Any, fetch: Any) -> None:
        """Write an inference model; `feed` and `fetch` are indices of inputs and outputs, None for all."""
        feeds = _picked(self._inputs, feed, "feed")
        fetches = _picked(self._outputs, fetch, "fetch")
        program = self._program.clone()
        scope = Scope()
        self.values_into(scope)
        old = mode.switch_tracer(None)
        try:
            with scope_guard(scope), program_guard(program, Program()):
                targets = [program.global_block().var(n) for n in fetches]
                executor = Executor(getattr(old, "place", None))
                save_inference_model(dirname, feeds, targets, executor, program)
        finally:
            mode.switch_tracer(old)


def _picked(names: list[str], indices: Any, what: str) -> list[str]:
    if indices is None:
        return names
    for i in indices:
        if not isinstance(i, int) or not 0 <= i < len(names):
            raise InvalidProgramError(f"save_inference_model: '{what}' takes indices below {len(names)}, received {i!r}")
    return [names[i] for i in indices]


def flatten(value: Any, found: list[Any]) -> list[Any]:
    """Variables (static or eager) inside lists, tuples and dicts, in order."""
    if isinstance(value, (Variable, VarBase)):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            flatten(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            flatten(item, found)
    return found


def pack(like: Any, leaves: Any) -> Any:
    """The structure of `like` with each Variable replaced by the next of `leaves`."""
    if isinstance(like, (Variable, VarBase)):
        return next(leaves)
    if isinstance(like, tuple) and hasattr(like, "_fields"):
        return type(like)(*(pack(v, leaves) for v in like))
    if isinstance(like, (list, tuple)):
        return type(like)(pack(v, leaves) for v in like)
    if isinstance(like, dict):
        return {k: pack(v, leaves) for k, v in like.items()}
    return like
