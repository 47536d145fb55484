"""Final detections: decoding, non-maximum suppression, average precision."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    FLOATS,
    check_choice,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    refuse,
)
from millstream.fluid.layers.detection._emit import emit
from millstream.fluid.layers.detection.matching import box_coder
from millstream.fluid.layers.nn.activation import softmax
from millstream.fluid.layers.nn.manipulate import transpose

__all__ = [
    "detection_map",
    "detection_output",
    "locality_aware_nms",
    "matrix_nms",
    "multiclass_nms",
    "retinanet_detection_output",
]


def detection_output(
    loc: Any,
    scores: Any,
    prior_box: Any,
    prior_box_var: Any,
    background_label: int = 0,
    nms_threshold: float = 0.3,
    nms_top_k: int = 400,
    keep_top_k: int = 200,
    score_threshold: float = 0.01,
    nms_eta: float = 1.0,
    return_index: bool = False,
) -> Any:
    """Detections of SSD: offsets decoded, scores by softmax, then non-maximum suppression class by class.

    Args:
        loc: offsets [N, P, 4]; scores: logits [N, P, classes]; prior_box, prior_box_var: [P, 4].

    Returns:
        sequence [found, 6] of label, score, x0, y0, x1, y1 (one -1 where nothing is found); with `return_index` also the
        index of each among the N * P boxes, [found, 1].
    """
    layer = "detection_output"
    for value, argument in ((loc, "loc"), (scores, "scores")):
        check_variable_and_dtype(value, argument, FLOATS, layer)
    decoded = box_coder(prior_box=prior_box, prior_box_var=prior_box_var, target_box=loc, code_type="decode_center_size")
    scores = transpose(softmax(scores), perm=[0, 2, 1])
    scores.stop_gradient = True
    attrs = {
        "background_label": background_label,
        "nms_threshold": nms_threshold,
        "nms_top_k": nms_top_k,
        "keep_top_k": keep_top_k,
        "score_threshold": score_threshold,
        "nms_eta": nms_eta,
    }
    inputs = {"Scores": scores, "BBoxes": decoded}
    outputs = [("Out", decoded.dtype)] + ([("Index", "int64")] if return_index else [])
    op_type = "multiclass_nms2" if return_index else "multiclass_nms"
    found = emit(layer, inputs, outputs, attrs, op_type=op_type, constant=True)
    return (found[0], found[1]) if return_index else found[0]


def _checked(bboxes: Any, scores: Any, layer: str) -> dict[str, Any]:
    check_variable_and_dtype(bboxes, "bboxes", FLOATS, layer)
    check_variable_and_dtype(scores, "scores", FLOATS, layer)
    return {"BBoxes": bboxes, "Scores": scores}


def multiclass_nms(
    bboxes: Any,
    scores: Any,
    score_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
    nms_threshold: float = 0.3,
    normalized: bool = True,
    nms_eta: float = 1.0,
    background_label: int = 0,
    name: str | None = None,
) -> Any:
    """Non-maximum suppression class by class.

    Args:
        bboxes: [N, P, 4] (or 8, 16, 24, 32 for polygons) with scores [N, classes, P]; or a sequence [P, classes, 4] with
            scores [P, classes].
        nms_top_k, keep_top_k: candidates for each class, detections for each image; -1 for all.
        normalized: False counts pixels; nms_eta: below 1 lowers the threshold after each box kept.
        background_label: class left out, -1 for none.

    Returns:
        sequence [found, 6] of label, score and corners; [1, 1] holding -1 where nothing is found.
    """
    layer = "multiclass_nms"
    attrs = {
        "background_label": background_label,
        "score_threshold": score_threshold,
        "nms_top_k": nms_top_k,
        "nms_threshold": nms_threshold,
        "keep_top_k": keep_top_k,
        "nms_eta": nms_eta,
        "normalized": normalized,
    }
    return emit(layer, _checked(bboxes, scores, layer), [("Out", bboxes.dtype)], attrs, name=name, constant=True)[0]


def locality_aware_nms(
    bboxes: Any,
    scores: Any,
    score_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
    nms_threshold: float = 0.3,
    normalized: bool = True,
    nms_eta: float = 1.0,
    background_label: int = -1,
    name: str | None = None,
) -> Any:
    """Suppression of EAST (Zhou et al., 2017): neighbours are first merged, weighted by score; one image, one class.

    Args:
        bboxes: [1, P, 4] (8, 16, 24, 32 for polygons); scores: [1, 1, P].

    Returns:
        sequence [found, 6] of label, score and corners.
    """
    layer = "locality_aware_nms"
    inputs = _checked(bboxes, scores, layer)
    if len(bboxes.shape) != 3 or len(scores.shape) != 3:
        refuse(layer, f"bboxes and scores must have rank 3, received {bboxes.describe()} and {scores.describe()}")
    attrs = {
        "background_label": background_label,
        "score_threshold": score_threshold,
        "nms_top_k": nms_top_k,
        "nms_threshold": nms_threshold,
        "nms_eta": nms_eta,
        "keep_top_k": keep_top_k,
        "normalized": normalized,
    }
    return emit(layer, inputs, [("Out", bboxes.dtype)], attrs, name=name, constant=True)[0]


def matrix_nms(
    bboxes: Any,
    scores: Any,
    score_threshold: float,
    post_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
    use_gaussian: bool = False,
    gaussian_sigma: float = 2.0,
    background_label: int = 0,
    normalized: bool = True,
    return_index: bool = False,
    name: str | None = None,
) -> Any:
    """Matrix suppression (SOLOv2, Wang et al., 2020): scores decay by overlap, none is dropped before `post_threshold`.

    Args:
        bboxes: [N, P, 4]; scores: [N, classes, P].

    Returns:
        sequence [found, 6] of label, score and corners; with `return_index` also [found, 1] indices.
    """
    layer = "matrix_nms"
    attrs = {
        "background_label": background_label,
        "score_threshold": score_threshold,
        "post_threshold": post_threshold,
        "nms_top_k": nms_top_k,
        "gaussian_sigma": gaussian_sigma,
        "use_gaussian": use_gaussian,
        "keep_top_k": keep_top_k,
        "normalized": normalized,
    }
    outputs = [("Out", bboxes.dtype if hasattr(bboxes, "dtype") else None), ("Index", "int64")]
    out, index = emit(layer, _checked(bboxes, scores, layer), outputs, attrs, name=name, constant=("Out",))
    return (out, index) if return_index else out


def retinanet_detection_output(
    bboxes: Any,
    scores: Any,
    anchors: Any,
    im_info: Any,
    score_threshold: float = 0.05,
    nms_top_k: int = 1000,
    keep_top_k: int = 100,
    nms_threshold: float = 0.3,
    nms_eta: float = 1.0,
) -> Any:
    """Detections of RetinaNet (arXiv:1708.02002) from all levels of its pyramid.

    Args:
        bboxes, scores, anchors: lists with one [N, P_l, 4], [N, P_l, classes] and [P_l, 4] for each level.
        im_info: [N, 3] of height, width, scale.

    Returns:
        sequence [found, 6] of label, score and corners.
    """
    layer = "retinanet_detection_output"
    inputs: dict[str, Any] = {
        "BBoxes": check_variables(bboxes, "bboxes", FLOATS, layer),
        "Scores": check_variables(scores, "scores", FLOATS, layer),
        "Anchors": check_variables(anchors, "anchors", FLOATS, layer),
        "ImInfo": im_info,
    }
    check_variable_and_dtype(im_info, "im_info", FLOATS, layer)
    attrs = {
        "score_threshold": score_threshold,
        "nms_top_k": nms_top_k,
        "nms_threshold": nms_threshold,
        "keep_top_k": keep_top_k,
        "nms_eta": nms_eta,
    }
    return emit(layer, inputs, [("Out", inputs["BBoxes"][0].dtype)], attrs, constant=True)[0]


def detection_map(
    detect_res: Any,
    label: Any,
    class_num: int,
    background_label: int = 0,
    overlap_threshold: float = 0.3,
    evaluate_difficult: bool = True,
    has_state: Any = None,
    input_states: Any = None,
    out_states: Any = None,
    ap_version: str = "integral",
) -> Any:
    """Mean average precision (PASCAL VOC) of one batch, or of all batches so far.

    Args:
        detect_res: sequence [found, 6] of label, score, corners.
        label: sequence [boxes, 6] of label, difficult, corners, or [boxes, 5] without the difficult flag.
        has_state: int32 [1], nonzero once the states hold earlier batches; input_states, out_states: the positives
            [classes, 1] int32, true and false positives [., 2] (score, flag) by class; three Variables each.
        ap_version: 'integral' or '11point'.

    Returns:
        [1], float32.
    """
    layer = "detection_map"
    check_variable(detect_res, "detect_res", layer)
    check_variable(label, "label", layer)
    check_choice(ap_version, "ap_version", ("integral", "11point"), layer)
    inputs = {"DetectRes": detect_res, "Label": label, "HasState": has_state}
    if input_states is not None:
        inputs |= dict(zip(("PosCount", "TruePos", "FalsePos"), input_states))
    helper = LayerHelper(layer)
    result = helper.create_variable_for_type_inference("float32")
    slots = ("AccumPosCount", "AccumTruePos", "AccumFalsePos")
    dtypes = ("int32", "float32", "float32")
    states = out_states if out_states is not None else [helper.create_variable_for_type_inference(d) for d in dtypes]
    helper.append_op(
        type=layer,
        inputs={slot: [value] for slot, value in inputs.items() if value is not None},
        outputs={"MAP": [result]} | {slot: [state] for slot, state in zip(slots, states)},
        attrs={
            "class_num": class_num,
            "background_label": background_label,
            "overlap_threshold": overlap_threshold,
            "evaluate_difficult": evaluate_difficult,
            "ap_type": ap_version,
        },
    )
    return result
