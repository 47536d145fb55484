"""Convolutions of a training step between two batch normalisations, which have no passes over the maps of their own.

Plans make these operators (passes/training/fuse_conv_batch_norm.py); Programs do not have them. What a normalised map is
made of stands in place of it: X, Scale, Bias and the batch's statistics. Likewise the gradient of a normalised X, which is
p * dZ + q * X + r: dZ, the gradient behind the normalisation times the slopes of a relu, and Line [3, C], p, q and r.

Where a convolution makes the map of a normalisation but none takes its output, that is made from the statistics as they are
(batch_norm_apply), and the convolution takes the gradient in parts as well (batch_norm_line_grad).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from millstream.kernels.arrays import array
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn import _norm_rows, _normed_conv, _normed_pairs
from millstream.ops.nn._bend import NONE, Bend
from millstream.ops.nn._norm_channels import Running, give_back, line_of
from millstream.ops.nn._norm_rows import Norm, statistics
from millstream.ops.nn._normed_conv import End, Summed, Work
from millstream.ops.nn.batch_norm_relu import check_added
from millstream.ops.nn.conv import conv_backward, conv_forward, infer_conv

_KERNELS = {torch.float32: _normed_conv, torch.bfloat16: _normed_pairs}


def _rate(momentum: float, momentum_tensor: torch.Tensor | None) -> float:
    return momentum if momentum_tensor is None else float(momentum_tensor)


def _measured(
    x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, momentum: float, epsilon: float
) -> tuple[torch.Tensor, ...]:
    """_norm_channels.measured by torch's operators, for what the kernels do not take."""
    spread, center = torch.var_mean(x.to(mean.dtype), [0, *range(2, x.dim())], correction=0)
    running = torch.lerp(center, mean, momentum), torch.lerp(spread, variance, momentum)
    return *running, center, torch.rsqrt(spread + epsilon)


@op(
    "batch_norm_statistics", slots="X, Mean, Variance, MomentumTensor? -> MeanOut, VarianceOut, SavedMean~, SavedVariance~",
    infer=lambda x, mean, *_, **__: (Spec(mean.shape, mean.dtype),) * 4, grad=False,
)  # fmt: skip
def batch_norm_statistics(x, mean, variance, momentum_tensor, *, momentum: float = 0.9, epsilon: float = 1e-5):
    """batch_norm without its output: statistics of the batch X [N, C, H, W], and the running ones."""
    rate = _rate(momentum, momentum_tensor)
    return statistics(x, Running(mean, variance, rate, epsilon)) or _measured(x, mean, variance, rate, epsilon)


@op("batch_norm_finish_grad", slots="X, dZ, Line -> X@GRAD", infer="X", grad=False)
def batch_norm_finish_grad(x, dz, line):
    """X@GRAD = p * dZ + q * X + r with Line = p, q, r for each channel."""
    found = _normed_conv.finish(x, dz, line)
    return _finished(x, dz, line, NONE) if found is None else found


def _finished(x, dz, line, bend):
    """The gradient of a normalised x, by torch's operators; line as _normed_conv.End has it."""
    p, q, r, *ab = (v[..., None, None] for v in line)
    if ab:
        dz = bend.backward(ab[0] * x + ab[1], dz)
    return (p * dz + q * x + r).to(x.dtype)


@op(
    "batch_norm_apply", slots="X, Scale, Bias, SavedMean, SavedVariance, Residual? -> Y", infer=lambda x, *_, **__: x,
    lod="Y=X", grad=False,
)  # fmt: skip
def batch_norm_apply(x, scale, bias, mean, inverse, residual, *, slope: float = 1.0, most: float = math.inf):
    """Y = leaky_relu(batch_norm(X), slope), or relu(batch_norm(X) + Residual), from the statistics of the batch.

    X [N, C, H, W]; slope 0: relu, which gives at most `most`, 1: no activation, -1: swish, -2: hard_swish.
    """
    check_added(x, residual)
    found = _norm_rows.apply(x, Norm(scale, bias, 0.0, "NCHW", Bend(slope, most)), mean, inverse, residual)
    if found is not None:
        return found
    return _normalised(x, scale, bias, mean, inverse, Bend(slope, most), residual).to(x.dtype)


