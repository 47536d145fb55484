"""Cells and decoders give what Fluid 1.8.5 gives, step by step."""

import json
import os

import decode_cases
import numpy as np
import pytest

import millstream.fluid as fluid

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded", "decoding.json")) as source:
    RECORDED = json.load(source)


@pytest.mark.parametrize("name", sorted(decode_cases.CASES))
def test_values(name):
    build, steps = decode_cases.CASES[name]
    for want, got in zip(RECORDED[name], decode_cases.run(fluid, build, steps)):
        assert len(want) == len(got)
        for a, b in zip(want, got):
            assert np.shape(a) == np.shape(b)
            np.testing.assert_allclose(b, a, atol=2e-5)


def test_an_unknown_state_is_refused():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        state = fluid.contrib.InitState(init=fluid.data("boot", [None, 4]))
        with pytest.raises(ValueError, match="none of the states"):
            fluid.contrib.StateCell(inputs={"x": None}, states={"h": state}, out_state="c")


def test_gpu_only_operator_says_so():
    with pytest.raises(NotImplementedError, match="GPUs only"):
        fluid.contrib.layers.rank_attention(None, None, [36, 3], None)


def test_channels_of_proposals_are_checked():
    with fluid.program_guard(fluid.Program(), fluid.Program()), pytest.raises(ValueError, match="4 channels"):
        fluid.layers.generate_proposals(
            fluid.data("s", [1, 2, 8, 8]),
            fluid.data("d", [1, 4, 8, 8]),
            fluid.data("i", [1, 3]),
            fluid.data("a", [8, 8, 2, 4]),
            fluid.data("v", [8, 8, 2, 4]),
        )
