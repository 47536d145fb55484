"""Cross entropies over classes, and over independent sigmoids.

Hard labels are int64 with 1 in place of the class dim. A label equal to `ignore_index` gives loss 0; any other label
outside [0, classes) is an error.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation_pieces import LOWEST_LOGIT, check_axis, clipped_softmax
from millstream.ops.loss._softmax_rows import fits_label, losses, losses_back

_LARGE = 1e20  # what a loss of infinity is cut to


def label_spec(x: Spec, label: Spec, axis: int, soft_label: bool, what: str = "X") -> tuple[int, ...]:
    """Checks Label against the scores; the shape of the loss."""
    check_axis(x, axis)
    if len(x.shape) != len(label.shape):
        raise ShapeError(
            f"{what} and Label must have the same number of dims, received {list(x.shape)} and {list(label.shape)}; "
            "hard labels have 1 in place of the class dim"
        )
    axis %= len(x.shape)
    for i, (a, b) in enumerate(zip(x.shape, label.shape)):
        if i != axis and a >= 0 and b >= 0 and a != b:
            raise ShapeError(f"{what} and Label must agree in dim {i}, received {list(x.shape)} and {list(label.shape)}")
    classes, given = x.shape[axis], label.shape[axis]
    if soft_label and classes >= 0 and given >= 0 and classes != given:
        raise ShapeError(f"soft labels need one number a class: {classes} in dim {axis}, received {given}")
    if not soft_label and given not in (-1, 1):
        raise ShapeError(f"hard labels must have 1 in dim {axis}, received Label {list(label.shape)}")
    return tuple(1 if i == axis else d for i, d in enumerate(x.shape))


def column(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """`label` [..., 1]: as in Fluid the last dim may be left out of what is fed."""
    return label.unsqueeze(-1) if label.dim() == x.dim() - 1 and label.shape == x.shape[:-1] else label


def pick(x: torch.Tensor, label: torch.Tensor, axis: int, ignore_index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`x` at the labels, and the mask of ignored labels (None: there are none)."""
    if not fits_label(x, label, axis):
        raise ShapeError(
            f"hard labels have the shape of the scores with 1 in place of the class dim, dim {axis % x.dim()}; received "
            f"scores of shape {list(x.shape)} and labels of shape {list(label.shape)}"
        )
    classes = x.shape[axis]
    if not 0 <= ignore_index < classes:
        try:
            return x.gather(axis, label), None
        except (RuntimeError, IndexError):
            pass  # a label is outside: ignored ones are, all others are an error
    ignored = label == ignore_index
    label = label.masked_fill(ignored, 0)
    try:
        return x.gather(axis, label), ignored
    except (RuntimeError, IndexError):
        wrong = label[(label < 0) | (label >= classes)]
        raise IndexError(
            f"labels must be from 0 to {classes - 1} (ignore_index is {ignore_index}), received {int(wrong[0])} and "
            f"{wrong.numel() - 1} more outside"
        ) from None


def _bounded_log_loss(p: torch.Tensor) -> torch.Tensor:
    return torch.log(p).neg_().clamp_(-_LARGE, _LARGE)


_FEW = 4096  # scores up to which torch's own gradients cost less than one of ours


def _few(x: torch.Tensor, label: torch.Tensor, ignore_index: int) -> bool:
    """Whether these are few scores and labels of which none is ignored but for being outside."""
    return 0 < x.numel() <= _FEW and label.dtype is torch.int64 and not 0 <= ignore_index < x.shape[-1]


# ---- cross_entropy ---------------------------------------------------------------------------------
def _cross_entropy_spec(x: Spec, label: Spec, *, soft_label: bool, ignore_index: int) -> Spec:
    label_spec(x, label, -1, soft_label)
    return x.like(shape=(*label.shape[:-1], 1))


@op("cross_entropy", slots="X, Label -> Y", infer=_cross_entropy_spec, lod="X", grad_lod="X", nodiff="Label", amp="black")
def cross_entropy(x, label, *, soft_label: bool = False, ignore_index: int = -100):
    """-log X[label], or -sum of Label * log X with soft labels, along the last dim; log(0) counts as -1e20.

    X: probabilities [..., C]; Label [..., 1] int64 (soft: [..., C]); Y [..., 1].
    """
    if soft_label:
        same_shape(x, label)
        return (label * _bounded_log_loss(x)).sum(-1, keepdim=True)
    p, ignored = pick(x, column(x, label).long(), -1, ignore_index)
    y = _bounded_log_loss(p)
    return (y if ignored is None else y.masked_fill(ignored, 0.0)).view(label.shape)


@op("cross_entropy_grad", slots="X, Label, Y@GRAD -> X@GRAD")
def cross_entropy_grad(x, label, dy, *, soft_label: bool = False, ignore_index: int = -100):
    """-dY / X at the label, 0 elsewhere; with soft labels -dY * Label / X."""
    if soft_label:
        return -(dy * label / x)
    label = column(x, label).long()
    p, ignored = pick(x, label, -1, ignore_index)
    return _scatter_grad(torch.zeros_like(x), -1, label, dy.reshape(p.shape) / p, ignored)


