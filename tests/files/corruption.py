"""Damaged copies of a file's bytes, the same ones in every run."""

import random
from collections.abc import Iterator


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged versions of `data`: bits flipped, cut short, lengths blown up, parts moved, noise."""
    rng = random.Random(seed)
    makers = (_flip, _cut, _blow_up, _splice, _flip, _blow_up, _noise)
    for n in range(count):
        yield makers[n % len(makers)](bytearray(data), rng)


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _blow_up(data: bytearray, rng: random.Random) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - size))
    value = rng.choice((0xFF, 0x7F, 0x80, 0x00))
    data[at : at + size] = bytes([rng.choice((0xFF, value))] * (size - 1) + [value])
    return bytes(data)


def _splice(data: bytearray, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    piece = data[a : min(b, a + 4096)]
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.3:
        del data[a : a + len(piece)]
    else:
        data[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece
    return bytes(data)


def _noise(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    length = min(len(data) - at, rng.choice((2, 16, 256)))
    data[at : at + length] = rng.randbytes(length)
    return bytes(data)
