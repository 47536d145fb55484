"""Slopes in float64 of operators that no golden case has: those that passes make, cudnn_lstm, sync_batch_norm."""

import numpy as np
import pytest
from one_op import numeric_grad_check


def f(*shape):
    return np.random.RandomState(sum(shape)).randn(*shape)


def _norm(**more):
    return {"X": f(3, 2, 2, 2), "Scale": f(2) + 2, "Bias": f(2), "Mean": np.zeros(2), "Variance": np.ones(2), **more}


STATISTICS = ("Y", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance")
LSTM = {"Input": f(3, 2, 2), "InitH": f(2, 2, 1), "InitC": f(2, 2, 1) / 2, "W": f(2 * (4 * 3 + 8))}
# name -> (operator, operands, attributes, outputs, what is differentiated)
FORMS = {
    "batch_norm_relu": ("batch_norm_relu", _norm(), {}, STATISTICS, ("X", "Scale", "Bias")),
    "batch_norm_relu (with a sum)": (
        "batch_norm_relu", _norm(Residual=f(3, 2, 2, 2) / 3), {}, STATISTICS, ("X", "Scale", "Bias", "Residual"),
    ),
    "batch_norm_relu (channels last)": (
        "batch_norm_relu", {**_norm(), "X": f(3, 2, 4, 2)}, {"data_layout": "NHWC"}, STATISTICS, ("X", "Scale", "Bias"),
    ),
    "batch_norm_relu (of at most a number)": ("batch_norm_relu", _norm(), {"most": 0.7}, STATISTICS, ("X", "Scale", "Bias")),
    "normed_conv2d": (
        "normed_conv2d", {"Input": f(2, 2, 3, 3), "Filter": f(2, 1, 3, 3)}, {"groups": 2, "paddings": [1, 1]}, ("Output",),
        ("Input", "Filter"),
    ),
    "normed_conv2d (of a normalised map)": (  # the gradient of Input is in parts: tests/ops/test_normed_conv.py
        "normed_conv2d",
        {"Input": f(2, 2, 3, 2), "NormScale": f(2), "NormBias": f(2), "NormMean": f(2) / 2, "NormInverse": f(2) + 2,
         "Filter": f(3, 2, 1, 1)},
        {"slope": 0.0, "most": 0.9}, ("Output",), ("NormScale", "NormBias", "Filter"),
    ),
    "sync_batch_norm": ("sync_batch_norm", _norm(), {}, STATISTICS, ("X", "Scale", "Bias")),
    "cudnn_lstm": (
        "cudnn_lstm", LSTM, {"hidden_size": 1, "input_size": 2, "is_bidirec": True}, ("Out", "last_h", "last_c"),
        tuple(LSTM),
    ),
    "softmax_cross_entropy": (
        "softmax_cross_entropy", {"X": f(3, 4), "Label": np.array([[1], [3], [0]])}, {}, ("Softmax", "Y"), ("X",),
    ),
    "bias_relu_pool": ("bias_relu_pool", {"X": f(2, 3, 5, 4), "Bias": f(3)}, {}, ("Out",), ("X", "Bias")),
    "dense_layer": (
        "dense_layer", {"X": f(3, 2, 2), "W": f(4, 3), "Bias": f(3)}, {"rows": 1, "activation": "tanh"}, ("Out",),
        ("X", "W", "Bias"),
    ),
    "dense_layer (without an activation)": (
        "dense_layer", {"X": f(2, 3, 4), "W": f(4, 3), "Bias": f(3)}, {"rows": 2}, ("Out",), ("X", "W", "Bias"),
    ),
    "attention_layer": (
        "attention_layer", {"Q": f(2, 2, 3, 2), "K": f(2, 2, 4, 2), "V": f(2, 2, 4, 3), "Mask": f(3, 4)}, {"scale": 0.7},
        ("Out", "Weights"), ("Q", "K", "V"),
    ),
    "mean_squared_error": ("mean_squared_error", {"X": f(3, 4), "Y": f(3, 4) / 2}, {}, ("Difference", "Out"), ("X", "Y")),
    "scaled_sum_relu": (
        "scaled_sum_relu", {"X": f(2, 3, 2, 3), "Scale": f(2, 3), "Residual": f(2, 3, 2, 3) / 3}, {"axis": 0}, ("Out",),
        ("X", "Scale", "Residual"),
    ),
    "rows_to_steps": ("rows_to_steps", {"X": f(6, 2), "Like": f(3, 2, 1)}, {}, ("Out",), ("X",)),
    "lookup_concat": (
        "lookup_concat", {"W": [f(5, 2)], "Ids": [np.array([[1], [4], [1]])], "X": [f(3, 2)]},
        {"tables": [0], "order": [0, -1], "sparse": [0]}, ("Out",), ("W", "X"),
    ),
}  # fmt: skip
SEQUENCES = {
    "lookup_pool_concat": (
        "lookup_pool_concat", {"W": [f(5, 2)], "Ids": [np.array([[1], [4], [1], [0]])], "X": [f(2, 2)]},
        {"tables": [0], "order": [0, -1], "sparse": [0]}, ("Out",), ("W", "X"),
    ),
}  # fmt: skip
FORMS |= SEQUENCES


@pytest.mark.parametrize("name", sorted(FORMS))
def test_gradient_is_the_slope(name):
    op, ins, attrs, outs, wrt = FORMS[name]
    of = next((name for name in ("Y", "Out") if name in outs), outs[0])
    lods = {"Ids": [[3, 1]]} if name in SEQUENCES else None
    numeric_grad_check(op, ins, attrs, outs, wrt=wrt, of=of, lods=lods)
