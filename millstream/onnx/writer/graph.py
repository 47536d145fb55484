"""An ONNX graph under construction: values with what is known of them, nodes, constants, sub-graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from millstream.onnx._require import onnx_package
from millstream.onnx.fold import fold

_BOOLEAN = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}
)
_INDEX = frozenset({"Shape", "Size", "NonZero", "ArgMax", "ArgMin", "NonMaxSuppression"})
_SECOND = frozenset({"Where"})  # the result has the dtype of the second input
# Reductions whose axes became an input at opset 18 (ReduceSum's at 13).
_REDUCTIONS = frozenset({"ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                         "ReduceLogSumExp"})  # fmt: skip


class Value:
    """A tensor of the graph: its name, element type, dims as far as known (-1: not), and its array if constant."""

    __slots__ = ("_const", "dtype", "graph", "name", "shape", "sort")

    def __init__(
        self,
        graph: Graph,
        name: str,
        dtype: Any,
        shape: Sequence[int] | None = None,
        const: Any = None,
        sort: str = "tensor",
    ) -> None:
        self.graph = graph
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = None if shape is None else tuple(d if d > 0 else -1 for d in shape)
        self._const = const
        self.sort = sort  # or "sequence"

    @property
    def const(self) -> np.ndarray[Any, Any] | None:
        """The array of a constant (read now, if it is a parameter that nobody looked at)."""
        if callable(self._const):
            self._const = np.asarray(self._const())
        return self._const

    @property
    def is_const(self) -> bool:
        return self._const is not None

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"

    def _binary(self, op: str, other: Any, swap: bool = False) -> Value:
        graph = self.graph.active()
        right = graph.like(other, self.dtype)
        return graph.op(op, *((right, self) if swap else (self, right)))

    def __add__(self, other: Any) -> Value:
        return self._binary("Add", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Value:
        return self._binary("Sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._binary("Sub", other, True)

    def __mul__(self, other: Any) -> Value:
        return self._binary("Mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Value:
        return self._binary("Div", other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._binary("Div", other, True)

    def __lt__(self, other: Any) -> Value:
        return self._binary("Less", other)

    def __le__(self, other: Any) -> Value:
        return self._binary("LessOrEqual", other)

    def __gt__(self, other: Any) -> Value:
        return self._binary("Greater", other)

    def __ge__(self, other: Any) -> Value:
        return self._binary("GreaterOrEqual", other)

    def __and__(self, other: Any) -> Value:
        return self._binary("And", other)

    def __or__(self, other: Any) -> Value:
        return self._binary("Or", other)

    def __neg__(self) -> Value:
        return self.graph.active().op("Neg", self)

    def __invert__(self) -> Value:
        return self.graph.active().op("Not", self)


class _Shared:
    """What a graph and its sub-graphs share: names, constants, the opset, which graph is being written."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.names: set[str] = set()
        self.counts: dict[str, int] = {}
        self.initializers: dict[str, Value] = {}
        self.by_content: dict[tuple[Any, ...], Value] = {}
        self.stack: list[Graph] = []


