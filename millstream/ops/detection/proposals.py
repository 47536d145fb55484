"""Region proposals: generate_proposals, collect_fpn_proposals, distribute_fpn_proposals, retinanet_detection_output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection.nms import Found, emit, join, loops
from millstream.ops.tensor._dims import fit

_MOST_GROWTH = math.log(1000.0 / 16.0)


def decode(anchors: np.ndarray, deltas: np.ndarray, limit: float | None) -> np.ndarray:
    """Boxes [K, 4] in pixels (both ends included) from anchors and centre-size offsets; log sizes cut at `limit`."""
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = anchors[:, :2] + size / 2
    middle = deltas[:, :2] * size + centre
    grow = deltas[:, 2:] if limit is None else np.minimum(deltas[:, 2:], np.asarray(limit, deltas.dtype))
    half = np.exp(grow) * size / 2
    return np.concatenate([middle - half, middle + half - 1], 1).astype(deltas.dtype)


# ---- generate_proposals --------------------------------------------------------------------------------
def _infer_generate(scores: Spec, deltas: Spec, info: Spec, anchors: Spec, variances: Spec, **_: Any) -> tuple[Any, ...]:
    if len(scores.shape) != 4 or len(deltas.shape) != 4 or len(info.shape) != 2:
        raise ShapeError(
            f"Scores and BboxDeltas must have 4 dimensions and ImInfo 2, received {list(scores.shape)}, "
            f"{list(deltas.shape)} and {list(info.shape)}"
        )
    if min(scores.shape[1], deltas.shape[1]) >= 0 and deltas.shape[1] != 4 * scores.shape[1]:
        raise ShapeError(f"BboxDeltas {list(deltas.shape)} must have 4 channels for each of Scores {list(scores.shape)}")
    return Spec((-1, 4), anchors.dtype, weak=True), Spec((-1, 1), anchors.dtype, weak=True), None


def _propose(score, delta, info, anchors, variances, before, after, threshold, least, eta):
    """(boxes, scores) of one image."""
    order = np.argsort(-score, kind="stable")
    if 0 < before < len(order):
        order = order[:before]
    score, delta = score[order], delta[order]
    boxes = decode(anchors[order], delta if variances is None else delta * variances[order], _MOST_GROWTH)
    height, width, scale = info
    boxes[:, 0::2] = np.clip(boxes[:, 0::2], 0, width - 1)
    boxes[:, 1::2] = np.clip(boxes[:, 1::2], 0, height - 1)
    size = boxes[:, 2:] - boxes[:, :2] + 1
    original = (boxes[:, 2:] - boxes[:, :2]) / scale + 1
    centre = boxes[:, :2] + size / 2
    least = max(least, 1.0)
    good = (original >= least).all(1) & (centre[:, 0] <= width) & (centre[:, 1] <= height)
    boxes, score = np.ascontiguousarray(boxes[good]), score[good]
    if not len(boxes):
        return boxes, score
    if threshold <= 0:
        return boxes, score
    kept = loops().greedy(boxes, threshold, eta, 1.0, -1)
    if after > 0:
        kept = kept[:after]
    return boxes[kept], score[kept]


@op(
    "generate_proposals",
    slots="Scores, BboxDeltas, ImInfo, Anchors, Variances? -> RpnRois#, RpnRoiProbs#, RpnRoisLod?",
    infer=_infer_generate,
    grad=False,
)
def generate_proposals(
    scores,
    deltas,
    info,
    anchors,
    variances,
    *,
    pre_nms_topN: int,
    post_nms_topN: int,
    nms_thresh: float,
    min_size: float,
    eta: float,
):
    """The region proposal network's boxes (Ren et al. 2015, arXiv:1506.01497).

    Scores [N, A, H, W], BboxDeltas [N, 4 * A, H, W], ImInfo [N, 3] (height, width, scale), Anchors and Variances
    [H, W, A, 4]. The best pre_nms_topN are decoded, cut to the image, dropped below `min_size`, suppressed, and the best
    post_nms_topN kept: RpnRois [., 4], RpnRoiProbs [., 1] with LoD; RpnRoisLod: where each image ends.
    """
    s = scores.permute(0, 2, 3, 1).reshape(scores.shape[0], -1).numpy()
    d = deltas.permute(0, 2, 3, 1).reshape(scores.shape[0], -1, 4).numpy()
    a = anchors.reshape(-1, 4).numpy()
    v = variances.reshape(-1, 4).numpy() if variances is not None else None
    boxes, probs, ends = [], [], [0]
    for n in range(len(s)):
        b, p = _propose(s[n], d[n], info[n].numpy(), a, v, pre_nms_topN, post_nms_topN, nms_thresh, min_size, eta)
        boxes.append(b)
        probs.append(p)
        ends.append(ends[-1] + len(b))
    lod = (np.array(ends, dtype=np.int64),)
    rois = torch.from_numpy(np.concatenate(boxes))
    return (
        Ragged(rois, lod),
        Ragged(torch.from_numpy(np.concatenate(probs)).reshape(-1, 1), lod),
        torch.from_numpy(lod[0][1:].copy()),
    )


# ---- feature pyramids ----------------------------------------------------------------------------------
def _infer_collect(rois: list[Spec], scores: list[Spec], *, post_nms_topN) -> Spec:
    for r in rois:
        if len(r.shape) != 2 or r.shape[1] != 4:
            raise ShapeError(f"each of MultiLevelRois must have shape [boxes, 4], received {list(r.shape)}")
    if len(rois) != len(scores):
        raise ShapeError(f"MultiLevelRois and MultiLevelScores must be as many, received {len(rois)} and {len(scores)}")
    return Spec((post_nms_topN, 4), rois[0].dtype, rois[0].lod_level)


@op("collect_fpn_proposals", slots="MultiLevelRois*#, MultiLevelScores*# -> FpnRois#", infer=_infer_collect, grad=False)
def collect_fpn_proposals(rois, scores, *, post_nms_topN: int):
    """The post_nms_topN best boxes of all levels, image by image (Lin et al. 2017, arXiv:1612.03144).

    MultiLevelRois [., 4] and MultiLevelScores [., 1] with one sequence an image each; FpnRois [., 4] with LoD. As in 1.8.5
    an image without a box among them has no sequence there (but the first, if another comes), and boxes after several
    images without one in their level count for the image after the last that had some.
    """
    image = np.concatenate([_images_of(r.offsets) for r in rois])
    score = torch.cat([s.values.reshape(-1) for s in scores]).numpy()
    order = np.argsort(-score, kind="stable")[:post_nms_topN]
    order = order[np.argsort(image[order], kind="stable")]
    starts = np.flatnonzero(np.diff(image[order], prepend=0))
    ends = np.concatenate([[0], starts, [len(order)]]).astype(np.int64)
    return Ragged(torch.cat([r.values for r in rois])[torch.from_numpy(order)], (ends,))


def _images_of(offsets: np.ndarray) -> np.ndarray:
    """For each box of a level the image that 1.8.5 takes it for: it moves on by one image a box at most."""
    found, image = np.empty(offsets[-1], np.int64), 0
    for box in range(len(found)):
        image += int(box >= offsets[image + 1])
        found[box] = image
    return found


def _infer_distribute(rois: Spec, *, min_level, max_level, refer_level, refer_scale) -> tuple[list[Spec], Spec]:
    if len(rois.shape) != 2 or not fit(rois.shape[1], 4):
        raise ShapeError(f"FpnRois must have shape [boxes, 4], received {list(rois.shape)}")
    if max_level < min_level:
        raise ShapeError(f"max_level must be at least min_level, received {max_level} and {min_level}")
    one = Spec((-1, 4), rois.dtype, rois.lod_level, weak=True)
    return [one] * (max_level - min_level + 1), Spec((-1, 1), VarType.INT32)


@op("distribute_fpn_proposals", slots="FpnRois# -> MultiFpnRois*#, RestoreIndex", infer=_infer_distribute, grad=False)
def distribute_fpn_proposals(rois, *, min_level: int, max_level: int, refer_level: int, refer_scale: int):
    """Boxes to pyramid levels: floor(refer_level + log2(sqrt(area) / refer_scale)), held in [min_level, max_level].

    FpnRois [R, 4] with one sequence an image; MultiFpnRois [., 4] a level with LoD; RestoreIndex int32 [R, 1]: where each
    box stands in the levels joined one after another.
    """
    v = rois.values
    size = v[:, 2:] - v[:, :2] + 1
    area = torch.where(((v[:, 2:] - v[:, :2]) < 0).any(1), torch.zeros_like(size[:, 0]), size.prod(1))
    level = torch.floor(torch.log2(torch.sqrt(area) / refer_scale + 1e-6) + refer_level)
    levels = level.clamp(min_level, max_level).long().numpy()
    images = len(rois.offsets) - 1
    image = np.repeat(np.arange(images), np.diff(rois.offsets))
    outs, orders = [], []
    for k in range(min_level, max_level + 1):
        at = np.flatnonzero(levels == k)
        ends = np.concatenate([[0], np.cumsum(np.bincount(image[at], minlength=images))]).astype(np.int64)
        outs.append(Ragged(v[torch.from_numpy(at)], (ends,)))
        orders.append(at)
    order = np.concatenate(orders)
    restore = np.empty(len(order), np.int32)
    restore[order] = np.arange(len(order), dtype=np.int32)
    return outs, torch.from_numpy(restore).reshape(-1, 1)


# ---- retinanet_detection_output ------------------------------------------------------------------------
def _infer_retinanet(boxes: list[Spec], scores: list[Spec], anchors: list[Spec], info: Spec, **_: Any) -> Spec:
    if not len(boxes) == len(scores) == len(anchors):
        raise ShapeError(
            f"BBoxes, Scores and Anchors must be as many, received {len(boxes)}, {len(scores)} and {len(anchors)}"
        )
    for b, s, a in zip(boxes, scores, anchors):
        ranks = len(b.shape), len(s.shape), len(a.shape)
        if ranks != (3, 3, 2) or not (fit(b.shape[2], 4) and fit(a.shape[1], 4)):
            raise ShapeError(
                f"a level must be BBoxes [N, M, 4], Scores [N, M, C] and Anchors [M, 4], "
                f"received {list(b.shape)}, {list(s.shape)} and {list(a.shape)}"
            )
    return Spec((boxes[0].shape[1], boxes[0].shape[2] + 2), boxes[0].dtype, weak=True)


@op(
    "retinanet_detection_output",
    slots="BBoxes*, Scores*, Anchors*, ImInfo -> Out#",
    infer=_infer_retinanet,
    grad=False,
)
def retinanet_detection_output(
    boxes,
    scores,
    anchors,
    info,
    *,
    score_threshold: float,
    nms_top_k: int,
    nms_threshold: float,
    nms_eta: float,
    keep_top_k: int,
):
    """RetinaNet's detections (Lin et al. 2017, arXiv:1708.02002).

    Levels of BBoxes [N, M, 4] (offsets), Scores [N, M, C], Anchors [M, 4]; ImInfo [N, 3]. Of each level the best
    `nms_top_k` (box, class) above the threshold (above 0 on the last level) are decoded to the original image; then
    suppression a class. Out rows (class + 1, score, box), best first, one sequence an image.
    """
    dtype = boxes[0].numpy().dtype
    images = []
    for n in range(boxes[0].shape[0]):
        parts = []
        height, width, scale = (float(t) for t in info[n])
        limit = [math.floor(width / scale + 0.5) - 1, math.floor(height / scale + 0.5) - 1]
        for k, (b, s, a) in enumerate(zip(boxes, scores, anchors)):
            score = s[n].numpy().reshape(-1)
            least = score_threshold if k < len(boxes) - 1 else 0.0
            able = np.flatnonzero(score > np.float32(least))
            able = able[np.argsort(-score[able], kind="stable")]
            if nms_top_k > -1:
                able = able[:nms_top_k]
            row, label = np.divmod(able, s.shape[2])
            found = decode(a.numpy()[row], b[n].numpy()[row], None) / np.asarray(scale, dtype)
            found[:, 0::2] = np.maximum(np.minimum(found[:, 0::2], limit[0]), 0)
            found[:, 1::2] = np.maximum(np.minimum(found[:, 1::2], limit[1]), 0)
            parts.append(Found(label + 1, score[able], found.astype(dtype), row))
        every = join(parts, 4, dtype)
        kept = []
        for c in np.unique(every.label):
            mine = np.flatnonzero(every.label == c)
            mine = mine[np.argsort(-every.score[mine], kind="stable")]
            chosen = np.ascontiguousarray(every.box[mine])
            kept.append(every.take(mine[loops().greedy(chosen, nms_threshold, nms_eta, 1.0, -1)]))
        found = join(kept, 4, dtype)
        at = np.argsort(-found.score, kind="stable")
        images.append(found.take(at[:keep_top_k] if keep_top_k > -1 else at))
    rows, _, lod = emit(images, 4, dtype)
    return Ragged(rows, lod)
