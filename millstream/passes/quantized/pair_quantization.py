"""Frozen quantization of Fluid -> quantize_linear and dequantize_linear, which engines compute in integers.

    fake_quantize(X) -> product with a weight of whole numbers -> fake_dequantize

becomes the product of dequantize_linear(quantize_linear(X)) and dequantize_linear(weight as int8). ONNX rounds halves to
even numbers and cuts at -128, Fluid rounds them away from zero and cuts at -127: single numbers differ by a step.
"""

from __future__ import annotations

import torch

from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, Operator
from millstream.ir.types import VarType
from millstream.passes._evaluate import renamed
from millstream.passes._pass import program_pass
from millstream.passes._work import Work

# product -> slots of the activation, the weight and the result, and the weight's dim that results' channels come from
_PRODUCTS = {
    "conv2d": ("Input", "Filter", "Output", 0), "depthwise_conv2d": ("Input", "Filter", "Output", 0),
    "mul": ("X", "Y", "Out", 1),
}  # fmt: skip
_LEARNED = ("fake_quantize_range_abs_max", "fake_quantize_moving_average_abs_max")
_BOTH = "fake_quantize_dequantize_moving_average_abs_max"
_BACK = ("fake_dequantize_max_abs", "fake_channel_wise_dequantize_max_abs")
_BITS, _LARGEST = 8, 127


@program_pass("pair_quantization")
def pair_quantization(work: Work) -> int:
    """Counts products, and roundings without one, that got pairs."""
    changes = 0
    for block in work.blocks:
        if any(op.type in (*_LEARNED, _BOTH) for op in block.ops):
            changes += _Rewriting(work, block).run()
    return changes


class _RefusedError(Exception):
    """Why a place stays as it is."""


