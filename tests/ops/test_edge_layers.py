"""Batches of one and empty sequences where the golden cases have none: what 1.8.5 gives, and what it refuses but we take."""

import json
import os

import numpy as np
import pytest
from edge_layers import cases, run

import millstream.fluid as fluid

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "edge_layers.json")) as source:
    RECORDED = json.load(source)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_as_recorded(name):
    shape, lengths, values = run(fluid, *cases(fluid)[name])
    assert [shape, lengths] == RECORDED[name][:2]
    np.testing.assert_allclose(values, RECORDED[name][2], rtol=1e-5, atol=1e-6)


def test_an_image_without_boxes_is_clipped_to_nothing():
    """1.8.5 refuses an empty sequence here."""
    x = fluid.layers.data("x", [4], lod_level=1)
    info = fluid.layers.data("info", [3])
    feed = {
        "x": fluid.create_lod_tensor(np.array([[-5, -3, 40, 50]], "float32"), [[0, 1]], fluid.CPUPlace()),
        "info": np.array([[9, 9, 1], [20, 30, 1]], "float32"),
    }
    out = fluid.Executor().run(feed=feed, fetch_list=[fluid.layers.box_clip(x, info)], return_numpy=False)[0]
    assert np.array(out).tolist() == [[0, 0, 29, 19]] and out.recursive_sequence_lengths() == [[0, 1]]


def test_an_image_without_truth_matches_nothing():
    """1.8.5 refuses an empty sequence here."""
    distance = fluid.layers.data("x", [3], lod_level=1)
    x = fluid.create_lod_tensor(np.ones((2, 3), "float32"), [[2, 0]], fluid.CPUPlace())
    match = fluid.Executor().run(feed={"x": x}, fetch_list=[fluid.layers.bipartite_match(distance)[0]])[0]
    assert match.shape == (2, 3) and match[1].tolist() == [-1, -1, -1] and sorted(match[0].tolist()) == [-1, 0, 1]
