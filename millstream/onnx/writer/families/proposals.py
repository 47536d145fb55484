"""Region proposals: the best boxes of each image, over levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.boxes import best_of_each, centres, corners, pairs
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import Segments, from_lengths

_MOST_GROWTH = math.log(1000.0 / 16.0)


def decoded(g: Graph, anchors: Value, deltas: Value, limit: float | None) -> Value:
    """Boxes in pixels from anchors and centre-size offsets; log sizes cut at `limit`."""
    centre, size = centres(g, anchors, 1.0)
    move, grow = corners(g, deltas)
    if limit is not None:
        grow = g.op("Min", grow, g.const(limit, grow.dtype))
    middle, half = move * size + centre, g.op("Exp", grow) * size * 0.5
    return g.concat([middle - half, middle + half - 1], -1)


def counted(g: Graph, image: Value, images: Value) -> Value:
    """Offsets of the rows of each image."""
    each = g.op("Equal", g.unsqueeze(image, 1), g.unsqueeze(g.arange(images), 0))
    return from_lengths(g, g.reduce("ReduceSum", g.cast(each, np.int64), [0]))


@emits("generate_proposals")
def generate_proposals(e: Emission) -> None:
    g, scores, info = e.g, e.x("Scores"), e.x("ImInfo")
    if e["eta"] < 1.0 or e["nms_thresh"] <= 0:
        e.refuse("an overlap threshold that falls as boxes are kept (eta), or none at all")
    n = g.dim(scores, 0)
    score = g.reshape(g.transpose(scores, [0, 2, 3, 1]), n, -1)
    delta = g.reshape(g.transpose(e.x("BboxDeltas"), [0, 2, 3, 1]), n, -1, 4)
    anchors = g.reshape(e.x("Anchors"), -1, 4)
    if e.has("Variances"):
        delta = delta * g.reshape(e.x("Variances"), -1, 4)
    boxes = decoded(g, g.unsqueeze(anchors, 0), delta, _MOST_GROWTH)
    height, width, scale = (g.unsqueeze(g.slice(info, 1, k, k + 1), 1) for k in range(3))
    most = g.concat([width, height, width, height], 2) - 1
    boxes = g.op("Max", g.op("Min", boxes, most), g.const(0, boxes.dtype))
    low, high = corners(g, boxes)
    original = (high - low) / scale + 1
    centre, _ = centres(g, boxes, 1.0)
    limits = g.concat([width, height], 2)
    fits = (original >= max(float(e["min_size"]), 1.0)) & (centre <= limits)
    good = g.reduce("ReduceMin", g.cast(fits, np.int32), [2]) > 0
    lowest = g.const(np.finfo(np.float32).min, score.dtype)
    able = g.where(good, _best(g, score, int(e["pre_nms_topN"])), lowest)
    after = int(e["post_nms_topN"])
    found = g.op(
        "NonMaxSuppression", g.concat([low, high + 1.0], 2), g.unsqueeze(able, 1),
        g.const([after if after > 0 else np.iinfo(np.int32).max], np.int64),
        g.const([e["nms_thresh"]], np.float32), g.const([np.finfo(np.float32).min / 2], np.float32),
    )  # fmt: skip
    image, at = (g.squeeze(g.slice(found, 1, k, k + 1), 1) for k in (0, 2))
    places = pairs(g, image, at)
    offsets = counted(g, image, n)
    e.set("RpnRois", g.op("GatherND", boxes, places), [offsets])
    e.set("RpnRoiProbs", g.unsqueeze(g.op("GatherND", score, places), 1), [offsets])
    if e.wants("RpnRoisLod"):
        e.set("RpnRoisLod", Segments(g, offsets).ends, ())


def _best(g: Graph, score: Value, count: int) -> Value:
    """Scores with all but the best `count` of each row out of the running."""
    if count <= 0:
        return score
    k = g.op("Min", g.const([count], np.int64), g.dim(score, 1))
    values, index = g.ops("TopK", 2, score, k, dtypes=[score.dtype, np.int64], axis=1)
    lowest = g.full(g.shape(score), np.finfo(np.float32).min, score.dtype)
    return g.op("ScatterElements", lowest, index, values, axis=1)


def _lods(e: Emission, slot: str) -> Sequence[Segments]:
    found = [e.env.lod(n) for n in e.op.input(slot)]
    if not all(found):
        e.refuse(f"every variable of {slot} must have a LoD")
    return [Segments(e.g, lod[-1]) for lod in found]


@emits("collect_fpn_proposals")
def collect_fpn_proposals(e: Emission) -> None:
    g, levels = e.g, _lods(e, "MultiLevelRois")
    image = g.concat([seg.ids for seg in levels], 0)
    score = g.reshape(g.concat(e.xs("MultiLevelScores"), 0), -1)
    count = g.op("Min", g.const([int(e["post_nms_topN"])], np.int64), g.dim(score, 0))
    _, order = g.ops("TopK", 2, score, count, dtypes=[score.dtype, np.int64], axis=0)
    which = g.gather(image, order)
    key = which * count + g.arange(count)  # by image, then by falling score
    _, by_image = g.ops("TopK", 2, key, count, dtypes=[np.int64, np.int64], axis=0, largest=0)
    rows = g.gather(order, by_image)
    out = g.gather(g.concat(e.xs("MultiLevelRois"), 0), rows)
    out.shape = (-1, 4)
    e.set("FpnRois", out, [counted(g, which, levels[0].count)])


@emits("distribute_fpn_proposals")
def distribute_fpn_proposals(e: Emission) -> None:
    g, rois = e.g, e.x("FpnRois")
    lod = e.lod("FpnRois")
    if not lod:
        e.refuse("input FpnRois has no LoD")
    seg = Segments(g, lod[-1])
    low, high = corners(g, rois)
    flat = g.reduce("ReduceMin", high - low, [1]) < 0
    size = high - low + 1
    area = g.where(flat, g.const(0, rois.dtype), g.reduce("ReduceProd", size, [1]))
    ratio = g.op("Sqrt", area) / float(e["refer_scale"]) + 1e-6
    level = g.op("Floor", g.op("Log", ratio) / math.log(2.0) + float(e["refer_level"]))
    first, last = int(e["min_level"]), int(e["max_level"])
    level = g.cast(g.op("Clip", level, g.const(first, level.dtype), g.const(last, level.dtype)), np.int64)
    orders = []
    for k in range(first, last + 1):
        mine = g.op("Equal", level, g.const(k, np.int64))
        at = g.op("Compress", seg.row, mine, axis=0)
        orders.append(at)
        out = g.gather(rois, at)
        out.shape = (-1, 4)
        e.set("MultiFpnRois", out, [counted(g, g.gather(seg.ids, at), seg.count)], index=k - first)
    order = g.concat(orders, 0)
    restore = g.op("ScatterElements", seg.row, order, seg.row, axis=0)
    e.set("RestoreIndex", g.unsqueeze(g.cast(restore, np.int32), 1), ())


@emits("box_decoder_and_assign")
def box_decoder_and_assign(e: Emission) -> None:
    g, prior, score = e.g, e.x("PriorBox"), e.x("BoxScore")
    classes = e.shape("BoxScore")[1]
    if classes < 0:
        e.refuse("the number of classes must be known")
    coded = g.reshape(e.x("TargetBox"), -1, classes, 4)
    if e.has("PriorBoxVar"):
        coded = coded * e.x("PriorBoxVar")
    boxes = decoded(g, g.unsqueeze(prior, 1), coded, float(e["box_clip"]))
    e.set("DecodeBox", g.reshape(boxes, -1, 4 * classes))
    if classes < 2:
        e.set("OutputAssignBox", prior)
        return
    best = g.op("ArgMax", g.slice(score, 1, 1, classes), axis=1, keepdims=0) + 1
    chosen = g.op("GatherND", boxes, pairs(g, g.arange(g.dim(score, 0)), best))
    top = g.reduce("ReduceMax", g.slice(score, 1, 1, classes), [1], True)
    e.set("OutputAssignBox", g.where(top > -1.0, chosen, prior))


@emits("retinanet_detection_output")
def retinanet_detection_output(e: Emission) -> None:
    """Of each level the best (box, class), decoded; then suppression a class over all levels together."""
    g, info = e.g, e.x("ImInfo")
    if e["nms_eta"] < 1.0:
        e.refuse("an overlap threshold that falls as boxes are kept (nms_eta)")
    levels = list(zip(e.xs("BBoxes"), e.xs("Scores"), e.xs("Anchors")))
    scale = g.unsqueeze(g.slice(info, 1, 2, 3), 1)
    sizes = g.op("Floor", g.gather(info, np.array([1, 0], np.int64), 1) / g.slice(info, 1, 2, 3) + 0.5) - 1
    most = g.unsqueeze(g.concat([sizes, sizes], 1), 1)
    boxes, scores = [], []
    lowest = np.finfo(np.float32).min
    for k, (deltas, score, anchors) in enumerate(levels):
        found = decoded(g, g.unsqueeze(anchors, 0), deltas, None) / scale
        boxes.append(g.op("Max", g.op("Min", found, most), g.const(0, found.dtype)))
        least = float(e["score_threshold"]) if k < len(levels) - 1 else 0.0
        able = g.where(score > least, score, g.const(lowest, score.dtype))
        flat = g.reshape(able, 0, -1)
        kept = _best(g, flat, int(e["nms_top_k"])) if int(e["nms_top_k"]) > -1 else flat
        scores.append(g.op("Reshape", kept, g.shape(score)))
    box, score = g.concat(boxes, 1), g.concat(scores, 1)
    n = g.dim(box, 0)
    low, high = corners(g, box)
    found = g.op(
        "NonMaxSuppression", g.concat([low, high + 1.0], 2), g.transpose(score, [0, 2, 1]),
        g.const([np.iinfo(np.int32).max], np.int64), g.const([e["nms_threshold"]], np.float32),
        g.const([lowest / 2], np.float32),
    )  # fmt: skip
    image, label, at = (g.squeeze(g.slice(found, 1, k, k + 1), 1) for k in range(3))
    value = g.op("GatherND", score, pairs(g, image, at, label))
    keep = int(e["keep_top_k"])
    order = best_of_each(g, image, value, keep if keep > -1 else np.iinfo(np.int32).max, by_score=True)
    image, label, at, value = (g.gather(v, order) for v in (image, label, at, value))
    rows = [g.unsqueeze(g.cast(label + 1, box.dtype), 1), g.unsqueeze(value, 1), g.op("GatherND", box, pairs(g, image, at))]
    out = g.concat(rows, 1)
    out.shape = (-1, 6)
    e.set("Out", out, [counted(g, image, n)])
