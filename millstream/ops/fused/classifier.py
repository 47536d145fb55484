"""A classifier's last layer with its loss and, where that of the mean is known beforehand, all their gradients.

Plans make it (passes/training/classify_ahead.py).
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.kernels.gemm import NARROW, tiles, zeros_at
from millstream.kernels.threads import cuts, numba_is_loaded, run_parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.fused.layers import dense_layer, dense_layer_grad
from millstream.ops.fused.losses import softmax_cross_entropy, softmax_cross_entropy_ahead, softmax_cross_entropy_grad
from millstream.ops.loss import _softmax_rows
from millstream.ops.loss.cross_entropy import (
    label_spec,
    softmax_with_cross_entropy,
    softmax_with_cross_entropy_grad,
)
from millstream.ops.matmul import as_matrix
from millstream.ops.reduce import mean


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import classifier as module

    return module


def _spec(x: Spec, w: Spec, bias: Spec, label: Spec, *, rows: int, with_logits: bool, **attrs: object):
    scores = x.like(shape=(*x.shape[:rows], w.shape[1]))
    losses = scores.like(shape=label_spec(scores, label, -1, False, "Logits" if with_logits else "X"))
    return scores, scores, losses, Spec((1,), x.dtype), x, w, w.like(shape=w.shape[1:])


@op(
    "classify_ahead", slots="X, W, Bias, Label -> Scores, Softmax, Y, Mean, X@GRAD, W@GRAD, Bias@GRAD", infer=_spec,
    lod="Scores=X, Softmax=X, Y=X, X@GRAD=X", grad=False, flops=_flops.classifier,
)  # fmt: skip
def classify_ahead(
    x, w, bias, label, *, rows: int = 1, behind: str = "", ignore_index: int = -100, with_logits: bool = False,
    value: float = 1.0, want,
):  # fmt: skip
    """Scores = X W + Bias, their softmax, Y = -log of it at the labels, its mean; the gradients where the mean's is `value`.

    X is flattened to a matrix, its first `rows` dims are the rows; W [in, classes], Label int64, one a row.
    behind: the activation whose result X is; X@GRAD is that of what was activated then.
    with_logits: the loss is softmax_with_cross_entropy, whose gradient does not look at `ignore_index`.
    Scores, Softmax and Mean only where they are wanted.
    """
    x2, shape = as_matrix(x, rows), (*x.shape[:rows], w.shape[1])
    found = _by_rows(x2, w, bias, label, shape, (behind, ignore_index, with_logits, value), want[4])
    if found is None:
        found = _one_by_one(x2, w, bias, label, shape, (behind, ignore_index, with_logits, value), want)
    scores, softmax, y, average, dx, dw, sums = found
    return scores, softmax, y, average, dx if dx is None else dx.view(x.shape), dw, sums


def _one_by_one(x2, w, bias, label, shape, attrs, want):
    """The same by the operators that this one stands for."""
    behind, ignored, with_logits, value = attrs
    scores = dense_layer(x2, w, bias).view(shape)
    softmax = None
    if with_logits:
        softmax, y = softmax_with_cross_entropy(scores, label, ignore_index=ignored)
        d = softmax_with_cross_entropy_grad(label, softmax, _shares(y, value), ignore_index=ignored)
    elif want[1]:
        softmax, y = softmax_cross_entropy(scores, label, ignore_index=ignored)
        d = softmax_cross_entropy_grad(softmax, label, _shares(y, value), ignore_index=ignored)
    else:
        d, y = softmax_cross_entropy_ahead(scores, label, ignore_index=ignored, value=value)
    average = mean(y) if want[3] else None
    return (
        scores,
        softmax,
        y,
        average,
        *dense_layer_grad(x2, w, None, d.reshape(x2.shape[0], -1), behind=behind, want=want[4:]),
    )


def _shares(y, value):
    """The gradient of the losses from that of their mean."""
    return y.new_full((1,), value / max(y.numel(), 1)).expand(y.shape)


def _by_rows(x2, w, bias, label, shape, attrs, want_dx):
    """By the kernel; None where numba is not there or it does not take the operands, or labels are odd."""
    (m, k), n = x2.shape, w.shape[1]
    behind, ignored, with_logits, value = attrs
    takes = (
        numba_is_loaded()
        and type(x2) is type(w) is type(bias) is type(label) is torch.Tensor
        and x2.dtype is w.dtype is bias.dtype is torch.float32
        and label.dtype is torch.int64
        and x2.is_cpu and w.is_cpu and bias.is_cpu and label.is_cpu
        and x2.is_contiguous() and w.is_contiguous() and bias.is_contiguous() and label.is_contiguous()
        and not torch.is_grad_enabled()
        and m > 0 and 1 < n < NARROW and w.shape[0] == k >= NARROW >= tiles().LANES and bias.numel() == n
        and (label.shape == (*shape[:-1], 1) or (label.shape == shape[:-1] and not with_logits))
    )  # fmt: skip
    if not takes:
        return None
    labels = label.view(-1).numpy()
    if not _plain(labels, n, ignored, with_logits):
        return None
    scores, softmax = x2.new_empty(shape), x2.new_empty(shape)
    y, dw, sums = x2.new_empty(label.shape), w.new_empty((k, n)), w.new_empty((n,))
    dx = x2.new_empty((m, k)) if want_dx else None
    at_dx, code = 0 if dx is None else dx.data_ptr(), _kernels().CODES[behind]
    given = (*(t.data_ptr() for t in (x2, w, bias)), labels, ignored, *(t.data_ptr() for t in (scores, softmax, y)))
    taken = cuts(m * k * (3 * n + 6), m)  # the products, and what moves x and dx costs
    shares = x2.new_empty((len(taken), n * k + NARROW))
    run_parts(_kernels().classify_at, [
        (*given, at_dx, shares[i].data_ptr(), zeros_at(k), k, n, np.float32(value / m), code, *cut)
        for i, cut in enumerate(taken)
    ])  # fmt: skip
    average = _kernels().joined(shares.numpy(), y.view(-1).numpy(), dw.numpy(), sums.numpy())
    return scores, softmax, y, x2.new_full((1,), average), dx, dw, sums


def _plain(labels, classes, ignored, with_logits):
    """Whether the kernel's way with labels is that of the operators: all are classes, or ignored ones."""
    outside = _softmax_rows.kernels().outside
    if not with_logits:
        return outside(labels, classes, ignored) < 0
    return outside(labels, classes, 0) < 0 and not (0 <= ignored < classes and (labels == ignored).any())
