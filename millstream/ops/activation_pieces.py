"""Piecewise activations, softmax, maxout and prelu.

Where a gradient is not the derivative at a kink (or, for hard_swish and soft_relu, not the derivative at all), it is
Fluid's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from millstream.errors import InvalidProgramError, ShapeError
from millstream.ir.types import AttrType
from millstream.kernels.threads import cuts, numba_is_loaded, run_parts
from millstream.ops._opdef import REGISTRY, Attr, float32, op
from millstream.ops._values import Spec

_SLOTS = "X -> Out"
_BY_X = "X, Out@GRAD -> X@GRAD"
_BY_OUT = "Out, Out@GRAD -> X@GRAD"
_leaky = torch.nn.functional.leaky_relu
_leaky_backward = torch.ops.aten.leaky_relu_backward.default
_softmax_backward = torch.ops.aten._softmax_backward_data

_MANY = 32768  # numbers: some 20 us by torch's operators


def _in_one_pass(kernel: str, tensors: tuple[torch.Tensor, ...], *numbers: float) -> torch.Tensor | None:
    """The result of a loop of kernels/pieces.py over tensors of one shape and memory order; None where it does not apply.

    torch takes several passes for them, those with a mask of bools without vectors: relu6's gradient of 1.8 million numbers
    4.1 ms, in one pass 0.9.
    """
    first = tensors[0]
    if first.numel() < _MANY or not numba_is_loaded() or not all(_is_plain(t) for t in tensors):
        return None
    if not first.is_contiguous() and not (first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last)):
        return None
    if any(t.shape != first.shape for t in tensors):
        return None
    same = [first, *(t if t.stride() == first.stride() else torch.empty_like(first).copy_(t) for t in tensors[1:])]
    from millstream.kernels import pieces

    out = torch.empty_like(first)
    run: Callable[..., None] = getattr(pieces, kernel)
    flat: list[Any] = [t.as_strided((t.numel(),), (1,)).numpy() for t in (*same, out)]
    given, count = [np.float32(v) for v in numbers], first.numel()
    run_parts(run, [(*(v[a:b] for v in flat[:-1]), *given, flat[-1][a:b]) for a, b in cuts(8 * count, count)])
    return out


def _is_plain(t: torch.Tensor) -> bool:
    return type(t) is torch.Tensor and t.dtype is torch.float32 and t.is_cpu and not t.requires_grad


@op("leaky_relu", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="gray")
def leaky_relu(x, *, alpha: float = 0.02):
    """max(X, alpha * X)."""
    if 0.0 < alpha <= 1.0:
        return _leaky(x, alpha)
    return torch.fmax(x, x * alpha)  # the one that is a number: alpha 0 leaves inf and -inf


@op("leaky_relu_grad", slots=_BY_OUT)
def leaky_relu_grad(out, dout, *, alpha: float = 0.02):
    """dOut where Out > 0, alpha * dOut elsewhere."""
    return _leaky_backward(dout, out, alpha, False)


@op("relu6", slots=_SLOTS, infer="X", lod="X", amp="gray")
def relu6(x, *, threshold: float = 6.0):
    """min(max(X, 0), threshold)."""
    return torch.clamp(x, 0.0, threshold)


@op("relu6_grad", slots=_BY_OUT)
def relu6_grad(out, dout, *, threshold: float = 6.0):
    """dOut where 0 < Out < threshold."""
    found = _in_one_pass("between", (out, dout), 0.0, threshold, 1.0)
    return dout * ((out > 0) & (out < threshold)) if found is None else found


@op("brelu", slots=_SLOTS, infer="X", lod="X")
def brelu(x, *, t_min: float = 0.0, t_max: float = 24.0):
    """min(max(X, t_min), t_max)."""
    return torch.clamp(x, t_min, t_max)


@op("brelu_grad", slots=_BY_X)
def brelu_grad(x, dout, *, t_min: float = 0.0, t_max: float = 24.0):
    """dOut where t_min < X < t_max."""
    found = _in_one_pass("between", (x, dout), t_min, t_max, 1.0)
    return dout * ((x > t_min) & (x < t_max)) if found is None else found


@op("elu", slots=_SLOTS, infer="X", lod="X")
def elu(x, *, alpha: float = 1.0):
    """X above 0, alpha * (exp(X) - 1) below (Clevert et al. 2015)."""
    return x.clamp_min(0) + (alpha * torch.expm1(x)).clamp_max(0)


@op("elu_grad", slots=_BY_X)
def elu_grad(x, dout, *, alpha: float = 1.0):
    """dOut above 0, dOut * alpha * exp(X) below."""
    return dout * (x > 0) + dout * alpha * torch.exp(x) * (x <= 0)  # NaN where exp(X) overflows, as in Fluid


@op("selu", slots=_SLOTS, infer="X", lod="X", grad_lod="")
def selu(x, *, scale: float = 1.0507009873554805, alpha: float = 1.6732632423543772):
    """scale * (X above 0, alpha * (exp(X) - 1) below) (Klambauer et al. 2017)."""
    return torch.where(x > 0, x, alpha * torch.exp(x) - alpha) * scale


@op("selu_grad", slots=_BY_OUT)
def selu_grad(out, dout, *, scale: float = 1.0507009873554805, alpha: float = 1.6732632423543772):
    """dOut * (Out + scale * alpha) where Out <= 0, scale * dOut elsewhere."""
    return dout * torch.where(out <= 0, out + float32(scale * alpha), torch.full_like(out, scale))


def _outside(x: torch.Tensor, bound: float) -> torch.Tensor:
    """How many of X > bound and X < -bound hold."""
    return (x > bound).to(x.dtype) + (x < -bound).to(x.dtype) if bound < 0 else (x > bound) | (x < -bound)


@op("hard_shrink", slots=_SLOTS, infer="X", lod="X")
def hard_shrink(x, *, threshold: float = 0.5):
    """X where |X| > threshold, else 0; twice that where a negative threshold lets both sides hold."""
    return x * _outside(x, threshold)


@op("hard_shrink_grad", slots=_BY_X)
def hard_shrink_grad(x, dout, *, threshold: float = 0.5):
    """dOut where |X| > threshold."""
    return dout * _outside(x, threshold)


@op("softshrink", slots=_SLOTS, infer="X", lod="X")
def softshrink(x, **attrs):
    """X - lambda above lambda, X + lambda below -lambda, else 0."""
    bound = attrs.get("lambda", 0.5)
    return (x - bound) * (x > bound) + (x + bound) * (x < -bound)


@op("softshrink_grad", slots=_BY_X)
def softshrink_grad(x, dout, **attrs):
    """dOut where |X| > lambda."""
    bound = attrs.get("lambda", 0.5)
    return dout * _outside(x, bound)


for _name in ("softshrink", "softshrink_grad"):
    REGISTRY.get(_name).attrs["lambda"] = Attr(AttrType.FLOAT, 0.5)  # no Python parameter can have that name


@op("thresholded_relu", slots=_SLOTS, infer="X", lod="X")
def thresholded_relu(x, *, threshold: float = 1.0):
    """X where X > threshold, else 0 (Konda et al. 2014)."""
    return x * (x > threshold)


@op("thresholded_relu_grad", slots=_BY_X)
def thresholded_relu_grad(x, dout, *, threshold: float = 1.0):
    """dOut where X > threshold."""
    return dout * (x > threshold)


@op("hard_sigmoid", amp_bfloat16="gray", slots=_SLOTS, infer="X", lod="X")
def hard_sigmoid(x, *, slope: float = 0.2, offset: float = 0.5):
    """min(max(slope * X + offset, 0), 1)."""
    return torch.clamp(x * slope + offset, 0.0, 1.0)


@op("hard_sigmoid_grad", slots=_BY_OUT)
def hard_sigmoid_grad(out, dout, *, slope: float = 0.2, offset: float = 0.5):
    """slope * dOut where 0 < Out < 1."""
    found = _in_one_pass("between", (out, dout), 0.0, 1.0, slope)
    return dout * ((out > 0) & (out < 1)) * slope if found is None else found


@op("hard_swish", amp_bfloat16="gray", slots=_SLOTS, infer="X", lod="X")
def hard_swish(x, *, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0):
    """X * min(max(X + offset, 0), threshold) / scale (Howard et al. 2019)."""
    found = _in_one_pass("hard_swish", (x,), threshold, scale, offset)
    return torch.clamp(x + offset, 0.0, threshold) * x / scale if found is None else found


@op("hard_swish_grad", slots=_BY_X)
def hard_swish_grad(x, dout, *, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0):
    """dOut * (2 X + offset) / scale between the kinks, dOut (whatever the scale) from X + offset >= threshold on."""
    found = _in_one_pass("hard_swish_back", (x, dout), threshold, scale, offset)
    if found is not None:
        return found
    shifted = x + offset
    below = (shifted < threshold).to(x.dtype)
    return dout * ((x * 2 + offset) / scale * (shifted > 0) * below + (1 - below))


@op("soft_relu", slots=_SLOTS, infer="X", lod="X", amp="gray")
def soft_relu(x, *, threshold: float = 40.0):
    """log(1 + exp(X clipped to [-threshold, threshold]))."""
    return torch.log(1 + torch.exp(torch.clamp(x, -threshold, threshold)))


@op("soft_relu_grad", slots=_BY_OUT)
def soft_relu_grad(out, dout, *, threshold: float = 40.0):
    """dOut * (1 - exp(-Out)) where |Out| < threshold."""
    return dout * (1 - torch.exp(-out)) * ((out > -threshold) & (out < threshold))


# ---- softmax ---------------------------------------------------------------------------------------
LOWEST_LOGIT = -64.0
_FLOOR = math.exp(LOWEST_LOGIT)
# Rows of bfloat16 up to which torch's softmax takes 2 to 3 times as long as through float32 (48 numbers: 0.30 -> 0.16 ms);
# from some thousands on it is faster.
_SHORT = 512

def clipped_softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Softmax along `axis` over logits cut at 64 below the greatest one, as Fluid's."""
    if x.dtype is torch.bfloat16 and x.is_cpu and x.shape[axis] <= _SHORT:
        return clipped_softmax(x.float(), axis).to(torch.bfloat16)
    y = torch.softmax(x, axis)
    # tensors without values (while shapes are inferred or a step is compiled) take the general form
    if y.is_meta or y.numel() == 0 or (type(y) is torch.Tensor and float(y.detach().amin()) >= _FLOOR):
        return y
    # what is cut adds less than 1e-27 to the sum, and the greatest of a row is 1 / sum
    return torch.maximum(y, y.amax(axis, keepdim=True) * _FLOOR)


