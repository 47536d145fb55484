"""Building the Program: variables and parameters by name, operators one after another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.ir.block import Block
from millstream.ir.program import Program
from millstream.ir.types import VarType, to_var_type
from millstream.onnx.reader.values import Tensor, constant
from millstream.ops import REGISTRY

_SMALL = 64  # a constant up to this size is an assign_value operator, not a file of its own
_VALUE_LISTS = {np.bool_: "bool_values", np.int32: "int32_values", np.int64: "int64_values", np.float32: "fp32_values"}


class Builder:
    """Appends to one Block of a Program; parameters go into its global Block, their values into `values`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.block: Block = program.global_block()
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        self.made: dict[tuple[int, int], Tensor] = {}  # variables of constants, by array and Block
        self.names: set[str] = set()
        self.counts: dict[str, int] = {}
        self.kept: list[Any] = []  # arrays whose identity `made` knows

    # ---- names -------------------------------------------------------------------------------
    def fresh(self, hint: str) -> str:
        """A variable name that no Block has; parameters are files, so it is a file name too."""
        base = re.sub(r"[^A-Za-z0-9_.@-]+", "_", hint).strip("_.")[:120] or "value"
        name, n = base, self.counts.get(base, 0)
        while name in self.names or any(name in b.vars for b in self.program.blocks):
            n += 1
            name = f"{base}_{n}"
        self.counts[base] = n
        self.names.add(name)
        return name

    # ---- constants -----------------------------------------------------------------------------
    def variable(self, t: Tensor, trainable: bool = True, hint: str = "constant") -> str:
        """The variable of a value; a constant becomes a parameter (floats) or an operator (small integers)."""
        if t.name is not None:
            return t.name
        array = t.const
        assert array is not None
        if array.dtype.kind == "f" and array.size > 1 and array.size > 0:
            t.name = self.parameter(array, hint, trainable)
            return t.name
        key = (id(array), self.block.idx)
        if key in self.made:
            found = self.made[key].name
            assert found is not None
            return found
        made = self.assigned(array, hint)
        self.made[key] = made
        self.kept.append(array)
        assert made.name is not None
        return made.name

    def parameter(self, array: np.ndarray[Any, Any], hint: str, trainable: bool = True) -> str:
        """A new Parameter with this value."""
        name = self.fresh(hint)
        shape = array.shape or (1,)
        if array.dtype.kind == "f" and min(shape) > 0:
            self.block.create_parameter(name=name, shape=shape, dtype=array.dtype.name, trainable=trainable)
            if not trainable:
                self.program.global_block().vars[name].stop_gradient = True
        else:
            root = self.program.global_block()
            root.create_var(name=name, shape=shape, dtype=array.dtype.name, persistable=True, stop_gradient=True)
        self.values[name] = np.ascontiguousarray(array).reshape(shape)
        return name

    def assigned(self, array: np.ndarray[Any, Any], hint: str = "constant") -> Tensor:
        """A constant as an operator of its own, or (large ones, odd types) as a persistable variable."""
        field = _VALUE_LISTS.get(array.dtype.type)
        if field is None or array.size > _SMALL or array.size == 0:
            if array.size == 0:
                return self.empty(array)
            return Tensor(self.parameter(array, hint, False), array.dtype, array.shape)
        attrs = {"shape": list(array.shape or (1,)), "dtype": int(to_var_type(array.dtype.name))}
        made = self.op("assign_value", {}, attrs | {field: array.reshape(-1).tolist()}, hint=hint)
        made.shape = array.shape
        return made

    def empty(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor without elements."""
        attrs = {"shape": [int(d) for d in array.shape], "dtype": int(to_var_type(array.dtype.name)), "value": 0.0}
        made = self.op("fill_constant", {}, attrs)
        made.shape = array.shape
        return made

    # ---- operators ---------------------------------------------------------------------------
    def forget(self, first: int) -> None:
        """Take back the Blocks from number `first` on, and what is known of variables in them."""
        del self.program.blocks[first:]
        self.made = {key: t for key, t in self.made.items() if key[1] < first}

    def ops(
        self,
        type: str,
        inputs: dict[str, Any],
        attrs: dict[str, Any] | None = None,
        outs: Sequence[str] | dict[str, int] | None = None,
        hint: str = "",
    ) -> list[Tensor]:
        """Append an operator; inputs are Tensors (or lists of them) by slot; the wanted outputs, in order."""
        slots = {
            slot: [self.variable(t) for t in (given if isinstance(given, list) else [given])]
            for slot, given in inputs.items()
            if given is not None
        }
        definition = REGISTRY.get(type)
        wanted = outs if outs is not None else [s.name for s in definition.outputs if not s.intermediate][:1]
        counts = wanted if isinstance(wanted, dict) else dict.fromkeys(wanted, 1)
        made: dict[str, list[Any]] = {}
        for slot in definition.outputs:
            n = counts.get(slot.name, 0 if slot.optional or slot.many else 1)
            if n:
                made[slot.name] = [self.block.create_var(name=self.fresh(hint or type)) for _ in range(n)]
        self.block.append_op(type=type, inputs=slots, outputs=made, attrs=attrs or {})
        found = []
        for slot_name in counts:
            for var in made[slot_name]:
                found.append(self.tensor(var.name))
        return found

    def op(
        self, type: str, inputs: dict[str, Any], attrs: dict[str, Any] | None = None, out: str = "", hint: str = ""
    ) -> Tensor:
        """Append an operator with one wanted output."""
        return self.ops(type, inputs, attrs, [out] if out else None, hint)[0]

    def tensor(self, name: str) -> Tensor:
        """The value of a variable, with what shape inference said of it."""
        var = self.block._var_recursive(name)
        kind = np.float32 if var.dtype is VarType.BF16 else np.dtype(_NAMES[var.dtype])
        return Tensor(name, kind, tuple(d if d > 0 else -1 for d in var.shape))

    # ---- the usual operators -------------------------------------------------------------------
    def cast(self, x: Tensor, dtype: Any) -> Tensor:
        kind = np.dtype(dtype)
        if x.dtype == kind:
            return x
        if x.const is not None:
            with np.errstate(all="ignore"):
                return constant(x.const.astype(kind))
        numbers = {"in_dtype": int(to_var_type(x.dtype.name)), "out_dtype": int(to_var_type(kind.name))}
        made = self.op("cast", {"X": x}, numbers)
        made.shape, made.elements = x.shape, x.elements
        return made

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Dims by number: 0 as before, one -1."""
        if x.const is not None:
            dims = [x.const.shape[i] if d == 0 else d for i, d in enumerate(shape)]
            return constant(x.const.reshape(dims))
        made = self.op("reshape2", {"X": x}, {"shape": [int(d) for d in shape] or [1]})
        if not shape:
            made.shape = ()
        return made

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        if x.const is not None:
            return constant(np.transpose(x.const, perm))
        return self.op("transpose2", {"X": x}, {"axis": [int(p) for p in perm]})

    def binary(self, kind: str, x: Tensor, y: Tensor) -> Tensor:
        """An elementwise operator with numpy's broadcast."""
        made = self.op(kind, {"X": x, "Y": y}, {"axis": -1})
        if x.scalar and y.scalar:
            made.shape = ()
        return made

    def scale(self, x: Tensor, scale: float = 1.0, bias: float = 0.0) -> Tensor:
        made = self.op("scale", {"X": x}, {"scale": float(scale), "bias": float(bias), "bias_after_scale": True})
        made.shape = x.shape
        return made

    def dims(self, x: Tensor) -> Tensor:
        """The dims of a value, int64 [rank]."""
        return self.cast(self.op("shape", {"Input": x}), np.int64)

    def dim(self, x: Tensor, axis: int) -> Tensor:
        """One dim, int64 [1]."""
        if x.shape[axis] > 0:
            return constant(np.array([x.shape[axis]], np.int64))
        return self.op("slice", {"Input": self.dims(x)}, {"axes": [0], "starts": [axis], "ends": [axis + 1]})


_NAMES = {
    VarType.BOOL: "bool",
    VarType.INT16: "int16",
    VarType.INT32: "int32",
    VarType.INT64: "int64",
    VarType.FP16: "float16",
    VarType.FP32: "float32",
    VarType.FP64: "float64",
    VarType.UINT8: "uint8",
    VarType.INT8: "int8",
}
