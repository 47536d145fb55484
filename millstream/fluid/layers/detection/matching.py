"""Boxes against boxes: overlap, coding, matching, and the loss of SSD."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    check_choice,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.fluid.layers._former import inserted
from millstream.fluid.layers.detection._emit import emit
from millstream.fluid.layers.loss import smooth_l1, softmax_with_cross_entropy
from millstream.fluid.layers.nn.manipulate import flatten, reshape, shape, slice
from millstream.fluid.layers.nn.reduce import reduce_sum
from millstream.fluid.layers.tensor import cast

__all__ = [
    "bipartite_match",
    "box_clip",
    "box_coder",
    "box_decoder_and_assign",
    "iou_similarity",
    "polygon_box_transform",
    "sigmoid_focal_loss",
    "ssd_loss",
    "target_assign",
]


@inserted(2, str, True)
def iou_similarity(x: Any, y: Any, box_normalized: bool = True, name: str | None = None) -> Any:
    """Intersection over union of every box of `x` [N, 4] (may be a sequence) with every box of `y` [M, 4]: [N, M].

    Args:
        box_normalized: False counts pixels, so widths and heights are one more than the difference of the corners.
    """
    layer = "iou_similarity"
    if isinstance(box_normalized, str) and name is None:  # form of 1.1: the third argument was the name
        box_normalized, name = True, box_normalized
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable(y, "y", layer)
    return emit(layer, {"X": x, "Y": y}, [("Out", x.dtype)], {"box_normalized": box_normalized}, name=name)[0]


def box_coder(
    prior_box: Any,
    prior_box_var: Any,
    target_box: Any,
    code_type: str = "encode_center_size",
    box_normalized: bool = True,
    name: str | None = None,
    axis: int = 0,
) -> Any:
    """Boxes as offsets from prior boxes ([M, 4]), or back (R-CNN's parametrisation).

    Args:
        prior_box_var: [M, 4], a list of 4 numbers, or None for ones.
        target_box: to encode, [N, 4] (gives [N, M, 4]); to decode, [N, M, 4] or [N, 4].
        axis: dimension of `target_box` that the priors go along when decoding is 1 - `axis`.
    """
    layer = "box_coder"
    check_variable_and_dtype(prior_box, "prior_box", FLOATS, layer)
    check_variable_and_dtype(target_box, "target_box", FLOATS, layer)
    check_choice(code_type, "code_type", ("encode_center_size", "decode_center_size"), layer)
    attrs: dict[str, Any] = {"code_type": code_type, "box_normalized": box_normalized, "axis": axis}
    inputs = {"PriorBox": prior_box, "TargetBox": target_box}
    if is_variable(prior_box_var):
        inputs["PriorBoxVar"] = prior_box_var
    elif isinstance(prior_box_var, (list, tuple)):
        if len(prior_box_var) != 4:
            refuse(layer, f"'prior_box_var' must have 4 numbers, received {list(prior_box_var)}")
        attrs["variance"] = [float(v) for v in prior_box_var]
    elif prior_box_var is not None:
        refuse_type(layer, f"'prior_box_var' must be a Variable, 4 numbers or None, received {prior_box_var!r}")
    return emit(layer, inputs, [("OutputBox", prior_box.dtype)], attrs, name=name)[0]


def box_clip(input: Any, im_info: Any, name: str | None = None) -> Any:
    """Boxes [..., 4] of each image, cut to the image: `im_info` [images, 3] holds height, width, scale."""
    check_variable_and_dtype(input, "input", FLOATS, "box_clip")
    check_variable_and_dtype(im_info, "im_info", FLOATS, "box_clip")
    return emit("box_clip", {"Input": input, "ImInfo": im_info}, [("Output", input.dtype)], name=name)[0]


def box_decoder_and_assign(
    prior_box: Any, prior_box_var: Any, target_box: Any, box_score: Any, box_clip: float, name: str | None = None
) -> tuple[Any, Any]:
    """Decode each class's offsets and pick the box of the best class that is not background (R-FCN).

    Args:
        prior_box: [N, 4]; prior_box_var: [4]; target_box: [N, classes * 4]; box_score: [N, classes].
        box_clip: greatest log of the change of size.

    Returns:
        decoded boxes [N, classes * 4] and assigned boxes [N, 4].
    """
    layer = "box_decoder_and_assign"
    for value, argument in ((prior_box, "prior_box"), (target_box, "target_box"), (box_score, "box_score")):
        check_variable_and_dtype(value, argument, FLOATS, layer)
    inputs = {"PriorBox": prior_box, "PriorBoxVar": prior_box_var, "TargetBox": target_box, "BoxScore": box_score}
    outputs = [("DecodeBox", prior_box.dtype), ("OutputAssignBox", prior_box.dtype)]
    decoded, assigned = emit(layer, inputs, outputs, {"box_clip": box_clip}, name=name)
    return decoded, assigned


def polygon_box_transform(input: Any, name: str | None = None) -> Any:
    """Offsets of polygon corners [N, 2k, H, W] to positions: 4 * column - x in even channels, 4 * row - y in odd (EAST)."""
    layer = "polygon_box_transform"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    return emit(layer, {"Input": input}, [("Output", input.dtype)], name=name)[0]


def bipartite_match(
    dist_matrix: Any, match_type: str | None = None, dist_threshold: float | None = None, name: str | None = None
) -> tuple[Any, Any]:
    """Match columns to rows greedily by greatest entry, each row once; rows of several images come as a sequence.

    Args:
        match_type: 'per_prediction' then also gives a free column the row of its greatest entry, if that is at least
            `dist_threshold` (0.5); 'bipartite' (None) does not.

    Returns:
        row of each column, -1 for none, int32 [images, columns]; and its entry, [images, columns].
    """
    layer = "bipartite_match"
    check_variable_and_dtype(dist_matrix, "dist_matrix", FLOATS, layer)
    if match_type is not None:
        check_choice(match_type, "match_type", ("bipartite", "per_prediction"), layer)
    attrs = {
        "match_type": "bipartite" if match_type is None else match_type,
        "dist_threshold": 0.5 if dist_threshold is None else dist_threshold,
    }
    outputs = [("ColToRowMatchIndices", "int32"), ("ColToRowMatchDist", dist_matrix.dtype)]
    indices, distance = emit(layer, {"DistMat": dist_matrix}, outputs, attrs, name=name)
    return indices, distance


def target_assign(
    input: Any, matched_indices: Any, negative_indices: Any = None, mismatch_value: Any = None, name: str | None = None
) -> tuple[Any, Any]:
    """Targets of each prediction by the rows matched to it.

    Args:
        input: sequence [rows, P, K]; matched_indices: int32 [images, P], -1 for none.
        negative_indices: sequence [., 1] of predictions to count with `mismatch_value`.
        mismatch_value: target where nothing matched (0).

    Returns:
        targets [images, P, K] and weights [images, P, 1], 1 where matched or negative, else 0.
    """
    layer = "target_assign"
    check_variable(input, "input", layer)
    check_variable_and_dtype(matched_indices, "matched_indices", ("int32",), layer)
    inputs = {"X": input, "MatchIndices": matched_indices, "NegIndices": negative_indices}
    outputs = [("Out", input.dtype), ("OutWeight", "float32")]
    attrs = {"mismatch_value": 0 if mismatch_value is None else mismatch_value}
    targets, weights = emit(layer, inputs, outputs, attrs, name=name)
    return targets, weights


def sigmoid_focal_loss(x: Any, label: Any, fg_num: Any, gamma: float = 2.0, alpha: float = 0.25) -> Any:
    """Focal loss (Lin et al., 2017, arXiv:1708.02002) of independent classes, divided by `fg_num`: [N, classes].

    Args:
        x: logits [N, classes]; label: int32 [N, 1], 0 for background, -1 to leave out; fg_num: int32 [1].
    """
    layer = "sigmoid_focal_loss"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable_and_dtype(label, "label", ("int32",), layer)
    check_variable_and_dtype(fg_num, "fg_num", ("int32",), layer)
    inputs = {"X": x, "Label": label, "FgNum": fg_num}
    return emit(layer, inputs, [("Out", x.dtype)], {"gamma": gamma, "alpha": alpha})[0]


def ssd_loss(
    location: Any,
    confidence: Any,
    gt_box: Any,
    gt_label: Any,
    prior_box: Any,
    prior_box_var: Any = None,
    background_label: int = 0,
    overlap_threshold: float = 0.5,
    neg_pos_ratio: float = 3.0,
    neg_overlap: float = 0.5,
    loc_loss_weight: float = 1.0,
    conf_loss_weight: float = 1.0,
    match_type: str = "per_prediction",
    mining_type: str = "max_negative",
    normalize: bool = True,
    sample_size: int | None = None,
) -> Any:
    """Loss of SSD (arXiv:1512.02325): smooth L1 of offsets plus cross entropy, the hardest negatives only.

    Args:
        location: predicted offsets [N, P, 4]; confidence: logits [N, P, classes].
        gt_box: sequence [boxes, 4]; gt_label: sequence [boxes, 1] of integers.
        prior_box, prior_box_var: [P, 4]; without variances the offsets are not scaled.
        neg_overlap: predictions below it may be negatives, `neg_pos_ratio` for each match.
        mining_type: only 'max_negative'; `sample_size` belongs to other ways of mining.
        normalize: divide by the number of matches.

    Returns:
        [N, 1] losses.

    Raises:
        ValueError: another mining type.
    """
    layer = "ssd_loss"
    for value, argument in (
        (location, "location"),
        (confidence, "confidence"),
        (gt_box, "gt_box"),
        (prior_box, "prior_box"),
    ):
        check_variable_and_dtype(value, argument, FLOATS, layer)
    check_variable_and_dtype(gt_label, "gt_label", INDICES, layer)
    if mining_type != "max_negative":
        refuse(layer, f"'mining_type' must be 'max_negative', received {mining_type!r}")
    batch_and_priors = shape(confidence)
    matched, overlap = bipartite_match(iou_similarity(x=gt_box, y=prior_box), match_type, overlap_threshold)
    gt_label = _fixed(reshape(x=gt_label, shape=(0, -1, 1)))
    target_label, _ = target_assign(gt_label, matched, mismatch_value=background_label)
    logits = flatten(x=confidence, axis=2)
    mined = _mine(
        logits, target_label, batch_and_priors, matched, overlap, (neg_pos_ratio, neg_overlap, mining_type, sample_size)
    )
    negatives, matched, dims = mined
    encoded = box_coder(prior_box=prior_box, prior_box_var=prior_box_var, target_box=gt_box)
    target_box, box_weight = target_assign(encoded, matched, mismatch_value=background_label)
    target_label, label_weight = target_assign(
        gt_label, matched, negative_indices=negatives, mismatch_value=background_label
    )
    target_label = _fixed(cast(x=flatten(x=target_label, axis=2), dtype="int64"))
    class_loss = softmax_with_cross_entropy(logits, target_label)
    class_loss = class_loss * _fixed(flatten(x=label_weight, axis=2))
    location = flatten(x=location, axis=2)
    box_loss = smooth_l1(location, _fixed(flatten(x=target_box, axis=2)))
    box_weight = _fixed(flatten(x=box_weight, axis=2))
    box_loss = box_loss * box_weight
    loss = conf_loss_weight * class_loss + loc_loss_weight * box_loss
    loss = reduce_sum(reshape(x=loss, shape=(-1, 0), actual_shape=dims), dim=1, keep_dim=True)
    if normalize:
        loss = loss / reduce_sum(box_weight)
    return loss


def _mine(
    logits: Any, target_label: Any, whole: Any, matched: Any, overlap: Any, rules: tuple[float, float, str, int | None]
) -> tuple[Any, Any, Any]:
    """The hardest negatives by the loss against the first targets; also the matches left, and [images, priors]."""
    neg_pos_ratio, neg_overlap, mining_type, sample_size = rules
    labels = _fixed(flatten(x=cast(x=target_label, dtype="int64"), axis=2))
    hardness = softmax_with_cross_entropy(logits, labels)
    dims = slice(whole, axes=[0], starts=[0], ends=[2])
    hardness = _fixed(reshape(x=hardness, shape=(-1, 0), actual_shape=dims))
    attrs = {
        "neg_pos_ratio": neg_pos_ratio,
        "neg_dist_threshold": neg_overlap,
        "mining_type": mining_type,
        "sample_size": 0 if sample_size is None else sample_size,
    }
    inputs = {"ClsLoss": hardness, "MatchIndices": matched, "MatchDist": overlap}
    outputs = [("NegIndices", "int32"), ("UpdatedMatchIndices", matched.dtype)]
    negatives, left = emit("ssd_loss", inputs, outputs, attrs, op_type="mine_hard_examples")
    return negatives, left, dims


def _fixed(var: Any) -> Any:
    var.stop_gradient = True
    return var
