"""Matrix products of float32 by oneDNN where that is faster than torch.mm.

torch.mm calls MKL, which leaves AVX-512 unused on AMD processors: measured there, oneDNN takes a third of the time
(512 x 512 x 2048) and never more on Intel. oneDNN compiles code for every new shape (0.3 to 3 ms), so a number of
rows that changes from call to call is cut into a multiple of `BLOCK` and a rest. Nothing here is differentiable.

A matrix of 2 to 15 columns (the last layer of a classifier) on the right is where MKL is slow: 512 x 400 x 2 takes 240 us,
its weight gradient 300; the same product the other way round, transposed afterwards, 50 and 40.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch

BLOCK = 256
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


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b for matrices [M, K] and [K, N], of which M may change from call to call."""
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
    m = a.shape[0]
    if is_narrow(m, a.shape[1], b.shape[1]) and _turns(a, b):
        return torch.mm(b.t(), a).t().contiguous()
    if not _fits(a, b, a.numel() * b.shape[1]):
        return torch.mm(a.t(), b)
    linear = cast(Callable[..., Any], _onednn())
    a, b = a.contiguous(), b.contiguous()
    rest = m % BLOCK if m > BLOCK else 0
    out = linear(a[: m - rest].t(), b[: m - rest].t(), None, "none", [], "")
    return out.addmm_(a[m - rest :].t(), b[m - rest :]) if rest else out
