"""All gradients of a dense layer in one entry of the threads: each takes its share of every one."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.kernels.gemm import (
    NARROW,
    column_shares,
    product_turned_shares,
    takes_narrow,
    takes_turned,
    tiles,
    zeros_at,
)
from millstream.kernels.threads import parts, run_parts

Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import dense_back as module

    return module


@cache
def _narrow_kernels() -> ModuleType:
    from millstream.kernels import narrow as module

    return module


def layer_gradients(
    x: torch.Tensor, w: torch.Tensor, d: torch.Tensor, want: tuple[bool, bool, bool], behind: str
) -> Gradients | None:
    """(d @ w.T, x.T @ d, the sums of d's columns) as far as wanted; None for what :mod:`gemm` should take piece by piece.

    Args:
        x, w, d: matrices [M, K], [K, N], [M, N].
        want: which of the three.
        behind: "relu", "sigmoid" or "tanh": x is its result, and the first is times its derivative; "" for none.
    """
    (m, k), n = x.shape, w.shape[1]
    if takes_narrow(x, w) and k >= 4 * NARROW and d.is_contiguous() and d.dtype is torch.float32:
        return _of_few_columns(x, w, d, want, behind)
    if not _fits(x, w, d):
        return None
    dx = x.new_empty((m, k)) if want[0] else None
    dw = x.new_empty((k, n)) if want[1] else None
    sums = x.new_empty((n,)) if want[2] else None
    at_dx, at_dw, at_sums = (0 if t is None else t.data_ptr() for t in (dx, dw, sums))
    given = (x.data_ptr(), d.data_ptr(), d.stride(0), w.data_ptr(), w.stride(0), m, k, n, zeros_at(max(n, k)))
    code = _kernels().CODES[behind]
    shares = product_turned_shares(m, n, k)
    count = len(shares)
    run_parts(_kernels().back_at, [
        (*given, at_dx, rows, columns, code, at_dw, (k * i // count, k * (i + 1) // count), at_sums,
         (n * i // count, n * (i + 1) // count))
        for i, (rows, columns) in enumerate(shares)
    ])  # fmt: skip
    return dx, dw, sums


def _fits(x: torch.Tensor, w: torch.Tensor, d: torch.Tensor) -> bool:
    plain = x.dtype is torch.float32 and x.is_cpu and x.is_contiguous()
    return plain and x.shape[1] >= NARROW and takes_turned(d, w.t())


# Rows of x up to which moving the weight piece by piece is faster: what a piece is made from must stay in the cache.
_MOST_ROWS = 512


def layer_step(
    x: torch.Tensor, w: torch.Tensor, d: torch.Tensor, rate: float, want: tuple[bool, bool], behind: str
) -> tuple[torch.Tensor | None, torch.Tensor | None] | None:
    """(d @ w.T, the sums of d's columns) as far as wanted, and w -= rate * x.T @ d; None where :func:`layer_gradients`
    should make what is taken off.

    Args: as there.
    """
    (m, k), n = x.shape, w.shape[1]
    if m > _MOST_ROWS or not _fits(x, w, d) or not w.is_contiguous():
        return None
    shares = column_shares(m * k * n, k, tiles().LANES * tiles().VECTORS)
    count = len(shares)
    if count < parts(m * k * n, m):  # too few rows of w for all threads
        return None
    dx = x.new_empty((m, k)) if want[0] else None
    sums = x.new_empty((n,)) if want[1] else None
    at_dx, at_sums = (0 if t is None else t.data_ptr() for t in (dx, sums))
    given = (x.data_ptr(), d.data_ptr(), d.stride(0), w.data_ptr(), w.stride(0), m, k, n, zeros_at(max(n, k)), at_dx)
    code, step = _kernels().CODES[behind], np.float32(rate)
    run_parts(_kernels().step_at, [
        (*given, share, code, at_sums, (n * i // count, n * (i + 1) // count), step) for i, share in enumerate(shares)
    ])  # fmt: skip
    return dx, sums


def _of_few_columns(
    x: torch.Tensor, w: torch.Tensor, d: torch.Tensor, want: tuple[bool, bool, bool], behind: str
) -> Gradients:
    """The same where the weight has few columns."""
    (m, k), n = x.shape, w.shape[1]
    dx, dw, sums = (x.new_empty(shape if there else (0,) * len(shape)) for there, shape in zip(want, ((m, k), (k, n), (n,))))
    arrays = (*(t.numpy() for t in (x, w, d, dx, dw, sums)), zeros_at(k), _kernels().CODES[behind])
    run_parts(_narrow_kernels().gradients, [(*arrays, *cut) for cut in column_shares(2 * x.numel() * n, k, NARROW)])
    found = (t if there else None for there, t in zip(want, (dx, dw, sums)))
    return next(found), next(found), next(found)
