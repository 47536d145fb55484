"""One node on its way into a Program: what a translator is given, and the registry of translators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from millstream.onnx._require import onnx_package
from millstream.onnx.reader.build import Builder
from millstream.onnx.reader.file import Source
from millstream.onnx.reader.values import Tensor, constant

Translator = Callable[["Node"], None]
TRANSLATORS: dict[str, Translator] = {}


class UntranslatableError(Exception):
    """Fluid's operators can't say what a node means; carries the reason."""


def reads(*types: str) -> Callable[[Translator], Translator]:
    """Register the decorated function as the translator of these ONNX operators."""

    def register(translator: Translator) -> Translator:
        for name in types:
            TRANSLATORS[name] = translator
        return translator

    return register


class Values:
    """Values by ONNX name; a body's own over those around it."""

    def __init__(self, outer: Values | None = None) -> None:
        self.outer = outer
        self.table: dict[str, Tensor] = {}

    def find(self, name: str) -> Tensor:
        values: Values | None = self
        while values is not None:
            if name in values.table:
                return values.table[name]
            values = values.outer
        raise UntranslatableError(f"value {name!r} is not known")


class Node:
    """Inputs as Tensors, attributes with defaults, `set` for outputs; `b` appends operators."""

    def __init__(self, node: Any, builder: Builder, values: Values, source: Source, opset: int, walker: Any) -> None:
        self.node = node
        self.b = builder
        self.values = values
        self.source = source
        self.opset = opset
        self.walker = walker
        self.given = {a.name: a for a in node.attribute}

    @property
    def type(self) -> str:
        return str(self.node.op_type)

    # ---- inputs ------------------------------------------------------------------------------
    def has(self, i: int) -> bool:
        return i < len(self.node.input) and bool(self.node.input[i])

    def x(self, i: int = 0) -> Tensor:
        """Input number i, which must be there."""
        if not self.has(i):
            self.fail(f"input {i} is missing")
        found = self.values.find(self.node.input[i])
        if found.sort != "tensor":
            self.fail(f"input {i} is a sequence of tensors")
        return found

    def maybe(self, i: int) -> Tensor | None:
        return self.x(i) if self.has(i) else None

    def xs(self) -> list[Tensor]:
        """All inputs."""
        return [self.x(i) for i in range(len(self.node.input))]

    def const(self, i: int, what: str) -> np.ndarray[Any, Any]:
        """The array of input i, which must be known while importing."""
        found = self.x(i).const
        if found is None:
            self.fail(f"{what} (input {i}) must be a constant")
        return found

    def ints(self, i: int, what: str) -> list[int]:
        return [int(v) for v in self.const(i, what).reshape(-1)]

    # ---- attributes --------------------------------------------------------------------------
    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value; texts as str, tensors as arrays, graphs as they are."""
        a = self.given.get(name)
        if a is None:
            return default
        if a.type == onnx_package().AttributeProto.TENSOR:
            return self.source.array(a.t, f"attribute {name}")
        if a.type == onnx_package().AttributeProto.GRAPH:
            return a.g
        value = onnx_package().helper.get_attribute_value(a)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, list) and value and isinstance(value[0], bytes):
            return [v.decode("utf-8", "replace") for v in value]
        if default is not None and isinstance(value, list) != isinstance(default, (list, tuple)):
            self.fail(f"attribute {name} is {value!r}, expected something like {default!r}")
        return list(value) if isinstance(value, list) else value

    def need(self, name: str) -> Any:
        """An attribute without default."""
        value = self.attr(name)
        if value is None:
            self.fail(f"attribute {name} is missing")
        return value

    def axes(self, i: int = 1) -> list[int] | None:
        """Axes of a reduction or (un)squeeze: an attribute once, an input since opset 13 or 18."""
        if "axes" in self.given:
            return [int(a) for a in self.attr("axes")]
        return self.ints(i, "axes") if self.has(i) else None

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """An axis, counted from the front."""
        axis = int(self.attr(name, default))
        if not -rank <= axis < max(rank, 1):
            self.fail(f"{name} must be in [{-rank}, {rank - 1}], received {axis}")
        return axis % max(rank, 1)

    # ---- outputs -----------------------------------------------------------------------------
    def set(self, value: Tensor, i: int = 0) -> None:
        """Output number i is this value."""
        if i < len(self.node.output) and self.node.output[i]:
            self.values.table[self.node.output[i]] = value

    def wants(self, i: int) -> bool:
        return i < len(self.node.output) and bool(self.node.output[i])

    def op(self, type: str, inputs: dict[str, Any], attrs: dict[str, Any] | None = None, out: str = "") -> Tensor:
        """Append an operator; its variable is called like the node's output."""
        return self.b.op(type, inputs, attrs, out, self.hint)

    @property
    def hint(self) -> str:
        return str(self.node.output[0]) if self.node.output else self.type

    def fail(self, reason: str) -> NoReturn:
        raise UntranslatableError(reason)

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        return constant(np.asarray(value, dtype))
