"""Attention of a training step as one operator. Plans make it (passes/training)."""

from __future__ import annotations

import torch

from millstream.kernels import attention
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops.activation_pieces import clipped_softmax, softmax_grad
from millstream.ops.matmul import matmul, matmul_grad


def _spec(q, k, v, mask, *, scale):
    return q.like(shape=(*q.shape[:-1], v.shape[-1])), q.like(shape=(*q.shape[:-1], k.shape[-2]))


@op(
    "attention_layer", slots="Q, K, V, Mask? -> Out, Weights~", infer=_spec, lod="Out=Q", grad_lod="Q, K, V",
    flops=_flops.attention,
)  # fmt: skip
def attention_layer(q, k, v, mask, *, scale: float = 1.0):
    """Weights = softmax(scale * Q K^T + Mask), Out = Weights V over the last two dims (arXiv:1706.03762).

    Q [.., rows, D], K [.., columns, D], V [.., columns, E]; Mask, of their type, broadcasts to [.., rows, columns] and
    has no gradient.
    """
    found = attention.forward(q, k, v, mask, scale)
    if found is not None:
        return found
    scores = matmul(q, k, transpose_Y=True, alpha=scale)
    weights = clipped_softmax(scores if mask is None else scores + mask, -1)
    return torch.matmul(weights, v), weights


@op(
    "attention_layer_grad", slots="Q, K, V, Weights, Out@GRAD -> Q@GRAD, K@GRAD, V@GRAD",
    infer=lambda q, k, v, *_, **attrs: (q, k, v),
)  # fmt: skip
def attention_layer_grad(q, k, v, weights, dout, *, scale: float = 1.0, want):
    """dV = Weights^T dOut; dW = dOut V^T, d = scale * Weights * (dW - sum of Weights * dW): dQ = d K, dK = d^T Q."""
    found = attention.backward(q, k, v, weights, dout, scale)
    if found is not None:
        return found
    dweights, dv = matmul_grad(weights, v, dout, want=(want[0] or want[1], want[2]))
    if dweights is None:
        return None, None, dv
    slopes = softmax_grad(weights, dweights)
    return *matmul_grad(q, k, slopes, transpose_Y=True, alpha=scale, want=want[:2]), dv
