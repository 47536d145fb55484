"""Losses of a prediction against a number or another prediction, mostly element by element."""

from __future__ import annotations

import math

import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.loss.cross_entropy import same_shape, same_shape_spec


def _like_first(x: Spec, *rest: Spec, **attrs: object) -> Spec:
    for other in rest:
        same_shape_spec(x, other)
    return x


def _two_like_first(x: Spec, *rest: Spec, **attrs: object) -> tuple[Spec, Spec]:
    return x.like(lod_level=0), _like_first(x, *rest)


def _huber_spec(x: Spec, y: Spec, *, delta: float) -> tuple[Spec, Spec]:
    same_shape_spec(x, y)
    return x.like(shape=y.shape, lod_level=0), x.like(shape=y.shape)


# ---- regression ------------------------------------------------------------------------------------
@op("huber_loss", slots="X, Y -> Residual~, Out", infer=_huber_spec, lod="Out=X", traceable=True, again=True)
def huber_loss(x, y, *, delta: float):
    """r^2 / 2 where |r| <= delta, else delta * (|r| - delta / 2); r = Y - X is Residual (Huber 1964)."""
    same_shape(x, y)
    r = y - x
    a = r.abs()
    return r, torch.where(a <= delta, 0.5 * r * r, delta * (a - 0.5 * delta))


@op("huber_loss_grad", slots="Residual, Out@GRAD -> X@GRAD, Y@GRAD")
def huber_loss_grad(r, dout, *, delta: float, want):
    """dY = dOut * (r cut to [-delta, delta]), dX = -dY."""
    d = dout * r.clamp(-delta, delta)
    return -d if want[0] else None, d if want[1] else None


def _smooth_l1_spec(x: Spec, y: Spec, inside: Spec | None, outside: Spec | None, *, sigma: float) -> tuple[Spec, Spec]:
    same_shape_spec(x, y)
    if len(x.shape) < 2:
        raise ShapeError(f"X must have at least 2 dims, received {list(x.shape)}")
    if inside is not None and outside is None:
        raise ShapeError("InsideWeight needs OutsideWeight beside it")
    for weight in (inside, outside):
        if weight is not None:
            same_shape_spec(x, weight)
    return x.like(lod_level=0), x.like(shape=(x.shape[0], 1), lod_level=0)


@op(
    "smooth_l1_loss",
    slots="X, Y, InsideWeight?, OutsideWeight? -> Diff~, Out",
    infer=_smooth_l1_spec,
    nodiff="InsideWeight, OutsideWeight",
    again=True,
)
def smooth_l1_loss(x, y, inside, outside, *, sigma: float = 1.0):
    """Per row, the sum of w_out * (s d^2 / 2 where |d| < 1/s, else |d| - 1/(2s)), d = w_in * (X - Y), s = sigma^2.

    (Girshick 2015.) X, Y and the weights [N, ...]; Out [N, 1]; Diff is d. As in Fluid, OutsideWeight alone has no effect.
    """
    s = sigma * sigma
    same_shape(x, y, *(w for w in (inside, outside) if w is not None))
    d = x - y
    if inside is not None:
        d = d * inside
    a = d.abs()
    e = torch.where(a < 1.0 / s, 0.5 * s * d * d, a - 0.5 / s)
    if inside is not None:
        e = e * outside
    return d, e.reshape(e.shape[0], -1).sum(1, keepdim=True)


@op("smooth_l1_loss_grad", slots="InsideWeight?, OutsideWeight?, Diff, Out@GRAD -> X@GRAD, Y@GRAD")
def smooth_l1_loss_grad(inside, outside, d, dout, *, sigma: float = 1.0, want):
    """dX = dOut * w_in * w_out * (s d where |d| < 1/s, else sign(d)), dY = -dX."""
    s = sigma * sigma
    g = torch.where(d.abs() < 1.0 / s, s * d, torch.sign(d)) * dout.reshape(-1, *[1] * (d.dim() - 1))
    if inside is not None:
        g = g * inside * outside
    return g if want[0] else None, -g if want[1] else None


