"""One operator on its way into a graph: what an emitter is given, and the registry of emitters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType, to_numpy_dtype
from millstream.ir.variable import Variable
from millstream.onnx.writer.graph import Graph, Value
from millstream.ops import REGISTRY

Emitter = Callable[["Emission"], None]
EMITTERS: dict[str, Emitter] = {}


class RefusedError(Exception):
    """ONNX can't say what an operator means; carries the reason and becomes a NotSupportedError with place and hint."""


def emits(*types: str) -> Callable[[Emitter], Emitter]:
    """Register the decorated function as the emitter of these operator types."""

    def register(emitter: Emitter) -> Emitter:
        for name in types:
            EMITTERS[name] = emitter
        return emitter

    return register


class Env:
    """Which Value a variable is now, and the offsets of its sequences; a Block's own over those around it."""

    def __init__(self, outer: Env | None = None) -> None:
        self.outer = outer
        self.values: dict[str, Value] = {}
        self.lods: dict[str, tuple[Value, ...]] = {}

    def find(self, name: str) -> Value | None:
        env: Env | None = self
        while env is not None:
            if name in env.values:
                return env.values[name]
            env = env.outer
        return None

    def lod(self, name: str) -> tuple[Value, ...]:
        env: Env | None = self
        while env is not None:
            if name in env.values:
                return env.lods.get(name, ())
            env = env.outer
        return ()

    def bind(self, name: str, value: Value, lod: Sequence[Value] = ()) -> None:
        self.values[name] = value
        if lod:
            self.lods[name] = tuple(lod)
        else:
            self.lods.pop(name, None)


