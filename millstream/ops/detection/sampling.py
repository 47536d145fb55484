"""Training samples of two-stage detectors: rpn_target_assign, retinanet_target_assign, generate_proposal_labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection.boxes import overlap
from millstream.ops.tensor._dims import fit


def encode(boxes: np.ndarray, targets: np.ndarray, weights: Any = None) -> np.ndarray:
    """Centre-size offsets of `targets` from `boxes` (pixels, both ends included), divided by `weights`."""
    size, t_size = boxes[:, 2:] - boxes[:, :2] + 1, targets[:, 2:] - targets[:, :2] + 1
    centre, t_centre = boxes[:, :2] + size / 2, targets[:, :2] + t_size / 2
    out = np.concatenate([(t_centre - centre) / size, np.log(t_size / size)], 1)
    return (out if weights is None else out / np.asarray(weights, boxes.dtype)).astype(boxes.dtype)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return torch.nan_to_num(overlap(torch.from_numpy(a), torch.from_numpy(b), 1.0), nan=0.0).numpy()


def choose(at: np.ndarray, count: int, rng: torch.Generator | None) -> np.ndarray:
    """`count` of the positions: the first ones, or any with `rng`, in their order."""
    if len(at) <= count:
        return at
    if rng is None:
        return at[:count]
    return at[np.sort(torch.randperm(len(at), generator=rng)[:count].numpy())]


def _per_image(name: str, x: Ragged, images: int) -> list[np.ndarray]:
    if len(x.offsets) - 1 != images:
        raise EnforceNotMet(f"{name} must have one sequence for each of {images} images, received {len(x.offsets) - 1}")
    values = x.values.numpy()
    return [values[x.offsets[i] : x.offsets[i + 1]] for i in range(images)]


class _Assigned(NamedTuple):
    location: np.ndarray  # anchors with a box to learn
    score: np.ndarray  # anchors with a class to learn
    label: np.ndarray  # of those
    truth: np.ndarray  # box of each location
    weight: np.ndarray  # [locations, 4]
    positives: int


def _assign(overlaps: np.ndarray, above: float, below: float, batch: int, fraction: float, rng: Any) -> _Assigned:
    """Positives: the best anchors of each box and those above; negatives: those below (they win over the first kind).

    A positive that is also drawn as a negative is lost: a location of weight 0 (the first positive) stands in for it.
    """
    anchors = len(overlaps)
    some = overlaps.size > 0  # an image may have no boxes, and no anchor that lies inside it
    most = overlaps.max(1) if some else np.zeros(anchors, overlaps.dtype)
    truth = overlaps.argmax(1) if some else np.zeros(anchors, np.int64)
    best = (np.abs(overlaps - overlaps.max(0, keepdims=True)) < 1e-5).any(1) if some else np.zeros(anchors, bool)
    positive = np.flatnonzero(best | (most >= np.float32(above)))
    if batch > 0:
        positive = choose(positive, int(fraction * batch), rng)
    label = np.full(anchors, -1)
    label[positive] = 1
    negative = np.flatnonzero(most < np.float32(below))
    if batch > 0:
        negative = choose(negative, batch - len(positive), rng)
    lost = int((label[negative] == 1).sum())
    label[negative] = 0
    real = positive[label[positive] == 1]
    location = np.concatenate([np.repeat(positive[:1], lost), real]) if lost else real
    weight = np.ones((len(location), 4), overlaps.dtype)
    weight[:lost] = 0
    order = np.concatenate([real, negative])
    return _Assigned(location, order, label[order], truth[location], weight, len(real))


def _gathered(parts: list[np.ndarray], dtype: Any, columns: int | None) -> Ragged:
    ends = np.cumsum([0] + [len(p) for p in parts]).astype(np.int64)
    flat = np.concatenate(parts).astype(dtype)
    return Ragged(torch.from_numpy(flat if columns is None else flat.reshape(-1, columns)), (ends,))


# ---- rpn_target_assign ---------------------------------------------------------------------------------
def _check(anchor: Spec, gt: Spec, info: Spec) -> None:
    if len(anchor.shape) != 2 or len(gt.shape) != 2 or not (fit(anchor.shape[1], 4) and fit(gt.shape[1], 4)):
        raise ShapeError(f"Anchor and GtBoxes must be [boxes, 4], received {list(anchor.shape)} and {list(gt.shape)}")
    if len(info.shape) != 2 or not fit(info.shape[1], 3):
        raise ShapeError(f"ImInfo must be [N, 3], received {list(info.shape)}")


def _infer_rpn(anchor: Spec, gt: Spec, crowd: Spec, info: Spec, **_: Any) -> tuple[Spec, ...]:
    _check(anchor, gt, info)
    index, box = Spec((-1,), VarType.INT32), Spec((-1, 4), gt.dtype)
    return index, index, box, Spec((-1, 1), VarType.INT32), box


@op(
    "rpn_target_assign",
    slots="Anchor, GtBoxes#, IsCrowd#, ImInfo -> LocationIndex#, ScoreIndex#, TargetBBox#, TargetLabel#, BBoxInsideWeight#",
    infer=_infer_rpn,
    grad=False,
)
def rpn_target_assign(
    anchor,
    gt,
    crowd,
    info,
    *,
    rng,
    rpn_batch_size_per_im: int = 256,
    rpn_straddle_thresh: float,
    rpn_positive_overlap: float = 0.7,
    rpn_negative_overlap: float = 0.3,
    rpn_fg_fraction: float = 0.25,
    use_random: bool = True,
):
    """The anchors that a region proposal network learns from (Ren et al. 2015, arXiv:1506.01497).

    Anchor [A, 4]; GtBoxes [., 4] and IsCrowd int [., 1] with one sequence an image; ImInfo [N, 3] (height, width, scale).
    Anchors that straddle the border by more than `rpn_straddle_thresh` (if that is not negative) and crowd boxes are left
    out. LocationIndex [F] and ScoreIndex [F + B] into all images' anchors, TargetBBox and BBoxInsideWeight [F, 4],
    TargetLabel [F + B, 1].
    """
    a = anchor.numpy()
    images = info.shape[0]
    rows: list[list[np.ndarray]] = [[], [], [], [], []]
    for i, (boxes, flags) in enumerate(zip(_per_image("GtBoxes", gt, images), _per_image("IsCrowd", crowd, images))):
        height, width, scale = (float(v) for v in info[i])
        inside = np.arange(len(a))
        if rpn_straddle_thresh >= 0:
            t = rpn_straddle_thresh
            good = (a[:, 0] >= -t) & (a[:, 1] >= -t) & (a[:, 2] < width + t) & (a[:, 3] < height + t)
            inside = np.flatnonzero(good)
        boxes = (boxes[flags.reshape(-1) == 0] * np.asarray(scale, boxes.dtype)).astype(a.dtype)
        found = _assign(
            _iou(a[inside], boxes),
            rpn_positive_overlap,
            rpn_negative_overlap,
            rpn_batch_size_per_im,
            rpn_fg_fraction,
            rng if use_random else None,
        )
        rows[0].append(inside[found.location] + i * len(a))
        rows[1].append(inside[found.score] + i * len(a))
        rows[2].append(encode(a[inside[found.location]], boxes[found.truth]) if len(boxes) else np.zeros((0, 4), a.dtype))
        rows[3].append(found.label)
        rows[4].append(found.weight)
    return (
        _gathered(rows[0], np.int32, None),
        _gathered(rows[1], np.int32, None),
        _gathered(rows[2], a.dtype, 4),
        _gathered(rows[3], np.int32, 1),
        _gathered(rows[4], a.dtype, 4),
    )


# ---- retinanet_target_assign ---------------------------------------------------------------------------
def _infer_retina(anchor: Spec, gt: Spec, labels: Spec, crowd: Spec, info: Spec, **_: Any) -> tuple[Spec, ...]:
    _check(anchor, gt, info)
    index, box, one = Spec((-1,), VarType.INT32), Spec((-1, 4), gt.dtype), Spec((-1, 1), VarType.INT32)
    return index, index, box, one, box, one


@op(
    "retinanet_target_assign",
    slots="Anchor, GtBoxes#, GtLabels#, IsCrowd#, ImInfo -> LocationIndex#, ScoreIndex#, TargetBBox#, TargetLabel#, "
    "BBoxInsideWeight#, ForegroundNumber#",
    infer=_infer_retina,
    grad=False,
)
def retinanet_target_assign(
    anchor, gt, labels, crowd, info, *, positive_overlap: float = 0.5, negative_overlap: float = 0.4
):
    """rpn_target_assign without sampling, with classes (Lin et al. 2017, arXiv:1708.02002).

    GtLabels int [., 1] with LoD; TargetLabel is the class of a positive anchor, 0 of a negative one; ForegroundNumber
    int32 [N, 1] = positives + 1.
    """
    a = anchor.numpy()
    images = info.shape[0]
    rows: list[list[np.ndarray]] = [[], [], [], [], [], []]
    given = (_per_image("GtBoxes", gt, images), _per_image("GtLabels", labels, images), _per_image("IsCrowd", crowd, images))
    for i, (boxes, classes, flags) in enumerate(zip(*given)):
        keep = flags.reshape(-1) == 0
        boxes = (boxes[keep] * np.asarray(float(info[i, 2]), boxes.dtype)).astype(a.dtype)
        classes = classes.reshape(-1)[keep]
        overlaps = _iou(a, boxes)
        found = _assign(overlaps, positive_overlap, negative_overlap, -1, 0.0, None)
        nearest = overlaps.argmax(1) if len(boxes) else np.zeros(len(a), np.int64)
        label = found.label.copy()
        label[: found.positives] = classes[nearest[found.score[: found.positives]]]
        rows[0].append(found.location + i * len(a))
        rows[1].append(found.score + i * len(a))
        rows[2].append(encode(a[found.location], boxes[found.truth]) if len(boxes) else np.zeros((0, 4), a.dtype))
        rows[3].append(label)
        rows[4].append(found.weight)
        rows[5].append(np.array([len(found.location) + 1]))
    return (
        _gathered(rows[0], np.int32, None),
        _gathered(rows[1], np.int32, None),
        _gathered(rows[2], a.dtype, 4),
        _gathered(rows[3], np.int32, 1),
        _gathered(rows[4], a.dtype, 4),
        _gathered(rows[5], np.int32, 1),
    )


# ---- generate_proposal_labels --------------------------------------------------------------------------
def _infer_labels(rois: Spec, classes: Spec, crowd: Spec, gt: Spec, info: Spec, *, class_nums, **_: Any) -> tuple[Spec, ...]:
    _check(rois, gt, info)
    wide = Spec((-1, 4 * class_nums), gt.dtype)
    return Spec((-1, 4), gt.dtype), Spec((-1, 1), VarType.INT32), wide, wide, wide


@op(
    "generate_proposal_labels",
    slots="RpnRois#, GtClasses#, IsCrowd#, GtBoxes#, ImInfo -> "
    "Rois#, LabelsInt32#, BboxTargets#, BboxInsideWeights#, BboxOutsideWeights#",
    infer=_infer_labels,
    grad=False,
)
def generate_proposal_labels(
    rois,
    classes,
    crowd,
    gt,
    info,
    *,
    rng,
    batch_size_per_im: int,
    fg_fraction: float,
    fg_thresh: float,
    bg_thresh_hi: float,
    bg_thresh_lo: float,
    bbox_reg_weights: list[float],
    class_nums: int,
    use_random: bool = True,
    is_cascade_rcnn: bool = False,
    is_cls_agnostic: bool = False,
):
    """The proposals that a second stage learns from (Ren et al. 2015; Cai and Vasconcelos 2018 for the cascade).

    RpnRois [., 4], GtClasses and IsCrowd int [., 1], GtBoxes [., 4] with one sequence an image, ImInfo [N, 3]. Ground truth
    joins the proposals of an image that has some. Positives overlap a box by `fg_thresh` or more (at most `fg_fraction` of
    the batch), negatives by bg_thresh_lo to bg_thresh_hi. Rois [., 4], LabelsInt32 [., 1], BboxTargets and weights
    [., 4 * class_nums].
    """
    images = info.shape[0]
    dtype = rois.values.numpy().dtype
    rows: list[list[np.ndarray]] = [[], [], [], []]
    generator = rng if use_random else None
    wide = 4 * class_nums
    given = (_per_image("RpnRois", rois, images), _per_image("GtClasses", classes, images))
    more = (_per_image("IsCrowd", crowd, images), _per_image("GtBoxes", gt, images))
    for i, (proposals, kinds, flags, boxes) in enumerate(zip(*given, *more)):
        if not len(proposals):  # nothing is learned from such an image, its ground truth included
            for found, shape in zip(rows, ((0, 4), (0,), (0, wide), (0, wide))):
                found.append(np.zeros(shape, dtype))
            continue
        scale = np.asarray(float(info[i, 2]), dtype)
        # in a cascade Fluid takes the first rows, as many as there are boxes, to be in the original image's scale already
        whole = len(boxes) if is_cascade_rcnn else 0
        proposals = np.concatenate([proposals[:whole], proposals[whole:] / scale])
        crowds = flags.reshape(-1) != 0
        if is_cascade_rcnn:  # the stage before already had the ground truth; boxes that shrank to nothing are dropped
            kept = np.flatnonzero((proposals[:, 2:] - proposals[:, :2] + 1 > 0).all(1))
            every = proposals[kept].astype(dtype)
            crowds = crowds[kept[kept < len(crowds)]]  # they count for the first rows, though these are no ground truth
        else:
            every = np.concatenate([boxes, proposals]).astype(dtype)
        overlaps = _iou(every, boxes.astype(dtype))
        most = overlaps.max(1) if len(boxes) else np.zeros(len(every), dtype)
        truth = overlaps.argmax(1) if len(boxes) else np.zeros(len(every), np.int64)
        most[: len(crowds)][crowds] = -1
        positive = np.flatnonzero(most >= np.float32(fg_thresh))
        low = np.float32(min(bg_thresh_hi, fg_thresh))
        negative = np.flatnonzero((most >= np.float32(bg_thresh_lo)) & (most < low))
        if not is_cascade_rcnn:
            positive = choose(positive, int(batch_size_per_im * fg_fraction), generator)
            negative = choose(negative, batch_size_per_im - len(positive), generator)
        chosen = np.concatenate([positive, negative])
        label = np.zeros(len(chosen), np.int32)
        label[: len(positive)] = kinds.reshape(-1)[truth[positive]]
        targets = np.zeros((len(chosen), class_nums, 4), dtype)
        weights = np.zeros_like(targets)
        column = np.ones(len(positive), np.int64) if is_cls_agnostic else label[: len(positive)]
        if len(positive):
            at = np.arange(len(positive))
            targets[at, column] = encode(every[positive], boxes[truth[positive]].astype(dtype), bbox_reg_weights)
            weights[at, column] = 1
        rows[0].append(every[chosen] * scale)
        rows[1].append(label)
        rows[2].append(targets.reshape(len(chosen), wide))
        rows[3].append(weights.reshape(len(chosen), wide))
    weight = _gathered(rows[3], dtype, wide)
    return _gathered(rows[0], dtype, 4), _gathered(rows[1], np.int32, 1), _gathered(rows[2], dtype, wide), weight, weight
