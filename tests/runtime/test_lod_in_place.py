"""An operator that writes onto its own input: the tensor keeps its LoD unless the operator sets one, as in 1.8.5."""

import numpy as np
import pytest

import millstream.fluid as fluid

LENGTHS = [[1, 0, 3]]


def written(op, attrs, others=None, out="x"):
    """LoD of `out` after `op` has written there."""
    program = fluid.Program()
    block = program.global_block()
    x = block.create_var(name="x", shape=[-1, 3], dtype="float32", lod_level=1)
    block.create_var(name="y", dtype="float32")
    inputs, feed = {"X": x}, {"x": fluid.create_lod_tensor(np.ones((4, 3), "float32"), LENGTHS, fluid.CPUPlace())}
    for slot, value in (others or {}).items():
        inputs[slot] = block.create_var(name=slot, shape=value.shape, dtype=str(value.dtype))
        feed[slot] = value
    block.append_op(op, inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return fluid.Executor().run(program, feed=feed, fetch_list=[out], return_numpy=False)[0].recursive_sequence_lengths()


@pytest.mark.parametrize(
    "op, attrs, others",
    [
        ("reverse", {"axis": [1]}, None),
        ("gather", {}, {"Index": np.arange(4)}),
        ("reduce_sum", {"dim": [0], "keep_dim": True}, None),
    ],
)
def test_kept_where_the_operator_says_nothing(op, attrs, others):
    assert written(op, attrs, others) == LENGTHS
    assert written(op, attrs, others, out="y") == []


def test_replaced_where_it_speaks():
    assert written("scale", {"scale": 2.0}) == LENGTHS
    assert written("lod_reset", {"target_lod": [0, 4]}) == [[4]]


def test_axes_in_tensors_drop_the_lod():
    """As in 1.8.5, where axes in the attribute keep it."""
    for axes, lengths in ((1, LENGTHS), (np.array([1], "int32"), [])):
        program = fluid.Program()
        with fluid.program_guard(program, fluid.Program()):
            x = fluid.data("x", [None, 3], lod_level=1)
            out = fluid.layers.unsqueeze(x, axes if isinstance(axes, int) else fluid.layers.assign(axes))
        feed = {"x": fluid.create_lod_tensor(np.ones((4, 3), "float32"), LENGTHS, fluid.CPUPlace())}
        found = fluid.Executor().run(program, feed=feed, fetch_list=[out], return_numpy=False)[0]
        assert found.shape() == [4, 1, 3] and found.recursive_sequence_lengths() == lengths


def test_state_keeps_its_lod_from_run_to_run():
    x = fluid.layers.data("x", [2], lod_level=1)
    state = fluid.layers.create_global_var([2, 2], 0.0, "float32", persistable=True)
    before = fluid.layers.scale(state, 2.0)
    fluid.layers.assign(x, state)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    expected = []
    for lengths in ([2, 1], [1, 3], [3]):
        feed = {"x": fluid.create_lod_tensor(np.ones((sum(lengths), 2), "float32"), [lengths], fluid.CPUPlace())}
        (found,) = exe.run(feed=feed, fetch_list=[before], return_numpy=False)
        assert found.recursive_sequence_lengths() == expected
        expected = [lengths]
