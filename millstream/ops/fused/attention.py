"""Attention and layer normalisation with what surrounds them. Passes make these operators (passes/attention)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from millstream.errors import ShapeError
from millstream.ops import _flops
from millstream.ops._opdef import Longs, op
from millstream.ops._values import Spec

_norm = torch.ops.aten.native_layer_norm.default


# ---- attention ---------------------------------------------------------------------------------------
def _attention_spec(q, k, v, mask, *, scale, heads):
    if heads < 0 or (heads and any(len(x.shape) != 3 for x in (q, k, v))):
        raise ShapeError(
            f"with heads = {heads} (0: split already), Q, K and V must be [batch, rows, heads * width], received "
            f"{[list(x.shape) for x in (q, k, v)]}"
        )
    if len(q.shape) < 2 or not len(q.shape) == len(k.shape) == len(v.shape):
        raise ShapeError(f"Q, K and V must have one rank, at least 2, received {[list(x.shape) for x in (q, k, v)]}")
    for a, b, what in ((q.shape[-1], k.shape[-1], "widths of Q and K"), (k.shape[-2], v.shape[-2], "rows of K and V")):
        if a >= 0 and b >= 0 and a != b:
            raise ShapeError(f"{what} must be equal, received {a} and {b}")
    return q.like(shape=(*q.shape[:-1], v.shape[-1]))


@op("fused_attention", slots="Q, K, V, Mask? -> Out", infer=_attention_spec, lod="Q", grad=False,
    flops=_flops.attention)  # fmt: skip
def fused_attention(q, k, v, mask, *, scale: float = 1.0, heads: int = 0):
    """softmax(scale * Q K^T + Mask) V over the last two dims (Vaswani et al. 2017, arXiv:1706.03762).

    Q [.., rows, D], K [.., columns, D], V [.., columns, E]; Mask broadcasts to [.., rows, columns]; Out [.., rows, E].
    heads > 0: Q, K, V and Out are [batch, rows, heads * D] and the heads are split off and joined here.
    """
    if not heads:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2).flatten(2)


# ---- layer normalisation -----------------------------------------------------------------------------
def _sum_spec(x, y, scale, bias, *, epsilon, begin_norm_axis):
    if len(x.shape) != len(y.shape) or not 0 < begin_norm_axis < len(x.shape):
        raise ShapeError(
            f"X and Y must have one shape and more than {begin_norm_axis} dims, received {list(x.shape)} and {list(y.shape)}"
        )
    return x


@op("fused_add_layer_norm", slots="X, Y, Scale?, Bias? -> Out", infer=_sum_spec, lod="Out=X", grad=False)
def fused_add_layer_norm(x, y, scale, bias, *, epsilon: float = 1e-5, begin_norm_axis: int = 1):
    """layer_norm(X + Y) over the dims from `begin_norm_axis`; X and Y have one shape."""
    total = x + y
    cols = math.prod(total.shape[begin_norm_axis:])
    flat = total if begin_norm_axis == total.dim() - 1 else total.reshape(-1, cols)
    return _norm(flat, (cols,), scale, bias, epsilon)[0].view(total.shape)


def _embedding_spec(ids, tables, scale, bias, *, epsilon, padding_idx, squeeze):
    if len(ids) != len(tables) or not ids:
        raise ShapeError(f"Ids and Tables must be lists of one length, received {len(ids)} and {len(tables)}")
    if len({t.shape[-1] for t in tables}) != 1 or any(len(t.shape) != 2 for t in tables):
        raise ShapeError(f"Tables must be [vocabulary, width] of one width, received {[list(t.shape) for t in tables]}")
    if squeeze and any(not i.shape or i.shape[-1] not in (1, -1) for i in ids):
        raise ShapeError(f"the last dim of Ids must be 1 with squeeze, received {[list(i.shape) for i in ids]}")
    shape = ids[0].shape[:-1] if squeeze else ids[0].shape
    return Spec((*shape, tables[0].shape[1]), tables[0].dtype, ids[0].lod_level)


@op(
    "fused_embedding_layer_norm", slots="Ids*, Tables*, Scale?, Bias? -> Out", infer=_embedding_spec, grad=False,
    lod=lambda lods, attrs, ins: {"Out": lods["Ids"][0]},
)  # fmt: skip
def fused_embedding_layer_norm(
    ids, tables, scale, bias, *, epsilon: float = 1e-5, padding_idx: Longs = [], squeeze: bool = True
):
    """layer_norm over the last dim of the sum of the Tables' rows at Ids.

    Ids: int64 [.., 1] (`squeeze`: Out is [.., D]) or [..], all of one shape; Tables: [vocabulary, D]; an id equal to its
    table's `padding_idx` (-1: none) gives zeros.
    """
    total: torch.Tensor = None  # type: ignore[assignment]  # there is at least one table
    for i, (where, table) in enumerate(zip(ids, tables)):
        where = where.squeeze(-1) if squeeze else where
        rows = torch.embedding(table, where)
        if i < len(padding_idx) and padding_idx[i] != -1:
            rows = rows.masked_fill((where == padding_idx[i]).unsqueeze(-1), 0)
        total = rows if total is None else total + rows
    return _norm(total, (total.shape[-1],), scale, bias, epsilon)[0]
