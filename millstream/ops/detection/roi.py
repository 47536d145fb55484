"""Pooling of regions of interest: roi_pool, roi_align, psroi_pool, prroi_pool, deformable and perspective forms."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


@cache
def _loops() -> Any:
    from millstream.kernels import roi

    return roi


def _check(x: Spec, rois: Spec, ph: int, pw: int, scale: float, width: int = 4) -> None:
    if len(x.shape) != 4:
        raise ShapeError(f"the image input must have 4 dimensions [N, C, H, W], received {list(x.shape)}")
    if len(rois.shape) != 2 or rois.shape[1] not in (width, -1):
        raise ShapeError(f"ROIs must have shape [regions, {width}], received {list(rois.shape)}")
    if ph <= 0 or pw <= 0:
        raise AttributeTypeError(f"the output height and width must be above 0, received {ph} and {pw}")
    if scale <= 0:
        raise AttributeTypeError(f"spatial_scale must be above 0, received {scale}")


def _images(rois: Ragged, given: torch.Tensor | None, n: int, counts: bool = False) -> np.ndarray:
    """The image of each region, from a tensor of offsets (or of counts), else from the LoD."""
    total = rois.values.shape[0]
    if given is not None:
        numbers = given.reshape(-1).numpy().astype(np.int64)
        lengths = numbers if counts else np.diff(numbers)
    else:
        lengths = np.diff(rois.offsets)
    if len(lengths) != n or lengths.sum() != total:
        raise EnforceNotMet(
            f"regions must be given for {n} images, {total} in all; the LoD of ROIs (or its tensor) says {lengths.tolist()}"
        )
    return np.repeat(np.arange(n, dtype=np.int64), lengths)


def _arrays(x: torch.Tensor, rois: Ragged, given: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Regions (in X's dtype) and their images."""
    return rois.values.to(x.dtype).contiguous().numpy(), _images(rois, given, x.shape[0])


# ---- roi_pool ------------------------------------------------------------------------------------------
def _infer_roi_pool(
    x: Spec, rois: Spec, lod: Spec | None, *, pooled_height, pooled_width, spatial_scale
) -> tuple[Spec, Spec]:
    _check(x, rois, pooled_height, pooled_width, spatial_scale)
    out = Spec((rois.shape[0], x.shape[1], pooled_height, pooled_width), x.dtype)
    return out, out.like(dtype=VarType.INT64)


@op("roi_pool", slots="X, ROIs#, RoisLod? -> Out, Argmax~", infer=_infer_roi_pool, nodiff="ROIs, RoisLod")
def roi_pool(x, rois, lod, *, spatial_scale: float = 1.0, pooled_height: int = 1, pooled_width: int = 1):
    """Maximum of each of pooled_height x pooled_width bins of a region (Girshick 2015, arXiv:1504.08083).

    X [N, C, H, W]; ROIs [R, 4] (x1, y1, x2, y2), times `spatial_scale` and rounded, with the images in its LoD (or
    RoisLod, offsets); Out [R, C, ph, pw]; Argmax int64, the flat position, -1 for an empty bin (whose value is 0).
    """
    regions, image = _arrays(x, rois, lod)
    shape = (len(regions), x.shape[1], pooled_height, pooled_width)
    out, argmax = np.zeros(shape, regions.dtype), np.zeros(shape, np.int64)
    _loops().maximum(x.contiguous().numpy(), regions, image, regions.dtype.type(spatial_scale), out, argmax)
    return torch.from_numpy(out), torch.from_numpy(argmax)


@op("roi_pool_grad", slots="X, ROIs#, RoisLod?, Argmax, Out@GRAD -> X@GRAD", nodiff="Argmax")
def roi_pool_grad(x, rois, lod, argmax, dout):
    image = torch.from_numpy(_images(rois, lod, x.shape[0]))
    c, plane = x.shape[1], x.shape[2] * x.shape[3]
    base = (image.view(-1, 1) * c + torch.arange(c)).view(-1, c, 1) * plane
    at = argmax.reshape(argmax.shape[0], c, -1)
    hit = at >= 0
    dx = x.new_zeros(x.numel())
    dx.index_add_(0, (base + at)[hit], dout.reshape(at.shape)[hit])
    return dx.view(x.shape)


