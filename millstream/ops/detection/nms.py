"""Non-maximum suppression over classes: multiclass_nms, multiclass_nms2, matrix_nms, locality_aware_nms."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection._polygon import greedy as polygon_greedy
from millstream.ops.detection._polygon import polygon_iou


@cache
def loops() -> Any:
    """kernels.nms, imported at first use."""
    from millstream.kernels import nms

    return nms


class Found(NamedTuple):
    """Detections: class, score, coordinates [K, D], and the row of each box."""

    label: np.ndarray
    score: np.ndarray
    box: np.ndarray
    row: np.ndarray

    def take(self, at: np.ndarray) -> Found:
        """Those at the given positions."""
        return Found(self.label[at], self.score[at], self.box[at], self.row[at])

    def rows(self) -> np.ndarray:
        """[K, 2 + D]: label, score, coordinates."""
        return np.concatenate([self.label[:, None].astype(self.box.dtype), self.score[:, None], self.box], 1)


def join(parts: list[Found], width: int, dtype: Any) -> Found:
    """All of several."""
    if not parts:
        return Found(np.zeros(0, np.int64), np.zeros(0, dtype), np.zeros((0, width), dtype), np.zeros(0, np.int64))
    return Found(*(np.concatenate(field) for field in zip(*parts)))


def suppress(
    boxes: np.ndarray, scores: np.ndarray, least: float, top_k: int, threshold: float, eta: float, extra: float
) -> np.ndarray:
    """Positions kept of boxes with a score above `least`, best first, of the best `top_k` (-1: all)."""
    able = np.flatnonzero(scores > np.float32(least))
    order = able[np.argsort(-scores[able], kind="stable")]
    if 0 <= top_k < len(order):
        order = order[:top_k]
    chosen = np.ascontiguousarray(boxes[order])
    if boxes.shape[1] == 4:
        return order[loops().greedy(chosen, threshold, eta, extra, -1)]
    return order[polygon_greedy(chosen, threshold, eta)]


def best(found: Found, keep: int) -> Found:
    """The `keep` best (-1: all), class by class."""
    if not 0 <= keep < len(found.label):
        return found
    at = np.argsort(-found.score, kind="stable")[:keep]
    return found.take(at[np.argsort(found.label[at], kind="stable")])


def emit(images: list[Found], width: int, dtype: Any) -> tuple[torch.Tensor, torch.Tensor, tuple[np.ndarray]]:
    """(rows, indices, LoD) of all images."""
    ends = np.cumsum([0] + [len(f.label) for f in images]).astype(np.int64)
    found = join(images, width, dtype)
    return torch.from_numpy(found.rows()), torch.from_numpy(found.row.astype(np.int32).reshape(-1, 1)), (ends,)


# ---- multiclass_nms, multiclass_nms2 -------------------------------------------------------------------
def _infer_shapes(boxes: Spec, scores: Spec) -> tuple[int, int]:
    """(rows, columns) of Out as Fluid infers them."""
    if len(scores.shape) not in (2, 3) or len(boxes.shape) != 3:
        raise ShapeError(
            f"BBoxes must have 3 dimensions and Scores 2 or 3, received {list(boxes.shape)} and {list(scores.shape)}"
        )
    if len(scores.shape) == 3:
        if boxes.shape[2] not in (4, 8, 16, 24, 32, -1):
            raise ShapeError(f"BBoxes must have 4, 8, 16, 24 or 32 coordinates, received {list(boxes.shape)}")
        if min(boxes.shape[1], scores.shape[2]) >= 0 and boxes.shape[1] != scores.shape[2]:
            raise ShapeError(f"BBoxes {list(boxes.shape)} and Scores {list(scores.shape)} must have as many boxes")
        return boxes.shape[1], boxes.shape[2] + 2
    if boxes.shape[2] not in (4, -1) or (min(boxes.shape[1], scores.shape[1]) >= 0 and boxes.shape[1] != scores.shape[1]):
        raise ShapeError(f"BBoxes must be [boxes, classes, 4] for Scores {list(scores.shape)}, received {list(boxes.shape)}")
    return -1, boxes.shape[2] + 2


def _infer_multiclass(boxes: Spec, scores: Spec, **_: Any) -> Spec:
    return Spec(_infer_shapes(boxes, scores), boxes.dtype, 1, weak=True)


def _infer_with_index(boxes: Spec, scores: Spec, **_: Any) -> tuple[Spec, Spec]:
    shape = _infer_shapes(boxes, scores)
    return Spec(shape, boxes.dtype, 1, weak=True), Spec((shape[0], 1), VarType.INT32, 1, weak=True)


def _multiclass(boxes: Ragged, scores: Ragged, background, least, top_k, threshold, eta, keep, normalized) -> list[Found]:
    b, s = boxes.values.numpy(), scores.values.numpy()
    extra = 0.0 if normalized else 1.0
    images = []
    ragged = s.ndim == 2
    starts = boxes.offsets if ragged else np.arange(len(s) + 1)
    for n in range(len(starts) - 1):
        parts = []
        first, last = int(starts[n]), int(starts[n + 1])
        table = s[first:last].T if ragged else s[n]
        classes = table.shape[0]
        for c in range(classes):
            if c == background:
                continue
            mine = b[first:last, c] if ragged else b[n]
            at = suppress(mine, table[c], least, top_k, threshold, eta, extra)
            row = (at + first) * classes + c if ragged else at + n * table.shape[1]
            parts.append(Found(np.full(len(at), c), table[c][at], mine[at], row))
        found = best(join(parts, b.shape[-1], b.dtype), keep)
        if ragged:  # Fluid lists the boxes of a class in their own order here
            found = found.take(np.lexsort((found.row, found.label)))
        images.append(found)
    return images


@op("multiclass_nms", slots="BBoxes#, Scores# -> Out#", infer=_infer_multiclass, grad=False)
def multiclass_nms(
    boxes,
    scores,
    *,
    background_label: int = 0,
    score_threshold: float,
    nms_top_k: int,
    nms_threshold: float = 0.3,
    nms_eta: float = 1.0,
    keep_top_k: int,
    normalized: bool = True,
):
    """Per class, boxes above `score_threshold`, best first, that overlap no better kept one by more than `nms_threshold`.

    BBoxes [N, M, 4] (or 8, 16, 24, 32: polygons) and Scores [N, C, M]; or [M, C, 4], with LoD, and [M, C]. Out rows are
    (label, score, coordinates), at most `keep_top_k` an image, one sequence an image; a single -1 when there is none.
    """
    images = _multiclass(
        boxes, scores, background_label, score_threshold, nms_top_k, nms_threshold, nms_eta, keep_top_k, normalized
    )
    rows, _, lod = emit(images, boxes.values.shape[-1], boxes.values.numpy().dtype)
    if not len(rows):
        return Ragged(boxes.values.new_full((1, 1), -1), (np.array([0, 1], dtype=np.int64),))
    return Ragged(rows, lod)


@op("multiclass_nms2", slots="BBoxes#, Scores# -> Out#, Index#", infer=_infer_with_index, grad=False)
def multiclass_nms2(
    boxes,
    scores,
    *,
    background_label: int = 0,
    score_threshold: float,
    nms_top_k: int,
    nms_threshold: float = 0.3,
    nms_eta: float = 1.0,
    keep_top_k: int,
    normalized: bool = True,
):
    """multiclass_nms that also gives Index int32 [detections, 1], the row of each box; no row when there is none."""
    images = _multiclass(
        boxes, scores, background_label, score_threshold, nms_top_k, nms_threshold, nms_eta, keep_top_k, normalized
    )
    rows, index, lod = emit(images, boxes.values.shape[-1], boxes.values.numpy().dtype)
    return Ragged(rows, lod), Ragged(index, lod)


# ---- matrix_nms ----------------------------------------------------------------------------------------
def _best_by_heap(scores: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` best (-1: all), best first; of equal ones in the order of a heap."""
    from millstream.kernels.partial_sort import top_rows  # numba is imported when it first runs

    size = len(scores) if keep < 0 else min(keep, len(scores))
    at = np.empty((1, size), np.int64)
    if size:
        top_rows(scores[None], np.empty((1, size), scores.dtype), at)
    return at[0]