def check_axis(x: Spec, axis: int) -> None:
    """ShapeError unless `axis` is one of X's dims."""
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise ShapeError(f"axis must be in [{-rank}, {rank - 1}] for a tensor of {rank} dims, received {axis}")


def _softmax_spec(x: Spec, *, axis: int, **rest: object) -> Spec:
    check_axis(x, axis)
    return x


@op("softmax", amp_bfloat16="gray", slots=_SLOTS, infer=_softmax_spec, lod="X", traceable=True, amp="black")
def softmax(x, *, axis: int = -1):
    """exp(X) / sum of exp(X) along `axis`; logits more than 64 below the greatest count as 64 below."""
    return clipped_softmax(x, axis)


@op("softmax_grad", slots=_BY_OUT)
def softmax_grad(out, dout, *, axis: int = -1):
    """Out * (dOut - sum of Out * dOut)."""
    return _softmax_backward(dout, out, axis, out.dtype)


# ---- maxout ----------------------------------------------------------------------------------------
_LOWEST = torch.finfo(torch.float32).min


def _maxout_spec(x: Spec, *, groups: int, axis: int) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dims, received {list(x.shape)}")
    if axis not in (1, 3):
        raise ShapeError(f"axis must be 1 or 3, received {axis}")
    if groups < 2:
        raise ShapeError(f"groups must be at least 2, received {groups}")
    channels = x.shape[axis]
    if channels >= 0 and channels % groups:
        raise ShapeError(f"the channels ({channels}) must be a multiple of groups, received groups {groups}")
    shape = list(x.shape)
    shape[axis] = channels // groups if channels >= 0 else -1
    return x.like(shape=tuple(shape))


