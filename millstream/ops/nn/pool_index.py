"""Max pooling that also gives positions, unpooling by positions, and spatial pyramid pooling."""

from __future__ import annotations

import math
from typing import Any

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn import pool
from millstream.ops.nn._window import Pairs, explicit_pairs, positive

_LOWEST = torch.finfo(torch.float32).min


# ---- max_pool2d_with_index, max_pool3d_with_index ------------------------------------------------------
def _infer_index(x: Spec, *, ksize, strides, paddings, global_pooling, adaptive) -> tuple[Spec, Spec]:
    out = pool._infer_pool(
        x, ksize=ksize, strides=strides, paddings=paddings, global_pooling=global_pooling, adaptive=adaptive
    )
    return Spec(out.shape, x.dtype), Spec(out.shape, VarType.INT32)


def _unpadded_index(index: torch.Tensor, x: torch.Tensor, full: Pairs) -> torch.Tensor:
    """Flat positions in a padded image as flat positions in `x`."""
    sizes = x.shape[2:]
    padded = [s + a + b for s, (a, b) in zip(sizes, full)]
    out = torch.zeros_like(index)
    for i, size in enumerate(sizes):
        inner = math.prod(padded[i + 1 :])
        at = (index // inner) % padded[i] - full[i][0]
        out = out * size + at.clamp(0, size - 1)
    return out


def _max_with_index(x, ksize, strides, paddings, global_pooling, adaptive):
    if global_pooling or adaptive:
        rank = x.dim() - 2
        if adaptive and global_pooling:
            ksize = x.shape[2:]
        out, index = pool._ADAPTIVE_MAX[rank](x, ksize if adaptive else [1] * rank)
    else:
        out, index, full, _ = pool._max_windows(x, ksize, strides, paddings, "EXPLICIT", False)
        if full is not None:
            index = _unpadded_index(index, x, full)
    # the search starts at float32's least number: a window wholly in the padding (or of -inf) finds nothing
    out = out.clamp_min(_LOWEST)
    return out, index.to(torch.int32).masked_fill(out <= _LOWEST, -1)


def _index_grad(x, mask, dout):
    dx = dout.new_zeros((*x.shape[:2], math.prod(x.shape[2:])))
    at = mask.reshape(*x.shape[:2], -1).long()
    dx.scatter_add_(2, at.clamp_min(0), dout.reshape(*x.shape[:2], -1) * (at >= 0))
    return dx.view(x.shape)


@op("max_pool2d_with_index", slots="X -> Out, Mask", infer=_infer_index)
def max_pool2d_with_index(
    x,
    *,
    ksize: list[int],
    global_pooling: bool = False,
    adaptive: bool = False,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
):
    """pool2d's maximum, and Mask: the flat position h * W + w of each maximum in its plane (int32),
    -1 where a window holds padding alone."""
    return _max_with_index(x, ksize, strides, paddings, global_pooling, adaptive)


@op("max_pool3d_with_index", slots="X -> Out, Mask", infer=_infer_index)
def max_pool3d_with_index(
    x,
    *,
    ksize: list[int],
    global_pooling: bool = False,
    adaptive: bool = False,
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
):
    """pool3d's maximum, and Mask: the flat position (d * H + h) * W + w of each maximum (int32), or -1."""
    return _max_with_index(x, ksize, strides, paddings, global_pooling, adaptive)


@op("max_pool2d_with_index_grad", slots="X, Mask, Out@GRAD -> X@GRAD", nodiff="Mask")
def max_pool2d_with_index_grad(x, mask, dout):
    return _index_grad(x, mask, dout)


@op("max_pool3d_with_index_grad", slots="X, Mask, Out@GRAD -> X@GRAD", nodiff="Mask")
def max_pool3d_with_index_grad(x, mask, dout):
    return _index_grad(x, mask, dout)


# ---- unpool --------------------------------------------------------------------------------------------
def _unpool_sizes(sizes, ksize, strides, paddings) -> list[int]:
    return [-1 if d < 0 else (d - 1) * s - 2 * p + k for d, k, s, p in zip(sizes, ksize, strides, paddings)]


def _infer_unpool(x: Spec, indices: Spec, *, ksize, strides, paddings, unpooling_type) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    if len(indices.shape) != 4 or any(min(a, b) >= 0 and a != b for a, b in zip(x.shape, indices.shape)):
        raise ShapeError(f"Indices must have X's shape {list(x.shape)}, received {list(indices.shape)}")
    if unpooling_type != "max":
        raise AttributeTypeError(f"unpooling_type must be max, received {unpooling_type!r}")
    positive("ksize", ksize, 2)
    positive("strides", strides, 2)
    explicit_pairs(paddings, 2)
    return Spec((*x.shape[:2], *_unpool_sizes(x.shape[2:], ksize, strides, paddings)), x.dtype)


@op("unpool", slots="X, Indices -> Out", infer=_infer_unpool)
def unpool(x, indices, *, ksize: list[int], unpooling_type: str, strides: list[int] = [1, 1], paddings: list[int] = [0, 0]):
    """Out[n, c, Indices[n, c, i]] = X[n, c, i], zeros elsewhere (Zeiler and Fergus 2014).

    X, Indices [N, C, H, W]; Out [N, C, (H-1)*stride - 2*padding + ksize, …].
    """
    n, c = x.shape[:2]
    sizes = _unpool_sizes(x.shape[2:], ksize, strides, paddings)
    out = x.new_zeros((n, c, math.prod(sizes)))
    return out.scatter(2, indices.reshape(n, c, -1).long(), x.reshape(n, c, -1)).view(n, c, *sizes)


@op("unpool_grad", slots="X, Indices, Out, Out@GRAD -> X@GRAD")
def unpool_grad(x, indices, out, dout):
    n, c = x.shape[:2]
    return dout.reshape(n, c, -1).gather(2, indices.reshape(n, c, -1).long()).view(x.shape)


# ---- spp -----------------------------------------------------------------------------------------------
def _infer_spp(x: Spec, *, pyramid_height, pooling_type) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    if pooling_type not in ("max", "avg"):
        raise AttributeTypeError(f"pooling_type must be max or avg, received {pooling_type!r}")
    c = x.shape[1]
    return Spec((x.shape[0], -1 if c < 0 else c * ((4**pyramid_height - 1) // 3)), x.dtype)


@op("spp", slots="X -> Out", infer=_infer_spp)
def spp(x, *, pyramid_height: int, pooling_type: str):
    """Pooling into 1, 2x2, 4x4, … bins, flattened and joined (He et al. 2014, arXiv:1406.4729).

    X [N, C, H, W]; Out [N, C * (4^pyramid_height - 1) / 3].
    """
    levels: list[Any] = []
    for level in range(pyramid_height):
        bins = 2**level
        ksize = [-(-s // bins) for s in x.shape[2:]]
        pads = [(k * bins - s + 1) // 2 for k, s in zip(ksize, x.shape[2:])]
        if pooling_type == "max":
            out = pool._max_windows(x, ksize, ksize, pads, "EXPLICIT", False)[0]
        else:
            out = pool._avg_windows(x, ksize, ksize, pads, "EXPLICIT", False, True)
        levels.append(out.reshape(x.shape[0], -1))
    return torch.cat(levels, 1)
