"""Matrix products of bfloat16 tensors in register tiles of pairs (pair_tiles.py), with float32 sums.

One thread, GFLOP/s of oneDNN / tiles (peak 230): [384, 512] x [512, 512] 221 / 228, its weight gradient 214 / 217;
[6272, 512] x [512, 128] 207 / 220 and 171 / 187; [352, 512] x [512, 10^4] 195 / 202 and 179 / 201. Within a training step,
where matrices come from memory and results go to fresh memory, 196 / 210 and 175 / 195.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from millstream.kernels.threads import cuts, numba_is_loaded, run_parts

_LEAST, _LEAST_TO_LOAD = 2_000_000, 100_000_000  # multiplications from which a product goes this way, and loads numba for it


@cache
def tiles() -> ModuleType | None:
    """pair_tiles where the processor has its instructions."""
    from millstream.kernels import pairs

    if not pairs.available():
        return None
    from millstream.kernels import pair_tiles as module

    return module


@cache
def _zeros(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.float32)


def takes(work: int, *tensors: torch.Tensor, parameter: torch.Tensor | None = None) -> bool:
    """Whether products of these with `work` multiplications are computed here, if their sizes fit; `parameter` may be
    float32."""
    return (
        all(t.dtype is torch.bfloat16 and _is_value(t) for t in tensors)
        and (parameter is None or (parameter.dtype in (torch.bfloat16, torch.float32) and _is_value(parameter)))
        and work >= (_LEAST if numba_is_loaded() else _LEAST_TO_LOAD)
        and not torch.is_grad_enabled()
        and tiles() is not None
    )


def _is_value(t: torch.Tensor) -> bool:
    return t.is_cpu and type(t) is torch.Tensor  # not a tracer's stand-in


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor | None:
    """a @ b (+ bias, one number a column) for bfloat16 [M, K] and [K, N], rounded once; None where this does not apply.

    b: of float32, too; it is rounded as it is laid out.
    """
    (m, depth), n = a.shape, b.shape[1]
    if depth != b.shape[0] or depth % 2 or n % 16 or a.stride(1) != 1 or a.stride(0) % 2:
        return None
    if not takes(m * depth * n, a, parameter=b):
        return None
    turned = b.stride(1) != 1
    if turned and (b.stride(0) != 1 or depth % 32):
        return None
    first = _zeros(n) if bias is None else bias.reshape(-1).float()
    kernels, out = tiles(), a.new_empty((m, n))
    assert kernels is not None
    step, begin, at = b.stride(1 if turned else 0), first.data_ptr(), out.data_ptr()
    single, size = b.dtype is torch.float32, b.element_size()
    if m > n:  # each thread lays out the right matrix for itself
        shares = cuts(m * depth * n, m)
        room = a.new_empty((len(shares), depth * n))
        right = b.data_ptr(), step, turned, single, depth, n, begin
        calls = [
            (a.data_ptr() + i * a.stride(0) * 2, a.stride(0), last - i, *right, at + i * n * 2, n, part.data_ptr())
            for (i, last), part in zip(shares, room)
        ]
    else:
        room, left = a.new_empty(depth * n), (a.data_ptr(), a.stride(0), m)
        calls = []
        for j, last in _columns(m * depth * n, n, kernels.PANEL):
            right = b.data_ptr() + j * b.stride(1) * size, step, turned, single, depth, last - j, begin + j * 4
            calls.append((*left, *right, at + j * 2, n, room.data_ptr() + j * depth * 2))
    run_parts(kernels.product_at, calls)
    return out


def product_of_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """a.t() @ b for bfloat16 [M, K] and [M, N]; None where this does not apply."""
    (m, k), n = a.shape, b.shape[1]
    if m != b.shape[0] or k % 16 or n % 16 or not takes(m * k * n, a, b) or a.stride(1) != 1 or b.stride(1) != 1:
        return None
    kernels, out = tiles(), a.new_empty((k, n))
    assert kernels is not None
    wide = n > k
    shares = _columns(m * k * n, n if wide else k, kernels.PANEL)
    sizes = [(k, last - first) if wide else (last - first, n) for first, last in shares]
    needed = max(kernels.room_over_rows(m, *size) for size in sizes) // 64 * 64 + 64
    room = torch.empty((len(shares), needed), dtype=torch.uint8)
    run_parts(kernels.over_rows_at, [
        (
            a.data_ptr() + (0 if wide else i * 2), a.stride(0), b.data_ptr() + (i * 2 if wide else 0), b.stride(0), m, *size,
            out.data_ptr() + 2 * (i if wide else i * n), n, part.data_ptr(), _zeros(max(k, n)).data_ptr(),
        ) for (i, _), size, part in zip(shares, sizes, room)
    ])  # fmt: skip
    return out


def _columns(work: int, n: int, panel: int) -> list[tuple[int, int]]:
    """(first, last) column of each thread's share; shares begin with panels, the last one takes what fills none."""
    found = [(first * panel, last * panel) for first, last in cuts(work, max(n // panel, 1))]
    return [*found[:-1], (found[-1][0], n)]
