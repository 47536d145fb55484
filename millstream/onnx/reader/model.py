"""An ONNX model as a Program that can be run, fine-tuned and saved."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import FileFormatError, MillstreamError, NotSupportedError
from millstream.ir import walk
from millstream.ir.program import Program
from millstream.onnx.fold import fold
from millstream.onnx.reader import families as _families
from millstream.onnx.reader.build import Builder
from millstream.onnx.reader.checks import check_model, node_title
from millstream.onnx.reader.families.control import steps as recurrence
from millstream.onnx.reader.families.sequence import overwrites, sequence_replace
from millstream.onnx.reader.file import Source, open_model
from millstream.onnx.reader.functions import bound, definition
from millstream.onnx.reader.node import TRANSLATORS, Node, UntranslatableError, Values
from millstream.onnx.reader.values import Tensor, constant
from millstream.runtime import stored
from millstream.runtime.scope import Scope, global_scope

assert _families


# What arithmetic over a node's own numbers may raise when they do not fit each other.
_MISFITS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


class OnnxModel:
    """What :func:`load` gives.

    Attributes:
        program: in inference form (batch_norm and dropout as in tests).
        values: the parameters by name.
        feed_names, fetch_names: in the order of the ONNX model.
        metadata: the model's own key and value texts.
    """

    def __init__(
        self, program: Program, values: dict[str, Any], feeds: list[str], fetches: list[str], metadata: dict[str, str]
    ) -> None:
        self.program = program
        self.values = values
        self.feed_names = feeds
        self.fetch_names = fetches
        self.metadata = metadata

    @property
    def fetch_vars(self) -> list[Any]:
        """The Variables of `fetch_names`."""
        return [self.program.global_block().var(name) for name in self.fetch_names]

    def initialize(self, scope: Scope | None = None) -> None:
        """Put the parameters into a scope (the current one), as running a startup program would."""
        stored.assign_array(scope if scope is not None else global_scope(), self.values)

    def training_program(self) -> Program:
        """A copy whose batch_norm and dropout work as in training; ``clone(for_test=True)`` gives it back."""
        copy = walk.clone(self.program)
        for op in walk.all_ops(copy):
            if op.has_attr("is_test"):
                op._set_attr("is_test", False)
        return copy


class Walker:
    """Translates the nodes of a graph, and of the bodies in it."""

    def __init__(self, source: Source, builder: Builder, opset: int) -> None:
        self.source = source
        self.builder = builder
        self.opset = opset

    def nodes(self, graph: Any, values: Values) -> None:
        gone, replaced = overwrites(graph)
        for i, proto in enumerate(graph.node):
            if i in replaced:
                values.table[proto.input[0]] = values.find(replaced[i])
                self.node(proto, values, sequence_replace)
            elif i not in gone:
                self.node(proto, values)

    def constants(self, graph: Any, values: Values) -> None:
        """The initializers of a graph."""
        for tensor in graph.initializer:
            values.table[tensor.name] = Tensor(
                None, *self._constant(self.source.array(tensor, f"initializer {tensor.name!r}"))
            )

    @staticmethod
    def _constant(array: np.ndarray[Any, Any]) -> tuple[Any, tuple[int, ...], Any]:
        return array.dtype, array.shape, array

    @staticmethod
    def steps(node: Node, xs: Tensor, first: Tensor, step: Any) -> Tensor:
        """All states of a recurrence over dim 0 of `xs` (families/control.py)."""
        return recurrence(node, xs, first, step)

    def node(self, proto: Any, values: Values, known: Any = None) -> None:
        title = node_title(proto)
        try:
            if proto.domain not in ("", "ai.onnx"):
                raise UntranslatableError(f"operators of domain {proto.domain!r} are not known here")
            translator = known or TRANSLATORS.get(proto.op_type)
            if translator is None:
                self._defined(proto, values)
                return
            node = Node(proto, self.builder, values, self.source, self.opset, self)
            if not self._folded(node):
                translator(node)
        except UntranslatableError as reason:
            raise NotSupportedError(f"{self.source.name}: {title} can't be imported: {reason}") from None
        except MillstreamError as error:
            if str(error).startswith(f"{self.source.name}: "):
                raise  # a node of a body has said it
            raise FileFormatError(f"{self.source.name}: {title}: {error}") from error
        except _MISFITS as e:
            raise FileFormatError(
                f"{self.source.name}: {title} does not fit its inputs ({type(e).__name__}: {str(e)[:200]})"
            ) from e

    def _defined(self, proto: Any, values: Values) -> None:
        """An operator without a translator, by ONNX's own definition in other operators."""
        inputs = [values.find(name) if name else None for name in proto.input]
        function = definition(proto, self.opset, inputs)
        if function is None:
            raise UntranslatableError("no composition of Fluid operators is known for this ONNX operator")
        inside = Values()
        inside.table = {name: t for name, t in zip(function.input, inputs) if t is not None}
        versions = {entry.domain: entry.version for entry in function.opset_import}
        walker = Walker(self.source, self.builder, versions.get("", self.opset))
        for node in bound(function, proto):
            walker.node(node, inside)
        for inner, outer in zip(function.output, proto.output):
            if outer:
                values.table[outer] = inside.find(inner)

    def _folded(self, node: Node) -> bool:
        """Evaluate a node of one output over constants."""
        if len(node.node.output) != 1 or not node.node.input or any(a.HasField("g") for a in node.node.attribute):
            return False
        arrays = []
        for name in node.node.input:
            value = node.values.find(name) if name else None
            if value is not None and value.const is None:
                return False
            arrays.append(None if value is None else value.const)
        attrs = {name: node.attr(name) for name in node.given}
        found = fold(node.type, arrays, attrs)
        if found is None:
            return False
        node.set(constant(found))
        return True


