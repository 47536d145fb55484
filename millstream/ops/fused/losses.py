"""Losses fused with what stands around them in nearly every training Program. Plans make them (passes/training)."""

from __future__ import annotations

from functools import cache

import torch

from millstream.ops._broadcast import reduce_like
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation_pieces import clipped_softmax
from millstream.ops.loss import _softmax_rows
from millstream.ops.loss.cross_entropy import column, label_spec, pick


def _spec(x: Spec, label: Spec, *, ignore_index: int) -> tuple[Spec, Spec]:
    return x, x.like(shape=label_spec(x, label, -1, False))


@op("softmax_cross_entropy", slots="X, Label -> Softmax, Y", infer=_spec, lod="Softmax=X, Y=X", nodiff="Label")
def softmax_cross_entropy(x, label, *, ignore_index: int = -100):
    """softmax along the last dim, and -log of it at the label (0 where the label is `ignore_index`).

    X [..., C], Label [..., 1] int64, Softmax like X, Y [..., 1].
    """
    label, given = column(x, label), label
    found = _softmax_rows.losses(x, label, ignore_index)
    if found is not None:
        return found[0], found[1].view(given.shape)
    y = clipped_softmax(x, -1)
    p, ignored = pick(y, label.long(), -1, ignore_index)
    loss = torch.log(p).neg_()  # the softmax is cut: there is no log(0)
    return y, (loss if ignored is None else loss.masked_fill_(ignored, 0.0)).view(given.shape)


@op("softmax_cross_entropy_grad", slots="Softmax, Label, Y@GRAD -> X@GRAD", infer="X@GRAD=Softmax")
def softmax_cross_entropy_grad(y, label, dloss, *, ignore_index: int = -100):
    """dY * (Softmax - label as one-hot), 0 where the label is ignored."""
    label = column(y, label)
    found = _softmax_rows.losses_back(y, label, ignore_index, dloss)
    if found is not None:
        return found
    label = label.long()
    dloss = dloss.reshape(label.shape)
    try:
        if not 0 <= ignore_index < y.shape[-1]:  # ignored labels, where there are any, are outside: scatter complains
            return (y * dloss).scatter_add_(-1, label, dloss.neg())
    except (RuntimeError, IndexError):
        pass
    ignored = label == ignore_index
    dloss = dloss.masked_fill(ignored, 0.0)
    return (y * dloss).scatter_add_(-1, label.masked_fill(ignored, 0), dloss.neg())


@op(
    "softmax_cross_entropy_ahead", slots="X, Label -> X@GRAD, Y", lod="Y=X", grad=False,
    infer=lambda x, label, *, ignore_index, value: (x, _spec(x, label, ignore_index=ignore_index)[1]),
)  # fmt: skip
def softmax_cross_entropy_ahead(x, label, *, ignore_index: int = -100, value: float = 1.0):
    """Y of softmax_cross_entropy, and at once the gradient of X where that of the mean of Y is `value`."""
    label, given = column(x, label), label
    scale = value / max(label.numel(), 1)
    found = _softmax_rows.losses_with_gradient(x, label, ignore_index, scale)
    if found is not None:
        return found[0], found[1].view(given.shape)
    y, loss = softmax_cross_entropy(x, given, ignore_index=ignore_index)
    share = x.new_full((1,), scale).expand(given.shape)
    return softmax_cross_entropy_grad(y, given, share, ignore_index=ignore_index), loss


@op("mean_grad_of_constant", slots="X -> X@GRAD", infer="X@GRAD=X", lod="X@GRAD=X", grad=False)
def mean_grad_of_constant(x, *, value: float = 1.0):
    """The gradient of mean where that of its result is `value`: value / (number of elements) everywhere."""
    share = value / max(x.numel(), 1)
    if x.numel() <= _SMALL:
        return x.new_full(x.shape, share)
    return x.new_full((1,), share).expand(x.shape)


_SMALL = 4096  # elements that are sooner written than spread, and whose squares may be added up in one go


@cache
def _number(value: float, dtype: torch.dtype, device: torch.device, rank: int = 0) -> torch.Tensor:
    """A number that arithmetic takes at once: one of Python costs 2 us more."""
    return torch.full((1,) * rank, value, dtype=dtype, device=device)


def _error_spec(x: Spec, y: Spec) -> tuple[Spec, Spec]:
    return x, x.like(shape=(1,))


@op("mean_squared_error", slots="X, Y -> Difference, Out", infer=_error_spec, lod="Difference=X", grad_lod="X, Y")
def mean_squared_error(x, y):
    """The mean of (X - Y)^2 over all elements, [1]; Difference: X - Y. Operands of one rank."""
    d = x - y
    n = d.numel()
    if 0 < n <= _SMALL and type(d) is torch.Tensor and d.is_contiguous():
        flat = d.view(-1)
        return d, torch.dot(flat, flat) / _number(n, d.dtype, d.device, 1)
    return d, (d * d).mean().reshape(1)


@op(
    "mean_squared_error_grad", slots="X, Y, Difference, Out@GRAD? -> X@GRAD, Y@GRAD",
    infer=lambda x, y, d, dout, **_: (x, y),
)  # fmt: skip
def mean_squared_error_grad(x, y, d, dout, *, value: float = 1.0, want):
    """dX = 2 * dOut * (X - Y) / (number of elements), dY = -dX; dOut is `value` where it is not given."""
    share = 2 / max(d.numel(), 1)
    if dout is not None:
        d = d * (dout.reshape(()) * share)
    else:
        d = d * (_number(value * share, d.dtype, d.device) if type(d) is torch.Tensor else value * share)
    return reduce_like(d, x, -1) if want[0] else None, -reduce_like(d, y, -1) if want[1] else None