def _scatter_grad(dx, axis, label, g, ignored):
    """`dx` with `g` taken off at the labels that are not ignored. dx is a fresh tensor."""
    if ignored is not None:
        g = g.masked_fill(ignored, 0.0)
        label = label.masked_fill(ignored, 0)
    return dx.scatter_add_(axis, label, -g)


# ---- cross_entropy2 --------------------------------------------------------------------------------
def _cross_entropy2_spec(x: Spec, label: Spec, *, ignore_index: int) -> tuple[Spec, ...]:
    match = x.like(shape=label_spec(x, label, -1, False), lod_level=0)
    return x.like(shape=(*label.shape[:-1], 1)), Spec((*x.shape, 0), x.dtype), match


def _cross_entropy_again(x, label, *, ignore_index):
    p, ignored = pick(x, column(x, label).long(), -1, ignore_index)
    if ignored is None:
        return -torch.log(p), None, None
    return -torch.log(p.masked_fill(ignored, 1.0)), None, None


def _traced_cross_entropy2(x, label, *, ignore_index: int = -100):
    at = column(x, label)
    if not _few(x, at, ignore_index) or not fits_label(x, at, -1):
        return None
    try:
        p = x.gather(-1, at)
    except (RuntimeError, IndexError):
        return None
    apart = p.detach()
    if not float(apart.amin()) > 0:  # a loss that is cut, or NaN
        return None
    y = torch.log(p).neg()
    return y if at is label else y.view(label.shape), x.new_empty((*x.shape, 0)), apart


@op(
    "cross_entropy2",
    slots="X, Label -> Y, XShape~, MatchX",
    infer=_cross_entropy2_spec,
    lod="Y=X", grad_lod="X",
    nodiff="Label",
    grad="cross_entropy_grad2",
    again=_cross_entropy_again,
    traced=_traced_cross_entropy2,
    amp="black",
)
def cross_entropy2(x, label, *, ignore_index: int = -100):
    """-log X[label]; MatchX is X[label] (0 where the label is ignored). Shapes as cross_entropy."""
    p, ignored = pick(x, column(x, label).long(), -1, ignore_index)
    y = _bounded_log_loss(p)
    if ignored is not None:
        p, y = p.masked_fill(ignored, 0.0), y.masked_fill(ignored, 0.0)
    return y.view(label.shape), x.new_empty((*x.shape, 0)), p


@op("cross_entropy_grad2", slots="XShape, MatchX, Label, Y@GRAD -> X@GRAD")
def cross_entropy2_grad(xshape, match, label, dy, *, ignore_index: int = -100):
    """-dY / MatchX at the label."""
    dx = torch.zeros(xshape.shape[:-1], dtype=dy.dtype, device=dy.device)
    label = column(dx, label).long()
    return _scatter_grad(dx, -1, label, dy.reshape(match.shape) / match, label == ignore_index)


# ---- softmax_with_cross_entropy --------------------------------------------------------------------
def _softmax_ce_spec(logits: Spec, label: Spec, *, soft_label: bool, ignore_index: int, axis: int) -> tuple[Spec, Spec]:
    return logits, logits.like(shape=label_spec(logits, label, axis, soft_label, "Logits"))


def _softmax_ce_again(logits, label, *, soft_label, axis):
    """What softmax_with_cross_entropy_grad is the gradient of, odd labels as there."""
    whole = torch.logsumexp(logits, axis, keepdim=True)
    if soft_label:
        return None, whole - (label * logits).sum(axis, keepdim=True)
    at, inside = _flat_places(logits, label.long(), axis % logits.dim())
    return None, whole - logits.reshape(-1)[at.clamp(0, logits.numel() - 1)].mul(inside).reshape(whole.shape)


def _traced_softmax_ce(logits, label, *, soft_label: bool = False, ignore_index: int = -100, axis: int = -1):
    """The softmax is a leaf of its own: no gradient goes through it, as the declared gradient reads that of Loss only."""
    if soft_label or axis % logits.dim() != logits.dim() - 1 or not _few(logits, label, ignore_index):
        return None
    if not logits.requires_grad or not fits_label(logits, label, -1) or logits.dtype not in (torch.float32, torch.float64):
        return None
    logs = torch.log_softmax(logits, -1)
    apart = logs.detach()
    if not float(apart.amin()) >= LOWEST_LOGIT:
        return None
    try:
        return torch.exp(apart).requires_grad_(), logs.gather(-1, label).neg()
    except (RuntimeError, IndexError):
        return None