class Graph:
    """Nodes in order. `op` adds one and gives its value; nodes over constants are evaluated instead."""

    def __init__(self, opset: int = 17, parent: Graph | None = None) -> None:
        self.parent = parent
        self.shared: _Shared = parent.shared if parent is not None else _Shared(opset)
        self.nodes: list[Any] = []
        self.hint = "value"
        self._memo: dict[Any, Any] = {}
        if parent is None:
            self.shared.stack.append(self)

    @property
    def opset(self) -> int:
        return self.shared.opset

    def active(self) -> Graph:
        """The innermost graph that is being written: values of an outer one may be used in it."""
        return self.shared.stack[-1]

    # ---- names -------------------------------------------------------------------------------
    def fresh(self, hint: str) -> str:
        """A name that no other value has."""
        shared = self.shared
        if hint not in shared.names:
            shared.names.add(hint)
            return hint
        while True:
            n = shared.counts[hint] = shared.counts.get(hint, 0) + 1
            name = f"{hint}.{n}"
            if name not in shared.names:
                shared.names.add(name)
                return name

    # ---- constants ---------------------------------------------------------------------------
    def const(self, value: Any, dtype: Any = None, hint: str = "const") -> Value:
        """A constant; equal small ones are one value."""
        array = np.asarray(value, dtype) if dtype is not None else np.asarray(value)
        if dtype is None and array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        key = None
        if array.size <= 64:
            key = (array.dtype.str, array.shape, array.tobytes())
            found = self.shared.by_content.get(key)
            if found is not None:
                return found
        made = Value(self, self.fresh(hint), array.dtype, array.shape, array)
        self.shared.initializers[made.name] = made
        if key is not None:
            self.shared.by_content[key] = made
        return made

    def ints(self, *values: Any) -> Value:
        """An int64 vector of numbers and one-element or scalar int64 Values."""
        parts: list[Any] = []
        for v in values:
            if isinstance(v, Value):
                parts.append(self.op("Reshape", self.cast(v, np.int64), self.const([-1], np.int64)))
            elif parts and isinstance(parts[-1], list):
                parts[-1].append(int(v))
            else:
                parts.append([int(v)])
        joined = [self.const(p, np.int64) if isinstance(p, list) else p for p in parts]
        if not joined:
            return self.const(np.zeros(0, np.int64))
        return joined[0] if len(joined) == 1 else self.op("Concat", *joined, axis=0)

    def like(self, value: Any, dtype: Any) -> Value:
        """`value` as a Value: numbers become constants of `dtype`."""
        return value if isinstance(value, Value) else self.const(np.asarray(value).astype(dtype))

    # ---- nodes -------------------------------------------------------------------------------
    def op(self, op_type: str, *inputs: Value | None, **attrs: Any) -> Value:
        """One node with one output; attributes as keywords (None: left out)."""
        return self.ops(op_type, 1, *inputs, **attrs)[0]

    def ops(
        self, op_type: str, count: int, *inputs: Value | None, dtypes: Iterable[Any] | None = None, **attrs: Any
    ) -> list[Value]:
        """One node with `count` outputs, of `dtypes` where these are not those of the first input."""
        given = {k: v for k, v in attrs.items() if v is not None}
        if op_type in _REDUCTIONS and self.opset >= 18 and "axes" in given:
            inputs = (*inputs, self.ints(*given.pop("axes")))
        kinds = list(dtypes) if dtypes is not None else [_result_dtype(op_type, inputs, given)] * count
        if count == 1 and inputs and all(v is None or v.is_const for v in inputs):
            found = fold(op_type, [None if v is None else v.const for v in inputs], given, trusted=True)
            if found is not None:
                return [self.const(found.astype(kinds[0]), hint=self.hint)]
        names = [self.fresh(self.hint) for _ in range(count)]
        self.add(op_type, [v.name if v is not None else "" for v in inputs], names, given)
        return [Value(self, name, kind) for name, kind in zip(names, kinds)]

    def add(self, op_type: str, inputs: list[str], outputs: list[str], attrs: dict[str, Any]) -> None:
        """A node by names."""
        while inputs and not inputs[-1]:
            inputs.pop()
        helper = onnx_package().helper
        shown = dict(attrs)
        if "value" in shown and isinstance(shown["value"], np.ndarray):
            shown["value"] = onnx_package().numpy_helper.from_array(shown["value"].reshape(-1)[:1])
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **shown))

    def cast(self, x: Value, dtype: Any) -> Value:
        """`x` as `dtype` (itself when it is)."""
        kind = np.dtype(dtype)
        if x.dtype == kind:
            return x
        if x.is_const:
            array = x.const
            assert array is not None
            return self.const(array.astype(kind), hint=self.hint)
        to = onnx_package().helper.np_dtype_to_tensor_dtype(kind)
        made = self.ops("Cast", 1, x, dtypes=[kind], to=int(to))[0]
        made.shape = x.shape
        return made

    # ---- shapes ------------------------------------------------------------------------------
    def shape(self, x: Value) -> Value:
        """The dims of `x`, int64 [rank]; a constant where they are known."""
        if x.shape is not None and all(d > 0 for d in x.shape):
            return self.const(x.shape, np.int64)
        key = ("shape", x.name)
        if key not in self._memo:
            self._memo[key] = self.op("Shape", x)
        return self._memo[key]

    def dim(self, x: Value, axis: int) -> Value:
        """One dim of `x`, int64 [1]."""
        if x.shape is not None and x.shape[axis] > 0:
            return self.const([x.shape[axis]], np.int64)
        key = ("dim", x.name, axis)
        if key not in self._memo:
            self._memo[key] = self.op("Gather", self.shape(x), self.const([axis], np.int64), axis=0)
        return self._memo[key]

    def remember(self, key: Any, make: Any) -> Any:
        """`make()`, once for each `key` in this graph or one around it."""
        graph: Graph | None = self
        while graph is not None:
            if key in graph._memo:
                return graph._memo[key]
            graph = graph.parent
        self._memo[key] = made = make()
        return made

    # ---- the usual nodes -----------------------------------------------------------------------
    def reshape(self, x: Value, *dims: Any) -> Value:
        """`x` with dims given as numbers (0: as before, one -1) or one-element Values."""
        made = self.op("Reshape", x, self.ints(*dims))
        if all(isinstance(d, int) and d > 0 for d in dims):
            made.shape = tuple(dims)
        return made

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        made = self.op("Transpose", x, perm=list(perm))
        if x.shape is not None:
            made.shape = tuple(x.shape[p] for p in perm)
        return made

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        return self.op("Unsqueeze", x, self.ints(*axes))

    def squeeze(self, x: Value, *axes: int) -> Value:
        return self.op("Squeeze", x, self.ints(*axes))

    def gather(self, x: Value, index: Any, axis: int = 0) -> Value:
        return self.op("Gather", x, self.like(index, np.int64), axis=axis)

    def slice(self, x: Value, axis: int, start: Any, end: Any, step: int = 1) -> Value:
        """Part of one axis; bounds are numbers or one-element Values."""
        return self.op("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        """`x` cut along `axis` into parts of `sizes`."""
        if len(sizes) == 1:
            return [x]
        if x.is_const:
            ends = np.cumsum(sizes)
            return [self.slice(x, axis, int(e - s), int(e)) for s, e in zip(sizes, ends)]
        return self.ops("Split", len(sizes), x, self.ints(*sizes), axis=axis)

    def reduce(self, kind: str, x: Value, axes: Sequence[int] | None, keep: bool = False) -> Value:
        """ReduceSum, ReduceMean, ReduceMax, …; axes None: all of them."""
        if kind == "ReduceSum":
            return self.op(kind, x, None if axes is None else self.ints(*axes), keepdims=int(keep))
        return self.op(kind, x, axes=None if axes is None else list(axes), keepdims=int(keep))

    def where(self, condition: Value, x: Any, y: Any) -> Value:
        kind = x.dtype if isinstance(x, Value) else y.dtype
        return self.op("Where", condition, self.like(x, kind), self.like(y, kind))

    def arange(self, count: Value) -> Value:
        """0, 1, … below `count` (int64 [1])."""
        return self.op("Range", self.const(0, np.int64), self.squeeze(count, 0), self.const(1, np.int64))

    def full(self, shape: Value, value: Any, dtype: Any) -> Value:
        """A tensor of `shape` (int64 vector) filled with a number."""
        kind = np.dtype(dtype)
        return self.ops("ConstantOfShape", 1, shape, dtypes=[kind], value=np.full(1, value, kind))[0]

    def expand(self, x: Value, *dims: Any) -> Value:
        return self.op("Expand", x, self.ints(*dims))

    # ---- sub-graphs ----------------------------------------------------------------------------
    def child(self) -> Graph:
        """A graph for a body or branch; values of this one may be used in it. Use as ``with graph.child() as body``."""
        return Graph(parent=self)

    def __enter__(self) -> Graph:
        self.shared.stack.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        self.shared.stack.pop()

    def input(self, name: str, dtype: Any, shape: Sequence[int] | None = None, sort: str = "tensor") -> Value:
        """A value that comes from outside (graph or body input)."""
        return Value(self, self.fresh(name), dtype, shape, None, sort)

    def proto(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The GraphProto over value infos."""
        return onnx_package().helper.make_graph(self.nodes, name, inputs, outputs)

    def identity(self, x: Value, name: str | None = None) -> Value:
        """A value of its own in this graph (outputs of a body must be its own), called `name` if given."""
        made = Value(self, name or self.fresh(self.hint), x.dtype, x.shape, None, x.sort)
        self.add("Identity", [x.name], [made.name], {})
        return made

    def info(self, x: Value, dims: Sequence[Any] | None = None) -> Any:
        """The value info of `x`, with `dims` (numbers, names) where its shape is to be stated."""
        helper = onnx_package().helper
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        if x.sort == "sequence":
            return helper.make_tensor_sequence_value_info(x.name, kind, None)
        return helper.make_tensor_value_info(x.name, kind, dims)


def _result_dtype(op_type: str, inputs: Sequence[Value | None], attrs: dict[str, Any]) -> Any:
    if op_type in _BOOLEAN:
        return np.bool_
    if op_type in _INDEX:
        return np.int64
    if op_type == "ConstantOfShape" and "value" in attrs:
        return attrs["value"].dtype
    first = inputs[1] if op_type in _SECOND else next((v for v in inputs if v is not None), None)
    return first.dtype if first is not None else np.float32
