"""Perspective transform of quadrilateral regions."""

from __future__ import annotations

from typing import Any

import torch

from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection.roi import _check, _images

_EPS = 1e-4


def _infer(x: Spec, rois: Spec, *, transformed_height, transformed_width, spatial_scale) -> tuple[Any, ...]:
    _check(x, rois, transformed_height, transformed_width, spatial_scale, 8)
    r = rois.shape[0]
    out = Spec((r, x.shape[1], transformed_height, transformed_width), x.dtype, rois.lod_level)
    mask = Spec((r, 1, transformed_height, transformed_width), VarType.INT32)
    return out, mask, Spec((r, 9), x.dtype), out.like(dtype=VarType.INT32, lod_level=0), out.like(lod_level=0)


def _matrices(quads: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[R, 9]: the map from output (column, row, 1) to image (x, y, 1) up to scale; a narrow quad fills the left part."""
    x0, x1, x2, x3 = quads[:, 0::2].unbind(1)
    y0, y1, y2, y3 = quads[:, 1::2].unbind(1)

    def length(xa, ya, xb, yb):
        return torch.sqrt((xa - xb) ** 2 + (ya - yb) ** 2)

    tall = (length(x1, y1, x2, y2) + length(x3, y3, x0, y0)) / 2
    wide = (length(x0, y0, x1, y1) + length(x2, y2, x3, y3)) / 2
    rows = max(2, height)
    columns = torch.floor(wide * (rows - 1) / tall + 0.5) + 1
    columns = torch.nan_to_num(columns, nan=2.0).clamp(max=width).clamp(min=2)
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    below = dx1 * dy2 - dx2 * dy1 + 1e-5
    m6 = (dx3 * dy2 - dx2 * dy3) / below / (columns - 1)
    m7 = (dx1 * dy3 - dx3 * dy1) / below / (rows - 1)
    m3 = (y1 - y0 + m6 * (columns - 1) * y1) / (columns - 1)
    m4 = (y3 - y0 + m7 * (rows - 1) * y3) / (rows - 1)
    m0 = (x1 - x0 + m6 * (columns - 1) * x1) / (columns - 1)
    m1 = (x3 - x0 + m7 * (rows - 1) * x3) / (rows - 1)
    return torch.stack([m0, m1, x0, m3, m4, y0, m6, m7, torch.ones_like(m0)], 1)


def _inside(x: torch.Tensor, y: torch.Tensor, quads: torch.Tensor) -> torch.Tensor:
    """Whether points [R, P] lie in quads [R, 8], edges included (to within 1e-4)."""
    on_edge = torch.zeros_like(x, dtype=torch.bool)
    crossings = torch.zeros_like(x, dtype=torch.int64)
    for i in range(4):
        j = (i + 1) % 4
        xs, ys, xe, ye = (quads[:, k : k + 1] for k in (2 * i, 2 * i + 1, 2 * j, 2 * j + 1))
        flat = (ys - ye).abs() < _EPS
        left, right = torch.minimum(xs, xe), torch.maximum(xs, xe)
        low, high = torch.minimum(ys, ye), torch.maximum(ys, ye)
        on_flat = flat & ((y - ys).abs() < _EPS) & (x > left - _EPS) & (x < right + _EPS)
        at = (y - ys) * (xe - xs) / torch.where(flat, torch.ones_like(ys), ye - ys) + xs
        within = ~flat & (y > low - _EPS) & (y < high + _EPS)
        on_edge = on_edge | on_flat | (within & ((at - x).abs() < _EPS))
        crossings = crossings + (~flat & (y > low + _EPS) & (y < high + _EPS) & (at - x > _EPS)).long()
    return on_edge | (crossings % 2 == 1)


@op(
    "roi_perspective_transform",
    slots="X, ROIs# -> Out, Mask, TransformMatrix, Out2InIdx~, Out2InWeights~",
    infer=_infer,
    lod="Out=ROIs",
    nodiff="ROIs",
)
def roi_perspective_transform(
    x, rois: Ragged, *, spatial_scale: float = 1.0, transformed_height: int = 1, transformed_width: int = 1
):
    """Each quadrilateral of an image, straightened to a rectangle by bilinear reading.

    X [N, C, H, W]; ROIs [R, 8] (x1, y1, …, x4, y4 clockwise from the top left) with LoD; Out [R, C, h, w], Mask
    int32 [R, 1, h, w] (1 where it was read), TransformMatrix [R, 9]. Out2InIdx and Out2InWeights, which
    Fluid fills on GPUs only, are empty.
    """
    image = torch.from_numpy(_images(rois, None, x.shape[0]))
    height, width = x.shape[2:]
    quads = rois.values.to(x.dtype) * spatial_scale
    m = _matrices(quads, transformed_height, transformed_width)
    row = torch.arange(transformed_height, dtype=x.dtype).repeat_interleave(transformed_width)
    column = torch.arange(transformed_width, dtype=x.dtype).repeat(transformed_height)
    m0, m1, m2, m3, m4, m5, m6, m7, m8 = (m[:, i : i + 1] for i in range(9))
    depth = m6 * column + m7 * row + m8
    px = (m0 * column + m1 * row + m2) / depth
    py = (m3 * column + m4 * row + m5) / depth
    read = _inside(px, py, quads) & (px > -0.5) & (px < width - 0.5) & (py > -0.5) & (py < height - 0.5)
    px, py = px.clamp(0, width - 1), py.clamp(0, height - 1)
    x0, y0 = px.floor(), py.floor()
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    fx, fy = px - x0, py - y0
    corners = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x1, y1 * width + x0], -1).long()
    weights = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), fx * fy, (1 - fx) * fy], -1) * read.unsqueeze(-1)
    picked = x.flatten(2)[image].gather(2, corners.reshape(len(image), 1, -1).expand(-1, x.shape[1], -1))
    out = (picked.reshape(*picked.shape[:2], -1, 4) * weights.unsqueeze(1)).sum(-1)
    size = (transformed_height, transformed_width)
    return (
        out.reshape(*out.shape[:2], *size),
        read.to(torch.int32).reshape(-1, 1, *size),
        m,
        torch.empty(0, dtype=torch.int32),
        x.new_empty(0),
    )
