"""Clipping of many gradients in one operator. Plans make them (passes/training/fuse_clipping.py).

Where nothing is to be clipped, the gradients are handed on as they are.
"""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import Spec

_SMALL = 32768  # elements up to which two calls for all tensors are faster than one for each


def _factor_spec(xs, squares, *, clip_norm):
    return Spec((1,), (xs or squares)[0].dtype)


@op("global_norm_factor", slots="X*, Squares* -> Out", infer=_factor_spec, grad=False)
def global_norm_factor(xs, squares, *, clip_norm: str):
    """clip_norm / max(norm, clip_norm) [1]; norm is that of all X together and of what has the sums of squares Squares.

    clip_norm is a number with all its digits.
    """
    limit = float(clip_norm)
    total = [torch.stack(list(torch._foreach_norm(xs))).square_().sum().reshape(1)] if xs else []
    total += [s.reshape(1) for s in squares]
    norm = (total[0] if len(total) == 1 else torch.cat(total).sum().reshape(1)).sqrt()
    return limit / norm.clamp_min(limit)


@op("scale_gradients", slots="X*, Factor -> Out*", infer=lambda xs, factor: xs, grad=False)
def scale_gradients(xs, factor):
    """Each X times Factor [1]."""
    by = factor.item()
    return xs if by == 1.0 else list(torch._foreach_mul(xs, by))


@op("clip_gradients_by_norm", slots="X* -> Out*", infer=lambda xs, **_: xs, grad=False)
def clip_gradients_by_norm(xs, *, max_norm: float):
    """clip_by_norm of each X."""
    norms = torch.stack(list(torch._foreach_norm(xs))).tolist()
    over = [k for k, norm in enumerate(norms) if norm > max_norm]
    if not over:
        return xs
    out = list(xs)
    for k, clipped in zip(over, torch._foreach_mul([xs[k] for k in over], [max_norm / norms[k] for k in over])):
        out[k] = clipped
    return out


@op("clip_gradients", slots="X* -> Out*", infer=lambda xs, **_: xs, grad=False)
def clip_gradients(xs, *, min: float, max: float):
    """clip of each X."""
    small = [k for k, x in enumerate(xs) if x.numel() <= _SMALL]
    out = [None if x.numel() <= _SMALL else x.clamp(min, max) for x in xs]
    if small:
        clipped = torch._foreach_clamp_min([xs[k] for k in small], min)
        torch._foreach_clamp_max_(clipped, max)
        for k, value in zip(small, clipped):
            out[k] = value
    return out