class Emission:
    """What an emitter sees of its operator: inputs as Values, attributes, LoDs; `set` says what an output is."""

    def __init__(self, op: Operator, graph: Graph, env: Env, walker: Any = None) -> None:
        self.op = op
        self.g = graph
        self.env = env
        self.walker = walker  # writes sub-Blocks (writer/blocks.py)
        self.definition = REGISTRY.get(op.type)
        self.attrs = self.definition.kernel_attrs(op.attrs)

    # ---- inputs ------------------------------------------------------------------------------
    def _value(self, name: str, slot: str) -> Value:
        found = self.env.find(name)
        if found is None:
            raise RefusedError(f"input {slot} ({name!r}) has no value before this operator")
        return found

    def name(self, slot: str) -> str | None:
        """The variable in input slot `slot`, or None."""
        names = [n for n in self.op.inputs.get(slot, ()) if n != EMPTY_VAR]
        return names[0] if names else None

    def has(self, slot: str) -> bool:
        return self.name(slot) is not None

    def x(self, slot: str) -> Value:
        """The Value in `slot`."""
        name = self.name(slot)
        if name is None:
            raise RefusedError(f"input {slot} is missing")
        found = self._value(name, slot)
        if found.sort != "tensor":
            raise RefusedError(f"input {slot} ({name!r}) is an array of tensors")
        return found

    def maybe(self, slot: str) -> Value | None:
        """The Value in an optional slot."""
        return self.x(slot) if self.has(slot) else None

    def xs(self, slot: str) -> list[Value]:
        """The Values in a list slot."""
        return [self._value(n, slot) for n in self.op.inputs.get(slot, ()) if n != EMPTY_VAR]

    def lod(self, slot: str) -> tuple[Value, ...]:
        """Offsets (int64) of each LoD level of the variable in `slot`."""
        name = self.name(slot)
        return self.env.lod(name) if name is not None else ()

    def var(self, slot: str, out: bool = False) -> Variable | None:
        names = (self.op.outputs if out else self.op.inputs).get(slot, ())
        return self.op.block._find_var_recursive(names[0]) if names else None

    def shape(self, slot: str) -> tuple[int, ...]:
        """Dims of the input, -1 where not known; refuses when the rank is unknown."""
        value = self.x(slot)
        if value.shape is not None:
            return value.shape
        var = self.var(slot)
        if var is None or not var.has_shape:
            raise RefusedError(f"the rank of {slot} ({self.name(slot)!r}) is not known")
        return tuple(d if d > 0 else -1 for d in var.shape)

    def rank(self, slot: str) -> int:
        return len(self.shape(slot))

    def constant(self, slot: str, why: str = "") -> np.ndarray[Any, Any]:
        """The array in `slot`, which must be known while exporting."""
        found = self.x(slot).const
        if found is None:
            raise RefusedError(f"input {slot} ({self.name(slot)!r}) must be known while exporting{why}")
        return found

    # ---- attributes --------------------------------------------------------------------------
    def __getitem__(self, name: str) -> Any:
        """Attribute `name`, or its default."""
        if name not in self.attrs:
            raise RefusedError(f"attribute {name} is missing")
        return self.attrs[name]

    def dtype(self, name: str = "dtype") -> Any:
        """The numpy dtype that a data type attribute means."""
        return numpy_dtype(VarType(self[name]))

    # ---- outputs -----------------------------------------------------------------------------
    def wants(self, slot: str) -> bool:
        """Whether the operator has a variable in output slot `slot`."""
        return any(n != EMPTY_VAR for n in self.op.outputs.get(slot, ()))

    def out_dtype(self, slot: str = "Out") -> Any:
        """The declared element type of an output."""
        var = self.var(slot, out=True)
        if var is None or not var.has_dtype:
            raise RefusedError(f"the data type of output {slot} is not known")
        return numpy_dtype(var.dtype)

    def out_shape(self, slot: str = "Out") -> tuple[int, ...]:
        """The declared dims of an output (-1: unknown)."""
        var = self.var(slot, out=True)
        if var is None or not var.has_shape:
            raise RefusedError(f"the shape of output {slot} is not known")
        return tuple(d if d > 0 else -1 for d in var.shape)

    def set(self, slot: str, value: Value, lod: Sequence[Value] | None = None, index: int = 0) -> None:
        """Variable number `index` of output slot `slot` is `value`; `lod`: its offsets (None: as declared)."""
        names = self.op.outputs.get(slot, ())
        if index >= len(names) or names[index] == EMPTY_VAR:
            return
        var = self.op.block._find_var_recursive(names[index])
        if value.shape is None and var is not None and var.has_shape and value.sort == "tensor" and 0 not in var.shape:
            value.shape = tuple(d if d > 0 else -1 for d in var.shape)
        if lod is None:
            lod = self.lod(self.lod_source(slot))
        self.env.bind(names[index], value, lod)

    def lod_source(self, slot: str) -> str:
        """The input slot whose LoD output `slot` takes by declaration ("": none)."""
        rule = self.definition.lod
        if not isinstance(rule, str):
            return ""
        if "=" not in rule:
            return "" if self.definition.out_slots[slot].intermediate else rule
        pairs = dict(part.strip().split("=") for part in rule.split(","))
        return pairs.get(slot, "")

    def refuse(self, reason: str) -> NoReturn:
        """Say that ONNX can't express this operator."""
        raise RefusedError(reason)


def numpy_dtype(kind: VarType) -> Any:
    """The numpy dtype of an element type; refuses bfloat16, which numpy has not."""
    if kind is VarType.BF16:
        raise RefusedError("bfloat16 values can't be exported")
    return to_numpy_dtype(kind)


def one_to_one() -> dict[str, str]:
    """Operator types that one ONNX node of one input says, by their declarations (``onnx="Relu"``)."""
    return {d.name: d.extra["onnx"] for d in REGISTRY.declared() if "onnx" in d.extra}


def emitter_of(op_type: str) -> Emitter | None:
    """The emitter for an operator type, or None."""
    found = EMITTERS.get(op_type)
    if found is None:
        definition = REGISTRY.find(op_type)
        node = definition.extra.get("onnx") if definition is not None else None
        if node is not None:
            found = EMITTERS[op_type] = _single(node)
    return found


def _single(node: str) -> Emitter:
    def emit(e: Emission) -> None:
        values = [e.x(s.name) for s in e.definition.inputs]
        made = e.g.op(node, *values)
        made.shape = values[0].shape
        e.set(e.definition.outputs[0].name, made)

    return emit
