"""Metrics computed by the Program itself."""

from __future__ import annotations

from typing import Any

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import FLOATS, INDICES, check_choice, check_variable_and_dtype
from millstream.fluid.layers.nn.reduce import topk

__all__ = ["accuracy", "auc"]


def accuracy(input: Any, label: Any, k: int = 1, correct: Any = None, total: Any = None) -> Any:
    """The share of rows whose `label` [batch, 1] is among the `k` greatest of `input` [batch, classes]; shape [1].

    Args:
        correct, total: int32 Variables that receive the number of right rows and of rows.
    """
    check_variable_and_dtype(input, "input", FLOATS, "accuracy")
    check_variable_and_dtype(label, "label", INDICES, "accuracy")
    helper = LayerHelper("accuracy")
    values, indices = topk(input, k=k)
    out = helper.create_variable_for_type_inference("float32")
    if correct is None:
        correct = helper.create_variable_for_type_inference("int32")
    if total is None:
        total = helper.create_variable_for_type_inference("int32")
    helper.append_op(
        type="accuracy",
        inputs={"Out": [values], "Indices": [indices], "Label": [label]},
        outputs={"Accuracy": [out], "Correct": [correct], "Total": [total]},
        attrs={},
    )
    return out


def auc(
    input: Any, label: Any, curve: str = "ROC", num_thresholds: int = 4095, topk: int = 1, slide_steps: int = 1
) -> tuple[Any, Any, list[Any]]:
    """Area under the ROC or precision-recall curve of a two-class prediction [batch, 2].

    Args:
        num_thresholds: buckets of the histogram of scores.
        topk: only 1 has a meaning.
        slide_steps: batches that the second result covers; 0: all so far.

    Returns: (area over all batches so far, area over the last `slide_steps` batches, the four histograms).
    """
    layer = "auc"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(label, "label", INDICES, layer)
    check_choice(curve, "curve", ("ROC", "PR"), layer)
    check_choice(topk, "topk", (1,), layer)
    helper = LayerHelper(layer)
    total = helper.create_variable_for_type_inference("float64")
    batch = helper.create_variable_for_type_inference("float64")
    buckets = num_thresholds + 1
    # the sliding histograms: one a step, their sum, and the place of the next step
    sliding = [(1 + slide_steps) * buckets + 1]
    states = [
        helper.create_global_variable(persistable=True, dtype="int64", shape=shape)
        for shape in (sliding, sliding, [1, buckets], [1, buckets])
    ]
    for state in states:
        state.stop_gradient = False
        helper.set_variable_initializer(state, Constant(value=0.0, force_cpu=False))
    for out, pos, neg, steps in ((batch, states[0], states[1], slide_steps), (total, states[2], states[3], 0)):
        helper.append_op(
            type="auc",
            inputs={"Predict": [input], "Label": [label], "StatPos": [pos], "StatNeg": [neg]},
            outputs={"AUC": [out], "StatPosOut": [pos], "StatNegOut": [neg]},
            attrs={"curve": curve, "num_thresholds": num_thresholds, "slide_steps": steps},
        )
    return total, batch, states
