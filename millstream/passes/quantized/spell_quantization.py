"""quantize_linear and dequantize_linear -> Fluid's own arithmetic, for PaddlePaddle, which has none of them."""

from __future__ import annotations

from typing import Any

from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, Operator
from millstream.ir.types import VarType
from millstream.ops.quant import INTEGERS
from millstream.passes._pass import program_pass
from millstream.passes._work import Work


@program_pass("spell_quantization")
def spell_quantization(work: Work) -> int:
    """Counts operators replaced. Fluid rounds halves away from zero where ONNX takes the even number."""
    changes = 0
    for block in work.blocks:
        made: list[Operator] = []
        for op in block.ops:
            if op.type == "quantize_linear":
                made += _Spelling(work, block, op).quantize()
            elif op.type == "dequantize_linear":
                made += _Spelling(work, block, op).dequantize()
            else:
                made.append(op)
                continue
            changes += 1
        if len(made) > len(block.ops):
            block.ops = made
            work.program._touch()
    return changes


class _Spelling:
    def __init__(self, work: Work, block: Block, op: Operator) -> None:
        self.work, self.block, self.op = work, block, op
        self.floats: VarType = block._var_recursive(op.input("Scale")[0]).dtype
        self.ops: list[Operator] = []

    def step(self, kind: str, inputs: dict[str, list[str]], out: str = "", **attrs: Any) -> str:
        name = out or self.work.declare(self.block, self.op.output("Y")[0], dtype=attrs.get("out_dtype", self.floats))
        given = {k: int(v) if isinstance(v, VarType) else v for k, v in attrs.items()}
        given[OP_ROLE] = self.op.role
        self.ops.append(Operator(self.block, kind, inputs, {"Out": [name]}, given, self.op.site))
        return name

    def cast(self, name: str, kind: VarType, out: str = "") -> str:
        before = self.block._var_recursive(name).dtype
        return self.step("cast", {"X": [name]}, out, in_dtype=before, out_dtype=kind)

    def with_number(self, kind: str, x: str, slot: str, out: str = "") -> str:
        """Elementwise with Scale or ZeroPoint, which is one number or lies along the operator's axis."""
        name = self.op.input(slot)[0]
        var = self.block._var_recursive(name)
        axis = -1 if tuple(var.shape) in ((1,), ()) else self.op.attr("axis")
        if var.dtype is not self.floats:
            name = self.step("cast", {"X": [name]}, self.like(name), in_dtype=var.dtype, out_dtype=self.floats)
        return self.step(kind, {"X": [x], "Y": [name]}, out, axis=axis)

    def like(self, name: str) -> str:
        return self.work.declare(self.block, name, dtype=self.floats)

    def quantize(self) -> list[Operator]:
        """round(X / Scale) + ZeroPoint, clipped."""
        kind = VarType(self.op.attr("dtype"))
        low, high = INTEGERS[kind]
        whole = self.step("round", {"X": [self.with_number("elementwise_div", self.op.input("X")[0], "Scale")]})
        if self.op.input("ZeroPoint"):
            whole = self.with_number("elementwise_add", whole, "ZeroPoint")
        self.cast(self.step("clip", {"X": [whole]}, min=float(low), max=float(high)), kind, self.op.output("Y")[0])
        return self.ops

    def dequantize(self) -> list[Operator]:
        """(X - ZeroPoint) * Scale."""
        value = self.cast(self.op.input("X")[0], self.floats)
        if self.op.input("ZeroPoint"):
            value = self.with_number("elementwise_sub", value, "ZeroPoint")
        self.with_number("elementwise_mul", value, "Scale", self.op.output("Y")[0])
        return self.ops