def _grouped(x: torch.Tensor, groups: int, axis: int) -> torch.Tensor:
    axis %= x.dim()
    return x.reshape(*x.shape[:axis], x.shape[axis] // groups, groups, *x.shape[axis + 1 :])


@op("maxout", slots=_SLOTS, infer=_maxout_spec)
def maxout(x, *, groups: int, axis: int = 1):
    """Greatest of each `groups` neighbouring channels: [N, C, H, W] to [N, C / groups, H, W] (Goodfellow et al. 2013)."""
    at = axis % x.dim() + 1
    grouped = _grouped(x, groups, axis)
    out = grouped.amax(at).clamp_min(_LOWEST)  # the search starts there
    if type(out) is not torch.Tensor or out.is_meta or out.numel() == 0 or not out.detach().amax().isnan():
        return out
    out = torch.full_like(out, _LOWEST)
    for channel in grouped.unbind(at):  # a NaN takes the lead, and the next channel takes it from the NaN
        out = torch.where(out > channel, out, channel)
    return out


@op("maxout_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def maxout_grad(x, out, dout, *, groups: int, axis: int = 1):
    """dOut goes to the first channel of each group that equals Out, if any does (NaN does not)."""
    at = axis % x.dim() + 1
    found, winner = (_grouped(x, groups, axis) == out.unsqueeze(at)).to(torch.uint8).max(at, keepdim=True)
    dx = torch.zeros_like(_grouped(x, groups, axis), memory_format=torch.contiguous_format)
    return dx.scatter(at, winner, dout.unsqueeze(at) * found).reshape(x.shape)


# ---- prelu -----------------------------------------------------------------------------------------
def _prelu_spec(x: Spec, alpha: Spec, *, mode: str) -> Spec:
    if mode not in ("all", "channel", "element"):
        raise InvalidProgramError(f"mode must be 'all', 'channel' or 'element', received {mode!r}")
    size = math.prod(alpha.shape)
    if mode == "all" and size != 1:
        raise ShapeError(f"mode 'all' needs one weight, received Alpha {list(alpha.shape)}")
    if mode == "channel" and len(x.shape) > 1 and size >= 0 and x.shape[1] >= 0 and size != x.shape[1]:
        raise ShapeError(f"mode 'channel' needs {x.shape[1]} weights, received Alpha {list(alpha.shape)}")
    want = math.prod(x.shape[1:])
    if mode == "element" and min(x.shape[1:], default=0) >= 0 and size >= 0 and size != want:
        raise ShapeError(f"mode 'element' needs {want} weights, received Alpha {list(alpha.shape)}")
    return x


def _slopes(x: torch.Tensor, alpha: torch.Tensor, mode: str) -> torch.Tensor:
    if mode == "all":
        return alpha.reshape(())
    if mode == "channel":
        return alpha.reshape(-1, *[1] * (x.dim() - 2))
    return alpha.reshape(1, *x.shape[1:])


@op("prelu", slots="X, Alpha -> Out", infer=_prelu_spec, lod="X")
def prelu(x, alpha, *, mode: str = "all"):
    """X above 0, Alpha * X below; one Alpha for all, one a channel (dim 1) or one an element (He et al. 2015)."""
    return torch.where(x > 0, x, _slopes(x, alpha, mode) * x)


@op("prelu_grad", slots="X, Alpha, Out@GRAD -> X@GRAD, Alpha@GRAD")
def prelu_grad(x, alpha, dout, *, mode: str = "all", want):
    """dX is dOut (times Alpha below 0); dAlpha the sum of dOut * X below 0."""
    positive = x > 0
    dx = torch.where(positive, dout, _slopes(x, alpha, mode) * dout) if want[0] else None
    if not want[1]:
        return dx, None
    below = torch.where(positive, torch.zeros_like(x), dout * x)
    if mode == "all":
        dalpha = below.sum()
    elif mode == "channel":
        dalpha = below.sum([i for i in range(x.dim()) if i != 1])
    else:
        dalpha = below.sum(0)
    return dx, dalpha.reshape(alpha.shape)
