"""Sums that metrics of click-through models are made of."""

from __future__ import annotations

from typing import Any

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_variable, refuse

__all__ = ["ctr_metric_bundle"]


def ctr_metric_bundle(input: Any, label: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Running sums over all batches, persistable float32 [1] each, starting at 0.

    Args:
        input: predicted probabilities [batch, 1]; label: clicked or not, float32 [batch, 1].

    Returns:
        squared error, absolute error, sum of predictions, sum of their sigmoids, number of positives, number of samples.

    Raises:
        ValueError: shapes differ.
    """
    layer = "ctr_metric_bundle"
    check_variable(input, "input", layer)
    check_variable(label, "label", layer)
    if tuple(input.shape) != tuple(label.shape):
        refuse(layer, f"input and label must have one shape, received {input.describe()} and {label.describe()}")
    helper = LayerHelper(layer, input=input, label=label)
    absolute, squared, predicted, q, positives, samples = (
        helper.create_global_variable(persistable=True, dtype="float32", shape=[1]) for _ in range(6)
    )
    for total in (absolute, squared, predicted, q, positives, samples):
        total.stop_gradient = False
    batch = [input.shape[0], 1]
    error = helper.create_variable(dtype="float32", shape=batch)
    sigmoids = helper.create_variable(dtype="float32", shape=batch)
    ones = helper.create_variable(dtype="float32", shape=batch)
    of_predicted, of_absolute, of_squared, of_q, of_positives, of_samples = (
        helper.create_variable(dtype="float32", shape=[1]) for _ in range(6)
    )
    for var in (absolute, of_absolute, squared, of_squared, predicted, of_predicted, q, of_q):
        helper.set_variable_initializer(var, Constant(value=0.0, force_cpu=True))
    for var in (of_positives, of_samples, positives, samples):
        helper.set_variable_initializer(var, Constant(value=0.0, force_cpu=True))

    def add(op_type: str, source: Any, found: Any, total: Any) -> None:
        helper.append_op(type=op_type, inputs={"X": [source]}, outputs={"Out": [found]})
        helper.append_op(type="elementwise_add", inputs={"X": [found], "Y": [total]}, outputs={"Out": [total]})

    helper.append_op(type="elementwise_sub", inputs={"X": [input], "Y": [label]}, outputs={"Out": [error]})
    add("squared_l2_norm", error, of_squared, squared)
    add("l1_norm", error, of_absolute, absolute)
    add("reduce_sum", input, of_predicted, predicted)
    helper.append_op(type="sigmoid", inputs={"X": [input]}, outputs={"Out": [sigmoids]})
    add("reduce_sum", sigmoids, of_q, q)
    add("reduce_sum", label, of_positives, positives)
    helper.append_op(
        type="fill_constant_batch_size_like",
        inputs={"Input": label},
        outputs={"Out": [ones]},
        attrs={"shape": [-1, 1], "dtype": ones.dtype, "value": 1.0},
    )
    add("reduce_sum", ones, of_samples, samples)
    return squared, absolute, predicted, q, positives, samples