@op("matrix_nms", slots="BBoxes, Scores -> Out#, Index#", infer=_infer_with_index, grad=False)
def matrix_nms(
    boxes,
    scores,
    *,
    background_label: int = 0,
    score_threshold: float,
    post_threshold: float = 0.0,
    nms_top_k: int,
    keep_top_k: int,
    normalized: bool = True,
    use_gaussian: bool = False,
    gaussian_sigma: float = 2.0,
):
    """Suppression by lowering scores instead of dropping boxes (Wang et al. 2020, SOLOv2, arXiv:2003.10152).

    BBoxes [N, M, 4], Scores [N, C, M]. A score is multiplied by the least (1 - iou) / (1 - max iou) over better boxes of
    its class (or the gaussian form); rows above `post_threshold`, by falling score; Index int32, the row in BBoxes.
    """
    b, s = boxes.numpy(), scores.numpy()
    extra = 0.0 if normalized else 1.0
    images = []
    for n in range(len(s)):
        parts = []
        for c in range(s.shape[1]):
            if c == background_label:
                continue
            able = np.flatnonzero(s[n, c] > np.float32(score_threshold))
            order = able[_best_by_heap(s[n, c][able], nms_top_k)]
            chosen = np.ascontiguousarray(b[n][order])
            lowered = loops().matrix_decay(chosen, s[n, c][order], extra, use_gaussian, gaussian_sigma)
            good = lowered > np.float32(post_threshold)
            at = order[good]
            parts.append(Found(np.full(len(at), c), lowered[good], b[n][at], at + n * b.shape[1]))
        found = join(parts, b.shape[-1], b.dtype)
        images.append(found.take(_best_by_heap(found.score, keep_top_k)))
    rows, index, lod = emit(images, b.shape[-1], b.dtype)
    return Ragged(rows, lod), Ragged(index, lod)