# ---- roi_align -----------------------------------------------------------------------------------------
def _infer_roi_align(
    x: Spec, rois: Spec, lod: Spec | None, *, pooled_height, pooled_width, spatial_scale, sampling_ratio
) -> Spec:
    _check(x, rois, pooled_height, pooled_width, spatial_scale)
    return Spec((rois.shape[0], x.shape[1], pooled_height, pooled_width), x.dtype)


@op("roi_align", slots="X, ROIs#, RoisLod? -> Out", infer=_infer_roi_align, nodiff="ROIs, RoisLod")
def roi_align(
    x, rois, lod, *, spatial_scale: float = 1.0, pooled_height: int = 1, pooled_width: int = 1, sampling_ratio: int = -1
):
    """Mean of bilinear readings in each bin of a region (He et al. 2017, arXiv:1703.06870).

    Slots as roi_pool; sampling_ratio readings a side and bin, ceil(bin size) when it is 0 or less. Coordinates are not
    rounded, a region is at least 1 wide.
    """
    regions, image = _arrays(x, rois, lod)
    out = np.zeros((len(regions), x.shape[1], pooled_height, pooled_width), regions.dtype)
    _loops().align(x.contiguous().numpy(), regions, image, regions.dtype.type(spatial_scale), sampling_ratio, out)
    return torch.from_numpy(out)


@op("roi_align_grad", slots="X, ROIs#, RoisLod?, Out@GRAD -> X@GRAD")
def roi_align_grad(x, rois, lod, dout, *, spatial_scale: float = 1.0, sampling_ratio: int = -1):
    regions, image = _arrays(x, rois, lod)
    dx = np.zeros(tuple(x.shape), regions.dtype)
    _loops().align_grad(dout.contiguous().numpy(), regions, image, regions.dtype.type(spatial_scale), sampling_ratio, dx)
    return torch.from_numpy(dx)


# ---- psroi_pool ----------------------------------------------------------------------------------------
def _infer_psroi(x: Spec, rois: Spec, *, output_channels, pooled_height, pooled_width, spatial_scale) -> Spec:
    _check(x, rois, pooled_height, pooled_width, spatial_scale)
    need = output_channels * pooled_height * pooled_width
    if output_channels <= 0 or (x.shape[1] >= 0 and x.shape[1] != need):
        raise ShapeError(
            f"X must have output_channels * pooled_height * pooled_width = {need} channels, received {list(x.shape)}"
        )
    return Spec((rois.shape[0], output_channels, pooled_height, pooled_width), x.dtype)


@op("psroi_pool", slots="X, ROIs# -> Out", infer=_infer_psroi, nodiff="ROIs")
def psroi_pool(x, rois, *, output_channels: int, spatial_scale: float = 1.0, pooled_height: int = 1, pooled_width: int = 1):
    """Position-sensitive mean pooling (Dai et al. 2016, arXiv:1605.06409): bin (ph, pw) of channel c reads only
    channel (c * PH + ph) * PW + pw of X [N, output_channels * PH * PW, H, W]; Out [R, output_channels, PH, PW].
    """
    regions, image = _arrays(x, rois, None)
    out = np.zeros((len(regions), output_channels, pooled_height, pooled_width), regions.dtype)
    _loops().position(x.contiguous().numpy(), regions, image, regions.dtype.type(spatial_scale), out)
    return torch.from_numpy(out)


@op("psroi_pool_grad", slots="X, ROIs#, Out@GRAD -> X@GRAD")
def psroi_pool_grad(x, rois, dout, *, spatial_scale: float = 1.0):
    regions, image = _arrays(x, rois, None)
    dx = np.zeros(tuple(x.shape), regions.dtype)
    _loops().position_grad(dout.contiguous().numpy(), regions, image, regions.dtype.type(spatial_scale), dx)
    return torch.from_numpy(dx)


