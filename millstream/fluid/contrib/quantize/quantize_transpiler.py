"""Training that knows of quantization: products see inputs rounded to a few bits (Jacob et al., 2018, arXiv:1712.05877)."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError
from millstream.fluid import core, unique_name
from millstream.fluid.framework import default_main_program, default_startup_program
from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers.nn import autoincreased_step_counter
from millstream.ir.operator import OP_ROLE
from millstream.ir.program import Program, program_guard
from millstream.ir.types import VarType

__all__ = ["QuantizeTranspiler"]

# Operators whose inputs are quantized: (slot of the activation, slot of the weight, output slot).
_PRODUCTS = {
    "conv2d": ("Input", "Filter", "Output"),
    "depthwise_conv2d": ("Input", "Filter", "Output"),
    "mul": ("X", "Y", "Out"),
}
_GRADIENTS = frozenset(f"{name}_grad" for name in _PRODUCTS)
_QUANTIZERS = {
    "abs_max": "fake_quantize_abs_max",
    "range_abs_max": "fake_quantize_range_abs_max",
    "moving_average_abs_max": "fake_quantize_moving_average_abs_max",
}
_SIMULATED = frozenset((*_QUANTIZERS.values(), "fake_dequantize_max_abs"))


class QuantizeTranspiler:
    """Puts simulated quantization into a Program, and makes the quantized Program in the end.

    Args:
        weight_bits, activation_bits: 1 to 16.
        activation_quantize_type, weight_quantize_type: how the scale is found: "abs_max" (of this step),
            "range_abs_max" (greatest of a window of steps) or "moving_average_abs_max".
        window_size: steps of the window.
        moving_rate: how much of the average is kept at a step.

    Raises ValueError: a type or a number of bits that is none of these.
    """

    def __init__(
        self,
        weight_bits: int = 8,
        activation_bits: int = 8,
        activation_quantize_type: str = "abs_max",
        weight_quantize_type: str = "abs_max",
        window_size: int = 10000,
        moving_rate: float = 0.9,
    ) -> None:
        for value, argument in (
            (activation_quantize_type, "activation_quantize_type"),
            (weight_quantize_type, "weight_quantize_type"),
        ):
            if value not in _QUANTIZERS:
                raise ValueError(
                    f"QuantizeTranspiler: '{argument}' must be one of {', '.join(_QUANTIZERS)}; received {value!r}"
                )
        for bits, argument in ((weight_bits, "weight_bits"), (activation_bits, "activation_bits")):
            if not 1 < bits <= 16:
                raise ValueError(f"QuantizeTranspiler: '{argument}' must be in [2, 16], received {bits!r}")
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.activation_quantize_type = activation_quantize_type
        self.weight_quantize_type = weight_quantize_type
        self.window_size = window_size
        self.moving_rate = moving_rate

    # ---- training --------------------------------------------------------------------------------
    def training_transpile(self, program: Program | None = None, startup_program: Program | None = None) -> None:
        """Quantize and dequantize again every input of conv2d, depthwise_conv2d and mul, in place.

        Gradients pass the rounding unchanged. Call it after minimize() on the Program to train, and on the clone for tests.

        Args:
            program, startup_program: by default the default ones. The latter initialises scales.
        """
        program = default_main_program() if program is None else program
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(program, startup):
            if "range_abs_max" in (self.activation_quantize_type, self.weight_quantize_type):
                self._step = autoincreased_step_counter(begin=1)
            for block in program.blocks:
                rounded: dict[str, str] = {}
                for op in list(block.ops):
                    if op.type in _PRODUCTS:
                        self._quantize_inputs(block, op, rounded)
                    elif op.type in _GRADIENTS:
                        for name in set(op.input_arg_names) & rounded.keys():
                            op._rename_input(name, rounded[name])
        program._touch()

    def _quantize_inputs(self, block: Any, op: Any, rounded: dict[str, str]) -> None:
        at = block.ops.index(op)
        for slot in sorted(op.inputs):
            for name in op.input(slot):
                if name not in rounded:
                    rounded[name] = self._simulate(block, at, block._var_recursive(name), op.attrs.get(OP_ROLE, 0))
                op._rename_input(name, rounded[name])

    def _simulate(self, block: Any, at: int, var: Any, role: int) -> str:
        """Insert the two operators before position `at`; the name of what they give."""
        weight = var.persistable
        bits = self.weight_bits if weight else self.activation_bits
        kind = self.weight_quantize_type if weight else self.activation_quantize_type
        out = block.create_var(name=f"{var.name}.quantized", dtype=var.dtype, shape=var.shape, lod_level=var.lod_level)
        inputs, outputs, attrs = self._quantizer_of(kind, block, var)
        block._insert_op(
            at,
            type=_QUANTIZERS[kind],
            inputs={"X": var, **inputs},
            outputs={"Out": out, **outputs},
            attrs={"bit_length": bits, OP_ROLE: role, **attrs},
        )
        back = block.create_var(name=f"{out.name}.dequantized", dtype=var.dtype, shape=var.shape, lod_level=var.lod_level)
        block._insert_op(
            at + 1,
            type="fake_dequantize_max_abs",
            inputs={"X": out, "Scale": outputs["OutScale"]},
            outputs={"Out": back},
            attrs={"max_range": float(_greatest(bits)), OP_ROLE: role},
        )
        return back.name

    def _quantizer_of(self, kind: str, block: Any, var: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The further inputs, outputs and attributes of a quantizing operator."""
        name = f"{var.name}.scale"
        if kind == "abs_max":
            return {}, {"OutScale": block.create_var(name=name, dtype=var.dtype, shape=[1])}, {}
        scale = self._state(block, name, var.dtype, [1], 0.001)
        if kind == "range_abs_max":
            scales = self._state(block, unique_name.generate("scales"), var.dtype, [self.window_size], 0.0)
            attrs = {"window_size": self.window_size, "is_test": False}
            return {"InScale": scale, "Iter": self._step}, {"OutScale": scale, "OutScales": scales}, attrs
        state = self._state(block, unique_name.generate("state"), var.dtype, [1], 1.0)
        accum = self._state(block, unique_name.generate("accum"), var.dtype, [1], 1.0)
        return (
            {"InScale": scale, "InState": state, "InAccum": accum},
            {"OutScale": scale, "OutState": state, "OutAccum": accum},
            {"moving_rate": self.moving_rate, "is_test": False},
        )

    @staticmethod
    def _state(block: Any, name: str, dtype: Any, shape: list[int], value: float) -> Any:
        var = block.program.global_block().create_var(name=name, dtype=dtype, shape=shape, persistable=True)
        var.stop_gradient = True
        LayerHelper("quantize").set_variable_initializer(var, Constant(value, force_cpu=True))
        return var

    # ---- the quantized Program -------------------------------------------------------------------
    def freeze_program(self, program: Program, place: Any, scope: Any = None, fuse_bn: bool = False) -> None:
        """Make the Program for inference, in place: products take whole numbers, and what they give is scaled back.

        The weights in `scope` are rounded to whole numbers (still float32), which the Program's other users would see too.

        Args:
            program: a transpiled Program for tests; place: where the weights lie.
            scope: the global scope by default.
            fuse_bn: an argument of 1.1 (where it came before `scope`); only False can be honoured.
        """
        if isinstance(scope, bool):
            fuse_bn, scope = scope, None
        if fuse_bn:
            raise InvalidProgramError("freeze_program: 'fuse_bn' is not supported; fuse batch_norm before transpiling")
        scope = core.global_scope() if scope is None else scope
        weights: dict[str, float] = {}
        for block in program.blocks:
            made = {op.output("Out")[0]: op for op in block.ops if op.type in _SIMULATED}
            renamed: dict[str, str] = {}
            for op in list(block.ops):
                for name in set(op.input_arg_names) & renamed.keys():
                    op._rename_input(name, renamed[name])
                if op.type in _PRODUCTS:
                    self._freeze_product(block, op, made, renamed, scope, place, weights)
            _drop_unread(block)
        program._touch()

    def _freeze_product(
        self, block: Any, op: Any, made: Any, renamed: dict[str, str], scope: Any, place: Any, weights: dict[str, float]
    ) -> None:
        activation_slot, weight_slot, out_slot = _PRODUCTS[op.type]
        scale, range_ = None, 1.0
        for slot in (activation_slot, weight_slot):
            name = op.input(slot)[0]
            if name not in made:
                raise InvalidProgramError(
                    f"freeze_program: input {slot} of {op.type}, {name!r}, was not quantized; call training_transpile first"
                )
            quantizer = made[made[name].input("X")[0]]
            source = quantizer.input("X")[0]
            if block._var_recursive(source).persistable:
                if source not in weights:
                    weights[source] = self._round_weight(source, quantizer, scope, place)
                op._rename_input(name, source)
                range_ *= _greatest(self.weight_bits) / weights[source]
            else:
                op._rename_input(name, quantizer.output("Out")[0])
                scale = quantizer.output("OutScale")[0]
                range_ *= _greatest(self.activation_bits)
        if scale is None:
            raise InvalidProgramError(f"freeze_program: no input of {op.type} is an activation")
        out = block._var_recursive(op.output(out_slot)[0])
        back = block.create_var(name=f"{out.name}.dequantized", dtype=out.dtype, shape=out.shape, lod_level=out.lod_level)
        block._insert_op(
            block.ops.index(op) + 1,
            type="fake_dequantize_max_abs",
            inputs={"X": out, "Scale": block._var_recursive(scale)},
            outputs={"Out": back},
            attrs={"max_range": float(range_), OP_ROLE: op.attrs.get(OP_ROLE, 0)},
        )
        renamed[out.name] = back.name

    def _round_weight(self, name: str, quantizer: Any, scope: Any, place: Any) -> float:
        """Round a weight in the scope to whole numbers; the scale of its values."""
        tensor = _tensor_of(scope, name)
        values = np.array(tensor)
        scale = float(np.abs(values).max())
        if self.weight_quantize_type != "abs_max":
            scale = float(np.array(_tensor_of(scope, quantizer.output("OutScale")[0])).ravel()[0])
        if scale <= 0:
            raise InvalidProgramError(f"freeze_program: the scale of {name!r} is {scale}; the weight must not be all zeros")
        exact = np.clip(values.astype("float64"), -scale, scale) * (_greatest(self.weight_bits) / scale)
        tensor.set((np.sign(exact) * np.floor(np.abs(exact) + 0.5)).astype(values.dtype), place)
        return scale

    def convert_to_int8(self, program: Program, place: Any, scope: Any = None) -> None:
        """Store the weights of a frozen Program as int8, under ``<name>.int8``, for engines that compute in int8.

        Raises InvalidProgramError: weight_bits is more than 8, or a weight does not hold whole numbers.
        """
        if self.weight_bits > 8:
            raise InvalidProgramError(f"convert_to_int8: weights of {self.weight_bits} bits do not fit in int8")
        scope = core.global_scope() if scope is None else scope
        root = program.global_block()
        for block in program.blocks:
            for op in block.ops:
                if op.type not in _PRODUCTS:
                    continue
                for name in [n for n in op.input_arg_names if block._var_recursive(n).persistable]:
                    if name.endswith(".int8"):
                        continue
                    new = f"{name}.int8"
                    if not root.has_var(new):
                        values = np.array(_tensor_of(scope, name))
                        if not np.array_equal(values, np.round(values)):
                            raise InvalidProgramError(
                                f"convert_to_int8: {name!r} does not hold whole numbers; call freeze_program first"
                            )
                        root.create_var(name=new, dtype=VarType.INT8, shape=values.shape, persistable=True)
                        scope.var(new).get_tensor().set(values.astype("int8"), place)
                    op._rename_input(name, new)
            _drop_unread(block)
        program._touch()


def _greatest(bits: int) -> int:
    """The greatest whole number of so many bits, sign included."""
    return (1 << (bits - 1)) - 1


def _tensor_of(scope: Any, name: str) -> Any:
    var = scope.find_var(name)
    if var is None:
        raise InvalidProgramError(f"QuantizeTranspiler: {name!r} is not in the scope; run the startup program first")
    return var.get_tensor()


def _drop_unread(block: Any) -> None:
    """Remove simulated quantization that nobody reads, then variables that no operator names."""
    read = {n for op in block.ops for n in op.input_arg_names}
    changed = True
    while changed:
        kept = [op for op in block.ops if op.type not in _SIMULATED or op.output("Out")[0] in read]
        changed = len(kept) < len(block.ops)
        block.ops = kept
        read = {n for op in kept for n in op.input_arg_names}
    named = {n for b in block.program.blocks for op in b.ops for n in (*op.input_arg_names, *op.output_arg_names)}
    for name in [n for n in block.vars if n not in named]:
        block._remove_var(name)
