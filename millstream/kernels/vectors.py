"""Instructions over vectors of float32 for intrinsics, and the simplest of those; addresses are integers."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from millstream.kernels import tiles
from millstream.kernels.compiled import njit
from millstream.kernels.tiles import LANES

INDEX = ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
BYTES = 4 * LANES
_LANE = ir.IntType(32)


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


def spread(builder: ir.IRBuilder, value: ir.Value, vector: ir.Type = VECTOR) -> ir.Value:
    """A vector of one number."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_LANE, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_LANE, vector.count), [0] * vector.count))


class Loop:
    """`count` turns, at least one, with values that are carried from turn to turn, in registers."""

    def __init__(self, builder: ir.IRBuilder, count: ir.Value, held: Sequence[ir.Value]) -> None:
        self.builder, self.count = builder, count
        before = builder.block
        self.top, self.end = builder.append_basic_block("turn"), builder.append_basic_block("turn.end")
        builder.branch(self.top)
        builder.position_at_end(self.top)
        self.k = builder.phi(INDEX)
        self.held = [builder.phi(value.type) for value in held]
        for phi, value in zip([self.k, *self.held], [number(0), *held]):
            phi.add_incoming(value, before)

    def close(self, new: Sequence[ir.Value]) -> None:
        """The end of a turn; `new`: what the next one, or what comes after the loop, holds."""
        following = self.builder.add(self.k, number(1))
        for phi, value in zip([self.k, *self.held], [following, *new]):
            phi.add_incoming(value, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", following, self.count), self.top, self.end)
        self.builder.position_at_end(self.end)


@intrinsic
def copy(typing_context, given, out):
    """LANES numbers from one address to another."""
    del typing_context

    def emit(context, builder, signature, args):
        store(builder, load(builder, args[0]), args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@njit(cache=True, nogil=True)
def copy_line(given, out):
    """out[:] = given, of one length: numba's own form asks whether it is, and compiles what formats the answer (1.5 s)."""
    for j in range(len(out)):
        out[j] = given[j]


@njit(cache=True, nogil=True)
def add_line(given, out):
    """out += given, of one length; see :func:`copy_line`."""
    for j in range(len(out)):
        out[j] += given[j]