@op(
    "softmax_with_cross_entropy",
    slots="Logits, Label -> Softmax~, Loss",
    infer=_softmax_ce_spec,
    lod="Softmax=Logits, Loss=Logits",
    nodiff="Label",
    again=_softmax_ce_again,
    traced=_traced_softmax_ce,
    amp="black",
)
def softmax_with_cross_entropy(logits, label, *, soft_label: bool = False, ignore_index: int = -100, axis: int = -1):
    """Cross entropy of the softmax along `axis` (see softmax, cross_entropy).

    Logits [..., C, ...]; Label the same with C -> 1 (soft: C); Loss with C -> 1.
    """
    last = axis % logits.dim() == logits.dim() - 1
    found = losses(logits, label, ignore_index) if last and not soft_label else None
    if found is not None:
        return found
    y = clipped_softmax(logits, axis)
    if soft_label:
        same_shape(y, label)
        return y, (label * _bounded_log_loss(y)).sum(axis, keepdim=True)
    p, ignored = pick(y, label.long(), axis, ignore_index)
    loss = _bounded_log_loss(p)
    return y, loss if ignored is None else loss.masked_fill(ignored, 0.0)


@op("softmax_with_cross_entropy_grad", slots="Label, Softmax, Loss@GRAD -> Logits@GRAD")
def softmax_with_cross_entropy_grad(label, y, dloss, *, soft_label: bool = False, ignore_index: int = -100, axis: int = -1):
    """dLoss * (Softmax - label as one-hot).

    Fluid's CPU kernel does not look at `ignore_index` here: rows with an ignored label get dLoss * Softmax, and -dLoss
    goes to where a label outside [0, C) points in the flat tensor (another row), if that is inside it. So does this.
    """
    if soft_label:
        return dloss * (y - label)
    found = losses_back(y, label, None, dloss) if axis % y.dim() == y.dim() - 1 else None
    if found is not None:
        return found
    label = label.long()
    try:
        return (y * dloss).scatter_add_(axis, label, -dloss)
    except (RuntimeError, IndexError):
        return _flat_scatter(y * dloss, label, dloss, axis % y.dim())


def _flat_places(x, label, axis):
    """Where the labels point in the flat `x`, also outside their row, and which are inside it."""
    inner = math.prod(x.shape[axis + 1 :])
    start = torch.arange(x.numel(), device=x.device).reshape(x.shape).narrow(axis, 0, 1)
    at = (start + label.reshape(start.shape) * inner).reshape(-1)
    return at, (at >= 0) & (at < x.numel())


def _flat_scatter(dx, label, dloss, axis):
    """`dx` minus dLoss at the labels, which may point outside their row."""
    at, inside = _flat_places(dx, label, axis)
    flat = dx.contiguous().reshape(-1)
    return flat.index_add(0, at[inside], -dloss.reshape(-1)[inside]).reshape(dx.shape)


# ---- sigmoid ---------------------------------------------------------------------------------------
def same_shape_spec(x: Spec, y: Spec, **attrs: object) -> Spec:
    """Inference of losses that need both inputs of one shape."""
    if len(x.shape) != len(y.shape) or any(a != b and a >= 0 and b >= 0 for a, b in zip(x.shape, y.shape)):
        raise ShapeError(f"input and label must have the same shape, received {list(x.shape)} and {list(y.shape)}")
    return x


def same_shape(x: torch.Tensor, *others: torch.Tensor) -> None:
    """Raise ShapeError where a Program that declares equal shapes, or unknown ones, was fed others: nothing is spread."""
    for other in others:
        if other.shape != x.shape:
            raise ShapeError(f"all inputs must have one shape, received {list(x.shape)} and {list(other.shape)}")


@op(
    "sigmoid_cross_entropy_with_logits", slots="X, Label -> Out", infer=same_shape_spec, lod="X", nodiff="Label", amp="black"
)
def sigmoid_cross_entropy_with_logits(x, label, *, normalize: bool = False, ignore_index: int = -100):
    """max(X, 0) - X * Label + log(1 + exp(-|X|)), elementwise; 0 where Label, cut to an integer, is `ignore_index`.

    With `normalize`, divided by the number of elements whose Label is not `ignore_index` (none: 0, where Fluid gives NaN).
    """
    same_shape(x, label)
    ignored = _ignored(label, ignore_index)
    out = (F.softplus(-x.abs()) + x.clamp_min(0) - x * label).masked_fill(ignored, 0.0)
    return out / _count(label, ignore_index) if normalize else out


@op("sigmoid_cross_entropy_with_logits_grad", slots="X, Label, Out@GRAD -> X@GRAD")
def sigmoid_cross_entropy_with_logits_grad(x, label, dout, *, normalize: bool = False, ignore_index: int = -100):
    """dOut * (sigmoid(X) - Label); 0 where ignored."""
    ignored = _ignored(label, ignore_index)
    dx = (dout * (torch.sigmoid(x) - label)).masked_fill(ignored, 0.0)
    return dx / _count(label, ignore_index) if normalize else dx


def _ignored(label: torch.Tensor, ignore_index: int) -> torch.Tensor:
    return label.trunc() == ignore_index


def _count(label: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Elements that count: here the label itself is compared, with its fraction."""
    return (label != ignore_index).sum().clamp_min(1e-5)
