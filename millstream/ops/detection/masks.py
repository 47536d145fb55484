"""Mask R-CNN's training masks: polygons drawn into the frame of a region."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection.boxes import overlap

_FINE = 5  # boundaries are traced on a grid this many times finer


def _trace(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every fine grid point on the closed boundary through the vertices, in order."""
    px = np.trunc(_FINE * x + 0.5).astype(np.int64)
    py = np.trunc(_FINE * y + 0.5).astype(np.int64)
    us, vs = [], []
    for xs, ys, xe, ye in zip(px, py, np.roll(px, -1), np.roll(py, -1)):
        dx, dy = abs(int(xe - xs)), abs(int(ye - ys))
        steep = dx < dy
        flip = ys > ye if steep else xs > xe
        if flip:
            xs, ys, xe, ye = xe, ye, xs, ys
        length = max(dx, dy)
        t = np.arange(length, -1, -1) if flip else np.arange(length + 1)
        if steep:
            us.append(np.trunc(xs + (xe - xs) / length * t + 0.5).astype(np.int64))
            vs.append(t + ys)
        else:
            slope = (ye - ys) / length if length else 0.0
            us.append(t + xs)
            vs.append(np.trunc(ys + slope * t + 0.5).astype(np.int64))
    return np.concatenate(us), np.concatenate(vs)


def draw(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: pixels inside a polygon [K, 2], by the convention of the COCO data set.

    Each crossing of a pixel column's centre line by the fine boundary flips all pixels from there on in that column.
    """
    u, v = _trace(polygon[:, 0], polygon[:, 1])
    moved = u[1:] != u[:-1]
    u0, u1, v0, v1 = u[:-1][moved], u[1:][moved], v[:-1][moved], v[1:][moved]
    column = (np.where(u1 < u0, u1, u1 - 1) + 0.5) / _FINE - 0.5
    row = (np.where(v1 < v0, v1, v0) + 0.5) / _FINE - 0.5
    good = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row[good], 0, height)).astype(np.int64)
    flips = np.bincount(column[good].astype(np.int64) * height + row, minlength=height * width + 1)[: height * width]
    return (np.cumsum(flips) % 2 == 1).reshape(width, height).T


def _mask(polygons: list[np.ndarray], box: np.ndarray, side: int) -> np.ndarray:
    """The union of polygons in the frame of `box`, [side, side]."""
    size = np.maximum(box[2:] - box[:2], 1.0)
    out = np.zeros((side, side), dtype=bool)
    for p in polygons:
        out |= draw((p - box[:2]) * side / size, side, side)
    return out


def _infer(info: Spec, classes: Spec, crowd: Spec, segms: Spec, rois: Spec, labels: Spec, *, num_classes, resolution):
    for name, s, width in (("ImInfo", info, 3), ("GtSegms", segms, 2), ("Rois", rois, 4), ("LabelsInt32", labels, 1)):
        if len(s.shape) != 2 or s.shape[1] not in (width, -1):
            raise ShapeError(f"{name} must have shape [., {width}], received {list(s.shape)}")
    wide = num_classes * resolution * resolution
    level = rois.lod_level
    return (
        Spec((-1, 4), rois.dtype, level),
        Spec((-1, 1), VarType.INT32, level),
        Spec((-1, wide), VarType.INT32, level),
    )


def _polygons(segms: Ragged) -> list[list[list[np.ndarray]]]:
    """Polygons [K, 2] by image and object."""
    if len(segms.lod) != 3:
        raise EnforceNotMet(
            f"generate_mask_labels: GtSegms must have 3 LoD levels (objects, polygons, points), received {len(segms.lod)}"
        )
    points = segms.values.numpy().astype(np.float64)
    objects, polygons, ends = segms.lod
    return [
        [
            [points[ends[p] : ends[p + 1]] for p in range(polygons[o], polygons[o + 1])]
            for o in range(objects[i], objects[i + 1])
        ]
        for i in range(len(objects) - 1)
    ]


@op(
    "generate_mask_labels",
    slots="ImInfo, GtClasses#, IsCrowd#, GtSegms#, Rois#, LabelsInt32# -> MaskRois#, RoiHasMaskInt32#, MaskInt32#",
    infer=_infer,
    grad=False,
)
def generate_mask_labels(info, classes, crowd, segms, rois, labels, *, num_classes: int, resolution: int):
    """Mask targets of the positive regions (He et al. 2017, arXiv:1703.06870).

    ImInfo [N, 3]; GtClasses, IsCrowd int [., 1]; GtSegms [points, 2] with LoD image, object, polygon; Rois [., 4] and
    LabelsInt32 [., 1]. Each positive region takes the object whose bounding box overlaps it most. MaskRois [., 4],
    RoiHasMaskInt32 [., 1] (index of the region in its image), MaskInt32 [., classes * resolution^2]: a mask in the block of
    the class, -1 elsewhere. An image without positive regions gives its first negative one with -1 throughout.
    """
    dtype = rois.values.numpy().dtype
    objects = _polygons(segms)
    out: list[list[np.ndarray]] = [[], [], []]
    ends = [0]
    for i, shapes in enumerate(objects):

        def part(x: Ragged, i: int = i) -> np.ndarray:
            return x.values[int(x.offsets[i]) : int(x.offsets[i + 1])].numpy()

        boxes, kinds = part(rois), part(labels).reshape(-1)
        good = (part(classes).reshape(-1) > 0) & (part(crowd).reshape(-1) == 0)
        shapes = [s for s, g in zip(shapes, good) if g]
        chosen = np.flatnonzero(kinds > 0)
        masks = np.full((max(len(chosen), 1), num_classes, resolution * resolution), -1, np.int32)
        if len(chosen) and shapes:
            scale = np.asarray(float(info[i, 2]), dtype)
            frames = boxes[chosen] / scale
            around = np.array([np.concatenate([np.concatenate(s).min(0), np.concatenate(s).max(0)]) for s in shapes], dtype)
            near = overlap(torch.from_numpy(frames), torch.from_numpy(around), 1.0).numpy().argmax(1)
            for k, (frame, at) in enumerate(zip(frames, near)):
                masks[k, kinds[chosen[k]]] = _mask(shapes[at], frame.astype(np.float64), resolution).reshape(-1)
        elif not len(chosen):
            chosen = np.flatnonzero(kinds == 0)[:1]
            masks = masks[: len(chosen)]
        out[0].append(boxes[chosen])
        out[1].append(chosen.astype(np.int32).reshape(-1, 1))
        out[2].append(masks.reshape(len(chosen), -1))
        ends.append(ends[-1] + len(chosen))
    lod = (np.array(ends, dtype=np.int64),)
    return tuple(Ragged(torch.from_numpy(np.concatenate(o)), lod) for o in out)
