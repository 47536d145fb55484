"""Detection: anchors, coded boxes, YOLO heads, suppression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import END, Segments, from_lengths
from millstream.ops.detection.priors import expand_ratios


# ---- boxes on a grid -----------------------------------------------------------------------------------------
def _float_dim(g: Graph, x: Value, axis: int, kind: Any) -> Value:
    return g.cast(g.dim(x, axis), kind)


def _grid_boxes(e: Emission, x: Value, cx: Value, cy: Value, half: np.ndarray[Any, Any]) -> Value:
    """[h, w, count, 4] corners of boxes of half sizes [count, 2] around centres [1, w, count or 1] and [h, 1, …]."""
    g = e.g
    hw, hh = g.const(half[:, 0].astype(x.dtype)), g.const(half[:, 1].astype(x.dtype))
    dims = (g.dim(x, 2), g.dim(x, 3), len(half))
    corners = [cx - hw, cy - hh, cx + hw, cy + hh]
    return g.concat([g.unsqueeze(g.expand(c, *dims), 3) for c in corners], 3)


def _places(e: Emission, x: Value) -> tuple[Value, Value]:
    """(columns [1, w, 1], rows [h, 1, 1]) of the grid."""
    g = e.g
    columns = g.reshape(g.cast(g.arange(g.dim(x, 3)), x.dtype), 1, -1, 1)
    rows = g.reshape(g.cast(g.arange(g.dim(x, 2)), x.dtype), -1, 1, 1)
    return columns, rows


def _variances(e: Emission, x: Value, count: int) -> Value:
    g = e.g
    return g.expand(g.const(np.array(e["variances"], x.dtype).reshape(1, 1, 1, 4)), g.dim(x, 2), g.dim(x, 3), count, 4)


def _sized(e: Emission, slot: str) -> Value:
    x = e.x(slot)
    x.shape = x.shape or e.shape(slot)
    return x


@emits("prior_box")
def prior_box(e: Emission) -> None:
    g, x, image = e.g, _sized(e, "Input"), _sized(e, "Image")
    sizes: list[tuple[float, float]] = []
    ratios = expand_ratios(e["aspect_ratios"], e["flip"])
    for i, low in enumerate(e["min_sizes"]):
        plain = [(low * math.sqrt(r) / 2, low / math.sqrt(r) / 2) for r in ratios]
        square = [(math.sqrt(low * e["max_sizes"][i]) / 2,) * 2] if e["max_sizes"] else []
        if e["min_max_aspect_ratios_order"]:
            others = [s for s, r in zip(plain, ratios) if abs(r - 1) >= 1e-6]
            sizes += [(low / 2, low / 2), *square, *others]
        else:
            sizes += plain + square
    ih, iw = _float_dim(g, image, 2, x.dtype), _float_dim(g, image, 3, x.dtype)
    if e["step_w"] == 0 or e["step_h"] == 0:
        step_w: Any = iw / _float_dim(g, x, 3, x.dtype)
        step_h: Any = ih / _float_dim(g, x, 2, x.dtype)
    else:
        step_w, step_h = e["step_w"], e["step_h"]
    columns, rows = _places(e, x)
    boxes = _grid_boxes(e, x, (columns + e["offset"]) * step_w, (rows + e["offset"]) * step_h, np.array(sizes))
    boxes = boxes / g.concat([iw, ih, iw, ih], 0)
    e.set("Boxes", _unit(g, boxes) if e["clip"] else boxes)
    e.set("Variances", _variances(e, x, len(sizes)))


def _unit(g: Graph, boxes: Value) -> Value:
    return g.op("Max", g.op("Min", boxes, g.const(1, boxes.dtype)), g.const(0, boxes.dtype))


@emits("density_prior_box")
def density_prior_box(e: Emission) -> None:
    g, x, image = e.g, _sized(e, "Input"), _sized(e, "Image")
    steps = []
    for name, axis in (("step_w", 3), ("step_h", 2)):
        a, b = (image.shape or ())[axis], (x.shape or ())[axis]
        if not e[name] and min(a, b) < 0:
            e.refuse(f"{name} must be given where the size of the image is not known")
        steps.append(e[name] or a / b)
    step_w, step_h = steps
    step = int((step_w + step_h) * 0.5)
    table: list[tuple[float, float, float, float]] = []
    for size, density in zip(e["fixed_sizes"], e["densities"]):
        shift = step // density
        start = shift / 2 - step / 2
        for r in e["fixed_ratios"]:
            half = (size * math.sqrt(r) / 2, size / math.sqrt(r) / 2)
            table += [(start + j * shift, start + i * shift, *half) for i in range(density) for j in range(density)]
    all_ = np.array(table).reshape(-1, 4)
    columns, rows = _places(e, x)
    cx = (columns + e["offset"]) * step_w + g.const(all_[:, 0].astype(x.dtype))
    cy = (rows + e["offset"]) * step_h + g.const(all_[:, 1].astype(x.dtype))
    ih, iw = _float_dim(g, image, 2, x.dtype), _float_dim(g, image, 3, x.dtype)
    boxes = _grid_boxes(e, x, cx, cy, all_[:, 2:]) / g.concat([iw, ih, iw, ih], 0)
    low = g.op("Max", g.slice(boxes, 3, 0, 2), g.const(0, x.dtype))
    high = g.op("Min", g.slice(boxes, 3, 2, 4), g.const(1, x.dtype))
    boxes = g.concat([low, high], 3)
    boxes = _unit(g, boxes) if e["clip"] else boxes
    variances = _variances(e, x, len(all_))
    if e["flatten_to_2d"]:
        boxes, variances = g.reshape(boxes, -1, 4), g.reshape(variances, -1, 4)
    e.set("Boxes", boxes)
    e.set("Variances", variances)


@emits("anchor_generator")
def anchor_generator(e: Emission) -> None:
    x, stride = _sized(e, "Input"), e["stride"]
    sizes = []
    for r in e["aspect_ratios"]:
        base_w = math.floor(math.sqrt(stride[0] * stride[1] / r) + 0.5)
        base_h = math.floor(base_w * r + 0.5)
        sizes += [((s / stride[0] * base_w - 1) / 2, (s / stride[1] * base_h - 1) / 2) for s in e["anchor_sizes"]]
    columns, rows = _places(e, x)
    cx = columns * stride[0] + e["offset"] * (stride[0] - 1)
    cy = rows * stride[1] + e["offset"] * (stride[1] - 1)
    e.set("Anchors", _grid_boxes(e, x, cx, cy, np.array(sizes)))
    e.set("Variances", _variances(e, x, len(sizes)))


# ---- arithmetic of boxes --------------------------------------------------------------------------------------
def corners(g: Graph, boxes: Value, axis: int = -1) -> tuple[Value, Value]:
    """(low corner, high corner) of [..., 4]."""
    return g.slice(boxes, axis, 0, 2), g.slice(boxes, axis, 2, 4)


def centres(g: Graph, boxes: Value, extra: float) -> tuple[Value, Value]:
    """(centre, size)."""
    low, high = corners(g, boxes)
    size = high - low + extra if extra else high - low
    return low + size * 0.5, size


@emits("box_coder")
def box_coder(e: Emission) -> None:
    g, target = e.g, e.x("TargetBox")
    extra = 0.0 if e["box_normalized"] else 1.0
    centre, size = centres(g, e.x("PriorBox"), extra)
    scale = e.maybe("PriorBoxVar")
    if scale is None and e["variance"]:
        scale = g.const(np.array(e["variance"], target.dtype))
    if e["code_type"] == "encode_center_size":
        low, high = corners(g, target)
        t_size = high - low + extra if extra else high - low
        move = (g.unsqueeze((low + high) * 0.5, 1) - centre) / size
        grow = g.op("Log", g.op("Abs", g.unsqueeze(t_size, 1) / size))
        out = g.concat([move, grow], 2)
        e.set("OutputBox", out if scale is None else out / scale, e.lod("TargetBox"))
        return
    if int(e["axis"]) == 1:
        centre, size = g.unsqueeze(centre, 1), g.unsqueeze(size, 1)
        if scale is not None and e.has("PriorBoxVar") and e.rank("PriorBoxVar") == 2:
            scale = g.unsqueeze(scale, 1)
    coded = target if scale is None else target * scale
    low, high = corners(g, coded)
    middle, half = low * size + centre, g.op("Exp", high) * size * 0.5
    top = middle + half - extra if extra else middle + half
    e.set("OutputBox", g.concat([middle - half, top], 2), e.lod("PriorBox" if int(e["axis"]) == 1 else "TargetBox"))


@emits("iou_similarity")
def iou_similarity(e: Emission) -> None:
    g, extra = e.g, 0.0 if e["box_normalized"] else 1.0
    a, b = g.unsqueeze(e.x("X"), 1), g.unsqueeze(e.x("Y"), 0)

    def area(low: Value, high: Value) -> Value:
        size = g.op("Max", high - low + extra, g.const(0, low.dtype))
        return g.squeeze(g.slice(size, -1, 0, 1) * g.slice(size, -1, 1, 2), -1)

    (al, ah), (bl, bh) = corners(g, a), corners(g, b)
    inter = area(g.op("Max", al, bl), g.op("Min", ah, bh))
    union = area(al, ah) + area(bl, bh) - inter
    out = g.where(g.op("Equal", union, g.const(0, union.dtype)), g.const(0, union.dtype), inter / union)
    e.set("Out", out)


@emits("box_clip")
def box_clip(e: Emission) -> None:
    g, x, info = e.g, e.x("Input"), e.x("ImInfo")
    sizes = g.op("Floor", g.gather(info, np.array([1, 0], np.int64), 1) / g.slice(info, 1, 2, 3) + 0.5)
    lod = e.lod("Input")
    rows = Segments(g, lod[-1]).spread(sizes) if lod else g.slice(sizes, 0, 0, 1)
    most = g.concat([rows, rows], 1) - 1
    if e.rank("Input") > 2:
        most = g.unsqueeze(most, *range(1, e.rank("Input") - 1))
    e.set("Output", g.op("Max", g.op("Min", x, most), g.const(0, x.dtype)))


@emits("polygon_box_transform")
def polygon_box_transform(e: Emission) -> None:
    g, x, c = e.g, _sized(e, "Input"), e.shape("Input")[1]
    if c < 0:
        e.refuse("the number of channels must be known")
    columns = g.reshape(g.cast(g.arange(g.dim(x, 3)) * 4, x.dtype), 1, 1, 1, -1)
    rows = g.reshape(g.cast(g.arange(g.dim(x, 2)) * 4, x.dtype), 1, 1, -1, 1)
    even = g.const((np.arange(c) % 2 == 0).reshape(1, c, 1, 1))
    e.set("Output", g.where(even, columns - x, rows - x))


@emits("yolo_box")
def yolo_box(e: Emission) -> None:
    g, x = e.g, _sized(e, "X")
    classes, anchors = int(e["class_num"]), np.array(e["anchors"], x.dtype).reshape(-1, 2)
    count = len(anchors)
    n, h, w = g.dim(x, 0), g.dim(x, 2), g.dim(x, 3)
    v = g.reshape(x, n, count, 5 + classes, h, w)
    size = g.cast(e.x("ImgSize"), x.dtype)
    ih, iw = (g.reshape(g.slice(size, 1, k, k + 1), -1, 1, 1, 1) for k in (0, 1))
    fh = g.cast(h, x.dtype)
    scale, bias = float(e["scale_x_y"]), -0.5 * (float(e["scale_x_y"]) - 1)

    def part(k: int) -> Value:
        return g.squeeze(g.slice(v, 2, k, k + 1), 2)

    def centre(k: int, axis: int, image: Value) -> Value:
        at = g.cast(g.arange(w if axis == 3 else h), x.dtype)
        place = g.reshape(at, *[-1 if i == axis else 1 for i in range(4)])
        return (place + g.op("Sigmoid", part(k)) * scale + bias) * image / fh

    def extent(k: int, image: Value) -> Value:
        sizes = g.const(anchors[:, k].reshape(1, count, 1, 1))
        return g.op("Exp", part(2 + k)) * sizes * image / (fh * float(e["downsample_ratio"]))

    cx, cy = centre(0, 3, iw), centre(1, 2, ih)
    bw, bh = extent(0, iw) * 0.5, extent(1, ih) * 0.5
    sides = [cx - bw, cy - bh, cx + bw, cy + bh]
    if e["clip_bbox"]:
        zero = g.const(0, x.dtype)
        limits = [iw - 1, ih - 1]
        sides = [g.op("Max", s, zero) for s in sides[:2]] + [g.op("Min", s, m) for s, m in zip(sides[2:], limits)]
    conf = g.unsqueeze(g.op("Sigmoid", part(4)), 4)
    seen = conf >= float(e["conf_thresh"])
    box = g.concat([g.unsqueeze(s, 4) for s in sides], 4)
    score = g.transpose(g.op("Sigmoid", g.slice(v, 2, 5, 5 + classes)), [0, 1, 3, 4, 2]) * conf
    zero = g.const(0, x.dtype)
    e.set("Boxes", g.reshape(g.where(seen, box, zero), n, -1, 4))
    e.set("Scores", g.reshape(g.where(seen, score, zero), n, -1, classes))


# ---- suppression -----------------------------------------------------------------------------------------------
def _ragged_nms(e: Emission) -> None:
    """[rows, classes, 4] boxes with LoD: a batch of classes, the images kept apart by moving each far from the others."""
    g, boxes, scores, classes = e.g, e.x("BBoxes"), e.x("Scores"), e.shape("Scores")[1]
    lod = e.lod("BBoxes") or e.lod("Scores")
    if not lod:
        e.refuse("boxes of their own for each class need a LoD that says the image of each row")
    if classes < 0 or e["nms_eta"] < 1.0:
        e.refuse("boxes of their own for each class, with nms_eta, or an unknown number of classes")
    seg = Segments(g, lod[-1])
    wanted = [c for c in range(classes) if c != int(e["background_label"])]
    numbers = np.array(wanted, np.int64)
    mine = g.transpose(g.gather(boxes, numbers, 1), [1, 0, 2])  # [classes, rows, 4]
    low, high = corners(g, mine)
    span = g.reduce("ReduceMax", g.op("Abs", boxes), None) * 2.0 + 2.0
    away = g.reshape(g.cast(seg.ids, boxes.dtype) * span, 1, -1, 1)
    extra = 0.0 if e["normalized"] else 1.0
    taken = g.concat([low + away, high + away + extra], 2)
    best = scores if int(e["nms_top_k"]) < 0 else _best_rows(g, seg, scores, int(e["nms_top_k"]))
    able = g.unsqueeze(g.transpose(g.gather(best, numbers, 1), [1, 0]), 1)
    found = g.op(
        "NonMaxSuppression", taken, able, g.const([np.iinfo(np.int32).max], np.int64),
        g.const([e["nms_threshold"]], np.float32), g.const([e["score_threshold"]], np.float32),
    )  # fmt: skip
    label = g.gather(g.const(numbers), g.squeeze(g.slice(found, 1, 0, 1), 1))
    at = g.squeeze(g.slice(found, 1, 2, 3), 1)
    score = g.op("GatherND", scores, pairs(g, at, label))
    image = g.gather(seg.ids, at)
    keep = int(e["keep_top_k"])
    if keep >= 0:
        chosen = best_of_each(g, image, score, keep)
        image, label, at, score = (g.gather(v, chosen) for v in (image, label, at, score))
    # by image, then class, then row
    key = (image * classes + label) * g.op("Max", seg.rows, g.const([1], np.int64)) + at
    _, order = g.ops("TopK", 2, key, g.dim(key, 0), dtypes=[np.int64, np.int64], axis=0, largest=0)
    image, label, at, score = (g.gather(v, order) for v in (image, label, at, score))
    box = g.op("GatherND", boxes, pairs(g, at, label))
    rows = g.concat([g.unsqueeze(g.cast(label, boxes.dtype), 1), g.unsqueeze(score, 1), box], 1)
    rows.shape = (-1, 6)
    each = g.op("Equal", g.unsqueeze(image, 1), g.unsqueeze(g.arange(seg.count), 0))
    offsets = from_lengths(g, g.reduce("ReduceSum", g.cast(each, np.int64), [0]))
    if e.op.type == "multiclass_nms2":
        e.set("Out", rows, [offsets])
        e.set("Index", g.unsqueeze(g.cast(at * classes + label, np.int32), 1), [offsets])
        return
    out, one = _or_minus_one(g, rows, offsets)
    e.set("Out", out, [one])


def _best_rows(g: Graph, seg: Segments, scores: Value, top: int) -> Value:
    """[rows, classes] scores with all but the best `top` of each image and class out of the running."""
    low = g.const(np.finfo(scores.dtype).min, scores.dtype)
    padded = g.where(g.unsqueeze(seg.mask, 2), seg.pad(scores), low)
    count = g.op("Min", g.const([top], np.int64), seg.longest)
    values, index = g.ops("TopK", 2, padded, count, dtypes=[scores.dtype, np.int64], axis=0)
    lowest = g.full(g.shape(padded), np.finfo(scores.dtype).min, scores.dtype)
    return seg.unpad(g.op("ScatterElements", lowest, index, values, axis=0))


def _suppressed(e: Emission, low: Value, high: Value, able: Value, threshold: float) -> Value:
    """[kept, 3]: image, class, box; by image, class, falling score."""
    g = e.g
    return g.op(
        "NonMaxSuppression", g.concat([low, high], 2), able, g.const([np.iinfo(np.int32).max], np.int64),
        g.const([threshold], np.float32), g.const([e["score_threshold"]], np.float32),
    )  # fmt: skip


def _with_flat_boxes(e: Emission, low: Value, high: Value, able: Value) -> Value:
    """The same where boxes may have no area: such ones suppress each other as soon as they touch, and nothing else.

    Their overlap in Fluid is 0 / 0, which no threshold allows.
    """
    g = e.g
    flat = g.transpose(g.reduce("ReduceMin", high - low, [2], True), [0, 2, 1]) <= 0.0
    out = g.const(np.finfo(able.dtype).min, able.dtype)
    grow = [g.op("Abs", side) * 5e-7 + 1e-7 for side in (low, high)]  # then those that touch overlap
    parts = [
        _suppressed(e, low, high, g.where(flat, out, able), e["nms_threshold"]),
        _suppressed(e, low - grow[0], high + grow[1], g.where(flat, able, out), 1e-12),
    ]
    found = g.concat(parts, 0)
    count = g.dim(found, 0)
    _, order = g.ops("TopK", 2, g.op("GatherND", able, found), count, dtypes=[able.dtype, np.int64], axis=0)
    found = g.gather(found, order)
    image, label = (g.squeeze(g.slice(found, 1, k, k + 1), 1) for k in (0, 1))
    group = image * g.dim(able, 1) + label
    _, order = g.ops("TopK", 2, group * count + g.arange(count), count, dtypes=[np.int64, np.int64], axis=0, largest=0)
    return g.gather(found, order)


@emits("multiclass_nms", "multiclass_nms2")
def multiclass_nms(e: Emission) -> None:
    """NonMaxSuppression over all images and classes, then the best `keep_top_k` of each image."""
    g, boxes, scores = e.g, e.x("BBoxes"), e.x("Scores")
    if e.rank("Scores") != 3:
        _ragged_nms(e)
        return
    if e.shape("BBoxes")[2] != 4:
        e.refuse("boxes that are polygons")
    if e["nms_eta"] < 1.0:
        e.refuse("an overlap threshold that falls as boxes are kept (nms_eta)")
    able, classes = _foreground(e, scores)
    able = _best_candidates(e, able)
    low, high = corners(g, boxes)
    # a box whose corners are exchanged has no area in Fluid; ONNX would turn it around
    turned = g.reduce("ReduceMax", g.cast(high < low, np.int32), [2], True) > 0
    high = g.where(turned, low, high if e["normalized"] else high + 1.0)
    if e["normalized"]:
        found = _with_flat_boxes(e, low, high, able)
    else:
        found = _suppressed(e, low, high, able, e["nms_threshold"])
    image, label, at = (g.squeeze(g.slice(found, 1, k, k + 1), 1) for k in range(3))
    if classes is not None:
        label = g.gather(classes, label)
    score = g.op("GatherND", scores, pairs(g, image, label, at))
    n = g.dim(boxes, 0)
    keep = int(e["keep_top_k"])
    if keep >= 0:
        chosen = best_of_each(g, image, score, keep)
        image, label, at, score = (g.gather(v, chosen) for v in (image, label, at, score))
    box = g.op("GatherND", boxes, pairs(g, image, at))
    rows = g.concat([g.unsqueeze(g.cast(label, boxes.dtype), 1), g.unsqueeze(score, 1), box], 1)
    each = g.op("Equal", g.unsqueeze(image, 1), g.unsqueeze(g.arange(n), 0))
    offsets = from_lengths(g, g.reduce("ReduceSum", g.cast(each, np.int64), [0]))
    rows.shape = (-1, 6)
    if e.op.type == "multiclass_nms2":
        e.set("Out", rows, [offsets])
        row = g.cast(at + image * g.dim(scores, 2), np.int32)
        e.set("Index", g.unsqueeze(row, 1), [offsets])
        return
    out, lod = _or_minus_one(g, rows, offsets)
    e.set("Out", out, [lod])


@emits("matrix_nms")
def matrix_nms(e: Emission) -> None:
    """All pairs of the best boxes of each class: what a better one takes of a score, by what it lost itself."""
    g, boxes, scores = e.g, e.x("BBoxes"), e.x("Scores")
    able, classes = _foreground(e, scores)
    top, width = int(e["nms_top_k"]), g.dim(able, 2)
    count = width if top < 0 else g.op("Min", g.const([top], np.int64), width)
    score, index = g.ops("TopK", 2, able, count, dtypes=[able.dtype, np.int64], axis=2)
    # [images, classes, best, 4]
    image = g.reshape(g.arange(g.dim(boxes, 0)), -1, 1, 1)
    at = g.concat([g.unsqueeze(g.op("Expand", image, g.shape(index)), -1), g.unsqueeze(index, -1)], -1)
    chosen = g.op("GatherND", boxes, at)
    place = g.arange(g.dim(index, 2))
    better = g.unsqueeze(place, 0) < g.unsqueeze(place, 1)
    zero = g.const(0, boxes.dtype)
    overlap = g.where(better, _overlaps(g, chosen, 0.0 if e["normalized"] else 1.0), zero)
    largest = g.unsqueeze(g.reduce("ReduceMax", overlap, [3]), 2)
    if e["use_gaussian"]:
        decay = g.op("Exp", (largest * largest - overlap * overlap) * float(e["gaussian_sigma"]))
    else:
        decay = (1.0 - overlap) / (1.0 - largest)
    decay = g.where(better & ~g.op("IsNaN", decay), decay, g.const(1, boxes.dtype))
    lowered = score * g.op("Min", g.reduce("ReduceMin", decay, [3]), g.const(1, boxes.dtype))
    good = (score > float(e["score_threshold"])) & (lowered > float(e["post_threshold"]))
    found = g.transpose(g.op("NonZero", good), [1, 0])
    image, label = (g.squeeze(g.slice(found, 1, k, k + 1), 1) for k in (0, 1))
    value, row = g.op("GatherND", lowered, found), g.op("GatherND", index, found)
    keep = int(e["keep_top_k"])
    best = best_of_each(g, image, value, keep if keep > -1 else END, by_score=True)
    image, label, value, row = (g.gather(v, best) for v in (image, label, value, row))
    box = g.op("GatherND", boxes, pairs(g, image, row))
    label = label if classes is None else g.gather(classes, label)
    rows = g.concat([g.unsqueeze(g.cast(label, boxes.dtype), 1), g.unsqueeze(value, 1), box], 1)
    rows.shape = (-1, 6)
    each = g.op("Equal", g.unsqueeze(image, 1), g.unsqueeze(g.arange(g.dim(boxes, 0)), 0))
    offsets = from_lengths(g, g.reduce("ReduceSum", g.cast(each, np.int64), [0]))
    e.set("Out", rows, [offsets])
    e.set("Index", g.unsqueeze(g.cast(row + image * g.dim(boxes, 1), np.int32), 1), [offsets])


def _overlaps(g: Graph, boxes: Value, extra: float) -> Value:
    """Intersection over union of all pairs of [..., n, 4]: [..., n, n]; 0 where they only touch without area."""
    (al, ah), (bl, bh) = corners(g, g.unsqueeze(boxes, 3)), corners(g, g.unsqueeze(boxes, 2))
    low, high = g.op("Max", al, bl), g.op("Min", ah, bh)
    apart = g.reduce("ReduceMax", g.cast(low > high, np.int32), [4]) > 0
    inter = g.reduce("ReduceProd", high - low + extra, [4])

    def area(a: Value, b: Value) -> Value:
        turned = g.reduce("ReduceMax", g.cast(b < a, np.int32), [4]) > 0
        return g.where(turned, g.const(0, boxes.dtype), g.reduce("ReduceProd", b - a + extra, [4]))

    union = area(al, ah) + area(bl, bh) - inter
    none = apart | g.op("Equal", union, g.const(0, boxes.dtype))
    return g.where(none, g.const(0, boxes.dtype), inter / union)


def pairs(g: Graph, *columns: Value) -> Value:
    """Positions as rows, one column each."""
    return g.concat([g.unsqueeze(c, 1) for c in columns], 1)


def _foreground(e: Emission, scores: Value) -> tuple[Value, Value | None]:
    """Scores of all classes but the background, and which class each is (None: each is itself)."""
    g, background = e.g, int(e["background_label"])
    if background < 0:
        return scores, None
    parts = [g.slice(scores, 1, background + 1, END)]
    if background > 0:
        parts.insert(0, g.slice(scores, 1, 0, background))
    every = g.arange(g.dim(scores, 1))
    numbers = [g.slice(every, 0, background + 1, END)]
    if background > 0:
        numbers.insert(0, g.slice(every, 0, 0, background))
    return g.concat(parts, 1), g.concat(numbers, 0)


def _best_candidates(e: Emission, scores: Value) -> Value:
    """Scores with all but the best `nms_top_k` of each class out of the running."""
    g, top, boxes = e.g, int(e["nms_top_k"]), e.shape("Scores")[2]
    if top < 0 or 0 < boxes <= top:
        return scores
    count = g.op("Min", g.const([top], np.int64), g.dim(scores, 2))
    values, index = g.ops("TopK", 2, scores, count, dtypes=[scores.dtype, np.int64], axis=2)
    lowest = g.full(g.shape(scores), np.finfo(scores.dtype).min, scores.dtype)
    return g.op("ScatterElements", lowest, index, values, axis=2)


def best_of_each(g: Graph, image: Value, score: Value, keep: int, by_score: bool = False) -> Value:
    """Positions of the `keep` best scores of each image: rising, or by image and falling score."""
    count = g.dim(score, 0)
    _, order = g.ops("TopK", 2, score, count, dtypes=[score.dtype, np.int64], axis=0)
    place = g.arange(count)
    key = g.gather(image, order) * count + place  # by image, then by falling score
    _, by_image = g.ops("TopK", 2, key, count, dtypes=[np.int64, np.int64], axis=0, largest=0)
    sorted_rows = g.gather(order, by_image)
    which = g.gather(image, sorted_rows)
    before = g.reduce("ReduceSum", g.cast(g.unsqueeze(which, 0) < g.unsqueeze(which, 1), np.int64), [1])
    kept = g.op("Compress", sorted_rows, (place - before) < keep, axis=0)
    if by_score:
        return kept
    rising, _ = g.ops("TopK", 2, kept, g.dim(kept, 0), dtypes=[np.int64, np.int64], axis=0, largest=0)
    return rising


def _or_minus_one(g: Graph, rows: Value, offsets: Value) -> tuple[Value, Value]:
    """The rows, or a single -1 (one sequence) when there is none."""
    none = g.squeeze(g.op("Equal", g.dim(rows, 0), g.const([0], np.int64)), 0)
    branches = []
    for values in ((g.const(np.full((1, 1), -1, rows.dtype)), g.const([0, 1], np.int64)), (rows, offsets)):
        with g.child() as branch:
            branch.hint = g.hint
            outs = [branch.identity(v) for v in values]
            branches.append(branch.proto(g.hint + ".branch", [], [branch.info(o) for o in outs]))
    out, lod = g.ops("If", 2, none, dtypes=[rows.dtype, np.int64], then_branch=branches[0], else_branch=branches[1])
    out.shape = (-1, -1)
    return out, lod