# ---- two classes -----------------------------------------------------------------------------------
@op("log_loss", slots="Predicted, Labels -> Loss", infer=_like_first, lod="Predicted", nodiff="Labels")
def log_loss(p, y, *, epsilon: float):
    """-y log(p + epsilon) - (1 - y) log(1 - p + epsilon)."""
    same_shape(p, y)
    return -y * torch.log(p + epsilon) - (1 - y) * torch.log(1 - p + epsilon)


@op("log_loss_grad", slots="Predicted, Labels, Loss@GRAD -> Predicted@GRAD")
def log_loss_grad(p, y, dloss, *, epsilon: float):
    """dLoss * ((1 - y) / (1 - p + epsilon) - y / (p + epsilon))."""
    return dloss * ((1 - y) / (1 - p + epsilon) - y / (p + epsilon))


@op("bce_loss", slots="X, Label -> Out", infer=_like_first, lod="X", grad_lod="X", nodiff="Label")
def bce_loss(x, y):
    """-y log(x) - (1 - y) log(1 - x), logarithms not below -100."""
    same_shape(x, y)
    return -y * torch.log(x).clamp_min(-100) - (1 - y) * torch.log(1 - x).clamp_min(-100)


@op("bce_loss_grad", slots="X, Label, Out@GRAD -> X@GRAD")
def bce_loss_grad(x, y, dout):
    """dOut * (x - y) / max(x (1 - x), 1e-12)."""
    return dout * ((x - y) / ((1 - x) * x).clamp_min(1e-12))


@op("hinge_loss", slots="Logits, Labels -> Loss", infer=_like_first, lod="Logits", nodiff="Labels")
def hinge_loss(x, y):
    """max(0, 1 - x (2y - 1)), y in {0, 1}."""
    same_shape(x, y)
    return (1 - x * (2 * y - 1)).clamp_min(0)


@op("hinge_loss_grad", slots="Logits, Labels, Loss@GRAD -> Logits@GRAD")
def hinge_loss_grad(x, y, dloss):
    """-dLoss * (2y - 1) where x (2y - 1) < 1."""
    sign = 2 * y - 1
    return dloss * (-sign) * (x * sign < 1)


@op("modified_huber_loss", slots="X, Y -> IntermediateVal~, Out", infer=_two_like_first, nodiff="Y", again=True)
def modified_huber_loss(x, y):
    """With z = x (2y - 1), y in {0, 1}: -4 z below -1, (1 - z)^2 up to 1, then 0 (Zhang 2004). IntermediateVal is z."""
    same_shape(x, y)
    z = x * (2 * y - 1)
    return z, torch.where(z < -1, -4 * z, torch.square((1 - z).clamp_min(0)))


@op("modified_huber_loss_grad", slots="Y, IntermediateVal, Out@GRAD -> X@GRAD")
def modified_huber_loss_grad(y, z, dout):
    """dOut * (2y - 1) * (-4 below -1, -2 (1 - z) up to 1, then 0)."""
    return dout * (2 * y - 1) * torch.where(z < -1, torch.full_like(z, -4.0), -2 * (1 - z).clamp_min(0))


@op("teacher_student_sigmoid_loss", slots="X, Label -> Y", infer=_like_first, lod="X", grad_lod="X", nodiff="Label")
def teacher_student_sigmoid_loss(x, y, *, soft_max_up_bound: float = 15.0, soft_max_lower_bound: float = -15.0):
    """Sigmoid cross entropy against a click, plus one against a teacher's score q where there is one.

    Label: -2 no click, -1 click (no score); q in [0, 1): no click; 1 + q: click.
    """
    same_shape(x, y)
    base = x.clamp_min(0) + torch.log1p(torch.exp(-x.abs()))
    clicked = ((y >= -1) & (y < 0)) | (y >= 1)
    score = torch.where(y >= 1, y - 1, y)
    return base - x * clicked + torch.where(y >= 0, base - x * score, torch.zeros_like(x))


@op("teacher_student_sigmoid_loss_grad", slots="X, Label, Y@GRAD -> X@GRAD")
def teacher_student_sigmoid_loss_grad(x, y, dy, *, soft_max_up_bound: float = 15.0, soft_max_lower_bound: float = -15.0):
    """The derivative, but 0 where X is outside the bounds."""
    s = torch.sigmoid(x)
    clicked = ((y >= -1) & (y < 0)).to(x.dtype)
    g = torch.where(y >= 0, 2 * s - y, s - clicked)
    return dy * g * ((x < soft_max_up_bound) & (x > soft_max_lower_bound))


