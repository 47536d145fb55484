"""YOLOv3 (Redmon and Farhadi, 2018, arXiv:1804.02767): loss and boxes."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._check import FLOATS, check_type, check_variable_and_dtype
from millstream.fluid.layers.detection._emit import emit

__all__ = ["yolo_box", "yolov3_loss"]


def _number(value: Any, argument: str, layer: str) -> float:
    check_type(value, argument, (int, float), layer)
    return float(value)


def yolov3_loss(
    x: Any,
    gt_box: Any,
    gt_label: Any,
    anchors: Any,
    anchor_mask: Any,
    class_num: int,
    ignore_thresh: float,
    downsample_ratio: int,
    gt_score: Any = None,
    use_label_smooth: bool = True,
    name: str | None = None,
    scale_x_y: float = 1.0,
) -> Any:
    """Loss of one output of YOLOv3, [N].

    Args:
        x: [N, masks * (5 + class_num), H, W].
        gt_box: [N, B, 4], centre, width and height as fractions of the image; zero width or height for padding.
        gt_label: int32 [N, B]; gt_score: [N, B], weights of mixed-up images.
        anchors: widths and heights in turn; anchor_mask: which anchors this output has.
        ignore_thresh: a prediction that overlaps a true box by more is no negative.
    """
    layer = "yolov3_loss"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable_and_dtype(gt_box, "gt_box", FLOATS, layer)
    check_variable_and_dtype(gt_label, "gt_label", ("int32",), layer)
    check_type(anchors, "anchors", (list, tuple), layer)
    check_type(anchor_mask, "anchor_mask", (list, tuple), layer)
    check_type(class_num, "class_num", int, layer)
    check_type(use_label_smooth, "use_label_smooth", bool, layer)
    attrs = {
        "anchors": list(anchors),
        "anchor_mask": list(anchor_mask),
        "class_num": class_num,
        "ignore_thresh": _number(ignore_thresh, "ignore_thresh", layer),
        "downsample_ratio": downsample_ratio,
        "use_label_smooth": use_label_smooth,
        "scale_x_y": scale_x_y,
    }
    inputs = {"X": x, "GTBox": gt_box, "GTLabel": gt_label, "GTScore": gt_score}
    outputs = [("Loss", x.dtype), ("ObjectnessMask", "int32"), ("GTMatchMask", "int32")]
    return emit(layer, inputs, outputs, attrs, name=name)[0]


def yolo_box(
    x: Any,
    img_size: Any,
    anchors: Any,
    class_num: int,
    conf_thresh: float,
    downsample_ratio: int,
    clip_bbox: bool = True,
    name: str | None = None,
    scale_x_y: float = 1.0,
) -> tuple[Any, Any]:
    """Boxes [N, P, 4] (corners in pixels) and scores [N, P, class_num] of one output of YOLOv3.

    Args:
        x: [N, anchors * (5 + class_num), H, W]; img_size: int32 [N, 2] of height and width.
        conf_thresh: predictions of lower confidence become zeros.
    """
    layer = "yolo_box"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable_and_dtype(img_size, "img_size", ("int32",), layer)
    check_type(anchors, "anchors", (list, tuple), layer)
    check_type(class_num, "class_num", int, layer)
    attrs = {
        "anchors": list(anchors),
        "class_num": class_num,
        "conf_thresh": _number(conf_thresh, "conf_thresh", layer),
        "downsample_ratio": downsample_ratio,
        "clip_bbox": clip_bbox,
        "scale_x_y": scale_x_y,
    }
    outputs = [("Boxes", x.dtype), ("Scores", x.dtype)]
    boxes, scores = emit(layer, {"X": x, "ImgSize": img_size}, outputs, attrs, name=name)
    return boxes, scores
