"""Matrix products of float32 by oneDNN or by register tiles (tiles.py) where that is faster than torch.mm.

torch.mm calls MKL, which leaves AVX-512 unused on AMD processors: measured there, oneDNN takes a third of the time
(512 x 512 x 2048) and never more on Intel. oneDNN compiles code for every new shape (0.3 to 3 ms); the tiles compile
nothing and are as fast or faster at every size: they take what has more than `BLOCK` rows, which is where numbers of rows
change from call to call, and from `FEW` rows on where something else has loaded numba already. Nothing here is
differentiable.

GFLOP/s of oneDNN -> tiles, one thread of Zen 4, [rows, depth] x [depth, columns]:

| | output | gradient of the left | of the right |
| --- | --- | --- | --- |
| [32, 512] x [512, 512] | 69 -> 105 | 63 -> 78 | 60 -> 78 |
| [64, 1024] x [1024, 6272] | 93 -> 95 | 85 -> 91 | 90 -> 100 |
| [64, 6272] x [6272, 1024] | 85 -> 107 | 89 -> 92 | 88 -> 96 |
| [352, 512] x [512, 512] | 96 -> 106 | 105 -> 106 | 96 -> 113 |
| [352, 512] x [512, 2048] | 87 -> 100 | 104 -> 108 | 93 -> 109 |
| [1024, 4096] x [4096, 4096] | 103 -> 106 | | |

A matrix of 2 to 15 columns (the last layer of a classifier) on the right is where MKL is slow: 512 x 400 x 2 takes 240 us,
its weight gradient 300; the same product the other way round, transposed afterwards, 50 and 40.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from millstream.kernels.threads import cuts, numba_is_loaded, run_parts

BLOCK, FEW = 256, 32
LEAST = 500_000  # multiplications below which the call costs more than it saves
NARROW = 16  # columns from which on a product is not narrow
NARROW_FROM = 4096  # elements on the left from which on a narrow product is turned


@cache
def _onednn() -> Callable[..., Any] | None:
    """linear of torch's oneDNN bridge, or None where this torch has none that computes a product."""
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        a, b = torch.randn(8, 16), torch.randn(16, 24)
        expected = torch.mm(a, b)
        if not torch.allclose(linear(a, b.t(), None, "none", [], ""), expected, rtol=1e-3, atol=1e-4):
            return None
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
    return linear


def _fits(a: torch.Tensor, b: torch.Tensor, work: int) -> bool:
    return (
        work >= LEAST
        and a.dtype is torch.float32
        and b.dtype is torch.float32
        and a.device.type == "cpu"
        and not torch.is_grad_enabled()
        and type(a) is torch.Tensor  # not a tracer's stand-in
        and _onednn() is not None
    )


def _dense(t: torch.Tensor) -> torch.Tensor:
    """`t`, copied if it is a slice of a wider matrix: oneDNN falls back to a plain loop on those."""
    return t if t.is_contiguous() or t.t().is_contiguous() else t.contiguous()


def is_narrow(rows: int, inner: int, columns: int) -> bool:
    """Whether :func:`product` of such matrices is turned round."""
    return 1 < columns < NARROW and rows * inner >= NARROW_FROM


def _turns(a: torch.Tensor, b: torch.Tensor) -> bool:
    plain = a.dtype is torch.float32 and b.dtype is torch.float32 and a.is_cpu and type(a) is torch.Tensor
    return plain and not torch.is_grad_enabled() and a.is_contiguous()


@cache
def tiles() -> ModuleType:
    from millstream.kernels import tiles as module

    return module


@cache
def _layers() -> ModuleType:
    from millstream.kernels import dense as module

    return module


@cache
def _laid() -> ModuleType:
    from millstream.kernels import laid as module

    return module


@cache
def zeros_at(n: int) -> int:
    """The address of `n` zeros."""
    return _zeros(n).data_ptr()


@cache
def _zeros(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.float32)


def has_rows(m: int) -> bool:
    """Whether `m` rows are enough for the register tiles."""
    return m > BLOCK or (m >= FEW and numba_is_loaded())


