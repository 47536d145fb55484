"""Losses fused with what stands around them in nearly every training Program. Plans make them (passes/training)."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation_pieces import clipped_softmax
from millstream.ops.loss.cross_entropy import label_spec, pick


def _spec(x: Spec, label: Spec, *, ignore_index: int) -> tuple[Spec, Spec]:
    return x, x.like(shape=label_spec(x, label, -1, False))


@op("softmax_cross_entropy", slots="X, Label -> Softmax, Y", infer=_spec, lod="Softmax=X, Y=X", nodiff="Label")
def softmax_cross_entropy(x, label, *, ignore_index: int = -100):
    """softmax along the last dim, and -log of it at the label (0 where the label is `ignore_index`).

    X [..., C], Label [..., 1] int64, Softmax like X, Y [..., 1].
    """
    y = clipped_softmax(x, -1)
    p, ignored = pick(y, label.long(), -1, ignore_index)
    loss = torch.log(p).neg_()  # the softmax is cut: there is no log(0)
    return y, loss if ignored is None else loss.masked_fill_(ignored, 0.0)


@op("softmax_cross_entropy_grad", slots="Softmax, Label, Y@GRAD -> X@GRAD", infer="X@GRAD=Softmax")
def softmax_cross_entropy_grad(y, label, dloss, *, ignore_index: int = -100):
    """dY * (Softmax - label as one-hot), 0 where the label is ignored."""
    label = label.long()
    try:
        if not 0 <= ignore_index < y.shape[-1]:  # ignored labels, where there are any, are outside: scatter complains
            return (y * dloss).scatter_add_(-1, label, dloss.neg())
    except (RuntimeError, IndexError):
        pass
    ignored = label == ignore_index
    dloss = dloss.masked_fill(ignored, 0.0)
    return (y * dloss).scatter_add_(-1, label.masked_fill(ignored, 0), dloss.neg())


@op("mean_grad_of_constant", slots="X -> X@GRAD", infer="X@GRAD=X", grad=False)
def mean_grad_of_constant(x, *, value: float = 1.0):
    """The gradient of mean where that of its result is `value`: value / (number of elements) everywhere."""
    return x.new_full((1,), value / max(x.numel(), 1)).expand(x.shape)
