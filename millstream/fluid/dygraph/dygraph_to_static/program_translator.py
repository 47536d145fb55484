"""From Python functions over eager variables to Programs: conversion, caching, running."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.dygraph import _building
from millstream.fluid.dygraph.base import to_variable
from millstream.fluid.dygraph.dygraph_to_static import convert
from millstream.fluid.dygraph.dygraph_to_static.partial_program import PartialProgramLayer, flatten, pack
from millstream.fluid.dygraph.dygraph_to_static.transform import code_of, converted
from millstream.fluid.dygraph.layers import Layer
from millstream.ir import mode, names
from millstream.ir.program import Program, program_guard
from millstream.ir.variable import Variable
from millstream.runtime.eager import ParamBase, VarBase
from millstream.runtime.executor import Executor
from millstream.runtime.scope import Scope

__all__ = ["ProgramTranslator"]


class _Builder:
    """Gives a function under construction the Program's twins of eager variables."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.twins: dict[int, Variable] = {}
        self.held: dict[str, VarBase] = {}

    def parameter(self, param: Any) -> Any:
        if not isinstance(param, VarBase):
            return param
        twin = self.twins.get(id(param))
        if twin is None:
            block = self.program.global_block()
            if isinstance(param, ParamBase):
                twin = block.create_parameter(
                    name=param.name,
                    shape=list(param.shape),
                    dtype=param.dtype,
                    trainable=param.trainable,
                    stop_gradient=param.stop_gradient,
                    optimize_attr=param.optimize_attr,
                    regularizer=param.regularizer,
                )
            else:
                twin = block.create_var(
                    name=param.name, shape=list(param.shape), dtype=param.dtype, persistable=True,
                    stop_gradient=param.stop_gradient,
                )  # fmt: skip
            self.twins[id(param)] = twin
            self.held[param.name] = param
        return twin

    def capture(self, slots: Any) -> Any:
        """An operator's inputs or outputs with eager variables replaced by their twins."""
        if not slots:
            return slots
        return {
            s: [self.parameter(v) for v in vs] if isinstance(vs, (list, tuple)) else self.parameter(vs)
            for s, vs in slots.items()
        }

    @staticmethod
    def convert(function: Callable[..., Any]) -> Callable[..., Any]:
        return convert.call(function)