def _feed(source: Source, builder: Builder, info: Any) -> Tensor:
    kind = info.type
    if not kind.HasField("tensor_type"):
        raise NotSupportedError(f"{source.name}: input {info.name!r} is no tensor ({kind.WhichOneof('value')})")
    tensor = kind.tensor_type
    dtype = source.dtype(tensor.elem_type, f"input {info.name!r}")
    if not tensor.HasField("shape"):
        raise NotSupportedError(f"{source.name}: the rank of input {info.name!r} is not known; give it a shape")
    dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in tensor.shape.dim]
    if any(d > 2**31 for d in dims) or len(dims) > 32:
        raise source.fail(f"input {info.name!r} has dims {dims[:8]}")
    name = info.name if info.name not in builder.block.vars else builder.fresh(info.name)
    var = builder.block.create_var(name=name, shape=dims or [1], dtype=dtype.name, is_data=True, stop_gradient=True)
    var.need_check_feed = True
    return Tensor(name, dtype, tuple(dims))


def load(path_or_bytes: Any) -> OnnxModel:
    """Read an ONNX model (a path, bytes, or a ModelProto) as a Program of Fluid operators.

    Nothing of the file is run or unpickled; external tensors are read from the model's own folder only.

    Raises:
        MissingFileError: no such file (or external tensor). FileFormatError: damaged or malformed (names the node).
        NotSupportedError: a node that Fluid's operators can't express (names it), or the package onnx is missing.
    """
    source = open_model(path_or_bytes)
    opset = check_model(source)
    graph = source.model.graph
    builder, values = Builder(Program()), Values()
    walker = Walker(source, builder, opset)
    constants = {t.name for t in graph.initializer}
    feeds = []
    for info in graph.input:
        if info.name not in constants:
            values.table[info.name] = _feed(source, builder, info)
            feeds.append(values.table[info.name].name)
    walker.constants(graph, values)
    walker.nodes(graph, values)
    fetches = [_fetch(source, builder, values, info.name) for info in graph.output]
    walk.set_is_test(builder.program)
    _drop_unused(builder, fetches)
    metadata = {entry.key: entry.value for entry in source.model.metadata_props}
    return OnnxModel(builder.program, builder.values, feeds, fetches, metadata)  # type: ignore[arg-type]


def _fetch(source: Source, builder: Builder, values: Values, name: str) -> str:
    """The variable of a graph output, which is called like it where nothing else is."""
    value = values.find(name)
    if value.sort != "tensor":
        raise NotSupportedError(f"{source.name}: output {name!r} is a sequence of tensors")
    variable = builder.variable(value)
    block = builder.block
    taken = block.vars.get(name)
    if variable == name and not block.vars[variable].is_data and not block.vars[variable].persistable:
        return name
    out = block.create_var(name=name if taken is None else builder.fresh(name + "_out"))
    block.append_op(type="assign", inputs={"X": [variable]}, outputs={"Out": [out]})
    return out.name


def _drop_unused(builder: Builder, fetches: list[str]) -> None:
    """Take out operators that no output needs, and parameters that no operator reads."""
    root = builder.program.global_block()
    root.ops = walk.needed_ops(root, fetches)
    read = {n for op in root.ops for n in (*walk.reads_of(op), *walk.writes_of(op))} | set(fetches)
    for name in [n for n, v in root.vars.items() if n not in read and not v.is_data]:
        del root.vars[name]
        builder.values.pop(name, None)
    builder.program._touch()
