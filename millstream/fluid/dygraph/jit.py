"""``fluid.dygraph.jit``: eager networks as Programs: by recording one run, or by converting their Python code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.dygraph.base import _need_eager
from millstream.fluid.dygraph.dygraph_to_static.partial_program import PartialProgramLayer, flatten
from millstream.fluid.dygraph.dygraph_to_static.program_translator import StaticFunction
from millstream.fluid.dygraph.layers import Layer
from millstream.ir import mode, names
from millstream.ir.desc import ProgramDesc
from millstream.ir.program import Program
from millstream.ops._values import SelectedRows
from millstream.runtime.compiler import CompiledProgram
from millstream.runtime.eager import ParamBase, VarBase
from millstream.runtime.executor import Executor
from millstream.runtime.scope import Scope, scope_guard

__all__ = ["TracedLayer", "declarative", "dygraph_to_static_func"]


def declarative(func: Callable[..., Any]) -> StaticFunction:
    """Decorator: in dygraph mode the function runs as a Program made from its Python code, once for each kind of input.

    ``if``, ``while``, ``for`` over range(), ``and``, ``or``, ``not`` on Variables become control-flow operators; the
    function may be a method of a Layer. See ProgramTranslator.
    """
    return StaticFunction(func)


def dygraph_to_static_func(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: outside dygraph mode, make the function's operators in the current Program, converted as by declarative."""
    return StaticFunction(func, run_eagerly=True)


def extract_vars(inputs: Any) -> list[Any]:
    """Eager variables inside lists, tuples and dicts, in order."""
    return flatten(inputs, [])


class _Recorder:
    """Makes a Program of the operators that a tracer runs."""

    def __init__(self, inputs: list[VarBase]) -> None:
        self.program = Program()
        self.block = self.program.global_block()
        self.named: dict[int, str] = {}
        self.kept: list[VarBase] = []  # an id means its variable only while that lives
        self.held: dict[str, VarBase] = {}  # persistable variables: parameters, and constants from outside
        self.count = 0
        self.feeds = [self._declare(v, f"feed_{i}") for i, v in enumerate(inputs)]

    def _declare(self, var: VarBase, name: str, **kwargs: Any) -> str:
        self.named[id(var)] = name
        self.kept.append(var)
        self.block.create_var(
            name=name, shape=list(var.shape), dtype=var.dtype, type=var.type, stop_gradient=var.stop_gradient, **kwargs
        )
        return name

    def _input(self, var: VarBase) -> str:
        name = self.named.get(id(var))
        if name is not None:
            return name
        name = var.name
        self.held[name] = var
        if isinstance(var, ParamBase):
            self.named[id(var)] = name
            self.kept.append(var)
            self.block.create_parameter(name=name, shape=list(var.shape), dtype=var.dtype, trainable=var.trainable)
            return name
        return self._declare(var, name, persistable=True)

    def _output(self, var: VarBase) -> str:
        if id(var) in self.named or var.persistable:
            return self._input(var)
        self.count += 1
        return self._declare(var, f"t_{self.count - 1}")

    def record(self, type: str, ins: dict[str, Any], outs: dict[str, Any], attrs: dict[str, Any]) -> None:
        """Append one operator."""
        inputs = {s: [self._input(v) for v in vs] for s, vs in ins.items()}
        outputs = {s: [self._output(v) for v in vs if v._ivar is not None] for s, vs in outs.items()}
        self.block.append_op(type, inputs, {s: n for s, n in outputs.items() if n}, attrs)

    def name_of(self, var: VarBase) -> str:
        """The Program's name of a result."""
        name = self.named.get(id(var))
        if name is None:
            raise InvalidProgramError(
                f"TracedLayer.trace: the output {var.describe()} was not computed by operators from the inputs"
            )
        return name