# ---- locality_aware_nms --------------------------------------------------------------------------------
def _infer_locality(boxes: Spec, scores: Spec, **_: Any) -> Spec:
    return Spec(_infer_shapes(boxes, scores), boxes.dtype, weak=True)


def _merge_polygons(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    kept = np.zeros(len(boxes), dtype=bool)
    last = -1
    for i in range(len(boxes)):
        if last >= 0 and polygon_iou(boxes[i], boxes[last]) > threshold:
            total = scores[i] + scores[last]
            boxes[last] = (boxes[i] * scores[i] + boxes[last] * scores[last]) / total
            scores[last] = total
        else:
            last = i
            kept[i] = True
    return kept


@op("locality_aware_nms", slots="BBoxes, Scores -> Out#", infer=_infer_locality, grad=False)
def locality_aware_nms(
    boxes,
    scores,
    *,
    background_label: int = -1,
    score_threshold: float,
    nms_top_k: int,
    nms_threshold: float = 0.3,
    nms_eta: float = 1.0,
    keep_top_k: int,
    normalized: bool = True,
):
    """EAST's suppression (Zhou et al. 2017, arXiv:1704.03155): neighbours in order that overlap are averaged by score,
    their scores added, before multiclass_nms. BBoxes [1, M, 4 or more], Scores [1, C, M].
    """
    b, s = boxes.numpy(), scores.numpy()
    extra = 0.0 if normalized else 1.0
    images = []
    for n in range(len(s)):
        parts = []
        merged = b[n].copy()
        for c in range(s.shape[1]):
            if c == background_label:
                continue
            mine = s[n, c].copy()
            if b.shape[-1] == 4:
                kept = loops().merge_neighbours(merged, mine, nms_threshold, extra)
            else:
                kept = _merge_polygons(merged, mine, nms_threshold)
            starts = np.flatnonzero(kept)
            at = starts[suppress(merged[starts], mine[starts], score_threshold, nms_top_k, nms_threshold, nms_eta, extra)]
            parts.append(Found(np.full(len(at), c), mine[at], merged[at], at))
        found = best(join(parts, b.shape[-1], b.dtype), keep_top_k)
        images.append(found._replace(box=merged[found.row]))  # a later class moves the boxes of the earlier ones
    rows, _, lod = emit(images, b.shape[-1], b.dtype)
    if not len(rows):
        return Ragged(boxes.new_full((1, 1), -1), (np.array([0, 1], dtype=np.int64),))
    return Ragged(rows, lod)
