"""Loops of non-maximum suppression. Boxes [K, 4] (x1, y1, x2, y2), C-contiguous."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True)
def _area(box, extra):
    if box[2] < box[0] or box[3] < box[1]:
        return 0.0
    return (box[2] - box[0] + extra) * (box[3] - box[1] + extra)


@njit(cache=True, nogil=True)
def iou(a, b, extra):
    """Intersection over union of two boxes; `extra` is 1 for pixel boxes. NaN for two touching boxes without area."""
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return 0.0
    w = min(a[2], b[2]) - max(a[0], b[0]) + extra
    h = min(a[3], b[3]) - max(a[1], b[1]) + extra
    inter = w * h
    union = _area(a, extra) + _area(b, extra) - inter
    return inter / union if union != 0 else np.nan


@njit(cache=True, nogil=True)
def greedy(boxes, threshold, eta, extra, most):
    """Positions kept of boxes in falling score: each overlaps the ones kept before by at most the threshold.

    Of boxes without area that touch only the first stays, as in Fluid: their overlap is not a number.
    `eta` < 1 lowers a threshold above 0.5 after each box kept; `most` >= 0 stops after that many.
    """
    kept = np.empty(boxes.shape[0], np.int64)
    count = 0
    for i in range(boxes.shape[0]):
        if count == most:
            break
        good = True
        for k in range(count):
            if not iou(boxes[i], boxes[kept[k]], extra) <= threshold:
                good = False
                break
        if good:
            kept[count] = i
            count += 1
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return kept[:count]


@njit(cache=True, nogil=True, error_model="numpy")
def matrix_decay(boxes, scores, extra, gaussian, sigma):
    """Scores (falling) times the least of decay(overlap with a better box) / decay(that box's own largest overlap).

    A box that equals a better one makes that decay 0: what is divided by it is inf or, for another equal box, NaN, and
    neither is the least.
    """
    n = boxes.shape[0]
    out = np.empty(n, scores.dtype)
    largest = np.zeros(n)
    overlaps = np.zeros(n)
    for i in range(n):
        decay = 1.0
        for j in range(i):
            overlap = iou(boxes[i], boxes[j], extra)
            overlaps[j] = 0.0 if np.isnan(overlap) else overlap
        for j in range(i):
            if gaussian:
                d = np.exp((largest[j] * largest[j] - overlaps[j] * overlaps[j]) * sigma)
            else:
                d = (1.0 - overlaps[j]) / (1.0 - largest[j])
            if d < decay:
                decay = d
            largest[i] = max(largest[i], overlaps[j])
        out[i] = scores[i] * decay
    return out


@njit(cache=True, nogil=True)
def merge_neighbours(boxes, scores, threshold, extra):
    """Locality-aware merging: a box that overlaps the last kept one is averaged into it by score.

    Changes `boxes` and `scores`; returns which positions are kept.
    """
    kept = np.zeros(boxes.shape[0], np.bool_)
    last = -1
    for i in range(boxes.shape[0]):
        if last >= 0 and iou(boxes[i], boxes[last], extra) > threshold:
            total = scores[i] + scores[last]
            for k in range(boxes.shape[1]):
                boxes[last, k] = (boxes[i, k] * scores[i] + boxes[last, k] * scores[last]) / total
            scores[last] = total
        else:
            last = i
            kept[i] = True
    return kept