# ---- prroi_pool ----------------------------------------------------------------------------------------
def _infer_prroi(x: Spec, rois: Spec, nums: Spec | None, *, pooled_height, pooled_width, spatial_scale) -> Spec:
    _check(x, rois, pooled_height, pooled_width, spatial_scale)
    return Spec((rois.shape[0], x.shape[1], pooled_height, pooled_width), x.dtype)


def _hat_integral(start: torch.Tensor, end: torch.Tensor, size: int) -> torch.Tensor:
    """[..., size]: integral over [start, end] of the triangle max(0, 1 - |t - i|) around each i."""
    at = torch.arange(size, dtype=start.dtype)

    def upto(t: torch.Tensor) -> torch.Tensor:
        u = (t.unsqueeze(-1) - at).clamp(-1, 1)
        return torch.where(u < 0, 0.5 * (u + 1) ** 2, 1 - 0.5 * (1 - u) ** 2)

    return upto(end) - upto(start)


@op("prroi_pool", slots="X, ROIs#, BatchRoINums? -> Out", infer=_infer_prroi, grad_lod="", nodiff="BatchRoINums")
def prroi_pool(x, rois, nums, *, spatial_scale: float = 1.0, pooled_height: int = 1, pooled_width: int = 1):
    """Exact integral of the bilinear surface over each bin, by its area (Jiang et al. 2018, arXiv:1807.11590).

    X [N, C, H, W]; ROIs [R, 4] with LoD, or BatchRoINums [N]; Out [R, C, ph, pw]; differentiable in both. The integral is
    separable: Out = hat_y^T X hat_x / area.
    """
    image = _images(rois, nums, x.shape[0], counts=True)
    x1, y1, x2, y2 = (rois.values.to(x.dtype) * spatial_scale).unbind(1)
    weights = []
    area: Any = 1
    for start, end, bins, size, axis in ((y1, y2, pooled_height, x.shape[2], 2), (x1, x2, pooled_width, x.shape[3], 1)):
        step = ((end - start).clamp(min=0) / bins).unsqueeze(1)
        low = start.unsqueeze(1) + step * torch.arange(bins, dtype=x.dtype)
        weights.append(_hat_integral(low, low + step, size))
        area = area * step.unsqueeze(axis)
    hat_y, hat_x = weights
    parts = []
    for n in range(x.shape[0]):
        chosen = torch.from_numpy(np.flatnonzero(image == n))
        rows = torch.einsum("rph,chw->rcpw", hat_y[chosen], x[n])
        parts.append(torch.einsum("rcpw,rqw->rcpq", rows, hat_x[chosen]))
    total = torch.cat(parts)
    area = area.reshape(-1, 1, 1, 1)
    return torch.where(area > 0, total / torch.where(area > 0, area, torch.ones_like(area)), torch.zeros_like(total))


# ---- deformable_psroi_pooling --------------------------------------------------------------------------
def _infer_deformable(
    x: Spec, rois: Spec, trans: Spec, *, output_dim, pooled_height, pooled_width, spatial_scale, group_size, part_size,
    sample_per_part, **_: Any,
) -> tuple[Spec, Spec]:  # fmt: skip
    _check(x, rois, pooled_height, pooled_width, spatial_scale)
    if len(trans.shape) != 4 or len(group_size) != 2 or len(part_size) != 2:
        raise ShapeError(
            "Trans must have 4 dimensions, group_size and part_size 2 numbers; "
            f"received {list(trans.shape)}, {group_size}, {part_size}"
        )
    if output_dim <= 0 or sample_per_part <= 0:
        raise AttributeTypeError(f"output_dim and sample_per_part must be above 0, received {output_dim}, {sample_per_part}")
    out = Spec((rois.shape[0], output_dim, pooled_height, pooled_width), x.dtype)
    return out, out


