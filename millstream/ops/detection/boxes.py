"""Arithmetic of boxes: overlap, coding against priors, clipping."""

from __future__ import annotations

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import fit


def overlap(a: torch.Tensor, b: torch.Tensor, extra: float) -> torch.Tensor:
    """[A, B] intersection over union; `extra` is 1 where both ends of a box belong to it, else 0."""
    a, b = a.unsqueeze(1), b.unsqueeze(0)
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low + extra).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2] + extra).prod(-1)
    area_b = (b[..., 2:] - b[..., :2] + extra).prod(-1)
    return inter / (area_a + area_b - inter)


def _infer_iou(x: Spec, y: Spec, *, box_normalized) -> Spec:
    if len(x.shape) != 2 or len(y.shape) != 2 or x.shape[1] != 4 or y.shape[1] != 4:
        raise ShapeError(f"X and Y must have shape [boxes, 4], received {list(x.shape)} and {list(y.shape)}")
    return Spec((x.shape[0], y.shape[0]), x.dtype, x.lod_level)


@op("iou_similarity", slots="X, Y -> Out", infer=_infer_iou, lod="X", grad=False)
def iou_similarity(x, y, *, box_normalized: bool = True):
    """Intersection over union of every box of X [N, 4] with every one of Y [M, 4] (x1, y1, x2, y2): Out [N, M].

    `box_normalized` false: coordinates are pixels, a box includes both ends (+ 1).
    """
    out = overlap(x, y, 0.0 if box_normalized else 1.0)
    return torch.nan_to_num(out, nan=0.0)


# ---- box_coder -----------------------------------------------------------------------------------------
def _infer_coder(prior: Spec, var: Spec | None, target: Spec, *, code_type, box_normalized, axis, variance) -> Spec:
    if len(prior.shape) != 2 or not fit(prior.shape[1], 4):
        raise ShapeError(f"PriorBox must have shape [priors, 4], received {list(prior.shape)}")
    if var is not None and not fit(var.shape[-1], 4):
        raise ShapeError(f"PriorBoxVar must have shape [priors, 4], received {list(var.shape)}")
    if variance and len(variance) != 4:
        raise AttributeTypeError(f"variance must have 4 numbers, received {variance}")
    if code_type == "encode_center_size":
        if len(target.shape) != 2 or not fit(target.shape[1], 4):
            raise ShapeError(f"TargetBox must have shape [boxes, 4] to encode, received {list(target.shape)}")
        return Spec((target.shape[0], prior.shape[0], 4), target.dtype, target.lod_level)
    if code_type != "decode_center_size":
        raise AttributeTypeError(f"code_type must be encode_center_size or decode_center_size, received {code_type!r}")
    if len(target.shape) != 3 or axis not in (0, 1):
        raise ShapeError(
            f"to decode, TargetBox must have 3 dimensions and axis be 0 or 1, received {list(target.shape)}, {axis}"
        )
    have, want = target.shape[1 - axis], prior.shape[0]
    if min(have, want) >= 0 and have != want:
        raise ShapeError(f"TargetBox {list(target.shape)} must have {want} boxes (one per prior) at dimension {1 - axis}")
    return target


