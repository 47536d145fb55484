"""YOLOv3: decoding of its output and its loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# ---- yolo_box ------------------------------------------------------------------------------------------
def _infer_box(x: Spec, size: Spec, *, anchors, class_num, **_: Any) -> tuple[Spec, Spec]:
    if len(x.shape) != 4 or len(size.shape) != 2 or size.shape[1] != 2:
        raise ShapeError(f"X must have 4 dimensions and ImgSize be [N, 2], received {list(x.shape)} and {list(size.shape)}")
    if not anchors or len(anchors) % 2 or class_num <= 0:
        raise AttributeTypeError(f"anchors must be pairs and class_num above 0, received {anchors} and {class_num}")
    count = len(anchors) // 2
    if x.shape[1] >= 0 and x.shape[1] != count * (5 + class_num):
        raise ShapeError(
            f"X must have {count * (5 + class_num)} channels (anchors * (5 + class_num)), received {list(x.shape)}"
        )
    boxes = -1 if min(x.shape[2:]) < 0 else x.shape[2] * x.shape[3] * count
    return Spec((x.shape[0], boxes, 4), x.dtype), Spec((x.shape[0], boxes, class_num), x.dtype)


@op("yolo_box", slots="X, ImgSize -> Boxes, Scores", infer=_infer_box, grad=False)
def yolo_box(
    x,
    size,
    *,
    class_num: int,
    anchors: list[int] = [],
    downsample_ratio: int = 32,
    conf_thresh: float = 0.01,
    clip_bbox: bool = True,
    scale_x_y: float = 1.0,
):
    """Boxes and class scores of a YOLOv3 head (Redmon and Farhadi 2018, arXiv:1804.02767).

    X [N, A * (5 + C), H, W] holds x, y, w, h, confidence, classes of each anchor; ImgSize int [N, 2] (height, width).
    Boxes [N, A*H*W, 4] in pixels, Scores [N, A*H*W, C] = confidence * class; both 0 below `conf_thresh`.
    """
    n, _, h, w = x.shape
    count = len(anchors) // 2
    v = x.reshape(n, count, 5 + class_num, h, w)
    shape = torch.tensor(anchors, dtype=x.dtype).view(1, count, 2, 1, 1)
    image = size.to(x.dtype).view(n, 1, 2, 1, 1)
    ih, iw = image[:, :, 0], image[:, :, 1]
    bias = -0.5 * (scale_x_y - 1)
    column = torch.arange(w, dtype=x.dtype).view(1, 1, 1, w)
    row = torch.arange(h, dtype=x.dtype).view(1, 1, h, 1)
    cx = (column + torch.sigmoid(v[:, :, 0]) * scale_x_y + bias) * iw / h
    cy = (row + torch.sigmoid(v[:, :, 1]) * scale_x_y + bias) * ih / h
    bw = torch.exp(v[:, :, 2]) * shape[:, :, 0] * iw / (downsample_ratio * h)
    bh = torch.exp(v[:, :, 3]) * shape[:, :, 1] * ih / (downsample_ratio * h)
    box = torch.stack([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], -1)
    if clip_bbox:
        most = torch.stack([iw - 1, ih - 1], -1)
        low, high = box[..., :2].clamp(min=0), torch.minimum(box[..., 2:], most)
        box = torch.cat([low, high], -1)
    conf = torch.sigmoid(v[:, :, 4])
    seen = (conf >= conf_thresh).unsqueeze(-1)
    score = torch.sigmoid(v[:, :, 5:]).movedim(2, -1) * conf.unsqueeze(-1)
    zero = torch.zeros((), dtype=x.dtype)
    box, score = torch.where(seen, box, zero), torch.where(seen, score, zero)
    return box.reshape(n, -1, 4), score.reshape(n, -1, class_num)


# ---- yolov3_loss ---------------------------------------------------------------------------------------
class _Head(NamedTuple):
    """The attributes of a head, and what follows from them."""

    anchors: np.ndarray  # [all, 2]
    mask: list[int]
    classes: int
    positive: float
    negative: float
    input_size: int


def _head(x: np.ndarray, anchors, mask, classes, ratio, smooth) -> _Head:
    weight = min(1.0 / classes, 1.0 / 40) if smooth else 0.0
    return _Head(np.array(anchors, x.dtype).reshape(-1, 2), mask, classes, 1 - weight, weight, ratio * x.shape[3])


def _infer_loss(x: Spec, box: Spec, label: Spec, score: Spec | None, *, anchors, anchor_mask, class_num, **_: Any):
    if len(x.shape) != 4 or len(box.shape) != 3 or box.shape[2] != 4 or len(label.shape) != 2:
        raise ShapeError(
            f"X must have 4 dimensions, GTBox be [N, B, 4] and GTLabel [N, B], received {list(x.shape)}, "
            f"{list(box.shape)} and {list(label.shape)}"
        )
    if x.shape[2] >= 0 and x.shape[3] >= 0 and x.shape[2] != x.shape[3]:
        raise ShapeError(f"X must be square, received {list(x.shape)}")
    m = len(anchor_mask)
    if x.shape[1] >= 0 and x.shape[1] != m * (5 + class_num):
        raise ShapeError(
            f"X must have {m * (5 + class_num)} channels (anchor_mask * (5 + class_num)), received {list(x.shape)}"
        )
    if not anchors or len(anchors) % 2 or any(not 0 <= k < len(anchors) // 2 for k in anchor_mask):
        raise AttributeTypeError(f"anchors must be pairs that anchor_mask names, received {anchors} and {anchor_mask}")
    if score is not None and len(score.shape) != 2:
        raise ShapeError(f"GTScore must be [N, B], received {list(score.shape)}")
    n = x.shape[0]
    return Spec((n,), x.dtype), Spec((n, m, *x.shape[2:]), x.dtype), Spec(tuple(label.shape), VarType.INT32)


def _overlaps(pred: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Overlap of centre-size boxes pred [..., 4] with one box [4]."""
    low = np.maximum(pred[..., :2] - pred[..., 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(pred[..., :2] + pred[..., 2:] / 2, box[:2] + box[2:] / 2)
    side = high - low
    inter = np.where((side < 0).any(-1), 0, side[..., 0] * side[..., 1])
    return inter / (pred[..., 2] * pred[..., 3] + box[2] * box[3] - inter)


def _match(x, boxes, scores, head: _Head, ignore, scale):
    """(ObjectnessMask, GTMatchMask): -1 where a prediction overlaps a box too well to be called empty."""
    n, _, h, w = x.shape
    m = len(head.mask)
    v = x.reshape(n, m, 5 + head.classes, h, w)
    bias = -0.5 * (scale - 1)
    shape = head.anchors[head.mask]
    cx = (np.arange(w) + _sigmoid(v[:, :, 0]) * scale + bias) / h
    cy = (np.arange(h)[:, None] + _sigmoid(v[:, :, 1]) * scale + bias) / h
    pw = np.exp(v[:, :, 2]) * shape[:, 0].reshape(1, m, 1, 1) / head.input_size
    ph = np.exp(v[:, :, 3]) * shape[:, 1].reshape(1, m, 1, 1) / head.input_size
    pred = np.stack([cx, cy, pw, ph], -1)
    obj = np.zeros((n, m, h, w), x.dtype)
    match = np.full(boxes.shape[:2], -1, np.int32)
    sizes = head.anchors / head.input_size
    flat = np.concatenate([np.zeros_like(sizes), sizes], 1)
    for i in range(n):
        real = [t for t in range(boxes.shape[1]) if boxes[i, t, 2] > 1e-6 and boxes[i, t, 3] > 1e-6]
        for t in real:
            obj[i][_overlaps(pred[i], boxes[i, t]) > ignore] = -1
        for t in real:
            best = int(np.argmax(_overlaps(flat, np.array([0, 0, *boxes[i, t, 2:]], x.dtype))))
            if best in head.mask:
                k = head.mask.index(best)
                match[i, t] = k
                obj[i, k, int(boxes[i, t, 1] * h), int(boxes[i, t, 0] * w)] = scores[i, t]
    return obj, match


class _Target(NamedTuple):
    """What one matched box asks of its cell."""

    at: tuple[int, int, int, int]  # image, anchor, row, column
    xy: np.ndarray
    wh: np.ndarray
    scale: float
    score: float
    label: np.ndarray


def _targets(x, boxes, labels, scores, match, head: _Head):
    h, w = x.shape[2:]
    for i, t in zip(*np.nonzero(match >= 0)):
        k, box = int(match[i, t]), boxes[i, t]
        column, row = int(box[0] * w), int(box[1] * h)
        wanted = np.full(head.classes, head.negative, x.dtype)
        wanted[int(labels[i, t])] = head.positive
        yield _Target(
            (int(i), k, row, column),
            np.array([box[0] * h - column, box[1] * h - row]),
            np.log(box[2:] * head.input_size / head.anchors[head.mask[k]]),
            float((2.0 - box[2] * box[3]) * scores[i, t]),
            float(scores[i, t]),
            wanted,
        )


def _entropy(x: np.ndarray, label: Any) -> np.ndarray:
    return np.maximum(x, 0) - x * label + np.log1p(np.exp(-np.abs(x)))


def _arrays(x, box, label, score):
    v = x.contiguous().numpy()
    s = score.numpy() if score is not None else np.ones(tuple(label.shape), v.dtype)
    return v, box.numpy(), label.numpy(), s


@op(
    "yolov3_loss",
    slots="X, GTBox, GTLabel, GTScore? -> Loss, ObjectnessMask~, GTMatchMask~",
    infer=_infer_loss,
    nodiff="GTBox, GTLabel, GTScore",
)
def yolov3_loss(
    x,
    box,
    label,
    score,
    *,
    class_num: int,
    anchors: list[int] = [],
    anchor_mask: list[int] = [],
    downsample_ratio: int = 32,
    ignore_thresh: float = 0.7,
    use_label_smooth: bool = True,
    scale_x_y: float = 1.0,
):
    """YOLOv3's training loss (Redmon and Farhadi 2018, arXiv:1804.02767), one number an image.

    X [N, M * (5 + C), H, H]; GTBox [N, B, 4] (centre x, y, width, height in fractions; width 0: no box), GTLabel int
    [N, B], GTScore [N, B] (mixup). Each box belongs to the anchor of its shape, in the cell of its centre: cross entropy of
    x, y and classes, absolute difference of log sizes, weighted by 2 - area; cross entropy of confidence everywhere but
    where a prediction overlaps a box by more than `ignore_thresh`.
    """
    v, boxes, labels, scores = _arrays(x, box, label, score)
    head = _head(v, anchors, anchor_mask, class_num, downsample_ratio, use_label_smooth)
    obj, match = _match(v, boxes, scores, head, ignore_thresh, scale_x_y)
    n, _, h, w = v.shape
    cells = v.reshape(n, len(anchor_mask), 5 + class_num, h, w)
    loss = np.zeros(n)
    for t in _targets(v, boxes, labels, scores, match, head):
        i, k, row, column = t.at
        p = cells[i, k, :, row, column]
        loss[i] += (_entropy(p[:2], t.xy).sum() + np.abs(t.wh - p[2:4]).sum()) * t.scale
        loss[i] += _entropy(p[5:], t.label).sum() * t.score
    confidence = cells[:, :, 4]
    part = np.where(obj > 1e-5, _entropy(confidence, 1.0) * obj, np.where(obj > -0.5, _entropy(confidence, 0.0), 0))
    loss += part.sum((1, 2, 3))
    return torch.from_numpy(loss.astype(v.dtype)), torch.from_numpy(obj), torch.from_numpy(match)


@op(
    "yolov3_loss_grad",
    slots="X, GTBox, GTLabel, GTScore?, ObjectnessMask, GTMatchMask, Loss@GRAD -> X@GRAD",
)
def yolov3_loss_grad(
    x,
    box,
    label,
    score,
    obj,
    match,
    dloss,
    *,
    class_num: int,
    anchors: list[int] = [],
    anchor_mask: list[int] = [],
    downsample_ratio: int = 32,
    use_label_smooth: bool = True,
):
    """The derivative, except that of several boxes in one cell and anchor only the last one's part is kept (as in Fluid)."""
    v, boxes, labels, scores = _arrays(x, box, label, score)
    head = _head(v, anchors, anchor_mask, class_num, downsample_ratio, use_label_smooth)
    n, _, h, w = v.shape
    cells = v.reshape(n, len(anchor_mask), 5 + class_num, h, w)
    mask, d = obj.numpy(), dloss.reshape(-1).numpy()
    grad = np.zeros_like(cells)
    for t in _targets(v, boxes, labels, scores, match.numpy(), head):
        i, k, row, column = t.at
        p = cells[i, k, :, row, column]
        g = grad[i, k, :, row, column]
        g[:2] = (_sigmoid(p[:2]) - t.xy) * t.scale * d[i]
        g[2:4] = np.where(p[2:4] > t.wh, 1, -1) * t.scale * d[i]
        g[5:] = (_sigmoid(p[5:]) - t.label) * t.score * d[i]
    c = _sigmoid(cells[:, :, 4])
    part = np.where(mask > 1e-5, (c - 1) * mask, np.where(mask > -0.5, c, 0))
    grad[:, :, 4] = part * d.reshape(-1, 1, 1, 1)
    return torch.from_numpy(grad.reshape(v.shape))
