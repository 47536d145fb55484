"""fuse_projected_gru."""

import numpy as np
import pytest
from pass_programs import compare, types

import millstream.fluid as fluid

RNG = np.random.RandomState(4)


def sequences(lengths, width, dtype="float32"):
    return fluid.create_lod_tensor(RNG.randn(sum(lengths), width).astype(dtype), [lengths], fluid.CPUPlace())


@pytest.mark.parametrize("lengths", [[5], [1], [3, 7, 2], [4] * 40])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("size", "origin", "start"), [(16, False, False), (64, True, True), (7, False, True)])
def test_results_stay(lengths, reverse, size, origin, start):
    def make():
        x = fluid.data("x", [None, 20], lod_level=1)
        first = fluid.data("h", [None, size]) if start else None
        bias = fluid.ParamAttr(initializer=fluid.initializer.Uniform(-1.0, 1.0))
        projection = fluid.layers.fc(x, 3 * size, bias_attr=bias)
        return [
            fluid.layers.dynamic_gru(projection, size, bias_attr=bias, is_reverse=reverse, h_0=first, origin_mode=origin)
        ]

    feed = {"x": sequences(lengths, 20)}
    if start:
        feed["h"] = RNG.randn(len(lengths), size).astype("float32")
    assert types(compare(make, feed, rtol=1e-5, atol=2e-6)) == ["projected_gru"]


def test_without_biases_other_activations_and_float64():
    for dtype in ("float32", "float64"):

        def make(dtype=dtype):
            x = fluid.data("x", [None, 20], dtype, lod_level=1)
            projection = fluid.layers.fc(x, 48)
            gates = {"gate_activation": "tanh", "candidate_activation": "relu"}
            return [fluid.layers.dynamic_gru(projection, 16, **gates)]

        assert types(compare(make, {"x": sequences([3, 4], 20, dtype)}, rtol=1e-5)) == ["projected_gru"]


def test_embedded_words():
    def make():
        words = fluid.data("w", [None, 1], "int64", lod_level=1)
        projection = fluid.layers.fc(fluid.layers.embedding(words, [50, 32]), 48)
        return [fluid.layers.dynamic_gru(projection, 16)]

    words = fluid.create_lod_tensor(RNG.randint(0, 50, (9, 1)), [[9]], fluid.CPUPlace())
    assert types(compare(make, {"w": words}, rtol=1e-5))[-1] == "projected_gru"


def test_training_keeps_gru():
    def make():
        x = fluid.data("x", [None, 20], lod_level=1)
        loss = fluid.layers.mean(fluid.layers.dynamic_gru(fluid.layers.fc(x, 48), 16))
        fluid.optimizer.Adam(0.01).minimize(loss)
        return [loss]

    assert "gru" in types(compare(make, {"x": sequences([3, 4], 20)}, steps=3, rtol=1e-4, atol=1e-5))
