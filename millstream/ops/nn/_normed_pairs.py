"""_normed_conv.py for bfloat16 maps and 1x1 filters, where the processor has products of pairs (kernels/normed_pairs.py).

Both functions return None where the kernels do not apply.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from millstream.kernels import pair_products
from millstream.kernels.threads import cuts, run_parts
from millstream.ops.nn import _normed_conv as normed
from millstream.ops.nn._conv_rows import is_plain
from millstream.ops.nn._norm_channels import Measured, Running, measured
from millstream.ops.nn._normed_conv import End, Gradients, Summed, Work

_WHOLE = 32  # channels come in multiples: two vectors of pairs
_NOTHING = np.empty((0, 0), np.uint16)


def takes(filters: Sequence[int]) -> bool:
    """Whether filters [out, in, 1, 1] are taken on this processor."""
    return filters[0] % _WHOLE == 0 and filters[1] % _WHOLE == 0 and pair_products.tiles() is not None


def _applies(work: Work, *others: torch.Tensor) -> bool:
    x, w = work.x, work.w
    return (
        is_plain((torch.bfloat16,), x, *others) and w.dtype in (torch.bfloat16, torch.float32) and w.is_cpu
        and x.dim() == 4 and x.numel() > 0
        and normed.is_pointwise(w.shape, work.strides, work.paddings, work.groups) and takes(w.shape)
    )  # fmt: skip


def _panels(w: torch.Tensor, turned: bool) -> torch.Tensor:
    """Filters [k, c], of float32 too, as the kernels read them: to multiply rows of c numbers, `turned`, or of k."""
    from millstream.kernels import pair_tiles

    k, c = w.shape[:2]
    depth, n = (c, k) if turned else (k, c)
    panels, single = torch.empty(k * c, dtype=torch.bfloat16), w.dtype is torch.float32
    step = w.element_size() * (c if turned else 1)  # bytes between columns
    shares = [(i * pair_tiles.PANEL, min(j * pair_tiles.PANEL, n)) for i, j in cuts(16 * k * c, -(-n // pair_tiles.PANEL))]
    run_parts(pair_tiles.lay_out, [
        (w.data_ptr() + i * step, c, turned, depth, j - i, panels.data_ptr() + i * depth * 2, single) for i, j in shares
    ])  # fmt: skip
    return panels


def forward(work: Work, running: Running | None) -> tuple[torch.Tensor, Measured | None] | None:
    """(output, what its normalisation is told of it)."""
    if not _applies(work):
        return None
    from millstream.kernels import batch_norm, normed_pairs
    from millstream.kernels.brain import numbers
    from millstream.kernels.gemm import zeros_at

    x, w = normed.channels_last(work.x), work.w.contiguous()
    c, k, rows = x.shape[3], w.shape[0], x.numel() // x.shape[3]
    if normed.is_few(rows, c, k):
        made = pair_products.product(normed.normalised(x, work).view(rows, c), w.view(k, c).t())
        if made is None:
            return None
        out = made.view(*x.shape[:3], k).permute(0, 3, 1, 2)
        return out, None if running is None else measured(batch_norm.sums(numbers(made), np.float32), running)
    near, far = normed.group_of(c, rows), normed.group_of(k, rows)
    made, filters = torch.empty((*x.shape[:3], k), dtype=x.dtype), _panels(w, True)
    ends = normed.cut_rows(rows * c * k // 2, rows, max(near, far))
    sums = normed.room_for_sums(len(ends), 0 if running is None else far * k)
    given = numbers(x.reshape(-1, near * c)), near, normed.tiled(work.line, near), normed.bend_of(work.line)
    to = filters.data_ptr(), zeros_at(k), numbers(made.view(-1, far * k)), far
    run_parts(normed_pairs.forward, [(*given, *to, *e, *(s[i] for s in sums)) for i, e in enumerate(ends)])
    return made.permute(0, 3, 1, 2), normed.measured_parts(sums, [(b - a) // far for a, b in ends], running)


def backward(
    work: Work, out: torch.Tensor | None, dout: torch.Tensor, end: End | None, wanted: bool,
    added: torch.Tensor | None = None, summed: Summed | None = None,
) -> Gradients | None:
    """Gradients; wanted: whether dx is; added: what is added to it, where x is not normalised. With `summed` dx is the
    gradient of the sum, and total and dot are those of its normalisation."""
    more = out, added, None if summed is None else summed.x
    if not _applies(work, dout, *(t for t in more if t is not None)) or not normed.fits(work, wanted, added, summed):
        return None
    rows, (k, c) = work.x.numel() // work.x.shape[1], work.w.shape[:2]
    few = normed.is_few(2 * rows if work.line is not None else rows, c, k)
    return (_backward_few if few else _backward)(work, dout if out is None else out, dout, end, wanted, added, summed)


def _backward_few(
    work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool, added: torch.Tensor | None,
    summed: Summed | None,
) -> Gradients | None:
    """Product by product, each cut over columns."""
    x, w, g = normed.channels_last(work.x), work.w.contiguous(), normed.behind_line(out, dout, end)
    c, k, rows = x.shape[3], w.shape[0], x.numel() // x.shape[3]
    dw = pair_products.product_of_rows(g.view(rows, k), normed.normalised(x, work).reshape(rows, c))
    dx = pair_products.product(g.view(rows, k), w.view(k, c)) if wanted else None
    if dw is None or (wanted and dx is None):
        return None
    dw = dw.view(w.shape)
    if dx is None:
        return Gradients(None, dw, *normed.room_for_sums(0, 0)[1:])
    if work.line is not None:
        return normed.through_norm(work, x, dx.view(x.shape), dw)
    dx = dx.view(x.shape).permute(0, 3, 1, 2)
    dx = dx if added is None else dx + added
    if summed is not None:
        return normed.before_sum(work, dx, dw, summed)
    return Gradients(dx, dw, *normed.room_for_sums(0, 0)[1:])


def _backward(
    work: Work, out: torch.Tensor, dout: torch.Tensor, end: End | None, wanted: bool, added: torch.Tensor | None,
    summed: Summed | None,
) -> Gradients:
    from millstream.kernels import normed_pairs
    from millstream.kernels.brain import numbers
    from millstream.kernels.gemm import zeros_at

    x, w = normed.channels_last(work.x), work.w.contiguous()
    c, k, rows = x.shape[3], w.shape[0], x.numel() // x.shape[3]
    near = normed.group_of(c, rows)
    far = normed.group_of(k, rows if end is None or end.line.ndim == 2 else rows // len(x))
    dx = torch.empty(x.shape if wanted else (0, c), dtype=x.dtype)
    ends, filters = normed.cut_rows(rows * c * k, rows, max(near, far)), _panels(w, False)
    dw = torch.empty((len(ends), *w.shape), dtype=torch.float32)
    _, total, dot = normed.room_for_sums(len(ends), near * c if work.line is not None or summed is not None else 0)
    read = numbers(x.reshape(-1, near * c)), near, normed.tiled(work.line, near), normed.bend_of(work.line)
    after = filters.data_ptr(), zeros_at(max(c, k)), numbers(normed.channels_last(out).reshape(-1, far * k)), far
    given = numbers(normed.channels_last(dout).reshape(-1, far * k)), *normed.picture_lines(end, far, rows)
    more = normed.added_rows(added, summed, near * c, _NOTHING)
    made, shares = numbers(dx.view(-1, near * c if wanted else c)), dw.view(len(ends), k, c).numpy()
    run_parts(normed_pairs.backward, [
        (*read, *after, *given, *more, *e, made, shares[i], total[i], dot[i]) for i, e in enumerate(ends)
    ])  # fmt: skip
    gradient = torch.empty(w.shape, dtype=x.dtype)
    to = numbers(gradient.view(k, c))
    run_parts(normed_pairs.join, [(shares, *e, to) for e in cuts(8 * dw.numel(), k)])
    return Gradients(dx.permute(0, 3, 1, 2) if wanted else None, gradient, total, dot)
