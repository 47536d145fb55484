"""A Program as an ONNX model: feeds become graph inputs, parameters initializers, operators nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError, NotSupportedError, UninitializedError
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.operator import ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.onnx._require import onnx_package
from millstream.onnx.writer import families as _families
from millstream.onnx.writer.emission import Emission, Env, RefusedError, emitter_of, numpy_dtype
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.reasons import REASONS
from millstream.ops import REGISTRY

assert _families
OPSETS = range(17, 23)
Values = Callable[[str], Any] | Mapping[str, Any]


def lod_name(name: str, level: int) -> str:
    """The graph input or output with the offsets of LoD level `level` of variable `name`."""
    return f"{name}.lod{level}"


class Writer:
    """Writes one Program; collects what can't be said when `refused` is a list, else raises at once."""

    def __init__(self, program: Program, values: Values | None, opset: int, refused: list[Any] | None = None) -> None:
        self.program = program
        self.values = values
        self.graph = Graph(opset)
        self.env = Env()
        self.refused = refused
        self.inputs: list[tuple[Value, list[Any]]] = []
        self.linear: dict[str, Any] = {}  # products with a matrix, by the name of their value (families/recurrent.py)
        self.results: set[str] = set()
        self._read: set[str] | None = None

    # ---- ends --------------------------------------------------------------------------------
    def feed(self, name: str) -> None:
        """A graph input for `name`, and one for each LoD level it has."""
        var = self._variable(name, "feed")
        dims = [d if d > 0 else f"{name}_{i}" for i, d in enumerate(var.shape)]
        value = self.graph.input(name, numpy_dtype(var.dtype), var.shape)
        self.inputs.append((value, dims))
        lods = []
        for level in range(var.lod_level):
            offsets = self.graph.input(lod_name(name, level), np.int64, [-1])
            self.inputs.append((offsets, [f"{name}_offsets{level}"]))
            lods.append(offsets)
        self.env.bind(name, value, lods)

    def _variable(self, name: str, what: str) -> Variable:
        var = self.program.global_block()._find_var_recursive(name)
        if var is None:
            raise InvalidProgramError(f"onnx export: {what} {name!r} is not a variable of the program")
        if var.type is not VarType.LOD_TENSOR:
            raise NotSupportedError(f"onnx export: {what} {name!r} is a {var.type.name}; only tensors can be {what}ed")
        return var

    def parameter(self, name: str, block: Block) -> None:
        """Bind the constant that persistable variable `name` is, unless it has a value already."""
        if self.env.find(name) is not None:
            return
        var = block._find_var_recursive(name)
        if var is None or not var.persistable or var.type is not VarType.LOD_TENSOR:
            return
        const: Any = None
        if self.values is not None:
            const = lambda: _array(self.values, name)  # noqa: E731
        value = Value(self.graph, self.graph.fresh(name), numpy_dtype(var.dtype), var.shape, const)
        if const is None:
            self.inputs.append((value, list(var.shape)))
        else:
            array = value.const
            assert array is not None
            value.shape, value.dtype = array.shape, array.dtype
            self.graph.shared.initializers[value.name] = value
        self.env.bind(name, value)

    # ---- operators ---------------------------------------------------------------------------
    def block(self, ops: Iterable[Operator], graph: Graph, env: Env) -> None:
        """Write operators into `graph`."""
        for op in ops:
            if op.type not in ("feed", "fetch"):
                self.operator(op, graph, env)

    def operator(self, op: Operator, graph: Graph, env: Env) -> None:
        try:
            emitter = self._emitter(op)
            for name in walk.reads_of(op):
                self.parameter(name, op.block)
            outs = op.output_arg_names
            graph.hint = outs[0] if outs else op.type
            emitter(Emission(op, graph, env, self))
        except RefusedError as reason:
            if self.refused is None:
                raise NotSupportedError(refusal_text(op, str(reason))) from None
            self.refused.append((op, str(reason)))
            self._stand_in(op, graph, env)

    def _emitter(self, op: Operator) -> Any:
        emitter = emitter_of(op.type)
        if emitter is not None:
            return emitter
        definition = REGISTRY.find(op.type)
        if definition is None:
            raise RefusedError("no such operator is declared")
        forward = REGISTRY.forward_type(op.type)
        training = op.role & (ROLE_BACKWARD | ROLE_OPTIMIZE) or ".optim." in definition.kernel.__module__
        if training or (forward is not None and forward in REGISTRY):
            raise RefusedError("it belongs to training; export the test program (clone(for_test=True))")
        raise RefusedError(REASONS.get(op.type, "no composition of ONNX operators is known for it"))

    def _stand_in(self, op: Operator, graph: Graph, env: Env) -> None:
        """Something for the outputs of a refused operator, so that those after it can be judged."""
        for name in op.output_arg_names:
            var = op.block._find_var_recursive(name)
            if var is None or var.type not in (VarType.LOD_TENSOR, VarType.LOD_TENSOR_ARRAY):
                continue
            kind = numpy_dtype(var.dtype) if var.dtype is not VarType.BF16 else np.float32
            sort = "tensor" if var.type is VarType.LOD_TENSOR else "sequence"
            value = graph.input(name, kind, var.shape if var.has_shape else None, sort)
            lods = [graph.input(lod_name(name, k), np.int64, [-1]) for k in range(var.lod_level)]
            env.bind(name, value, lods)

    def used(self, names: Sequence[str]) -> bool:
        """Whether an operator reads one of `names`, or it is a result."""
        if self._read is None:
            self._read = {n for block in self.program.blocks for op in block.ops for n in op.input_arg_names}
        return any(n in self._read or n in self.results for n in names)

    # ---- results -----------------------------------------------------------------------------
    def fetch(self, name: str) -> list[Any]:
        """Value infos of the graph outputs for `name`: its values, then the offsets of its LoD levels."""
        value = self.env.find(name)
        if value is None:
            self.parameter(name, self.program.global_block())
            value = self.env.find(name)
        if value is None:
            raise InvalidProgramError(f"onnx export: fetch {name!r} is neither computed nor a parameter of the program")
        if value.sort != "tensor":
            raise NotSupportedError(f"onnx export: fetch {name!r} is an array of tensors; fetch a tensor made of it")
        outs = []
        for part, out in [(value, name), *((v, lod_name(name, k)) for k, v in enumerate(self.env.lod(name)))]:
            made = self.graph.identity(part, self._output_name(out))
            rank = part.shape or (self.program.global_block().var(name).shape if part is value else (-1,))
            # a variable without dims is one whose shape nobody knows: a tensor has at least one
            dims = [d if d > 0 else f"{out}_{i}" for i, d in enumerate(rank)] or None
            outs.append(self.graph.info(made, dims))
        return outs

    def reserve(self, fetches: Sequence[str]) -> None:
        """Keep the names of the results (and of their offsets) from values inside the graph."""
        block = self.program.global_block()
        self.results.update(fetches)
        for name in fetches:
            level = block.var(name).lod_level
            self.graph.shared.names.update([name, *(lod_name(name, k) for k in range(max(level, 3)))])

    def _output_name(self, name: str) -> str:
        """`name` for an output, unless an input has it: a feed that is fetched comes out by another."""
        return self.graph.fresh(name + "_out") if name in {v.name for v, _ in self.inputs} else name

    def finish(self, outputs: list[Any], doc: str) -> Any:
        """The ModelProto with what the outputs need."""
        onnx = onnx_package()
        graph = self.graph
        graph.nodes = _needed(graph.nodes, {o.name for o in outputs})
        used = _used(graph.nodes)
        proto = graph.proto("millstream", [graph.info(v, dims) for v, dims in self.inputs], outputs)
        opset = onnx.helper.make_opsetid("", graph.opset)
        model = onnx.helper.make_model(proto, opset_imports=[opset], producer_name="millstream", doc_string=doc)
        model.ir_version = onnx.helper.find_min_ir_version_for([opset])
        for value in graph.shared.initializers.values():
            if value.name in used:  # put in last: what is copied must stay below protobuf's 2 GB
                _fill(model.graph.initializer.add(), value)
        return model


