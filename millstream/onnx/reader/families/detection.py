"""NonMaxSuppression and RoiAlign by Fluid's operators over boxes."""

from __future__ import annotations

import numpy as np

from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


@reads("NonMaxSuppression")
def non_max_suppression(n: Node) -> None:
    """multiclass_nms2 keeps the same boxes; its index is the box plus image * boxes, its first column the class."""
    b, boxes, scores = n.b, n.x(0), n.x(1)
    most = n.const(2, "max_output_boxes_per_class").reshape(-1) if n.has(2) else np.array([0])
    least = float(n.const(4, "score_threshold").reshape(-1)[0]) if n.has(4) else -3.0e38
    overlap = float(n.const(3, "iou_threshold").reshape(-1)[0]) if n.has(3) else 0.0
    sides = [b.op("slice", {"Input": boxes}, {"axes": [2], "starts": [k], "ends": [k + 2]}) for k in (0, 2)]
    if n.attr("center_point_box", 0):  # centre and size
        half = b.scale(sides[1], 0.5)
        sides = [b.binary(kind, sides[0], half) for kind in ("elementwise_sub", "elementwise_add")]
    ordered = [b.binary(kind, *sides) for kind in ("elementwise_min", "elementwise_max")]
    attrs = {
        "background_label": -1, "score_threshold": least, "nms_top_k": -1, "nms_threshold": overlap, "nms_eta": 1.0,
        "keep_top_k": -1, "normalized": True,
    }  # fmt: skip
    inputs = {"BBoxes": b.op("concat", {"X": ordered}, {"axis": 2}), "Scores": scores}
    rows, index = b.ops("multiclass_nms2", inputs, attrs, ["Out", "Index"], n.hint)
    rows.shape, index.shape = (-1, 6), (-1, 1)
    for t in (rows, index):
        b.block.vars[t.name].shape = list(t.shape)  # type: ignore[index]
    label = b.cast(b.op("slice", {"Input": rows}, {"axes": [1], "starts": [0], "ends": [1]}), np.int64)
    flat = b.cast(index, np.int64)
    count = b.dim(boxes, 1)
    image = b.binary("elementwise_floordiv", flat, count)
    box = b.binary("elementwise_mod", flat, count)
    made = _without_lod(n, b.op("concat", {"X": [image, label, box]}, {"axis": 1}, hint=n.hint))
    if not 0 < boxes.shape[1] <= int(most[0]) and int(most[0]) < 2**31 - 1:
        made = _first_of_each(n, made, scores, int(most[0]))
    n.set(made)


def _first_of_each(n: Node, rows: Tensor, scores: Tensor, most: int) -> Tensor:
    """The first `most` rows of each image and class: a row's rank is its place after the first one of its kind."""
    b = n.b
    image, label = (b.op("slice", {"Input": rows}, {"axes": [1], "starts": [k], "ends": [k + 1]}) for k in (0, 1))
    key = b.binary("elementwise_add", b.binary("elementwise_mul", image, b.dim(scores, 1)), label)
    wide = b.binary("elementwise_add", b.binary("elementwise_sub", key, key), b.transpose(key, [1, 0]))
    less = b.cast(b.op("less_than", {"X": wide, "Y": key}, {"axis": -1}), np.int64)
    before = b.op("reduce_sum", {"X": less}, {"dim": [1], "keep_dim": True, "reduce_all": False})
    ones = b.op("fill_any_like", {"X": key}, {"value": 1.0})
    place = b.scale(b.op("cumsum", {"X": ones}, {"axis": 0}), 1.0, -1.0)
    limit = constant(np.array([most], np.int64))
    kept = b.op("less_than", {"X": b.binary("elementwise_sub", place, before), "Y": limit}, {"axis": -1})
    at = b.op("where_index", {"Condition": b.reshape(kept, [-1])}, {})
    made = b.op("gather", {"X": rows, "Index": b.reshape(at, [-1])}, {"overwrite": False}, hint=n.hint)
    made.shape = (-1, 3)
    return made


def _without_lod(n: Node, x: Tensor) -> Tensor:
    """The same rows as a plain tensor: transpose2 drops the LoD."""
    made = n.b.op("transpose2", {"X": n.b.op("transpose2", {"X": x}, {"axis": [1, 0]})}, {"axis": [1, 0]}, hint=n.hint)
    made.shape = (-1, 3)
    return made


@reads("RoiAlign")
def roi_align(n: Node) -> None:
    """Regions must come image by image: their images become offsets."""
    x, rois, image = n.x(0), n.x(1), n.x(2)
    if n.attr("mode", "avg") != "avg":
        n.fail("the greatest reading (mode max)")
    default = "half_pixel" if n.opset >= 16 else "output_half_pixel"
    if n.attr("coordinate_transformation_mode", default) != "output_half_pixel":
        n.fail("coordinate_transformation_mode half_pixel")
    attrs = {"pooled_height": int(n.attr("output_height", 1)), "pooled_width": int(n.attr("output_width", 1)),
             "spatial_scale": float(n.attr("spatial_scale", 1.0)),
             "sampling_ratio": int(n.attr("sampling_ratio", 0))}  # fmt: skip
    n.set(n.op("roi_align", {"X": x, "ROIs": rois, "RoisLod": _offsets(n, x, image)}, attrs))


@reads("MaxRoiPool")
def max_roi_pool(n: Node) -> None:
    x, both = n.x(0), n.x(1)
    image, rois = (n.b.op("slice", {"Input": both}, {"axes": [1], "starts": [a], "ends": [e]}) for a, e in ((0, 1), (1, 5)))
    h, w = (int(v) for v in n.need("pooled_shape"))
    attrs = {"pooled_height": h, "pooled_width": w, "spatial_scale": float(n.attr("spatial_scale", 1.0))}
    flat = n.b.reshape(image, [-1])
    n.set(n.op("roi_pool", {"X": x, "ROIs": rois, "RoisLod": _offsets(n, x, flat)}, attrs, "Out"))


def _offsets(n: Node, x: Tensor, image: Tensor) -> Tensor:
    """How many regions come before each image: offsets, for regions that come image by image."""
    b = n.b
    images = b.dim(x, 0)
    numbers = b.op("range", {"Start": constant(np.array([0], np.int64)), "End": b.scale(images, 1.0, 1.0),
                             "Step": constant(np.array([1], np.int64))}, {})  # fmt: skip
    numbers.shape = (-1,)
    each = b.op("unsqueeze2", {"X": b.cast(image, np.int64)}, {"axes": [1]})
    row = b.op("unsqueeze2", {"X": numbers}, {"axes": [0]})
    zero = b.binary("elementwise_sub", each, each)
    wide = b.binary("elementwise_add", zero, row)
    before = b.cast(b.op("greater_than", {"X": wide, "Y": each}, {"axis": -1}), np.int64)
    return b.op("reduce_sum", {"X": before}, {"dim": [0], "keep_dim": False, "reduce_all": False})
