"""Boxes laid on a grid before anything is seen: prior_box, density_prior_box, anchor_generator."""

from __future__ import annotations

import math

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _four(name: str, *specs: Spec) -> None:
    for s in specs:
        if len(s.shape) != 4:
            raise ShapeError(f"{name} must have 4 dimensions [N, C, H, W], received {list(s.shape)}")


def expand_ratios(ratios: list[float], flip: bool) -> list[float]:
    """1, then each new ratio and (with `flip`) its inverse."""
    out = [1.0]
    for r in ratios:
        if not any(abs(r - o) < 1e-6 for o in out):
            out.append(r)
            if flip:
                out.append(1.0 / r)
    return out


def _grid(h: int, w: int, count: int, dtype: torch.dtype, variances: list[float]) -> tuple[torch.Tensor, ...]:
    """(columns [1, w, 1], rows [h, 1, 1], variances [h, w, count, 4])."""
    if len(variances) != 4:
        raise AttributeTypeError(f"variances must have 4 numbers, received {variances}")
    var = torch.tensor(variances, dtype=dtype).expand(h, w, count, 4).clone()
    return torch.arange(w, dtype=dtype).view(1, w, 1), torch.arange(h, dtype=dtype).view(h, 1, 1), var


def _boxes(cx: torch.Tensor, cy: torch.Tensor, half_w: torch.Tensor, half_h: torch.Tensor) -> torch.Tensor:
    """[h, w, count, 4] corners from centres and half sizes."""
    x1, y1, x2, y2 = torch.broadcast_tensors(cx - half_w, cy - half_h, cx + half_w, cy + half_h)
    return torch.stack([x1, y1, x2, y2], -1)


# ---- prior_box -----------------------------------------------------------------------------------------
def _infer_prior_box(x: Spec, image: Spec, *, min_sizes, max_sizes, aspect_ratios, flip, **_) -> tuple[Spec, Spec]:
    _four("Input and Image", x, image)
    if max_sizes and len(max_sizes) != len(min_sizes):
        raise AttributeTypeError(f"max_sizes must be empty or as long as min_sizes, received {max_sizes} and {min_sizes}")
    if any(b <= a for a, b in zip(min_sizes, max_sizes)):
        raise AttributeTypeError(f"each of max_sizes must exceed its min_sizes, received {max_sizes} and {min_sizes}")
    count = len(expand_ratios(aspect_ratios, flip)) * len(min_sizes) + len(max_sizes)
    out = Spec((*x.shape[2:], count, 4), x.dtype)
    return out, out


@op("prior_box", slots="Input, Image -> Boxes, Variances", infer=_infer_prior_box, grad=False)
def prior_box(
    x,
    image,
    *,
    min_sizes: list[float],
    aspect_ratios: list[float],
    variances: list[float],
    max_sizes: list[float] = [],
    flip: bool = True,
    clip: bool = True,
    step_w: float = 0.0,
    step_h: float = 0.0,
    offset: float = 0.5,
    min_max_aspect_ratios_order: bool = False,
):
    """SSD's default boxes (Liu et al. 2016, arXiv:1512.02325), in fractions of the image.

    Input [N, C, H, W] gives the grid, Image [N, C, h, w] the scale; Boxes, Variances [H, W, priors, 4]. Per min size:
    min * (sqrt(r), 1/sqrt(r)) for each ratio, then the square sqrt(min * max) (before the ratios other than 1 with
    `min_max_aspect_ratios_order`). If a step is 0, both are image size / grid size.
    """
    h, w = x.shape[2:]
    ih, iw = image.shape[2:]
    sizes: list[tuple[float, float]] = []
    ratios = expand_ratios(aspect_ratios, flip)
    for i, low in enumerate(min_sizes):
        plain = [(low * math.sqrt(r) / 2, low / math.sqrt(r) / 2) for r in ratios]
        square = [(math.sqrt(low * max_sizes[i]) / 2,) * 2] if max_sizes else []
        if min_max_aspect_ratios_order:
            others = [s for s, r in zip(plain, ratios) if abs(r - 1) >= 1e-6]
            sizes += [(low / 2, low / 2), *square, *others]
        else:
            sizes += plain + square
    columns, rows, var = _grid(h, w, len(sizes), x.dtype, variances)
    if step_w == 0 or step_h == 0:
        step_w, step_h = iw / w, ih / h
    cx = (columns + offset) * step_w
    cy = (rows + offset) * step_h
    half = torch.tensor(sizes, dtype=x.dtype)
    boxes = _boxes(cx, cy, half[:, 0], half[:, 1]) / torch.tensor([iw, ih, iw, ih], dtype=x.dtype)
    return (boxes.clamp(0, 1) if clip else boxes), var