def _infer_line(x, scale, bias, mean, inverse, y, *_: Any, slope, **__: Any):
    rows = 3 if slope == 1 or y is not None else 5
    return scale, scale, Spec((rows, *scale.shape), scale.dtype), x


@op(
    "batch_norm_line_grad",
    slots="X, Scale, Bias, SavedMean, SavedVariance, Y?, Y@GRAD -> Scale@GRAD, Bias@GRAD, Line, dZ?", infer=_infer_line,
    grad=False,
)  # fmt: skip
def batch_norm_line_grad(x, scale, bias, mean, inverse, y, dy, *, slope: float = 1.0, most: float = math.inf):
    """Gradients of batch_norm_apply but for X's, which Line has with dZ or Y@GRAD.

    Y where a residual was added: dZ, its gradient, is Y@GRAD where Y is above 0. Else, with a slope other than 1, Line
    [5, C] says where X was negative.
    """
    bend = Bend(slope, most)
    found = _norm_rows.back_sums(x, Norm(scale, bias, 0.0, "NCHW", bend), mean, inverse, dy, y)
    if found is not None:
        total, dot, dz = found
        dscale, dbias, line = give_back(scale, mean, inverse, total, dot, x.numel() // x.shape[1])
    else:
        above = y if y is not None else _normalised(x, scale, bias, mean, inverse, NONE)
        dz = bend.backward(above, dy)
        dscale, dbias, line = _behind(x, scale, mean, inverse, *_sums(x, mean, dz))
    if y is None and slope != 1:
        a = scale * inverse
        line = torch.cat([line, torch.stack([a, bias - mean * a])])
    return dscale, dbias, line, dz if y is not None else None


def _normalised(x, scale, bias, mean, inverse, bend, residual=None):
    """Y, where the kernels do not apply."""
    if scale is None:
        return x
    a = scale * inverse
    y = x * a.view(-1, 1, 1) + (bias - mean * a).view(-1, 1, 1)
    return bend.forward(y if residual is None else y + residual)


def _infer(x, scale, bias, mean, inverse, w, running, *_: Any, strides, paddings, dilations, groups, **__: Any):
    form = {"strides": strides, "paddings": paddings, "dilations": dilations, "groups": groups}
    out = infer_conv(x, w, **form, padding_algorithm="EXPLICIT", data_format="NCHW")
    return (out, *(None if running is None else Spec(running.shape, running.dtype),) * 4)


@op(
    "normed_conv2d",
    slots="Input, NormScale?, NormBias?, NormMean?, NormInverse?, Filter, Mean?, Variance?, MomentumTensor? "
    "-> Output, MeanOut?, VarianceOut?, SavedMean~?, SavedVariance~?",
    infer=_infer, lod="Output=Input", nodiff="NormMean, NormInverse, Mean, Variance, MomentumTensor",
    flops=_flops.convolution,
)  # fmt: skip
def normed_conv2d(
    x, scale, bias, center, inverse, w, mean, variance, momentum_tensor, *, strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0], dilations: list[int] = [1, 1], groups: int = 1, slope: float = 1.0,
    most: float = math.inf, momentum: float = 0.9, epsilon: float = 1e-5,
):  # fmt: skip
    """Output = conv2d(leaky_relu(batch_norm(Input), slope), Filter), and the statistics of the batch_norm that takes Output.

    Input [N, C, H, W], normalised with NormMean and NormInverse of the batch where NormScale is given; slope 0: relu, which
    gives at most `most`, 1: no activation, -1: swish, -2: hard_swish. Mean and Variance, where given: the running statistics
    of Output's batch_norm.
    """
    form, rate, bend = (strides, paddings, dilations, groups), _rate(momentum, momentum_tensor), Bend(slope, most)
    if type(x) is torch.Tensor and x.dtype in _KERNELS:
        work = Work(x, None if scale is None else line_of(scale, bias, center, inverse, bend), w, *form)
        found = _KERNELS[x.dtype].forward(work, None if mean is None else Running(mean, variance, rate, epsilon))
        if found is not None:
            return (found[0], *(found[1] or [None] * 4))
    y = _normalised(x, scale, bias, center, inverse, bend).to(x.dtype)
    out = conv_forward(y, w, None, *form, "EXPLICIT", "NCHW")
    return (out, *([None] * 4 if mean is None else _measured(out, mean, variance, rate, epsilon)))


