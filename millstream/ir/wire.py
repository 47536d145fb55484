"""The protobuf wire format, as far as error messages and raw field copies need it.

Source: protobuf's "Encoding" specification (tags, varints, length-delimited fields).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Buffer = bytes | bytearray | memoryview


class WireError(Exception):
    """The bytes at `offset` are not what the wire format demands."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(problem)
        self.offset = offset
        self.problem = problem


class Field(NamedTuple):
    """One field: its number and wire type, where its tag starts, and where its value lies."""

    number: int
    wire_type: int
    tag_at: int
    start: int
    end: int


def read_varint(data: Buffer, pos: int, end: int) -> tuple[int, int]:
    """(value, next position) of the unsigned varint at `pos`; raises WireError."""
    value = shift = 0
    at = pos
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise WireError(pos, "expected a varint of at most 10 bytes, found a longer one")
    raise WireError(pos, f"expected a varint, the data ends after {at - pos} bytes of it")


def signed(value: int, bits: int = 64) -> int:
    """`value` (of an unsigned varint) as a two's complement number of `bits` bits."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def varint(value: int) -> bytes:
    """`value` (negative: as 64-bit two's complement) as a varint."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields in ``data[start:end]`` in order; raises WireError at the first that does not fit."""
    pos = start
    while pos < end:
        tag_at = pos
        tag, pos = read_varint(data, pos, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise WireError(tag_at, f"expected a field number, found {number}")
        value_at = pos
        if kind == VARINT:
            _, pos = read_varint(data, pos, end)
        elif kind == BYTES:
            length, value_at = read_varint(data, pos, end)
            pos = value_at + length
            if pos > end:
                raise WireError(tag_at, f"field {number} claims {length} bytes, {end - value_at} are left")
        elif kind in (FIXED32, FIXED64):
            pos += 4 if kind == FIXED32 else 8
            if pos > end:
                raise WireError(tag_at, f"field {number} needs {pos - value_at} bytes, {end - value_at} are left")
        else:
            raise WireError(tag_at, f"field {number} has wire type {kind}; expected 0, 1, 2 or 5")
        yield Field(number, kind, tag_at, value_at, pos)