# ---- density_prior_box ---------------------------------------------------------------------------------
def _infer_density(x: Spec, image: Spec, *, fixed_sizes, fixed_ratios, densities, flatten_to_2d, **_) -> tuple[Spec, Spec]:
    _four("Input and Image", x, image)
    if len(fixed_sizes) != len(densities):
        raise AttributeTypeError(f"fixed_sizes and densities must be as long, received {fixed_sizes} and {densities}")
    count = sum(d * d for d in densities) * len(fixed_ratios)
    out = Spec((-1, 4) if flatten_to_2d else (*x.shape[2:], count, 4), x.dtype)
    return out, out


@op("density_prior_box", slots="Input, Image -> Boxes, Variances", infer=_infer_density, grad=False)
def density_prior_box(
    x,
    image,
    *,
    variances: list[float],
    clip: bool = True,
    flatten_to_2d: bool = False,
    step_w: float = 0.0,
    step_h: float = 0.0,
    offset: float = 0.5,
    fixed_sizes: list[float] = [],
    fixed_ratios: list[float] = [],
    densities: list[int] = [],
):
    """FaceBoxes' densified default boxes (Zhang et al. 2017, arXiv:1708.05234), in fractions of the image, cut at 0 and 1.

    For each fixed size with its density d and each ratio: d x d boxes spread evenly over one step. Boxes, Variances
    [H, W, priors, 4], or [H * W * priors, 4] with `flatten_to_2d`.
    """
    h, w = x.shape[2:]
    ih, iw = image.shape[2:]
    if not (step_w and step_h):  # one of them alone counts for nothing (unlike in prior_box)
        step_w, step_h = iw / w, ih / h
    step = int((step_w + step_h) * 0.5)
    rows_of: list[tuple[float, float, float, float]] = []  # shift x, shift y, half width, half height
    for size, density in zip(fixed_sizes, densities):
        shift = step // density
        start = shift / 2 - step / 2
        for r in fixed_ratios:
            half_w, half_h = size * math.sqrt(r) / 2, size / math.sqrt(r) / 2
            rows_of += [
                (start + j * shift, start + i * shift, half_w, half_h) for i in range(density) for j in range(density)
            ]
    columns, rows, var = _grid(h, w, len(rows_of), x.dtype, variances)
    table = torch.tensor(rows_of, dtype=x.dtype).reshape(-1, 4)
    cx = (columns + offset) * step_w + table[:, 0]
    cy = (rows + offset) * step_h + table[:, 1]
    boxes = _boxes(cx, cy, table[:, 2], table[:, 3]) / torch.tensor([iw, ih, iw, ih], dtype=x.dtype)
    boxes = torch.cat([boxes[..., :2].clamp(min=0), boxes[..., 2:].clamp(max=1)], -1)
    if clip:
        boxes = boxes.clamp(0, 1)
    return (boxes.reshape(-1, 4), var.reshape(-1, 4)) if flatten_to_2d else (boxes, var)


# ---- anchor_generator ----------------------------------------------------------------------------------
def _infer_anchors(x: Spec, *, anchor_sizes, aspect_ratios, **_) -> tuple[Spec, Spec]:
    _four("Input", x)
    out = Spec((*x.shape[2:], len(anchor_sizes) * len(aspect_ratios), 4), x.dtype)
    return out, out


@op("anchor_generator", slots="Input -> Anchors, Variances", infer=_infer_anchors, grad=False)
def anchor_generator(
    x,
    *,
    anchor_sizes: list[float],
    aspect_ratios: list[float],
    variances: list[float],
    stride: list[float] = [16.0, 16.0],
    offset: float = 0.5,
):
    """Faster R-CNN's anchors in pixels (Ren et al. 2015, arXiv:1506.01497).

    Input [N, C, H, W]; Anchors, Variances [H, W, ratios * sizes, 4]. The base box of a ratio r has width
    round(sqrt(stride_w * stride_h / r)) and height round(width * r), times size / stride; centres at
    i * stride + offset * (stride - 1).
    """
    h, w = x.shape[2:]
    sizes = []
    for r in aspect_ratios:
        base_w = math.floor(math.sqrt(stride[0] * stride[1] / r) + 0.5)
        base_h = math.floor(base_w * r + 0.5)
        sizes += [((s / stride[0] * base_w - 1) / 2, (s / stride[1] * base_h - 1) / 2) for s in anchor_sizes]
    columns, rows, var = _grid(h, w, len(sizes), x.dtype, variances)
    cx = columns * stride[0] + offset * (stride[0] - 1)
    cy = rows * stride[1] + offset * (stride[1] - 1)
    half = torch.tensor(sizes, dtype=x.dtype)
    return _boxes(cx, cy, half[:, 0], half[:, 1]), var
