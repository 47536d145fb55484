"""bfloat16 in numba, which has no such type: arrays of it are their bits, uint16. Kernels written with `wide` and `put`
take float32, float64 and bfloat16 alike: numba compiles a form for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from millstream.kernels import pairs
from millstream.kernels.arrays import array


def numbers(t: torch.Tensor) -> np.ndarray:
    """The C-contiguous array of a tensor: bfloat16 as its bits."""
    return array(t.view(torch.int16)).view(np.uint16) if t.dtype is torch.bfloat16 else array(t)


def singles(bits: np.ndarray) -> np.ndarray:
    """The array itself, or float32 numbers where it holds the bits of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32) if bits.dtype == np.uint16 else bits


@intrinsic
def _from_bits(_context: Any, bits: Any) -> Any:
    """float32 of the bits of a bfloat16."""

    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), ir.Constant(word, 16)), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def _to_bits(_context: Any, number: Any) -> Any:
    """The bits of the bfloat16 next to a float32: halves go to the even one; any NaN becomes one NaN."""

    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word, half = ir.IntType(32), ir.IntType(16)
        if pairs.rounds():  # loops over it become loops over vectors
            return builder.bitcast(builder.fptrunc(args[0], pairs.Brain()), half)
        shift = ir.Constant(word, 16)
        bits = builder.bitcast(args[0], word)
        odd = builder.and_(builder.lshr(bits, shift), ir.Constant(word, 1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF))), shift)
        lost = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.select(lost, ir.Constant(half, 0x7FC0), builder.trunc(rounded, half))

    return types.uint16(types.float32), build


def wide(number: Any) -> Any:
    """An element as a number to calculate with."""
    return float(singles(np.asarray(number))) if isinstance(number, np.uint16) else number


@overload(wide, strict=False)
def _wide(number: Any) -> Any:
    if number == types.uint16:
        return lambda number: _from_bits(number)  # type: ignore[call-arg]
    return lambda number: number


def put(out: Any, i: Any, j: Any, number: Any) -> None:
    """out[i, j] = number, rounded to the array's type."""
    raise NotImplementedError("put is for compiled code")


@overload(put, strict=False)
def _put(out: Any, i: Any, j: Any, number: Any) -> Any:
    if out.dtype == types.uint16:

        def store(out, i, j, number):
            out[i, j] = _to_bits(np.float32(number))

        return store

    def plain(out, i, j, number):
        out[i, j] = number

    return plain