class ConcreteProgram:
    """The Program of a function for one kind of input.

    Attributes:
        inputs, outputs: its Variables; structure: what the function returned, with them inside.
        parameters: eager variables whose values it uses.
    """

    def __init__(
        self, inputs: Any, outputs: Any, parameters: Any, func: Any, main_program: Program,
        startup_program: Program | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.outputs, self.parameters = inputs, outputs, parameters
        self.function, self.main_program, self.startup_program = func, main_program, startup_program
        self.structure: Any = outputs
        self.layer = PartialProgramLayer(main_program, inputs, outputs, parameters)

    @staticmethod
    def build(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ConcreteProgram:
        """Run the converted `function` on Variables that stand for the eager ones in `args`."""
        main, startup = Program(), Program()
        builder = _Builder(main)
        old_tracer = mode.switch_tracer(None)
        old_builder = _building.switch(builder)
        old_capture = mode.switch_capture(builder.capture)
        try:
            with program_guard(main, startup):
                given = flatten((args, kwargs), [])
                inputs = [_declare(main, v) for v in given]
                static_args, static_kwargs = pack((args, kwargs), iter(inputs))
                result = convert.call(function)(*static_args, **static_kwargs)
                result = convert.finished(result)
                outputs = [builder.parameter(v) for v in flatten(result, [])]
        finally:
            mode.switch_capture(old_capture)
            _building.switch(old_builder)
            mode.switch_tracer(old_tracer)
        parameters = [*builder.held.values(), *_new_parameters(main, startup, builder, old_tracer)]
        concrete = ConcreteProgram(inputs, outputs, parameters, function, main, startup)
        concrete.structure = result
        return concrete

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outs = self.layer.forward(flatten((args, kwargs), []))
        return pack(self.structure, iter(outs))


def _declare(program: Program, var: VarBase) -> Variable:
    return program.global_block().create_var(
        name=names.generate("declared_input"), shape=list(var.shape), dtype=var.dtype, lod_level=var.lod_level,
        stop_gradient=var.stop_gradient, is_data=True,
    )  # fmt: skip


def _new_parameters(main: Program, startup: Program, builder: _Builder, tracer: Any) -> list[VarBase]:
    """Parameters that the function itself made (fluid.layers.fc in it), initialised."""
    made = [v for v in main.global_block().vars.values() if v.persistable and v.name not in builder.held]
    if not made:
        return []
    scope = Scope()
    Executor(getattr(tracer, "place", None)).run(startup, scope=scope)
    found: list[VarBase] = []
    for var in made:
        holder = scope.find_var(var.name)
        if holder is None or holder.obj is None:
            continue
        value = holder.get_tensor().torch()
        trainable = bool(getattr(var, "trainable", False))
        found.append(ParamBase(value, var.name, trainable=trainable, stop_gradient=var.stop_gradient))
    return found


def _key(value: Any) -> Any:
    """What of an argument a Program depends on."""
    if isinstance(value, VarBase):
        return ("variable", tuple(value.shape), value.dtype, value.stop_gradient, value.lod_level)
    if isinstance(value, Layer):
        return (id(value), value.training, tuple(layer.training for layer in value.sublayers()))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(_key(v) for v in value))
    if isinstance(value, dict):
        return ("dict", *((k, _key(v)) for k, v in value.items()))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return (type(value).__name__, value)


def _arrays_as_variables(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return to_variable(value)
    if type(value) in (list, tuple):
        return type(value)(_arrays_as_variables(v) for v in value)
    if type(value) is dict:
        return {k: _arrays_as_variables(v) for k, v in value.items()}
    return value


class StaticFunction:
    """A function that declarative or dygraph_to_static_func decorates; also as a method."""

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], run_eagerly: bool = False) -> None:
        plain: Callable[..., Any] = function.function if isinstance(function, StaticFunction) else function
        if not callable(plain):
            raise ArgumentError(f"declarative takes a function, received {type(plain).__name__}")
        functools.update_wrapper(self, plain)
        self.function = plain
        self._run_eagerly = run_eagerly
        self._programs: dict[Any, ConcreteProgram] = {}

    def __get__(self, instance: Any, owner: Any = None) -> StaticFunction:
        if instance is None:
            return self
        made = instance.__dict__.setdefault("_static_functions", {})
        bound = made.get(self)
        if bound is None:
            bound = made[self] = StaticFunction(self.function.__get__(instance, owner), self._run_eagerly)
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _building.builder() is not None:
            return convert.call(self.function)(*args, **kwargs)
        if not ProgramTranslator().enable_declarative:
            return self.function(*args, **kwargs)
        if mode.tracer() is None:
            return convert.finished(converted(self.function)(*args, **kwargs))
        if self._run_eagerly:
            return self.function(*args, **kwargs)
        args, kwargs = _arrays_as_variables(args), _arrays_as_variables(kwargs)
        return self.concrete(args, kwargs)(args, kwargs)

    def concrete(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ConcreteProgram:
        """The Program for these arguments."""
        owner = getattr(self.function, "__self__", None)
        key = (_key(owner), _key(args), _key(kwargs), bool(getattr(mode.tracer(), "has_grad", True)))
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = ConcreteProgram.build(self.function, args, kwargs)
            ProgramTranslator()._cache._last = found
        return found


class ProgramCache:
    """The Programs made so far."""

    def __init__(self) -> None:
        self._last: ConcreteProgram | None = None
        self._functions: dict[Any, StaticFunction] = {}

    def of(self, function: Callable[..., Any]) -> StaticFunction:
        """The StaticFunction of a function."""
        if isinstance(function, StaticFunction):
            return function
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = StaticFunction(function)
        return found

    def last(self) -> ConcreteProgram:
        """The Program made last."""
        if self._last is None:
            raise InvalidProgramError("no function has been converted to a Program yet: call it first")
        return self._last


class ProgramTranslator:
    """Switches and asks about the conversion of functions to Programs. There is one object.

    Attributes:
        enable_declarative: False: decorated functions run eagerly, as they are written.
    """

    _lock = threading.Lock()
    _instance: ProgramTranslator | None = None
    enable_declarative: bool
    _cache: ProgramCache

    def __new__(cls, *args: Any, **kwargs: Any) -> ProgramTranslator:
        with cls._lock:
            if cls._instance is None:
                made = object.__new__(cls)
                made.enable_declarative, made._cache = True, ProgramCache()
                cls._instance = made
            return cls._instance

    @classmethod
    def get_instance(cls) -> ProgramTranslator:
        """The one object."""
        return cls()

    @classmethod
    def reset(cls) -> None:
        """Forget all Programs, and switch conversion on."""
        instance = cls()
        instance.enable_declarative, instance._cache = True, ProgramCache()

    def enable(self, enable_declarative: bool) -> None:
        """Switch conversion on or off."""
        if not isinstance(enable_declarative, bool):
            raise ArgumentError(f"ProgramTranslator.enable takes a bool, received {enable_declarative!r}")
        self.enable_declarative = enable_declarative

    def get_output(self, dygraph_func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `dygraph_func` returns, run as a Program."""
        self._need_callable("get_output", dygraph_func)
        if not self.enable_declarative:
            return dygraph_func(*args, **kwargs)
        return self._cache.of(dygraph_func)(*args, **kwargs)

    def get_func(self, dygraph_func: Callable[..., Any]) -> Callable[..., Any]:
        """The converted function: it makes operators of the current Program."""
        self._need_callable("get_func", dygraph_func)
        if not self.enable_declarative:
            return dygraph_func
        return converted(self._plain(dygraph_func))

    def get_program(self, dygraph_func: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        """(main Program, startup Program, input Variables, output Variables) for these arguments."""
        self._need_callable("get_program", dygraph_func)
        args, kwargs = _arrays_as_variables(args), _arrays_as_variables(kwargs)
        found = self._cache.of(dygraph_func).concrete(args, kwargs)
        return found.main_program, found.startup_program, found.inputs, found.outputs

    def get_code(self, dygraph_func: Callable[..., Any]) -> str:
        """The converted Python text of `dygraph_func`."""
        self._need_callable("get_code", dygraph_func)
        return code_of(self._plain(dygraph_func))

    def save_inference_model(self, dirname: str, feed: Any = None, fetch: Any = None) -> None:
        """Write the Program made last as an inference model.

        Args:
            feed, fetch: indices of the inputs and outputs that it has, None for all.
        """
        self._cache.last().layer.save(dirname, feed, fetch)

    def get_program_cache(self) -> ProgramCache:
        """The Programs made so far."""
        return self._cache

    @staticmethod
    def _plain(function: Any) -> Callable[..., Any]:
        return function.function if isinstance(function, StaticFunction) else function

    @staticmethod
    def _need_callable(method: str, function: Any) -> None:
        if not callable(function):
            what = type(function).__name__
            raise ArgumentError(f"ProgramTranslator.{method}: 'dygraph_func' must be callable, received {what}")