class TracedLayer:
    """The Program that one run of an eager network recorded. Python's control flow is as it was in that run.

    Made by :meth:`trace`.
    """

    def __init__(
        self, program: Program, parameters: Iterable[VarBase], feed_names: list[str], fetch_names: list[str]
    ) -> None:
        if not isinstance(program, Program):
            raise ArgumentError(f"TracedLayer: 'program' must be a Program, received {type(program).__name__}; use trace()")
        block = program.global_block()
        self._program = program
        self._feed_names, self._fetch_names = list(feed_names), list(fetch_names)
        self._layer = PartialProgramLayer(
            program, [block.var(n) for n in feed_names], [block.var(n) for n in fetch_names], parameters
        )
        self._scope = Scope()
        self._executor: Executor | None = None
        self._strategies: tuple[Any, Any] = (None, None)
        self._compiled: Any = None
        self._place: Any = None

    @property
    def program(self) -> Program:
        """The recorded Program."""
        return self._program

    @staticmethod
    def trace(layer: Layer, inputs: Any) -> tuple[Any, TracedLayer]:
        """Run ``layer(*inputs)`` once and record its operators.

        Returns (what the layer returned, the TracedLayer). Raises TypeError: `layer` is no Layer, or an input no
        Variable.
        """
        tracer = _need_eager("TracedLayer.trace")
        if not isinstance(layer, Layer):
            raise ArgumentError(f"TracedLayer.trace: 'layer' must be a Layer, received {type(layer).__name__}")
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        for value in given:
            if not isinstance(value, VarBase):
                raise ArgumentError(f"TracedLayer.trace: 'inputs' must be Variables, received {type(value).__name__}")
        recorder = _Recorder(given)
        old, tracer.recorder = tracer.recorder, recorder
        try:
            with names.guard():
                outputs = layer(*given)
        finally:
            tracer.recorder = old
        fetches = [recorder.name_of(v) for v in flatten(outputs, [])]
        traced = TracedLayer(recorder.program, recorder.held.values(), recorder.feeds, fetches)
        traced._place = tracer.place
        return outputs, traced

    def set_strategy(self, build_strategy: Any = None, exec_strategy: Any = None) -> None:
        """How to compile the Program, before its first run."""
        if self._compiled is not None:
            raise InvalidProgramError("TracedLayer.set_strategy must be called before the first run")
        self._strategies = (build_strategy, exec_strategy)

    def __call__(self, inputs: Any) -> list[np.ndarray]:
        """Run the Program on Variables or arrays; returns arrays."""
        if not isinstance(inputs, (list, tuple)):
            raise ArgumentError(f"TracedLayer: 'inputs' must be a list of variables, received {type(inputs).__name__}")
        if len(inputs) != len(self._feed_names):
            raise InvalidProgramError(f"TracedLayer: the Program has {len(self._feed_names)} inputs, received {len(inputs)}")
        if self._executor is None:
            self._executor = Executor(self._place)
            build, run = self._strategies
            self._compiled = self._program
            if build is not None or run is not None:
                self._compiled = CompiledProgram(self._program, build)
        self._layer.values_into(self._scope)
        feed = {n: v.numpy() if isinstance(v, VarBase) else v for n, v in zip(self._feed_names, inputs)}
        old = mode.switch_tracer(None)
        try:
            with scope_guard(self._scope):
                found = self._executor.run(self._compiled, feed=feed, fetch_list=self._fetch_names)
        finally:
            mode.switch_tracer(old)
        self._take_back()
        return found

    def _take_back(self) -> None:
        """Moving averages that the run wrote belong to the layer."""
        for name, param in self._layer._holders.items():
            now = self._scope.var(name).get_tensor()._t
            mine = param._ivar
            if now is not None and not isinstance(mine, SelectedRows) and now.data_ptr() != mine.data_ptr():
                param._replace(now)

    def save_inference_model(self, dirname: str, feed: Any = None, fetch: Any = None) -> None:
        """Write a model that load_inference_model reads.

        Args:
            feed, fetch: indices of the inputs and outputs that it has, None for all.
        """
        self._layer.save(dirname, feed, fetch)


def create_program_from_desc(program_desc: Any) -> Program:
    """A copy, as a Program, of a ProgramDesc (``program.desc``) or of its bytes."""
    serialized = program_desc.serialize_to_string() if isinstance(program_desc, ProgramDesc) else program_desc
    return Program.parse_from_string(serialized)


