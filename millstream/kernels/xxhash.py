"""XXH64 and XXH32 of rows of bytes (Collet, the xxHash specification 0.1.1)."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit

_A = np.uint64(0x9E3779B185EBCA87)
_B = np.uint64(0xC2B2AE3D27D4EB4F)
_C = np.uint64(0x165667B19E3779F9)
_D = np.uint64(0x85EBCA77C2B2AE63)
_E = np.uint64(0x27D4EB2F165667C5)
_Z = np.uint64(0)

_A32 = np.uint64(0x9E3779B1)
_B32 = np.uint64(0x85EBCA77)
_C32 = np.uint64(0xC2B2AE3D)
_D32 = np.uint64(0x27D4EB2F)
_E32 = np.uint64(0x165667B1)
_M32 = np.uint64(0xFFFFFFFF)  # 32-bit arithmetic in 64-bit registers, cut after each step


@njit(cache=True, nogil=True)
def _turn(x, r):
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@njit(cache=True, nogil=True)
def _word(data, at, count):
    """`count` bytes at `at` as a little-endian number."""
    out = np.uint64(0)
    for i in range(count):
        out |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return out


@njit(cache=True, nogil=True)
def _round(acc, lane):
    return _turn(acc + lane * _B, 31) * _A


@njit(cache=True, nogil=True)
def _merge(acc, lane):
    return (acc ^ _round(_Z, lane)) * _A + _D


@njit(cache=True, nogil=True)
def xxh64(data: np.ndarray, seed: np.uint64) -> np.uint64:
    """XXH64 of a vector of bytes (uint8)."""
    n = data.shape[0]
    at = 0
    if n >= 32:
        a, b, c, d = seed + _A + _B, seed + _B, seed, seed - _A
        while at + 32 <= n:
            a = _round(a, _word(data, at, 8))
            b = _round(b, _word(data, at + 8, 8))
            c = _round(c, _word(data, at + 16, 8))
            d = _round(d, _word(data, at + 24, 8))
            at += 32
        acc = _turn(a, 1) + _turn(b, 7) + _turn(c, 12) + _turn(d, 18)
        acc = _merge(_merge(_merge(_merge(acc, a), b), c), d)
    else:
        acc = seed + _E
    acc += np.uint64(n)
    while at + 8 <= n:
        acc = _turn(acc ^ _round(_Z, _word(data, at, 8)), 27) * _A + _D
        at += 8
    if at + 4 <= n:
        acc = _turn(acc ^ (_word(data, at, 4) * _A), 23) * _B + _C
        at += 4
    while at < n:
        acc = _turn(acc ^ (np.uint64(data[at]) * _E), 11) * _A
        at += 1
    acc = (acc ^ (acc >> np.uint64(33))) * _B
    acc = (acc ^ (acc >> np.uint64(29))) * _C
    return acc ^ (acc >> np.uint64(32))


@njit(cache=True, nogil=True)
def _turn32(x, r):
    return ((x << np.uint64(r)) | (x >> np.uint64(32 - r))) & _M32


@njit(cache=True, nogil=True)
def _round32(acc, lane):
    return (_turn32((acc + lane * _B32) & _M32, 13) * _A32) & _M32


@njit(cache=True, nogil=True)
def xxh32(data: np.ndarray, seed: np.uint64) -> np.uint64:
    """XXH32 of a vector of bytes (uint8)."""
    n = data.shape[0]
    at = 0
    if n >= 16:
        a, b, c, d = (seed + _A32 + _B32) & _M32, (seed + _B32) & _M32, seed, (seed - _A32) & _M32
        while at + 16 <= n:
            a = _round32(a, _word(data, at, 4))
            b = _round32(b, _word(data, at + 4, 4))
            c = _round32(c, _word(data, at + 8, 4))
            d = _round32(d, _word(data, at + 12, 4))
            at += 16
        acc = (_turn32(a, 1) + _turn32(b, 7) + _turn32(c, 12) + _turn32(d, 18)) & _M32
    else:
        acc = (seed + _E32) & _M32
    acc = (acc + np.uint64(n)) & _M32
    while at + 4 <= n:
        acc = (_turn32((acc + _word(data, at, 4) * _C32) & _M32, 17) * _D32) & _M32
        at += 4
    while at < n:
        acc = (_turn32((acc + np.uint64(data[at]) * _E32) & _M32, 11) * _A32) & _M32
        at += 1
    acc = ((acc ^ (acc >> np.uint64(15))) * _B32) & _M32
    acc = ((acc ^ (acc >> np.uint64(13))) * _C32) & _M32
    return acc ^ (acc >> np.uint64(16))


@njit(cache=True, nogil=True)
def hash_rows(rows: np.ndarray, count: int, modulus: np.uint64, out: np.ndarray) -> None:
    """out[i, k] = XXH64(bytes of row i, seed k) mod `modulus`, k < count; rows is [n, bytes] uint8."""
    for i in range(rows.shape[0]):
        for k in range(count):
            out[i, k] = np.int64(xxh64(rows[i], np.uint64(k)) % modulus)


@njit(cache=True, nogil=True)
def gram_rows(
    ids: np.ndarray, starts: np.ndarray, sizes: np.ndarray, width: int, step: int, space: int, out: np.ndarray
) -> None:
    """Where the pieces of each n-gram's embedding start in the table of pyramid_hash.

    ids: bytes of the id rows [n, bytes an id]; n-gram g is sizes[g] ids from starts[g]; piece j (of `step` numbers)
    starts at XXH32(bytes of the n-gram, seed j * step) mod space. out: [grams, width / step] int64.
    """
    for g in range(starts.shape[0]):
        data = ids[starts[g] : starts[g] + sizes[g]].reshape(-1)
        for j in range(width // step):
            out[g, j] = np.int64(xxh32(data, np.uint64(j * step)) % np.uint64(space))