def _fill(tensor: Any, value: Value) -> None:
    """A TensorProto of a constant."""
    array = np.asarray(value.const, order="C")
    tensor.name = value.name
    tensor.dims.extend(array.shape)
    tensor.data_type = onnx_package().helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def refusal_text(op: Operator, reason: str) -> str:
    """Why an operator can't be exported: which one, over which variables, where it was made."""
    where = f" (made at {op.site})" if op.site is not None else ""
    outs = ", ".join(op.output_arg_names[:3])
    return f"onnx export: operator {op.type} -> {outs}{where} can't be written as ONNX: {reason}"


def _array(values: Any, name: str) -> np.ndarray[Any, Any]:
    """The array of parameter `name`, out of a function, a mapping or a Scope."""
    found = values.get(name) if isinstance(values, Mapping) else None
    if found is None and hasattr(values, "find_var"):
        var = values.find_var(name)
        found = None if var is None else var.load()[0]
    elif found is None and callable(values):
        found = values(name)
    if found is None:
        raise UninitializedError(f"onnx export: parameter {name!r} has no value; run the startup program or load it first")
    if hasattr(found, "detach"):
        found = found.detach().cpu().numpy()
    return np.asarray(found)


def _bodies(node: Any) -> list[Any]:
    return [a.g for a in node.attribute if a.HasField("g")]


def _used(nodes: Iterable[Any]) -> set[str]:
    """Every name that nodes and the bodies in them read."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for body in _bodies(node):
            found |= _used(body.node)
            found.update(o.name for o in body.output)
    return found


def _needed(nodes: Sequence[Any], targets: set[str]) -> list[Any]:
    """The nodes, in order, that `targets` depend on."""
    need = set(targets)
    kept = []
    for node in reversed(nodes):
        if need.intersection(node.output):
            kept.append(node)
            need |= _used([node])
    kept.reverse()
    return kept


def write(
    program: Program,
    feeds: Sequence[str],
    fetches: Sequence[str],
    values: Values | None,
    opset: int,
    refused: list[Any] | None = None,
) -> Any:
    """The ModelProto of what `fetches` need; with a list `refused`, only what can't be said, appended to it."""
    if opset not in OPSETS:
        raise NotSupportedError(f"onnx export: opset must be one of {OPSETS.start} to {OPSETS.stop - 1}, received {opset}")
    writer = Writer(program, values, opset, refused)
    for name in feeds:
        writer.feed(name)
    root = program.global_block()
    if refused is not None:
        writer.block(root.ops, writer.graph, writer.env)
        return None
    for name in fetches:
        writer._variable(name, "fetch")
    writer.reserve(fetches)
    writer.block(walk.needed_ops(root, fetches, set(feeds) - set(fetches)), writer.graph, writer.env)
    outputs = [info for name in fetches for info in writer.fetch(name)]
    return writer.finish(outputs, f"{len(root.ops)} Fluid operators")