def _centres(boxes: torch.Tensor, extra: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(centre, size), [..., 2] each."""
    size = boxes[..., 2:] - boxes[..., :2] + extra
    return boxes[..., :2] + size / 2, size


def _coder_lod(lods, attrs, ins):
    """The LoD of what lies along dimension 0."""
    along_rows = attrs["code_type"] == "decode_center_size" and attrs["axis"] == 1
    return {"OutputBox": lods["PriorBox" if along_rows else "TargetBox"]}


@op("box_coder", slots="PriorBox, PriorBoxVar?, TargetBox -> OutputBox", infer=_infer_coder, lod=_coder_lod, grad=False)
def box_coder(
    prior,
    var,
    target,
    *,
    code_type: str = "encode_center_size",
    box_normalized: bool = True,
    axis: int = 0,
    variance: list[float] = [],
):
    """Boxes as offsets from priors in centre and log size, over the variances, or back (Ren et al. 2015).

    Encode: TargetBox [N, 4], PriorBox [M, 4] -> [N, M, 4]: ((t - p) / p_size / var, log(t_size / p_size) / var). Decode:
    TargetBox [N, M, 4], priors along dimension 1 (`axis` 0) or 0 (`axis` 1) -> [N, M, 4].
    """
    extra = 0.0 if box_normalized else 1.0
    centre, size = _centres(prior, extra)
    scale = var if var is not None else (torch.tensor(variance, dtype=target.dtype) if variance else None)
    if code_type == "encode_center_size":
        middle = (target[:, :2] + target[:, 2:]) / 2
        t_size = target[:, 2:] - target[:, :2] + extra
        move = (middle.unsqueeze(1) - centre) / size
        grow = torch.log((t_size.unsqueeze(1) / size).abs())
        out = torch.cat([move, grow], -1)
        return out if scale is None else out / scale
    if axis == 1:
        centre, size = centre.unsqueeze(1), size.unsqueeze(1)
        if scale is not None and scale.dim() == 2:
            scale = scale.unsqueeze(1)
    coded = target if scale is None else target * scale
    middle = coded[..., :2] * size + centre
    half = torch.exp(coded[..., 2:]) * size / 2
    return torch.cat([middle - half, middle + half - extra], -1)


# ---- box_clip ------------------------------------------------------------------------------------------
def _infer_clip(x: Spec, info: Spec) -> Spec:
    if not x.shape or not fit(x.shape[-1], 4) or len(info.shape) != 2 or not fit(info.shape[1], 3):
        raise ShapeError(f"Input must end in 4 and ImInfo be [N, 3], received {list(x.shape)} and {list(info.shape)}")
    return x


def image_sizes(info: torch.Tensor) -> torch.Tensor:
    """[N, 2] (width, height) of the original images from ImInfo's (height, width, scale), rounded."""
    return torch.floor(info[:, :2].flip(1) / info[:, 2:3] + 0.5)


def clip(boxes: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """Corners [..., 4] held in [0, limit - 1]; `limit` [..., 2] is (width, height)."""
    most = torch.cat([limit, limit], -1) - 1
    return torch.minimum(boxes, most.to(boxes.dtype)).clamp(min=0)


@op("box_clip", slots="Input#, ImInfo -> Output", infer=_infer_clip, lod="Input", grad=False)
def box_clip(x, info):
    """Boxes held inside their image: Input [boxes, 4] with one sequence an image, ImInfo [N, 3] (height, width, scale)."""
    limits = image_sizes(info)
    lengths = torch.from_numpy(x.offsets[1:] - x.offsets[:-1])
    rows = limits.repeat_interleave(lengths, 0) if x.lod else limits[:1].expand(x.values.shape[0], 2)
    if x.values.dim() > 2:
        rows = rows.reshape(-1, *[1] * (x.values.dim() - 2), 2)
    return clip(x.values, rows)


# ---- box_decoder_and_assign ----------------------------------------------------------------------------
def _infer_decoder(prior: Spec, var: Spec | None, target: Spec, score: Spec, *, box_clip) -> tuple[Spec, Spec]:
    if len(prior.shape) != 2 or not fit(prior.shape[1], 4):
        raise ShapeError(f"PriorBox must have shape [boxes, 4], received {list(prior.shape)}")
    if len(target.shape) != 2 or len(score.shape) != 2 or not fit(target.shape[1], 4 * score.shape[1]):
        raise ShapeError(
            f"TargetBox must be [boxes, 4 * classes] and BoxScore [boxes, classes], "
            f"received {list(target.shape)} and {list(score.shape)}"
        )
    return target, prior


@op(
    "box_decoder_and_assign",
    slots="PriorBox, PriorBoxVar?, TargetBox, BoxScore -> DecodeBox, OutputAssignBox",
    infer=_infer_decoder,
    lod="DecodeBox=TargetBox, OutputAssignBox=PriorBox",
    grad=False,
)
def box_decoder_and_assign(prior, var, target, score, *, box_clip: float = 4.135):
    """Decode a box per class (log sizes cut at `box_clip`), and take the one of the best class other than 0.

    PriorBox [R, 4] in pixels, PriorBoxVar [4], TargetBox [R, 4 * C], BoxScore [R, C]; DecodeBox [R, 4 * C],
    OutputAssignBox [R, 4] (the prior itself when there is only class 0).
    """
    centre, size = _centres(prior, 1.0)
    coded = target.reshape(target.shape[0], target.shape[1] // 4, 4)
    if var is not None:
        coded = coded * var
    middle = coded[..., :2] * size.unsqueeze(1) + centre.unsqueeze(1)
    half = torch.exp(coded[..., 2:].clamp(max=box_clip)) * size.unsqueeze(1) / 2
    boxes = torch.cat([middle - half, middle + half - 1], -1)
    if score.shape[1] < 2:
        return boxes.reshape(target.shape), prior
    best = score[:, 1:].argmax(1) + 1
    chosen = boxes[torch.arange(len(best)), best]
    return boxes.reshape(target.shape), torch.where(score[:, 1:].max(1, keepdim=True)[0] > -1, chosen, prior)


# ---- polygon_box_transform -----------------------------------------------------------------------------
def _infer_polygon(x: Spec) -> Spec:
    if len(x.shape) != 4 or (x.shape[1] >= 0 and x.shape[1] % 2):
        raise ShapeError(f"Input must be [N, an even number of channels, H, W], received {list(x.shape)}")
    return x


@op("polygon_box_transform", slots="Input -> Output", infer=_infer_polygon, grad=False)
def polygon_box_transform(x):
    """EAST geometry to coordinates (Zhou et al. 2017, arXiv:1704.03155): 4 * column - even channels, 4 * row - odd ones."""
    columns = 4 * torch.arange(x.shape[3], dtype=x.dtype).view(1, 1, 1, -1)
    rows = 4 * torch.arange(x.shape[2], dtype=x.dtype).view(1, 1, -1, 1)
    even = torch.arange(x.shape[1]).view(1, -1, 1, 1) % 2 == 0
    return torch.where(even, columns - x, rows - x)