# ---- ranking ---------------------------------------------------------------------------------------
def _margin_spec(label: Spec, x1: Spec, x2: Spec, **attrs: object) -> tuple[Spec, Spec]:
    same_shape_spec(x1, x2)
    same_shape_spec(x1, label)
    plain = label.like(lod_level=0)
    return plain, plain


@op("margin_rank_loss", slots="Label, X1, X2 -> Activated~, Out", infer=_margin_spec, nodiff="Label")
def margin_rank_loss(label, x1, x2, *, margin: float = 0.0):
    """max(0, -Label * (X1 - X2) + margin), Label 1 (X1 should be greater) or -1. Activated: 1 where that is above 0."""
    same_shape(label, x1, x2)
    out = (margin - label * (x1 - x2)).clamp_min(0)
    return (out > 0).to(out.dtype), out


@op("margin_rank_loss_grad", slots="Label, Activated, Out@GRAD -> X1@GRAD, X2@GRAD", nodiff="Activated")
def margin_rank_loss_grad(label, activated, dout, *, margin: float = 0.0, want):
    """dX1 = -dOut * Activated * Label, dX2 = -dX1."""
    d = dout * activated * label
    return -d if want[0] else None, d if want[1] else None


def _rank_spec(label: Spec, left: Spec, right: Spec) -> Spec:
    return _like_first(label, left, right).like(lod_level=0)


@op("rank_loss", slots="Label, Left, Right -> Out", infer=_rank_spec, nodiff="Label")
def rank_loss(label, left, right):
    """log(1 + exp(o)) - Label * o, o = Left - Right (RankNet, Burges et al. 2005)."""
    o = _difference(label, left, right)
    return torch.logaddexp(o, o.new_zeros(())) - label * o


def _difference(label: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left` - `right` in the form of `label`, which may lack their last dim of 1."""
    same_shape(left, right)
    o = left - right
    if label.dim() == o.dim() - 1 and o.shape == (*label.shape, 1):
        return o.view(label.shape)
    same_shape(o, label)
    return o


@op("rank_loss_grad", slots="Label, Left, Right, Out@GRAD -> Left@GRAD, Right@GRAD")
def rank_loss_grad(label, left, right, dout, *, want):
    """dLeft = dOut * (sigmoid(o) - Label), dRight = -dLeft."""
    d = (dout * (torch.sigmoid(_difference(label, left, right)) - label)).view(left.shape)
    return d if want[0] else None, -d if want[1] else None


# ---- distributions ---------------------------------------------------------------------------------
_REDUCTIONS = ("none", "mean", "sum", "batchmean")


def _kldiv_spec(x: Spec, target: Spec, *, reduction: str) -> Spec:
    same_shape_spec(x, target)
    if reduction not in _REDUCTIONS:
        raise ShapeError(f"reduction must be one of {', '.join(_REDUCTIONS)}, received {reduction!r}")
    return x.like(lod_level=0) if reduction == "none" else Spec((1,), x.dtype)


def _kldiv_scale(x: torch.Tensor, reduction: str) -> float:
    count = {"mean": x.numel(), "batchmean": x.shape[0]}.get(reduction, 1)
    return 1.0 / count if count else math.nan  # the mean of an empty batch


@op("kldiv_loss", slots="X, Target -> Loss", infer=_kldiv_spec, nodiff="Target")
def kldiv_loss(x, target, *, reduction: str = "mean"):
    """Target * (log Target - X), 0 where Target <= 0; X holds log probabilities.

    reduction: none (elementwise), or [1]: mean, sum, batchmean (sum / N).
    """
    same_shape(x, target)
    loss = torch.where(target > 0, target * (torch.log(target.clamp_min(math.ulp(0.0))) - x), torch.zeros_like(x))
    if reduction == "none":
        return loss
    return (loss.sum() * _kldiv_scale(x, reduction)).reshape(1)


@op("kldiv_loss_grad", slots="X, Target, Loss@GRAD -> X@GRAD")
def kldiv_loss_grad(x, target, dloss, *, reduction: str = "mean"):
    """-dLoss * Target (0 where Target <= 0), over what the mean divides by."""
    return -target.clamp_min(0) * dloss * _kldiv_scale(x, reduction)
