"""Attention of a training step by the kernels over heads (pair_attention.py), where these can take its tensors."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.kernels import pair_products
from millstream.kernels.arrays import array
from millstream.kernels.threads import parts, run_parts

_WIDTHS = 32  # widths are multiples of it


class _Layer(NamedTuple):
    """Queries, keys and values [batch, heads, rows, width], and what the kernels are told of them."""

    tensors: list[torch.Tensor]
    sizes: tuple[int, int, int, int, int]  # heads, queries, keys, widths

    @property
    def batch(self) -> int:
        return self.tensors[0].shape[0] * self.sizes[0]

    @property
    def pad(self) -> int:
        from millstream.kernels.pair_attention import padded

        return int(padded(self.sizes[2]))

    def ends(self) -> list[tuple[int, int]]:
        """(first, last) head of each thread."""
        _, queries, keys, width, values = self.sizes
        count = parts(self.batch * queries * keys * (width + values), self.batch)
        return list(pairwise(self.batch * i // count for i in range(count + 1)))

    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """A thread's room and scores."""
        from millstream.kernels.pair_attention import room_for

        room = torch.empty(int(room_for(self.sizes)), dtype=torch.int16)
        scores = torch.empty((self.sizes[1], self.pad), dtype=torch.float32)
        return room.numpy().view(np.uint16), scores.numpy()

    def zeros(self) -> torch.Tensor:
        return _zeros(max(self.pad, *self.sizes[3:], _WIDTHS))


@cache
def _zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.float32)


def _by_heads(t: torch.Tensor) -> torch.Tensor:
    """[batch, heads, rows, width] without a copy where there is one way to see it so."""
    return t if t.dim() == 4 else t.reshape(-1, 1, *t.shape[-2:])


def _rows(t: torch.Tensor) -> tuple[int, int, int, int]:
    a, b, c = t.stride()[:3]
    return t.data_ptr(), a, b, c


def _layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> _Layer | None:
    """None where the kernels can't take it: not bfloat16, 3 or 4 dims, other widths than multiples of 32, few numbers."""
    width, values = q.shape[-1], v.shape[-1]
    work = q.numel() // max(width, 1) * k.shape[-2] * (width + values)
    if width % _WIDTHS or values % _WIDTHS or q.shape[:-2] != k.shape[:-2] or k.shape[:-1] != v.shape[:-1]:
        return None
    if q.dim() not in (3, 4) or not work or not pair_products.takes(work, q, k, v):
        return None
    tensors = [_even(_by_heads(t)) for t in (q, k, v)]
    return _Layer(tensors, (tensors[0].shape[1], q.shape[-2], k.shape[-2], width, values))


def _even(t: torch.Tensor) -> torch.Tensor:
    """A tensor whose rows are numbers side by side, an even number of them apart."""
    return t if t.stride(3) == 1 and t.stride(2) % 2 == 0 else t.contiguous()


def _like(t: torch.Tensor, width: int) -> torch.Tensor:
    """[batch, heads, rows, width]: new memory in the order of `t`'s, heads of a row side by side or rows of a head."""
    batch, heads, rows, _ = t.shape
    if t.stride(1) < t.stride(2):
        return t.new_empty((batch, rows, heads, width)).transpose(1, 2)
    return t.new_empty((batch, heads, rows, width))


def _masked(mask: torch.Tensor | None, layer: _Layer) -> tuple[np.ndarray, tuple[int, int, int]] | None:
    """(its numbers, steps from batch to batch, head to head and row to row); None where it can't be read by rows."""
    from millstream.kernels.brain import numbers

    if mask is None:
        return np.empty(0, np.uint16), (0, 0, 0)
    heads, queries, keys, *_ = layer.sizes
    batch = layer.tensors[0].shape[0]
    if mask.dtype is not torch.bfloat16 or mask.dim() > 4 or mask.shape[-1] != keys:
        return None
    if mask.dim() == 3 and heads == 1 and batch > 1:  # of operands of 3 dims
        mask = mask.unsqueeze(1)
    kept = mask.contiguous()
    try:
        steps = kept.expand(batch, heads, queries, keys).stride()
    except RuntimeError:
        return None
    return numbers(kept.view(-1)), (steps[0], steps[1], steps[2])


def forward(q: Any, k: Any, v: Any, mask: Any, alpha: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(softmax(alpha * q k^T + mask) v, the softmax) of [.., rows, width]; None where the kernels can't."""
    layer = _layer(q, k, v)
    covered = _masked(mask, layer) if layer is not None else None
    if layer is None or covered is None:
        return None
    from millstream.kernels import pair_attention as kernels

    rows, (_, queries, keys, _, values) = layer.tensors, layer.sizes
    out = _like(rows[0], values)
    weights = q.new_empty((layer.batch, queries, layer.pad))
    held = weights.view(torch.int16).numpy().view(np.uint16)
    given = *map(_rows, rows), *covered, _rows(out), held, layer.sizes, np.float32(alpha)
    zeros = layer.zeros()
    run_parts(kernels.forward, [(*given, *layer.own(), zeros.data_ptr(), *ends) for ends in layer.ends()])
    shape = q.shape[:-1]
    return out.view(*shape, values) if q.dim() != 4 else out, weights.view(*shape, layer.pad)[..., :keys]


def backward(
    q: Any, k: Any, v: Any, weights: torch.Tensor, dout: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, ...] | None:
    """Gradients of q, k and v, by the weights of :func:`forward`; None where the kernels can't."""
    layer = _layer(q, k, v)
    if layer is None or not pair_products.takes(1 << 62, weights, dout):
        return None
    from millstream.kernels import pair_attention as kernels

    rows = layer.tensors
    d, kept = _even(_by_heads(dout)), _whole(weights, layer)
    found = [_like(t, t.shape[3]) for t in rows]
    held = array(kept.view(torch.int16)).view(np.uint16)
    given = *map(_rows, rows), held, _rows(d), *map(_rows, found), layer.sizes, np.float32(alpha)
    zeros = layer.zeros()
    run_parts(kernels.backward, [(*given, *layer.own(), zeros.data_ptr(), *ends) for ends in layer.ends()])
    return tuple(t if like.dim() == 4 else t.view(like.shape) for t, like in zip(found, (q, k, v)))


def _whole(weights: torch.Tensor, layer: _Layer) -> torch.Tensor:
    """Weights with the numbers that make up their rows, as :func:`forward` made them."""
    shape = (layer.batch, layer.sizes[1], layer.pad)
    size = layer.batch * layer.sizes[1] * layer.pad
    steps = torch.empty(shape, device="meta").view(*weights.shape[:-1], layer.pad).stride()
    if weights.stride() == steps and weights.untyped_storage().nbytes() // 2 - weights.storage_offset() >= size:
        return weights.as_strided(shape, (shape[1] * shape[2], shape[2], 1))
    made = weights.new_zeros((*weights.shape[:-1], layer.pad))
    made[..., : layer.sizes[2]] = weights
    return made.view(shape)