def _in_tiles(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the register tiles take a product over or of the rows of `a` and `b` [., N]."""
    return (
        has_rows(a.shape[0])
        and b.shape[1] >= NARROW
        and a.shape[1] > 0
        and a.dtype is b.dtype is torch.float32
        and a.is_cpu
        and b.is_cpu
        and a.stride(1) == b.stride(1) == 1
        and type(a) is torch.Tensor
        and not torch.is_grad_enabled()
        and tiles().LANES <= NARROW
    )


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b (+ bias, one number a column) for matrices [M, K] and [K, N], of which M may change from call to call."""
    m, (depth, n) = a.shape[0], b.shape
    work = m * depth * n
    if n < 4 and takes_narrow(a, b) and (bias is None or _line(bias, n)):
        return narrow_product(a, b, bias)
    if takes_turned(a, b):
        out = turned_product(a, b)
        return out if bias is None else out.add_(bias)
    if has_rows(m) and work >= LEAST and a.shape[1] == depth:
        whole = b if b.stride(1) == 1 else b.contiguous()
        if _in_tiles(a, whole) and (bias is None or _line(bias, n)):
            out = a.new_empty((m, n))
            first = zeros_at(n) if bias is None else bias.data_ptr()
            at_a, at_out, step = a.data_ptr(), out.data_ptr(), a.stride(0)
            run_parts(tiles().many_rows_at, [
                (at_a + i * step * 4, step, whole.data_ptr(), whole.stride(0), first, at_out + i * n * 4, last - i, depth, n)
                for i, last in cuts(work, m)
            ])  # fmt: skip
            return out
    out = _library_product(a, b)
    return out if bias is None else out.add_(bias)


def takes_turned(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether :func:`turned_product` takes a @ b: the right matrix stands turned in memory and is worth laying out."""
    (m, depth), n = a.shape, b.shape[1]
    return (
        b.stride(0) == 1
        and b.stride(1) >= depth >= NARROW
        and m >= FEW
        and m * depth * n >= LEAST
        and depth == b.shape[0]
        and _in_tiles(a, b.t())
        and n >= NARROW
    )


def turned_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b where :func:`takes_turned` holds: tiles over panels that b's columns are laid out in on the way."""
    (m, depth), n = a.shape, b.shape[1]
    out = a.new_empty((m, n))
    at_a, step_a, at_b, step_b, at_out = a.data_ptr(), a.stride(0), b.data_ptr(), b.stride(1), out.data_ptr()
    run_parts(_laid().product_laid_at, [
        (at_a + i * step_a * 4, step_a, at_b + j * step_b * 4, step_b, 1, zeros_at(n), 0, at_out + (i * n + j) * 4, n,
         last - i, depth, end - j, 0, 0)
        for (i, last), (j, end) in product_turned_shares(m, depth, n)
    ])  # fmt: skip
    return out


_LAYING = 6  # rows that take as long as laying out what they are multiplied with


def product_turned_shares(m: int, depth: int, n: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(rows, columns) of each thread's share of a product [m, depth] x [depth, n] that lays out its right matrix.

    Shares of rows lay out the whole matrix each, shares of columns their own, but they are whole panels.
    """
    rows = cuts(m * depth * n, m)
    columns = column_shares(m * depth * n, n, tiles().LANES * tiles().VECTORS)
    longest = max(last - first for first, last in columns)
    if len(columns) < len(rows) or n * (m // len(rows) + _LAYING) < longest * (m + _LAYING):
        return [(share, (0, n)) for share in rows]
    return [((0, m), share) for share in columns]


def deep_product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """a @ b (+ bias) for up to tiles().STRIP rows, C-contiguous float32; threads share the columns: b is read once."""
    (m, depth), n = a.shape, b.shape[1]
    out = a.new_empty((m, n))
    first = zeros_at(n) if bias is None else bias.data_ptr()
    panel = tiles().LANES * tiles().VECTORS
    run_parts(tiles().strip_at, [
        (a.data_ptr(), depth, b.data_ptr() + i * 4, n, first + i * 4, 0, out.data_ptr() + i * 4, n, m, depth, last - i)
        for i, last in column_shares(m * depth * n, n, panel)
    ])  # fmt: skip
    return out


def column_shares(work: int, n: int, panel: int) -> list[tuple[int, int]]:
    """(first, last) column of each thread's share, which begin with panels; the last one takes what fills none."""
    found = [(first * panel, last * panel) for first, last in cuts(work, max(n // panel, 1))]
    return [*found[:-1], (found[-1][0], n)]


def _line(bias: torch.Tensor, n: int) -> bool:
    return bias.dtype is torch.float32 and bias.is_cpu and bias.is_contiguous() and bias.numel() == n


def activated_product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor, activation: str) -> torch.Tensor | None:
    """activation(a @ b + bias), activated while the sums are near; None for products that :func:`product` should take.

    activation: relu, sigmoid or tanh.
    """
    m, (depth, n) = a.shape[0], b.shape
    work = m * depth * n
    if not has_rows(m) or work < LEAST or a.shape[1] != depth:
        return None
    if b.stride(1) != 1 or not _in_tiles(a, b) or not _line(bias, n):
        return None
    out = a.new_empty((m, n))
    flat, code = out.view(-1).numpy(), _layers().CODES[activation]
    run_parts(_layers().layer_at, [
        (a.data_ptr(), a.stride(0), b.data_ptr(), b.stride(0), bias.data_ptr(), flat, first, last, depth, n, code)
        for first, last in cuts(work, m)
    ])  # fmt: skip
    return out


def takes_narrow(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the kernels of narrow matrices (narrow.py) take a @ b, and its gradients: numba is there already."""
    return (
        numba_is_loaded()
        and is_narrow(a.shape[0], *b.shape)
        and _turns(a, b)
        and b.is_contiguous()
        and type(b) is torch.Tensor
        and a.shape[1] == b.shape[0]
    )


@cache
def _narrow() -> ModuleType:
    from millstream.kernels import narrow as module

    return module


def narrow_product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """a @ b + bias where :func:`takes_narrow` holds; `bias`: a contiguous float32 number for each column."""
    out = a.new_empty((a.shape[0], b.shape[1]))
    line = np.empty(0, np.float32) if bias is None else bias.view(-1).numpy()
    arrays = a.numpy(), b.numpy(), line, out.numpy()
    run_parts(_narrow().product, [(*arrays, *cut) for cut in cuts(a.numel() * b.shape[1], a.shape[0])])
    return out


def _library_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, n = a.shape[0], b.shape[1]
    if is_narrow(m, a.shape[1], n) and _turns(a, b):
        return torch.mm(a, b.t().contiguous().t()) if n < 4 else torch.mm(b.t(), a.t()).t().contiguous()
    if not _fits(a, b, a.numel() * n):
        return torch.mm(a, b)
    linear = cast(Callable[..., Any], _onednn())
    a, b = _dense(a), _dense(b)
    rest = m % BLOCK if m > BLOCK else 0
    if not rest:
        return linear(a, b.t(), None, "none", [], "")
    out = torch.empty((m, n), dtype=a.dtype)
    out[: m - rest] = linear(a[: m - rest], b.t(), None, "none", [], "")
    torch.mm(a[m - rest :], b, out=out[m - rest :])
    return out


def product_of_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a.t() @ b for matrices [M, K] and [M, N], of which M may change from call to call."""
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    if is_narrow(m, k, n) and _turns(a, b):
        return torch.mm(b.t(), a).t().contiguous()
    work = m * k * n
    a, b = (t if t.stride(1) == 1 else t.contiguous() for t in (a, b))
    if work >= LEAST and m == b.shape[0] and _in_tiles(a, b):
        out = a.new_empty((k, n))
        at_a, at_b, at_out = a.data_ptr(), b.data_ptr(), out.data_ptr()
        run_parts(tiles().turned_at, [
            (at_a + i * 4, a.stride(0), at_b, b.stride(0), zeros_at(n), 0, at_out + i * n * 4, m, last - i, n)
            for i, last in cuts(work, k)
        ])  # fmt: skip
        return out
    if m > BLOCK or not _fits(a, b, work):
        return torch.mm(a.t(), b)
    linear = cast(Callable[..., Any], _onednn())
    return linear(a.contiguous().t(), b.contiguous().t(), None, "none", [], "")


def steady_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b for matrices [M, K] and [K, N] of shapes that come again and again: convolutions, not sequences."""
    if not _fits(a, b, a.numel() * b.shape[1]):
        return torch.mm(a, b)
    linear = cast(Callable[..., Any], _onednn())
    return linear(_dense(a), _dense(b.t()), None, "none", [], "")
