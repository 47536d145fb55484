"""Instructions over vectors of float32 for intrinsics, and the simplest of those; addresses are integers."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import tiles
from millstream.kernels.tiles import LANES

INDEX = ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
BYTES = 4 * LANES


def number(value: int) -> ir.Constant:
    return ir.Constant(INDEX, value)


def load(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    value = builder.load(_at(builder, address))
    value.align = 4
    return value


def store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    builder.store(value, _at(builder, address)).align = 4


def _at(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, VECTOR.as_pointer())


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, rounded once."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32")
    return builder.call(function, [a, b, c])


def fetch(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Have the line at an address, which may be any, brought to the second-level cache."""
    tiles.fetch(builder, _at(builder, address), 2)


@intrinsic
def copy(typing_context, given, out):
    """LANES numbers from one address to another."""
    del typing_context

    def emit(context, builder, signature, args):
        store(builder, load(builder, args[0]), args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit
