"""Two-stage detectors: proposals, their samples and targets, pyramid levels."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    check_type,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    refuse,
)
from millstream.fluid.layers.detection._emit import emit
from millstream.fluid.layers.nn.gather import gather
from millstream.fluid.layers.nn.manipulate import reshape

__all__ = [
    "collect_fpn_proposals",
    "distribute_fpn_proposals",
    "generate_mask_labels",
    "generate_proposal_labels",
    "generate_proposals",
    "retinanet_target_assign",
    "rpn_target_assign",
]


def rpn_target_assign(
    bbox_pred: Any,
    cls_logits: Any,
    anchor_box: Any,
    anchor_var: Any,
    gt_boxes: Any,
    is_crowd: Any,
    im_info: Any,
    rpn_batch_size_per_im: int = 256,
    rpn_straddle_thresh: float = 0.0,
    rpn_fg_fraction: float = 0.5,
    rpn_positive_overlap: float = 0.7,
    rpn_negative_overlap: float = 0.3,
    use_random: bool = True,
) -> tuple[Any, Any, Any, Any, Any]:
    """Sample anchors for training a region proposal network (Ren et al., 2015).

    Args:
        bbox_pred: [N, A, 4]; cls_logits: [N, A, 1]; anchor_box, anchor_var: [A, 4].
        gt_boxes: sequence [boxes, 4]; is_crowd: sequence int32 [boxes, 1]; im_info: [N, 3].
        rpn_straddle_thresh: anchors further outside the image are left out; negative keeps all.

    Returns:
        predicted scores [F + B, 1] and offsets [F, 4] of the samples, labels int32 [F + B, 1], target offsets [F, 4] and
        their weights [F, 4].
    """
    layer = "rpn_target_assign"
    inputs = {"Anchor": anchor_box, "GtBoxes": gt_boxes, "IsCrowd": is_crowd, "ImInfo": im_info}
    _check_training(bbox_pred, cls_logits, anchor_var, inputs, layer)
    outputs = [
        ("LocationIndex", "int32"),
        ("ScoreIndex", "int32"),
        ("TargetLabel", "int32"),
        ("TargetBBox", anchor_box.dtype),
        ("BBoxInsideWeight", anchor_box.dtype),
    ]
    attrs = {
        "rpn_batch_size_per_im": rpn_batch_size_per_im,
        "rpn_straddle_thresh": rpn_straddle_thresh,
        "rpn_positive_overlap": rpn_positive_overlap,
        "rpn_negative_overlap": rpn_negative_overlap,
        "rpn_fg_fraction": rpn_fg_fraction,
        "use_random": use_random,
    }
    where_box, where_score, label, target, weight = emit(layer, inputs, outputs, attrs, constant=True)
    scores, boxes = _sampled(cls_logits, where_score, bbox_pred, where_box, 1)
    return scores, boxes, label, target, weight


def retinanet_target_assign(
    bbox_pred: Any,
    cls_logits: Any,
    anchor_box: Any,
    anchor_var: Any,
    gt_boxes: Any,
    gt_labels: Any,
    is_crowd: Any,
    im_info: Any,
    num_classes: int = 1,
    positive_overlap: float = 0.5,
    negative_overlap: float = 0.4,
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Targets of RetinaNet (arXiv:1708.02002): every anchor but those of middling overlap.

    Args:
        as `rpn_target_assign`; cls_logits: [N, A, num_classes]; gt_labels: sequence int32 [boxes, 1].

    Returns:
        as `rpn_target_assign`, then the number of positives plus one of each image, int32 [N, 1].
    """
    layer = "retinanet_target_assign"
    inputs = {"Anchor": anchor_box, "GtBoxes": gt_boxes, "GtLabels": gt_labels, "IsCrowd": is_crowd, "ImInfo": im_info}
    _check_training(bbox_pred, cls_logits, anchor_var, inputs, layer)
    outputs = [
        ("LocationIndex", "int32"),
        ("ScoreIndex", "int32"),
        ("TargetLabel", "int32"),
        ("TargetBBox", anchor_box.dtype),
        ("BBoxInsideWeight", anchor_box.dtype),
        ("ForegroundNumber", "int32"),
    ]
    attrs = {"positive_overlap": positive_overlap, "negative_overlap": negative_overlap}
    found = emit(layer, inputs, outputs, attrs, constant=True)
    where_box, where_score, label, target, weight, positives = found
    scores, boxes = _sampled(cls_logits, where_score, bbox_pred, where_box, num_classes)
    return scores, boxes, label, target, weight, positives


def _check_training(bbox_pred: Any, cls_logits: Any, anchor_var: Any, inputs: dict[str, Any], layer: str) -> None:
    check_variable_and_dtype(bbox_pred, "bbox_pred", FLOATS, layer)
    check_variable_and_dtype(cls_logits, "cls_logits", FLOATS, layer)
    check_variable_and_dtype(anchor_var, "anchor_var", FLOATS, layer)
    for slot, value in inputs.items():
        check_variable_and_dtype(value, slot, INDICES if slot in ("IsCrowd", "GtLabels") else FLOATS, layer)


def _sampled(logits: Any, where_score: Any, boxes: Any, where_box: Any, classes: int) -> tuple[Any, Any]:
    logits = reshape(x=logits, shape=(-1, classes))
    boxes = reshape(x=boxes, shape=(-1, 4))
    return gather(logits, where_score), gather(boxes, where_box)


def generate_proposals(
    scores: Any,
    bbox_deltas: Any,
    im_info: Any,
    anchors: Any,
    variances: Any,
    pre_nms_top_n: int = 6000,
    post_nms_top_n: int = 1000,
    nms_thresh: float = 0.5,
    min_size: float = 0.1,
    eta: float = 1.0,
    name: str | None = None,
    return_rois_num: bool = False,
) -> Any:
    """Proposals of a region proposal network (Ren et al., 2015).

    Args:
        scores: [N, A, H, W]; bbox_deltas: [N, 4 * A, H, W]; anchors, variances: [H, W, A, 4]; im_info: [N, 3].
        min_size: sides below it, in pixels of the original image, are dropped.

    Returns:
        sequences of boxes [rois, 4] and scores [rois, 1]; with `return_rois_num` also the number in each image, int32 [N].
    """
    layer = "generate_proposals"
    inputs = {"Scores": scores, "BboxDeltas": bbox_deltas, "ImInfo": im_info, "Anchors": anchors, "Variances": variances}
    for slot, value in inputs.items():
        check_variable_and_dtype(value, slot, FLOATS, layer)
    attrs = {
        "pre_nms_topN": pre_nms_top_n,
        "post_nms_topN": post_nms_top_n,
        "nms_thresh": nms_thresh,
        "min_size": min_size,
        "eta": eta,
    }
    outputs = [("RpnRois", bbox_deltas.dtype), ("RpnRoiProbs", scores.dtype), ("RpnRoisLod", "int32")]
    rois, probabilities, counts = emit(layer, inputs, outputs, attrs, name=name, constant=True)
    return (rois, probabilities, counts) if return_rois_num else (rois, probabilities)


def generate_proposal_labels(
    rpn_rois: Any,
    gt_classes: Any,
    is_crowd: Any,
    gt_boxes: Any,
    im_info: Any,
    batch_size_per_im: int = 256,
    fg_fraction: float = 0.25,
    fg_thresh: float = 0.25,
    bg_thresh_hi: float = 0.5,
    bg_thresh_lo: float = 0.0,
    bbox_reg_weights: Any = [0.1, 0.1, 0.2, 0.2],
    class_nums: int | None = None,
    use_random: bool = True,
    is_cls_agnostic: bool = False,
    is_cascade_rcnn: bool = False,
) -> tuple[Any, Any, Any, Any, Any]:
    """Sample proposals and true boxes for training the second stage of Faster R-CNN.

    Args:
        rpn_rois, gt_boxes: sequences [., 4]; gt_classes, is_crowd: sequences int32 [., 1]; im_info: [N, 3].
        class_nums: number of classes with the background.
        is_cls_agnostic: one set of offsets for all classes; is_cascade_rcnn: proposals of an earlier stage (no sampling).

    Returns:
        sequences of boxes [S, 4], labels int32 [S, 1], target offsets, inside and outside weights [S, 4 * class_nums].
    """
    layer = "generate_proposal_labels"
    check_variable_and_dtype(rpn_rois, "rpn_rois", FLOATS, layer)
    check_variable_and_dtype(gt_classes, "gt_classes", INDICES, layer)
    check_variable_and_dtype(is_crowd, "is_crowd", INDICES, layer)
    check_variable_and_dtype(gt_boxes, "gt_boxes", FLOATS, layer)
    check_variable_and_dtype(im_info, "im_info", FLOATS, layer)
    if class_nums is None:
        refuse(layer, "'class_nums' must be given: the number of classes with the background")
    inputs = {"RpnRois": rpn_rois, "GtClasses": gt_classes, "IsCrowd": is_crowd, "GtBoxes": gt_boxes, "ImInfo": im_info}
    outputs = [
        ("Rois", rpn_rois.dtype),
        ("LabelsInt32", "int32"),
        ("BboxTargets", rpn_rois.dtype),
        ("BboxInsideWeights", rpn_rois.dtype),
        ("BboxOutsideWeights", rpn_rois.dtype),
    ]
    attrs = {
        "batch_size_per_im": batch_size_per_im,
        "fg_fraction": fg_fraction,
        "fg_thresh": fg_thresh,
        "bg_thresh_hi": bg_thresh_hi,
        "bg_thresh_lo": bg_thresh_lo,
        "bbox_reg_weights": list(bbox_reg_weights),
        "class_nums": class_nums,
        "use_random": use_random,
        "is_cls_agnostic": is_cls_agnostic,
        "is_cascade_rcnn": is_cascade_rcnn,
    }
    rois, labels, targets, inside, outside = emit(layer, inputs, outputs, attrs, constant=True)
    return rois, labels, targets, inside, outside


def generate_mask_labels(
    im_info: Any,
    gt_classes: Any,
    is_crowd: Any,
    gt_segms: Any,
    rois: Any,
    labels_int32: Any,
    num_classes: int,
    resolution: int,
) -> tuple[Any, Any, Any]:
    """Mask targets of Mask R-CNN (He et al., 2017, arXiv:1703.06870).

    Args:
        gt_segms: polygons' points [points, 2], three levels of lengths: boxes of an image, polygons of a box, points.
        rois: sequence [S, 4]; labels_int32: sequence int32 [S, 1].

    Returns:
        boxes with a mask [M, 4], their indices among the sampled ones int32 [M, 1], and masks int32
        [M, num_classes * resolution squared] (-1 in the planes of other classes).
    """
    layer = "generate_mask_labels"
    inputs = {
        "ImInfo": im_info,
        "GtClasses": gt_classes,
        "IsCrowd": is_crowd,
        "GtSegms": gt_segms,
        "Rois": rois,
        "LabelsInt32": labels_int32,
    }
    for slot, value in inputs.items():
        check_variable(value, slot, layer)
    outputs = [("MaskRois", rois.dtype), ("RoiHasMaskInt32", "int32"), ("MaskInt32", "int32")]
    attrs = {"num_classes": num_classes, "resolution": resolution}
    mask_rois, has_mask, masks = emit(layer, inputs, outputs, attrs, constant=True)
    return mask_rois, has_mask, masks


def distribute_fpn_proposals(
    fpn_rois: Any, min_level: int, max_level: int, refer_level: int, refer_scale: int, name: str | None = None
) -> tuple[list[Any], Any]:
    """Give each proposal to the pyramid level of its size (FPN, Lin et al., 2017, equation 1).

    Args:
        fpn_rois: sequence [rois, 4]; refer_level: level of boxes whose side is `refer_scale`.

    Returns:
        a list of sequences, one for each level, and int32 [rois, 1]: where each original proposal now stands.
    """
    layer = "distribute_fpn_proposals"
    check_variable_and_dtype(fpn_rois, "fpn_rois", FLOATS, layer)
    for value, argument in ((min_level, "min_level"), (max_level, "max_level")):
        check_type(value, argument, int, layer)
    if max_level < min_level:
        refuse(layer, f"'max_level' {max_level} must not be below 'min_level' {min_level}")
    helper = LayerHelper(layer, name=name)
    levels = [helper.create_variable_for_type_inference(fpn_rois.dtype) for _ in range(max_level - min_level + 1)]
    restore = helper.create_variable_for_type_inference("int32")
    helper.append_op(
        type=layer,
        inputs={"FpnRois": [fpn_rois]},
        outputs={"MultiFpnRois": levels, "RestoreIndex": [restore]},
        attrs={"min_level": min_level, "max_level": max_level, "refer_level": refer_level, "refer_scale": refer_scale},
    )
    return levels, restore


def collect_fpn_proposals(
    multi_rois: Any, multi_scores: Any, min_level: int, max_level: int, post_nms_top_n: int, name: str | None = None
) -> Any:
    """The best `post_nms_top_n` proposals of all pyramid levels together, [., 4], a sequence in the images' order.

    Args:
        multi_rois, multi_scores: lists of sequences [., 4] and [., 1], one for each level from `min_level` to `max_level`.
    """
    layer = "collect_fpn_proposals"
    rois = check_variables(multi_rois, "multi_rois", FLOATS, layer)
    scores = check_variables(multi_scores, "multi_scores", FLOATS, layer)
    levels = max_level - min_level + 1
    if len(scores) < levels or len(rois) < levels:
        refuse(layer, f"levels {min_level} to {max_level} need {levels} inputs, received {len(rois)} and {len(scores)}")
    inputs = {"MultiLevelRois": rois[:levels], "MultiLevelScores": scores[:levels]}
    outputs = [("FpnRois", rois[0].dtype)]
    return emit(layer, inputs, outputs, {"post_nms_topN": post_nms_top_n}, name=name, constant=True)[0]
