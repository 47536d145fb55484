"""Fused operators against the operators they replace."""

from __future__ import annotations

import numpy as np
import pytest
from harness import numeric_grad_check, run_op

from millstream.errors import AttributeTypeError, NotSupportedError

RNG = np.random.RandomState(0)
LOD = [[3, 0, 2]]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_fusion_lstm(reverse, peepholes):
    x, wx, wh, b = RNG.randn(5, 3), RNG.randn(3, 8), RNG.randn(2, 8), RNG.randn(1, 14 if peepholes else 8)
    attrs = {"use_peepholes": peepholes, "is_reverse": reverse}
    outs = {"Hidden": 1, "Cell": 1}
    one = run_op("fusion_lstm", {"X": x, "WeightX": wx, "WeightH": wh, "Bias": b}, attrs, outs, {"X_0": LOD})
    two = run_op("lstm", {"Input": x @ wx, "Weight": wh, "Bias": b}, attrs, outs, {"Input_0": LOD})
    for slot in one:
        np.testing.assert_allclose(np.asarray(one[slot]), np.asarray(two[slot]), rtol=1e-9)


def test_fusion_gru_and_embedding_lstm():
    x, wx, wh, b = RNG.randn(5, 3), RNG.randn(3, 6), RNG.randn(2, 6), RNG.randn(1, 6)
    one = run_op("fusion_gru", {"X": x, "WeightX": wx, "WeightH": wh, "Bias": b}, {}, {"Hidden": 1}, {"X_0": LOD})
    two = run_op("gru", {"Input": x @ wx, "Weight": wh, "Bias": b}, {}, {"Hidden": 1}, {"Input_0": LOD})
    np.testing.assert_allclose(np.asarray(one["Hidden"]), np.asarray(two["Hidden"]), rtol=1e-9)
    table, wh, ids = RNG.randn(4, 8), RNG.randn(2, 8), np.array([[0], [3], [1], [1], [2]])
    bias = np.concatenate([np.zeros((1, 8)), RNG.randn(1, 6)], 1)
    inputs = {"Ids": ids, "Embeddings": table, "WeightH": wh, "Bias": bias}
    outs = {"Hidden": 1, "Cell": 1}
    one = run_op("fused_embedding_fc_lstm", inputs, {}, outs, {"Ids_0": LOD})
    two = run_op("lstm", {"Input": table[ids[:, 0]], "Weight": wh, "Bias": bias}, {}, outs, {"Input_0": LOD})
    np.testing.assert_allclose(np.asarray(one["Hidden"]), np.asarray(two["Hidden"]), rtol=1e-9)


@pytest.mark.parametrize(
    "functors", [["elementwise_add", "relu"], ["scale", "elementwise_mul"], ["tanh", "elementwise_add"]]
)
def test_fused_elemwise_activation_gradient(functors):
    inputs = {"X": RNG.randn(2, 3, 2), "Y": RNG.randn(3)}
    attrs = {"functor_list": functors, "axis": 1, "scale": 0.5}
    numeric_grad_check("fused_elemwise_activation", inputs, attrs, {"Out": 1, "IntermediateOut": 1}, ["X_0", "Y_0"], "Out")


def test_fused_embedding_seq_pool_gradient():
    inputs = {"W": RNG.randn(4, 2), "Ids": np.array([[1], [2], [0], [1], [3]])}
    attrs = {"combiner": "sum", "padding_idx": 2}
    numeric_grad_check("fused_embedding_seq_pool", inputs, attrs, {"Out": 1}, ["W_0"], lods={"Ids_0": LOD})
    out = np.asarray(run_op("fused_embedding_seq_pool", inputs, attrs, {"Out": 1}, {"Ids_0": LOD})["Out"])
    np.testing.assert_allclose(out[0], inputs["W"][1] + inputs["W"][0])
    assert (out[1] == 0).all()


def test_refusals():
    x = np.zeros((2, 3))
    with pytest.raises(AttributeTypeError, match="in either order, received"):
        run_op("fused_elemwise_activation", {"X": x, "Y": x}, {"functor_list": ["relu", "relu"]}, {"Out": 1})
    with pytest.raises(NotSupportedError, match="combiner must be 'sum'"):
        inputs = {"W": x, "Ids": np.array([[0]])}
        run_op("fused_embedding_seq_pool", inputs, {"combiner": "mean"}, {"Out": 1}, {"Ids_0": [[1]]})