@op(
    "deformable_psroi_pooling",
    slots="Input, ROIs#, Trans -> TopCount, Output",
    infer=_infer_deformable,
    nodiff="ROIs",
)
def deformable_psroi_pooling(
    x,
    rois,
    trans,
    *,
    no_trans: bool,
    spatial_scale: float,
    output_dim: int,
    group_size: list[int],
    pooled_height: int,
    pooled_width: int,
    part_size: list[int],
    sample_per_part: int,
    trans_std: float,
):
    """psroi_pool whose bins are moved by learned offsets (Dai et al. 2017, arXiv:1703.06211).

    Input [N, output_dim * group_h * group_w, H, W], ROIs [R, 4], Trans [R, 2 * classes, part_h, part_w] (x, y; times
    `trans_std` and the region's size). Output [R, output_dim, ph, pw]: mean of sample_per_part^2 bilinear readings of each
    bin; TopCount: how many fell inside the image.
    """
    image = torch.from_numpy(_images(rois, None, x.shape[0]))
    height, width = x.shape[2:]
    r = rois.values.to(x.dtype)
    edge = torch.where(r >= 0, torch.floor(r + 0.5), torch.ceil(r - 0.5))
    x1, y1 = (edge[:, :2] * spatial_scale - 0.5).unbind(1)
    x2, y2 = ((edge[:, 2:] + 1) * spatial_scale - 0.5).unbind(1)
    rw, rh = (x2 - x1).clamp(min=0.1), (y2 - y1).clamp(min=0.1)
    ph, pw = torch.arange(pooled_height), torch.arange(pooled_width)
    classes = 1 if no_trans else trans.shape[1] // 2
    per_class = max(output_dim // classes, 1)
    tx: Any = torch.zeros((), dtype=x.dtype)
    ty: Any = tx
    if not no_trans:
        part_h = ph * part_size[0] // pooled_height
        part_w = pw * part_size[1] // pooled_width
        moved = trans[:, :, part_h][:, :, :, part_w].reshape(-1, classes, 2, pooled_height, pooled_width) * trans_std
        owner = torch.arange(output_dim) // per_class
        tx, ty = moved[:, owner, 0], moved[:, owner, 1]  # [R, output_dim, ph, pw]
    shape = (len(r), output_dim, pooled_height, pooled_width)

    def start(origin, size, bins, index, shift):
        return (index * (size / bins) + origin).expand(shape) + shift * size

    col = lambda v: v.view(-1, 1, 1, 1)  # noqa: E731
    h0 = start(col(y1), col(rh), pooled_height, ph.view(1, 1, -1, 1), ty)
    w0 = start(col(x1), col(rw), pooled_width, pw.view(1, 1, 1, -1), tx)
    sample = torch.arange(sample_per_part, dtype=x.dtype)
    sub_h = col(rh / pooled_height / sample_per_part).unsqueeze(-1)
    sub_w = col(rw / pooled_width / sample_per_part).unsqueeze(-1)
    h = (h0.unsqueeze(-1) + sample * sub_h).unsqueeze(-1)  # [..., s, 1]
    w = (w0.unsqueeze(-1) + sample * sub_w).unsqueeze(-2)  # [..., 1, s]
    inside = (h >= -0.5) & (h <= height - 0.5) & (w >= -0.5) & (w <= width - 0.5)
    h, w = h.clamp(0, height - 1), w.clamp(0, width - 1)
    group_h = (ph * group_size[0] // pooled_height).clamp(0, group_size[0] - 1).view(1, 1, -1, 1)
    group_w = (pw * group_size[1] // pooled_width).clamp(0, group_size[1] - 1).view(1, 1, 1, -1)
    channel = (torch.arange(output_dim).view(1, -1, 1, 1) * group_size[0] + group_h) * group_size[1] + group_w
    base = ((image.view(-1, 1, 1, 1) * x.shape[1] + channel) * (height * width)).unsqueeze(-1).unsqueeze(-1)
    flat = x.reshape(-1)
    ha, wa, hb, wb = h.detach().floor(), w.detach().floor(), h.detach().ceil(), w.detach().ceil()
    dh, dw = h - ha, w - wa

    def at(row, column):
        return flat[base + (row * width + column).long()]

    value = (1 - dh) * ((1 - dw) * at(ha, wa) + dw * at(ha, wb)) + dh * ((1 - dw) * at(hb, wa) + dw * at(hb, wb))
    count = inside.sum((-2, -1)).to(x.dtype)
    total = torch.where(inside, value, torch.zeros_like(value)).sum((-2, -1))
    out = torch.where(count > 0, total / count.clamp(min=1), torch.zeros_like(total))
    return count, out
