"""Losses over classes beside the cross entropies: nll_loss, bpr_loss, center_loss, sigmoid_focal_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from millstream.errors import ShapeError
from millstream.ops._opdef import Long, op
from millstream.ops._values import Spec
from millstream.ops.loss.cross_entropy import label_spec, pick
from millstream.ops.tensor._dims import fit

_aten = torch.ops.aten
_REDUCTION = {"none": 0, "mean": 1, "sum": 2}


# ---- nll_loss ----------------------------------------------------------------------------------------
def _nll_spec(x: Spec, label: Spec, weight: Spec | None, *, ignore_index: int, reduction: str) -> tuple[Spec, Spec]:
    if len(x.shape) not in (2, 4):
        raise ShapeError(f"X must be [N, C] or [N, C, H, W], received {list(x.shape)}")
    if reduction not in _REDUCTION:
        raise ShapeError(f"reduction must be none, mean or sum, received {reduction!r}")
    want = (x.shape[0], *x.shape[2:])
    if len(label.shape) != len(want) or any(a != b and a >= 0 and b >= 0 for a, b in zip(label.shape, want)):
        raise ShapeError(f"Label must be {list(want)} for X {list(x.shape)}, received {list(label.shape)}")
    if weight is not None and x.shape[1] >= 0 and tuple(weight.shape) not in ((x.shape[1],), (-1,)):
        raise ShapeError(f"Weight must be [{x.shape[1]}], received {list(weight.shape)}")
    one = Spec((1,), x.dtype)
    return (Spec(want, x.dtype) if reduction == "none" else one), one


@op("nll_loss", slots="X, Label, Weight? -> Out, Total_weight", infer=_nll_spec, nodiff="Label, Weight")
def nll_loss(x, label, weight, *, ignore_index: Long = -100, reduction: str = "mean"):
    """-Weight[Label] * X[Label] over dim 1, 0 where Label is `ignore_index`; mean divides by the sum of the weights used.

    X [N, C] or [N, C, H, W]; Label int64 [N] or [N, H, W]; Out of Label's shape (none) or [1]; Total_weight [1].
    """
    forward = _aten.nll_loss_forward if x.dim() == 2 else _aten.nll_loss2d_forward
    out, total = forward(x, label.long(), weight, _REDUCTION[reduction], ignore_index)
    if reduction == "mean" and x.numel():
        out = torch.where(total == 0, torch.zeros_like(out), out)  # all of them are ignored
    return (out if reduction == "none" else out.reshape(1)), total.reshape(1)


@op("nll_loss_grad", slots="X, Label, Weight?, Total_weight, Out@GRAD -> X@GRAD", nodiff="Total_weight")
def nll_loss_grad(x, label, weight, total, dout, *, ignore_index: Long = -100, reduction: str = "mean"):
    """-dOut * Weight at the label (over Total_weight for mean)."""
    backward = _aten.nll_loss_backward if x.dim() == 2 else _aten.nll_loss2d_backward
    dout = dout if reduction == "none" else dout.reshape(())
    code, total = _REDUCTION[reduction], total.detach().reshape(())
    return backward(dout.contiguous(), x.contiguous(), label.long(), weight, code, ignore_index, total)


# ---- bpr_loss ----------------------------------------------------------------------------------------
def _bpr_spec(x: Spec, label: Spec) -> Spec:
    return x.like(shape=label_spec(x, label, -1, False))


@op("bpr_loss", slots="X, Label -> Y", infer=_bpr_spec, lod="X", grad_lod="X", nodiff="Label")
def bpr_loss(x, label):
    """Mean over the other classes j of log(1 + exp(X[j] - X[label])) (Hidasi et al. 2016): X [..., C] to Y [..., 1]."""
    label = label.long()
    loss = F.softplus(x - pick(x, label, -1, -1)[0], threshold=100)
    own = loss.gather(-1, label)
    return (loss.sum(-1, keepdim=True) - own) / (x.shape[-1] - 1)


@op("bpr_loss_grad", slots="X, Label, Y@GRAD -> X@GRAD")
def bpr_loss_grad(x, label, dy):
    """dY / (C - 1) * sigmoid(X[j] - X[label]); minus the sum of them at the label."""
    label = label.long()
    g = torch.sigmoid(x - x.gather(-1, label)).scatter(-1, label, 0.0) * (dy / (x.shape[-1] - 1))
    return g.scatter(-1, label, -g.sum(-1, keepdim=True))


# ---- center_loss -------------------------------------------------------------------------------------
def _center_spec(x: Spec, label: Spec, centers: Spec, rate: Spec, **attrs: object) -> tuple[Spec, Spec, Spec]:
    if len(x.shape) != 2 or len(centers.shape) != 2:
        raise ShapeError(f"X and Centers must have 2 dims, received {list(x.shape)} and {list(centers.shape)}")
    if x.shape[1] >= 0 and centers.shape[1] >= 0 and x.shape[1] != centers.shape[1]:
        raise ShapeError(f"Centers must be as wide as X ({x.shape[1]}), received {list(centers.shape)}")
    return centers, x.like(lod_level=0), x.like(shape=(x.shape[0], 1))


def _center_again(x, label, centers, rate):
    return None, None, (x - centers[label.reshape(-1).long()]).square().sum(1, keepdim=True) * 0.5


@op("center_loss", slots="X, Label, Centers, CenterUpdateRate -> CentersOut, SampleCenterDiff, Loss", infer=_center_spec,
    lod="Loss=X", nodiff="Label, Centers, CenterUpdateRate", again=_center_again)
def center_loss(x, label, centers, rate, *, cluster_num: int, need_update: bool):
    """|X - Centers[Label]|^2 / 2 per row (Wen et al. 2016): X [N, D], Label [N, 1], Centers [cluster_num, D], Loss [N, 1].

    With need_update, CentersOut = Centers + rate * (sum of the rows' differences) / (1 + number of rows) per class.
    """
    label = label.reshape(-1).long()
    diff = x - centers[label]
    loss = (diff * diff).sum(1, keepdim=True) * 0.5
    if not need_update:
        return centers.clone(), diff, loss
    count = torch.bincount(label, minlength=centers.shape[0]) + 1
    total = torch.zeros_like(centers).index_add_(0, label, diff)
    return centers + total * (rate.reshape(()) / count).unsqueeze(1), diff, loss


@op("center_loss_grad", slots="SampleCenterDiff, Loss@GRAD -> X@GRAD")
def center_loss_grad(diff, dloss):
    """dLoss * (X - Centers[Label])."""
    return diff * dloss


# ---- sigmoid_focal_loss ------------------------------------------------------------------------------
def _focal_spec(x: Spec, label: Spec, fg_num: Spec, **attrs: object) -> Spec:
    if len(x.shape) != 2:
        raise ShapeError(f"X must have 2 dims, received {list(x.shape)}")
    if len(label.shape) != 2 or label.shape[1] not in (1, -1):
        raise ShapeError(f"Label must be [N, 1], received {list(label.shape)}")
    if not fit(x.shape[0], label.shape[0]):
        raise ShapeError(f"Label must have a row for each of X's {x.shape[0]}, received {list(label.shape)}")
    return x


def _focal_terms(x, label, fg_num, alpha):
    """Weights of the positive and the negative term of each element."""
    classes = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=label.dtype)
    positive = label.reshape(-1, 1) == classes
    negative = ~positive & (label.reshape(-1, 1) != -1)
    n = fg_num.reshape(()).clamp_min(1).to(x.dtype)
    return positive * (alpha / n), negative * ((1.0 - alpha) / n)


@op("sigmoid_focal_loss", slots="X, Label, FgNum -> Out", infer=_focal_spec, lod="X", nodiff="Label, FgNum")
def sigmoid_focal_loss(x, label, fg_num, *, gamma: float = 2.0, alpha: float = 0.25):
    """Focal loss of each class's sigmoid (Lin et al. 2017), over max(FgNum, 1): X [N, C], Label int32 [N, 1].

    Label 1..C is a class, 0 background, -1 ignored. p = sigmoid(X): -alpha (1-p)^gamma log p for the label's class,
    -(1-alpha) p^gamma log(1-p) for the others.
    """
    pos, neg = _focal_terms(x, label, fg_num, alpha)
    p = torch.sigmoid(x)
    return -(pos * (1 - p).pow(gamma) * F.logsigmoid(x) + neg * p.pow(gamma) * F.logsigmoid(-x))


@op("sigmoid_focal_loss_grad", slots="X, Label, FgNum, Out@GRAD -> X@GRAD")
def sigmoid_focal_loss_grad(x, label, fg_num, dout, *, gamma: float = 2.0, alpha: float = 0.25):
    """The derivative."""
    pos, neg = _focal_terms(x, label, fg_num, alpha)
    p = torch.sigmoid(x)
    q = 1 - p
    of_pos = q.pow(gamma) * (q - gamma * p * F.logsigmoid(x))
    of_neg = p.pow(gamma) * (gamma * q * F.logsigmoid(-x) - p)
    return -dout * (pos * of_pos + neg * of_neg)
