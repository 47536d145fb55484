"""Losses. Each gives one value a row (or an element), to be averaged by ``mean``."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    NUMBERS,
    check_choice,
    check_type,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
)
from millstream.fluid.layers._former import inserted
from millstream.fluid.layers.compare import equal
from millstream.fluid.layers.nn.dense import matmul
from millstream.fluid.layers.nn.manipulate import expand, one_hot, reshape, transpose
from millstream.fluid.layers.nn.reduce import reduce_mean, reduce_sum
from millstream.fluid.layers.ops import square
from millstream.fluid.layers.sampled_loss import hsigmoid, nce, sampled_softmax_with_cross_entropy

__all__ = [
    "bpr_loss",
    "center_loss",
    "cross_entropy",
    "dice_loss",
    "hsigmoid",
    "huber_loss",
    "kldiv_loss",
    "label_smooth",
    "log_loss",
    "margin_rank_loss",
    "mse_loss",
    "nce",
    "npair_loss",
    "rank_loss",
    "sampled_softmax_with_cross_entropy",
    "sigmoid_cross_entropy_with_logits",
    "smooth_l1",
    "softmax_with_cross_entropy",
    "square_error_cost",
    "teacher_student_sigmoid_loss",
]


def cross_entropy(input: Any, label: Any, soft_label: bool = False, ignore_index: int = -100) -> Any:
    """-log of the probability of the right class: [..., 1] from probabilities [..., classes].

    Args:
        label: int64 [..., 1] or [...]; with `soft_label` a distribution like `input`.
        ignore_index: rows with this label cost 0 (hard labels only).
    """
    check_variable_and_dtype(input, "input", FLOATS, "cross_entropy")
    check_variable(label, "label", "cross_entropy")
    if not soft_label:
        return cross_entropy2(input, label, ignore_index)
    attrs = {"soft_label": soft_label, "ignore_index": ignore_index}
    inputs = {"X": [input], "Label": [label]}
    return append("cross_entropy", "cross_entropy", inputs, attrs, dtype=input.dtype, slot="Y")


def cross_entropy2(input: Any, label: Any, ignore_index: int = -100) -> Any:
    """:func:`cross_entropy` of hard labels, keeping the matched probabilities for the gradient."""
    helper = LayerHelper("cross_entropy2")
    out, xshape, match = (helper.create_variable_for_type_inference(input.dtype) for _ in range(3))
    helper.append_op(
        type="cross_entropy2",
        inputs={"X": [input], "Label": [label]},
        outputs={"Y": [out], "MatchX": [match], "XShape": [xshape]},
        attrs={"ignore_index": ignore_index},
    )
    return out


def softmax_with_cross_entropy(
    logits: Any,
    label: Any,
    soft_label: bool = False,
    ignore_index: int = -100,
    numeric_stable_mode: bool = True,
    return_softmax: bool = False,
    axis: int = -1,
) -> Any:
    """cross_entropy of softmax(logits) along `axis`, computed together; with `return_softmax` (loss, softmax).

    `numeric_stable_mode` has no meaning: the stable form is always used.
    """
    layer = "softmax_with_cross_entropy"
    check_variable_and_dtype(logits, "logits", FLOATS, layer)
    check_variable(label, "label", layer)
    helper = LayerHelper(layer)
    probabilities = helper.create_variable_for_type_inference(logits.dtype)
    loss = helper.create_variable_for_type_inference(logits.dtype)
    helper.append_op(
        type=layer,
        inputs={"Logits": logits, "Label": label},
        outputs={"Softmax": probabilities, "Loss": loss},
        attrs={
            "soft_label": soft_label,
            "ignore_index": ignore_index,
            "numeric_stable_mode": numeric_stable_mode,
            "axis": axis,
        },
    )
    return (loss, probabilities) if return_softmax else loss


@inserted(2, str, -100)
def sigmoid_cross_entropy_with_logits(
    x: Any, label: Any, ignore_index: Any = -100, name: str | None = None, normalize: bool = False
) -> Any:
    """-label * log(sigmoid(x)) - (1 - label) * log(1 - sigmoid(x)), element by element.

    Args:
        ignore_index: elements with this label cost 0. A str here is `name`, as in 1.1.
        normalize: divide by the number of elements that count.
    """
    if isinstance(ignore_index, str):
        ignore_index, name = -100, ignore_index
    layer = "sigmoid_cross_entropy_with_logits"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable(label, "label", layer)
    attrs = {"ignore_index": ignore_index, "normalize": normalize}
    return append(layer, layer, {"X": x, "Label": label}, attrs, dtype=x.dtype, name=name)


def square_error_cost(input: Any, label: Any) -> Any:
    """(input - label) ** 2, element by element."""
    check_variable_and_dtype(input, "input", FLOATS, "square_error_cost")
    check_variable_and_dtype(label, "label", FLOATS, "square_error_cost")
    helper = LayerHelper("square_error_cost")
    difference = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="elementwise_sub", inputs={"X": [input], "Y": [label]}, outputs={"Out": [difference]}, attrs={"axis": -1}
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type="square", inputs={"X": [difference]}, outputs={"Out": [out]}, attrs={})
    return out


def mse_loss(input: Any, label: Any) -> Any:
    """The mean of (input - label) ** 2, shape [1]."""
    check_variable_and_dtype(input, "input", FLOATS, "mse_loss")
    check_variable_and_dtype(label, "label", FLOATS, "mse_loss")
    return reduce_mean(square_error_cost(input, label))


def smooth_l1(x: Any, y: Any, inside_weight: Any = None, outside_weight: Any = None, sigma: float | None = None) -> Any:
    """[batch, 1]: with d = inside_weight * (x - y), the sum over a row of
    outside_weight * (0.5 * (sigma * d) ** 2 where |d| < 1 / sigma ** 2, else |d| - 0.5 / sigma ** 2)."""
    check_variable_and_dtype(x, "x", FLOATS, "smooth_l1_loss")
    check_variable_and_dtype(y, "y", FLOATS, "smooth_l1_loss")
    helper = LayerHelper("smooth_l1_loss")
    difference = helper.create_variable_for_type_inference(x.dtype)
    loss = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(
        type="smooth_l1_loss",
        inputs={"X": x, "Y": y, "InsideWeight": inside_weight, "OutsideWeight": outside_weight},
        outputs={"Diff": difference, "Out": loss},
        attrs={"sigma": 1.0 if sigma is None else sigma},
    )
    return loss


def huber_loss(input: Any, label: Any, delta: float) -> Any:
    """With d = |label - input|: d * d / 2 where d <= delta, else delta * (d - delta / 2)."""
    check_variable_and_dtype(input, "input", FLOATS, "huber_loss")
    check_variable_and_dtype(label, "label", FLOATS, "huber_loss")
    helper = LayerHelper("huber_loss")
    residual = helper.create_variable_for_type_inference(input.dtype)
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="huber_loss",
        inputs={"X": input, "Y": label},
        outputs={"Out": out, "Residual": residual},
        attrs={"delta": float(delta)},
    )
    return out


def log_loss(input: Any, label: Any, epsilon: float = 1e-4, name: str | None = None) -> Any:
    """-label * log(input + epsilon) - (1 - label) * log(1 - input + epsilon) of probabilities [batch, 1]."""
    check_variable_and_dtype(input, "input", FLOATS, "log_loss")
    check_variable_and_dtype(label, "label", FLOATS, "log_loss")
    inputs = {"Predicted": [input], "Labels": [label]}
    return append("log_loss", "log_loss", inputs, {"epsilon": epsilon}, dtype=input.dtype, slot="Loss", name=name)


def kldiv_loss(x: Any, target: Any, reduction: str = "mean", name: str | None = None) -> Any:
    """target * (log(target) - x), where x holds log-probabilities.

    Args:
        reduction: "none", "batchmean" (sum / batch), "mean" or "sum".
    """
    check_variable_and_dtype(x, "x", FLOATS, "kldiv_loss")
    check_variable_and_dtype(target, "target", FLOATS, "kldiv_loss")
    check_choice(reduction, "reduction", ("mean", "sum", "batchmean", "none"), "kldiv_loss")
    inputs = {"X": x, "Target": target}
    return append("kldiv_loss", "kldiv_loss", inputs, {"reduction": reduction}, dtype=x.dtype, slot="Loss", name=name)


def rank_loss(label: Any, left: Any, right: Any, name: str | None = None) -> Any:
    """RankNet (Burges et al., 2005): log(1 + exp(o)) - label * o with o = left - right; all [batch, 1]."""
    for value, argument in ((label, "label"), (left, "left"), (right, "right")):
        check_variable_and_dtype(value, argument, FLOATS, "rank_loss")
    inputs = {"Label": label, "Left": left, "Right": right}
    return append("rank_loss", "rank_loss", inputs, dtype=left.dtype, name=name)


def margin_rank_loss(label: Any, left: Any, right: Any, margin: float = 0.1, name: str | None = None) -> Any:
    """max(0, -label * (left - right) + margin); `label` is 1 or -1; all [batch, 1]."""
    for value, argument in ((label, "label"), (left, "left"), (right, "right")):
        check_variable_and_dtype(value, argument, FLOATS, "margin_rank_loss")
    helper = LayerHelper("margin_rank_loss", name=name)
    out = helper.create_variable_for_type_inference(left.dtype)
    active = helper.create_variable_for_type_inference(left.dtype)
    helper.append_op(
        type="margin_rank_loss",
        inputs={"Label": label, "X1": left, "X2": right},
        outputs={"Out": out, "Activated": active},
        attrs={"margin": margin},
    )
    return out


def bpr_loss(input: Any, label: Any, name: str | None = None) -> Any:
    """Bayesian personalised ranking (Hidasi et al., 2015, arXiv:1511.06939): [batch, 1], the mean over the other items j
    of -log(sigmoid(input[label] - input[j]))."""
    check_variable_and_dtype(input, "input", FLOATS, "bpr_loss")
    check_variable_and_dtype(label, "label", INDICES, "bpr_loss")
    return append("bpr_loss", "bpr_loss", {"X": [input], "Label": [label]}, dtype=input.dtype, slot="Y", name=name)


def teacher_student_sigmoid_loss(
    input: Any, label: Any, soft_max_up_bound: float = 15.0, soft_max_lower_bound: float = -15.0
) -> Any:
    """Sigmoid cross entropy of a click, plus that of a teacher's score where there is one; [batch, 1].

    Args:
        label: -2: no click, no score; -1: click, no score; [0, 1): score, no click; [1, 2]: 1 + score, click.
        soft_max_up_bound, soft_max_lower_bound: `input` is clipped to these in the gradient.
    """
    layer = "teacher_student_sigmoid_loss"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(label, "label", (*FLOATS, *INDICES), layer)
    helper = LayerHelper(layer)
    out = helper.create_variable(dtype=input.dtype)
    helper.append_op(
        type=layer,
        inputs={"X": [input], "Label": [label]},
        outputs={"Y": [out]},
        attrs={"soft_max_lower_bound": float(soft_max_lower_bound), "soft_max_up_bound": float(soft_max_up_bound)},
    )
    return out


def center_loss(input: Any, label: Any, num_classes: int, alpha: Any, param_attr: Any, update_center: bool = True) -> Any:
    """Center loss (Wen et al., 2016): half the squared distance of each row to the center of its class, [batch, 1].

    Args:
        alpha: rate at which centers move; a number or a Variable of shape [1].
        param_attr: of the centers [num_classes, features].
        update_center: whether they move.
    """
    layer = "center_loss"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(label, "label", INDICES, layer)
    helper = LayerHelper(layer, param_attr=param_attr)
    centers: Any = helper.create_parameter(attr=helper.param_attr, shape=[num_classes, input.shape[1]], dtype=input.dtype)
    centers.stop_gradient = True
    if not is_variable(alpha):
        check_type(alpha, "alpha", (int, float), layer)
        rate = helper.create_variable(
            name="centerloss_alpha", shape=[1], dtype="float32", persistable=True, stop_gradient=True
        )
        helper.append_op(
            type="fill_constant",
            inputs={},
            outputs={"Out": [rate]},
            attrs={"shape": [1], "dtype": rate.dtype, "value": float(alpha)},
        )
        alpha = rate
    difference = helper.create_variable_for_type_inference(input.dtype)
    loss = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=layer,
        inputs={"X": [input], "Label": [label], "Centers": [centers], "CenterUpdateRate": [alpha]},
        outputs={"SampleCenterDiff": [difference], "Loss": [loss], "CentersOut": [centers]},
        attrs={"cluster_num": num_classes, "need_update": update_center},
    )
    return loss


def npair_loss(anchor: Any, positive: Any, labels: Any, l2_reg: float = 0.002) -> Any:
    """N-pair loss (Sohn, 2016): cross entropy of anchor @ positive^T against equal labels, plus an L2 term; shape [1].

    Args:
        anchor, positive: [batch, features], the batch known.
        labels: [batch].
    """
    for value, argument in ((anchor, "anchor"), (positive, "positive")):
        check_variable_and_dtype(value, argument, FLOATS, "npair_loss")
    check_variable_and_dtype(labels, "labels", NUMBERS, "npair_loss")
    batch = labels.shape[0]
    if batch < 0:
        refuse("npair_loss", f"the batch size must be known, received {labels.describe()}")
    labels = expand(reshape(labels, shape=[batch, 1], inplace=True), expand_times=[1, batch])
    same = equal(labels, transpose(labels, perm=[1, 0])).astype("float32")
    same = same / reduce_sum(same, dim=1, keep_dim=True)
    l2 = reduce_mean(reduce_sum(square(anchor), 1)) + reduce_mean(reduce_sum(square(positive), 1))
    l2 = l2 * 0.25 * l2_reg
    similarity = matmul(anchor, positive, transpose_x=False, transpose_y=True)
    entropy = softmax_with_cross_entropy(logits=similarity, label=same, soft_label=True)
    return l2 + reduce_mean(reduce_sum(same * entropy, 0))


def dice_loss(input: Any, label: Any, epsilon: float = 1e-5, name: str | None = None) -> Any:
    """1 - 2 * |input and label| / (|input| + |label|) averaged over the batch; shape [1].

    Args:
        input: probabilities [batch, ..., classes].
        label: int [batch, ..., 1].
    """
    check_variable_and_dtype(input, "input", FLOATS, "dice_loss")
    label = one_hot(label, depth=input.shape[-1])
    dims = list(range(1, len(input.shape)))
    both = reduce_sum(input * label, dim=dims)
    each = reduce_sum(input, dim=dims) + reduce_sum(label, dim=dims)
    score = 1 - both * 2 / (each + epsilon)
    return reduce_mean(score)


def label_smooth(
    label: Any, prior_dist: Any = None, epsilon: float = 0.1, dtype: Any = "float32", name: str | None = None
) -> Any:
    """(1 - epsilon) * label + epsilon * prior (Szegedy et al., 2015); the prior is uniform unless `prior_dist` is given."""
    if not 0.0 <= epsilon <= 1.0:
        refuse("label_smooth", f"'epsilon' must be between 0 and 1, received {epsilon}")
    check_variable_and_dtype(label, "label", FLOATS, "label_smooth")
    label.stop_gradient = True
    inputs = {"X": label, "PriorDist": prior_dist}
    return append("label_smooth", "label_smooth", inputs, {"epsilon": float(epsilon)}, dtype=dtype, name=name)