def _sums(x, center, dz) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of dz, sum of dz * (x - mean)) by channel."""
    dz = dz.to(center.dtype)  # sums of bfloat16 maps are float32
    return dz.sum((0, 2, 3)), (dz * (x - center.view(-1, 1, 1))).sum((0, 2, 3))


@op(
    "normed_conv2d_grad",
    slots="Input, NormScale?, NormBias?, NormMean?, NormInverse?, Filter, Output?, Line?, Output@GRAD, "
    "Added?, Summed?, SummedScale?, SummedMean?, SummedInverse? "
    "-> Input@GRAD, Filter@GRAD, NormScale@GRAD, NormBias@GRAD, InputLine?",
)
def normed_conv2d_grad(
    x, scale, bias, center, inverse, w, out, line, dout, added=None, summed=None, summed_scale=None, summed_center=None,
    summed_inverse=None, *, want, strides: list[int] = [1, 1], paddings: list[int] = [0, 0], dilations: list[int] = [1, 1],
    groups: int = 1, slope: float = 1.0, most: float = math.inf, line_slope: float = 1.0, line_most: float = math.inf,
):  # fmt: skip
    """Gradients of normed_conv2d.

    Output@GRAD is the gradient of Output, or, with Line, dZ of its batch_norm, or, with Line [5, C], what is dZ behind an
    activation of `line_slope` and `line_most`; Line may have numbers for each picture, [3, N, C]. Input@GRAD likewise is dZ
    of Input's, with InputLine [3, C], where Input is normalised; where it is not, Added, of Input's shape, is added to it.

    With Summed Input is relu(batch_norm(Summed) + another map): Input@GRAD is the gradient of that sum, dZ of Summed, and
    the last three outputs are of that normalisation.
    """
    form, found, bend = (strides, paddings, dilations, groups), None, Bend(slope, most)
    behind = Bend(line_slope, line_most)
    wanted = want[0] or scale is not None  # sums of dZ are what gradients of a normalisation are made of
    if type(x) is torch.Tensor and x.dtype in _KERNELS:
        work = Work(x, None if scale is None else line_of(scale, bias, center, inverse, bend), w, *form)
        end = None if line is None else End(array(line), behind)
        behind_sum = None if summed is None else Summed(summed, summed_center)
        found = _KERNELS[x.dtype].backward(work, out, dout, end, wanted, added, behind_sum)
    norm = (scale, center, inverse) if summed is None else (summed_scale, summed_center, summed_inverse)
    if found is not None:
        if norm[0] is None:
            return found.dx, found.dw, None, None, None
        return found.dx, found.dw, *give_back(*norm, found.total, found.dot, x.numel() // x.shape[1])
    if line is not None:
        dout = _finished(out, dout, line, behind)
    before = _normalised(x, scale, bias, center, inverse, NONE)
    y = bend.forward(before).to(x.dtype)
    dy, dw, _ = conv_backward(y, w, None, dout, (wanted, want[1], False), *form, "EXPLICIT", "NCHW")
    if added is not None and dy is not None:
        dy = dy + added
    if norm[0] is None:
        return dy, dw, None, None, None
    dz = bend.backward(before, dy) if summed is None else Bend(0.0, math.inf).backward(x, dy)
    if summed is not None:
        x = summed
    return dz, dw, *_behind(x, *norm, *_sums(x, norm[1], dz))


def _behind(x, scale, center, inverse, total, dot):
    """(dScale, dBias, Line) of a normalisation from the sums of its dz, by torch's operators."""
    factor = scale * inverse
    each = x.numel() // x.shape[1]
    q = -factor * inverse * inverse * (dot / each)
    return dot * inverse, total, torch.stack([factor, q, -factor * (total / each) - q * center])
