"""Overlap of polygons, for suppression of boxes that are not upright."""

from __future__ import annotations

import numpy as np


def _area(points: np.ndarray) -> float:
    """Signed area of a polygon [K, 2]."""
    x, y = points[:, 0], points[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _clip(subject: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`subject` cut by a convex counter-clockwise window (Sutherland and Hodgman 1974)."""
    out = subject
    for i in range(len(window)):
        a, b = window[i], window[(i + 1) % len(window)]
        side = (b[0] - a[0]) * (out[:, 1] - a[1]) - (b[1] - a[1]) * (out[:, 0] - a[0])
        points = []
        for k in range(len(out)):
            m = (k + 1) % len(out)
            if side[k] >= 0:
                points.append(out[k])
            if (side[k] >= 0) != (side[m] >= 0):
                t = side[k] / (side[k] - side[m])
                points.append(out[k] + t * (out[m] - out[k]))
        if len(points) < 3:
            return np.zeros((0, 2))
        out = np.array(points)
    return out


def polygon_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two polygons given as flat (x, y) lists; `b` is taken to be convex."""
    pa, pb = a.reshape(-1, 2).astype(np.float64), b.reshape(-1, 2).astype(np.float64)
    area_a, area_b = _area(pa), _area(pb)
    if area_b < 0:
        pb = pb[::-1]
    common = _clip(pa, pb)
    inter = abs(_area(common)) if len(common) else 0.0
    union = abs(area_a) + abs(area_b) - inter
    return inter / union if union > 0 else 0.0


def greedy(polygons: np.ndarray, threshold: float, eta: float) -> np.ndarray:
    """Positions kept of polygons in falling score, as kernels.nms.greedy keeps boxes."""
    kept: list[int] = []
    for i in range(len(polygons)):
        if all(polygon_iou(polygons[i], polygons[k]) <= threshold for k in kept):
            kept.append(i)
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return np.array(kept, dtype=np.int64)
