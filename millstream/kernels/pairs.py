"""Instructions for pairs of bfloat16: one multiplies 16 pairs by 16 pairs and adds both products to 16 float32 sums.

A vector of pairs has the size of one of float32, and is handled as such: what stands in it matters to the products alone.
The instructions take numbers below 2^-126 as 0.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16


class Brain(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Brain)

    def __hash__(self) -> int:
        return hash(Brain)


_SINGLE = ir.VectorType(ir.FloatType(), LANES)
_WORDS, _HALVES = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(16), LANES)
_PAIRS, _BRAINS = ir.VectorType(Brain(), 2 * LANES), ir.VectorType(Brain(), LANES)
_PRODUCT, _ROUND = "llvm.x86.avx512bf16.dpbf16ps.512", "llvm.x86.avx512bf16.cvtneps2bf16.512"
_PROBE = f"""
declare <16 x float> @{_PRODUCT}(<16 x float>, <32 x bfloat>, <32 x bfloat>)
declare <16 x bfloat> @{_ROUND}(<16 x float>)
"""


@cache
def available() -> bool:
    """Whether the processor has the instructions and no matrices (AMX), which oneDNN uses: these are faster still."""
    return rounds() and not llvm.get_host_cpu_features().get("amx-bf16")


@cache
def rounds() -> bool:
    """Whether the processor has the instructions."""
    features = llvm.get_host_cpu_features()
    if not (features.get("avx512vl") and features.get("avx512bf16")):
        return False
    try:
        llvm.parse_assembly(_PROBE).verify()
    except RuntimeError:  # an LLVM that spells them otherwise
        return False
    return True


def add_products(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
    """total + left * right: sums, float32, and vectors of pairs typed as float32."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_SINGLE, [_SINGLE, _PAIRS, _PAIRS]), _PRODUCT)
    return builder.call(function, [total, builder.bitcast(left, _PAIRS), builder.bitcast(right, _PAIRS)])


def rounded(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The bits of 16 float32 rounded to bfloat16."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_BRAINS, [_SINGLE]), _ROUND)
    return builder.bitcast(builder.call(function, [value]), _HALVES)


def rounded_pairs(builder: ir.IRBuilder, first: ir.Value, second: ir.Value) -> ir.Value:
    """32 float32 rounded to bfloat16, typed as 16 float32."""
    halves = [rounded(builder, value) for value in (first, second)]
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), list(range(2 * LANES)))
    return builder.bitcast(builder.shuffle_vector(*halves, lanes), _SINGLE)


def load_halves(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """16 bfloat16 at an address, as the low bits of words."""
    value = builder.load(builder.inttoptr(address, _HALVES.as_pointer()))
    value.align = 2
    return builder.zext(value, _WORDS)


def store_halves(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    builder.store(value, builder.inttoptr(address, _HALVES.as_pointer())).align = 2


def widened(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """float32 numbers of what :func:`load_halves` gives."""
    return builder.bitcast(builder.shl(halves, _shift()), _SINGLE)


def _shift() -> ir.Constant:
    return ir.Constant(_WORDS, [16] * LANES)


@intrinsic
def interleave(typing_context: Any, first: Any, second: Any, out: Any) -> Any:
    """out[i] = (first[i], second[i]) for 16 pairs; addresses."""
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = (load_halves(builder, at) for at in args[:2])
        words = builder.or_(low, builder.shl(high, _shift()))
        builder.store(words, builder.inttoptr(args[2], _WORDS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), emit


@intrinsic
def interleave_rounded(typing_context: Any, first: Any, second: Any, out: Any) -> Any:
    """out[i] = (first[i], second[i]) for 16 pairs, of float32 numbers; addresses."""
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves = []
        for at in args[:2]:
            value = builder.load(builder.inttoptr(at, _SINGLE.as_pointer()))
            value.align = 4
            halves.append(builder.zext(rounded(builder, value), _WORDS))
        words = builder.or_(halves[0], builder.shl(halves[1], _shift()))
        builder.store(words, builder.inttoptr(args[2], _WORDS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), emit