class _Rewriting:
    def __init__(self, work: Work, block: Block) -> None:
        self.work, self.block, self.uses = work, block, work.uses(block)
        self.pairs: dict[str, str] = {}  # what rounds to whole numbers -> its result as floats again
        self.scales: dict[str, str] = {}

    def run(self) -> int:
        """Counts places."""
        ops, changes, gone = list(self.block.ops), 0, set()
        made: list[list[Operator]] = [[op] for op in ops]
        for at, op in enumerate(ops):
            try:
                if op.type == _BOTH:
                    made[at] = self._pair(op, at, op.output("Out")[0])
                elif op.type in _BACK:
                    product, made[at] = self._scaled_back(op, at)
                    gone |= {product} - {at}
                else:
                    continue
                changes += 1
            except _RefusedError as why:
                self.work.refuse("pair_quantization", op, str(why))
        if changes:
            kept = [new for at, group in enumerate(made) if at not in gone for new in group]
            read = {n for op in kept for n in op.input_arg_names}
            self.block.ops = [op for op in kept if op.type not in _LEARNED or self._is_used(op.output("Out")[0], read)]
            self.work.program._touch()
        return changes

    def _is_used(self, name: str, read: set[str]) -> bool:
        return name in read or self.uses.seen_outside(name)

    # ---- places ------------------------------------------------------------------------------------
    def _scaled_back(self, op: Operator, at: int) -> tuple[int, list[Operator]]:
        """The position of the product (of `op` itself: there is none) and what stands for both."""
        name = op.input("X")[0]
        p = self.uses.producer(name, at)
        maker = self.uses.ops[p] if p is not None else None
        if p is None or maker is None:
            raise _RefusedError(f"{name!r} is made elsewhere")
        if maker.type in _LEARNED:
            if op.type != _BACK[0] or op.input("Scale") != maker.output("OutScale") or op.attr("max_range") != _LARGEST:
                raise _RefusedError("it scales by another number than what rounded to whole numbers")
            return at, self._pair(maker, p, op.output("Out")[0])
        if maker.type not in _PRODUCTS:
            raise _RefusedError(f"{maker.type} is no product of a weight")
        slot, weight_slot, *_ = _PRODUCTS[maker.type]
        kept = self.uses.why_kept([name], [p, at]) or self.uses.written_between(maker.input_arg_names, p, at)
        if kept:
            raise _RefusedError(f"the product's result or operand is needed elsewhere: {kept}")
        before = self.uses.producer(maker.input(slot)[0], p)
        rounding = self.uses.ops[before] if before is not None else None
        if before is None or rounding is None or rounding.type not in _LEARNED:
            raise _RefusedError("the product's operand is not rounded by a scale that was learned")
        ops = self._weight(op, maker, rounding)
        weight = ops[-1].output("Y")[0]
        whole = rounding.output("Out")[0]
        if self.uses.written_between([whole, *rounding.input("X")], before, at):
            raise _RefusedError("what was rounded is overwritten before the product")
        if whole not in self.pairs:
            floats = self.work.declare(self.block, rounding.input("X")[0])
            ops += self._pair(rounding, before, floats)
            self.pairs[whole] = floats
        names = {whole: self.pairs[whole], maker.input(weight_slot)[0]: weight}
        return p, [*ops, renamed(maker, names, {name: op.output("Out")[0]})]

    def _weight(self, back: Operator, product: Operator, rounding: Operator) -> list[Operator]:
        """The weight as int8, and the operator that makes floats of it by what is left of `back`'s scale."""
        _, slot, _, axis = _PRODUCTS[product.type]
        name = product.input(slot)[0]
        w = self.work.value(name)
        if w is None or not bool((w == w.round()).all() if w.is_floating_point() else True) or int(w.abs().max()) > _LARGEST:
            raise _RefusedError(f"the weight {name!r} is not known to hold whole numbers of 8 bits")
        if back.type == _BACK[0]:
            if back.input("Scale") != rounding.output("OutScale"):
                raise _RefusedError("it scales by another number than what rounded to whole numbers")
            step = torch.tensor([_LARGEST / back.attr("max_range")])
        else:
            step = self._steps_of_channels(back, product, rounding)
        floats = self.work.declare(self.block, name, dtype=VarType.FP32)
        inputs = {"X": [self.work.store(name, w.to(torch.int8))], "Scale": [self.work.store(name, step)]}
        return [self._made("dequantize_linear", inputs, floats, product, axis=axis)]

    def _steps_of_channels(self, back: Operator, product: Operator, rounding: Operator) -> torch.Tensor:
        names = back.input("Scales")
        if len(names) != 2 or [names[1]] != rounding.output("OutScale") or list(back.attr("quant_bits")) != [_BITS] * 2:
            raise _RefusedError("it scales by other numbers than what rounded to 8 bits")
        if product.type == "mul" and product.attr("x_num_col_dims") != 1:
            raise _RefusedError("the product's channels are not its second dim")
        if product.type != "mul" and product.attr("data_format") == "NHWC":
            raise _RefusedError("the product's channels are not its second dim")
        scales = self.work.value(names[0])
        if scales is None:
            raise _RefusedError(f"the scales {names[0]!r} are not known")
        return scales.reshape(-1).float() / _LARGEST

    # ---- operators ---------------------------------------------------------------------------------
    def _pair(self, rounding: Operator, at: int, out: str) -> list[Operator]:
        """quantize_linear and dequantize_linear over what `rounding` (at `at`) reads."""
        x = rounding.input("X")[0]
        scale = self._step(rounding, at)
        whole = self.work.declare(self.block, x, dtype=VarType.INT8)
        return [
            self._made("quantize_linear", {"X": [x], "Scale": [scale]}, whole, rounding, dtype=int(VarType.INT8)),
            self._made("dequantize_linear", {"X": [whole], "Scale": [scale]}, out, rounding),
        ]

    def _step(self, rounding: Operator, at: int) -> str:
        """The variable that holds the distance of two numbers that `rounding` gives."""
        if not rounding.attr("is_test") or rounding.attr("bit_length") != _BITS:
            raise _RefusedError("scales are still learned, or numbers do not have 8 bits")
        name = rounding.input("InScale")[0]
        if name not in self.scales:
            scale = self.work.value(name)
            if scale is None and self._passes_on(name) and self.work.parameters is not None:
                scale = self.work.parameters(name)
            if not isinstance(scale, torch.Tensor) or scale.numel() != 1 or not 0 < float(scale) < float("inf"):
                raise _RefusedError(f"the scale {name!r} is not known, or no positive number")
            self.scales[name] = self.work.store(name, scale.reshape(1).float() / _LARGEST)
        return self.scales[name]

    def _passes_on(self, name: str) -> bool:
        """Whether all that writes a scale are roundings in test form, which give it back as it is."""
        writers = [self.uses.ops[p] for p in self.uses.writers[name]]
        return all(op.type in (*_LEARNED, _BOTH) and op.attr("is_test") and op.input("InScale") == [name] for op in writers)

    def _made(self, kind: str, inputs: dict[str, list[str]], out: str, like: Operator, **attrs: int) -> Operator:
        return Operator(self.block, kind, inputs, {"Y": [out]}, {**attrs, OP_ROLE: like.role}, like.site)
