"""ops/tensor: gradients by differences, properties, errors, LoD and unknown dims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many_outputs import numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import ShapeError


def f64(*shape):
    return np.random.RandomState(1).permutation(int(np.prod(shape))).reshape(shape) / 7.0 - 0.9


I32 = np.int32

GRADIENTS = [
    ("assign", {"X": f64(2, 3)}, {}, {"Out": 1}),
    ("scale", {"X": f64(2, 3)}, {"scale": -2.0, "bias": 3.0, "bias_after_scale": False}, {"Out": 1}),
    ("sum", {"X": [f64(2, 3), f64(2, 3), f64(2, 3)]}, {}, {"Out": 1}),
    ("clip", {"X": f64(2, 3)}, {"min": -0.5, "max": 0.1}, {"Out": 1}),
    ("clip_by_norm", {"X": f64(2, 3)}, {"max_norm": 0.5}, {"Out": 1}),
    ("concat", {"X": [f64(2, 3), f64(2, 1)]}, {"axis": -1}, {"Out": 1}),
    ("split", {"X": f64(2, 6)}, {"axis": 1, "sections": [1, -1, 2]}, {"Out": 3}),
    ("split", {"X": f64(2, 6)}, {"axis": 1, "num": 3}, {"Out": 3}),
    ("stack", {"X": [f64(2, 3), f64(2, 3)]}, {"axis": 1}, {"Y": 1}),
    ("unstack", {"X": f64(2, 3)}, {"axis": 1, "num": 3}, {"Y": 3}),
    ("unbind", {"X": f64(2, 3)}, {"axis": 0}, {"Out": 2}),
    ("partial_concat", {"X": [f64(2, 4), f64(2, 4)]}, {"start_index": 1, "length": 2}, {"Out": 1}),
    ("partial_sum", {"X": [f64(2, 4), f64(2, 4)]}, {"start_index": -2, "length": -1}, {"Out": 1}),
    ("meshgrid", {"X": [f64(2), f64(3)]}, {}, {"Out": 2}),
    ("reshape2", {"X": f64(2, 6)}, {"shape": [0, 3, -1]}, {"Out": 1, "XShape": 1}),
    ("squeeze2", {"X": f64(2, 1, 3)}, {"axes": [-2]}, {"Out": 1, "XShape": 1}),
    ("unsqueeze2", {"X": f64(2, 3)}, {"axes": [0, -1]}, {"Out": 1, "XShape": 1}),
    ("flatten2", {"X": f64(2, 3, 2)}, {"axis": 2}, {"Out": 1, "XShape": 1}),
    ("transpose2", {"X": f64(2, 3, 4)}, {"axis": [2, 0, 1]}, {"Out": 1, "XShape": 1}),
    ("expand", {"X": f64(1, 2, 3)}, {"expand_times": [3, 1, 2]}, {"Out": 1}),
    ("expand", {"X": f64(1, 1, 3)}, {"expand_times": [2, 2, 1]}, {"Out": 1}),
    ("slice", {"Input": f64(4, 5)}, {"axes": [1, 0], "starts": [-3, 1], "ends": [9, 2], "decrease_axis": [0]}, {"Out": 1}),
    (
        "strided_slice",
        {"Input": f64(6, 5)},
        {"axes": [0, 1], "starts": [4, 0], "ends": [0, 5], "strides": [-2, 2], "infer_flags": [1, 1]},
        {"Out": 1},
    ),
    ("crop_tensor", {"X": f64(3, 4)}, {"offsets": [1, 0], "shape": [-1, 2]}, {"Out": 1}),
    ("pad", {"X": f64(2, 3)}, {"paddings": [0, 1, 2, 0], "pad_value": 1.0}, {"Out": 1}),
    ("pad2d", {"X": f64(1, 2, 3, 4)}, {"paddings": [1, 2, 2, 1], "mode": "reflect"}, {"Out": 1}),
    ("gather_nd", {"X": f64(3, 4), "Index": np.array([[1, 2], [1, 2], [0, 0]])}, {}, {"Out": 1}),
    ("index_select", {"X": f64(3, 4), "Index": np.array([1, 1, 3], I32)}, {"dim": 1}, {"Out": 1}),
    ("index_sample", {"X": f64(2, 4), "Index": np.array([[1, 1], [3, 0]])}, {}, {"Out": 1}),
    ("multiplex", {"Ids": np.array([[1], [0]], I32), "X": [f64(2, 3), f64(2, 3)]}, {}, {"Out": 1}),
    ("lookup_table_v2", {"W": f64(5, 3), "Ids": np.array([[1, 1], [4, 0]])}, {"padding_idx": 4}, {"Out": 1}),
    ("top_k", {"X": f64(2, 5)}, {"k": 3}, {"Out": 1, "Indices": 1}),
    ("argsort", {"X": f64(2, 5)}, {"axis": 0, "descending": True}, {"Out": 1, "Indices": 1}),
    ("roll", {"X": f64(2, 5)}, {"shifts": [2, 1], "dims": [1, 0]}, {"Out": 1}),
    ("reverse", {"X": f64(2, 5)}, {"axis": [1]}, {"Out": 1}),
    ("trace", {"Input": f64(2, 3, 3)}, {"dim1": 0, "dim2": 2, "offset": -1}, {"Out": 1}),
    ("tril_triu", {"X": f64(3, 3)}, {"lower": True, "diagonal": 1}, {"Out": 1}),
    ("pixel_shuffle", {"X": f64(1, 4, 2, 3)}, {"upscale_factor": 2}, {"Out": 1}),
    ("space_to_depth", {"X": f64(1, 8, 2, 2)}, {"blocksize": 2}, {"Out": 1}),
    ("temporal_shift", {"X": f64(4, 4, 1, 2)}, {"seg_num": 2, "shift_ratio": 0.25}, {"Out": 1}),
    ("label_smooth", {"X": f64(2, 3)}, {"epsilon": 0.2}, {"Out": 1}),
]


@pytest.mark.parametrize("row", GRADIENTS, ids=lambda r: r[0])
def test_gradient(row):
    type, inputs, attrs, outputs = row
    wrt = [
        f"{s}_{k}" for s, v in inputs.items() for k, a in enumerate(v if isinstance(v, list) else [v]) if a.dtype == float
    ]
    numeric_grad_check(type, inputs, attrs, outputs, wrt)


def test_scatter_sums_repeats_when_not_overwriting():
    x, updates = f64(3, 2), f64(2, 2)
    out = run_op("scatter", {"X": x, "Ids": np.array([1, 1]), "Updates": updates}, {"overwrite": False}, {"Out": 1})["Out"]
    want = x.copy()
    want[1] = updates.sum(0)
    np.testing.assert_allclose(np.asarray(out), want)


ERRORS = [
    ("reshape2", {"X": f64(2, 6)}, {"shape": [5, -1]}, {"Out": 1, "XShape": 1}, r"\[2, 6\] has 12 elements"),
    ("reshape2", {"X": f64(2, 6)}, {"shape": [-1, -1]}, {"Out": 1, "XShape": 1}, "only one -1"),
    ("concat", {"X": [f64(2, 3), f64(3, 3)]}, {"axis": 1}, {"Out": 1}, r"input 1 has \[3, 3\]"),
    ("split", {"X": f64(2, 5)}, {"axis": 1, "num": 2}, {"Out": 2}, "does not divide into 2"),
    ("split", {"X": f64(2, 5)}, {"axis": 1, "sections": [2, 2]}, {"Out": 2}, "do not add up"),
    ("stack", {"X": [f64(2), f64(3)]}, {"axis": 0}, {"Y": 1}, "must be equal"),
    ("transpose2", {"X": f64(2, 3)}, {"axis": [0, 2]}, {"Out": 1, "XShape": 1}, r"permutation of 0..1"),
    ("squeeze2", {"X": f64(2, 3)}, {"axes": [1]}, {"Out": 1, "XShape": 1}, "must be 1"),
    ("slice", {"Input": f64(3)}, {"axes": [0], "starts": [2], "ends": [1]}, {"Out": 1}, "is empty"),
    ("expand", {"X": f64(3, 2)}, {"expand_times": [2]}, {"Out": 1}, "one number a dimension"),
    ("lookup_table", {"W": f64(4, 2), "Ids": np.array([[1, 2]])}, {}, {"Out": 1}, "lookup_table_v2"),
    ("gather", {"X": f64(4, 2), "Index": f64(2)}, {}, {"Out": 1}, "received float64"),
    ("top_k", {"X": f64(2, 3)}, {"k": 4}, {"Out": 1, "Indices": 1}, "k is 4"),
    ("sum", {"X": [f64(2, 3), f64(3, 2)]}, {}, {"Out": 1}, "one shape"),
    ("where", {"Condition": np.ones((2,), bool), "X": f64(3), "Y": f64(2)}, {}, {"Out": 1}, "Condition's shape"),
    ("pixel_shuffle", {"X": f64(1, 3, 2, 2)}, {"upscale_factor": 2}, {"Out": 1}, "3 channels"),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda r: f"{r[0]}-{r[4][:12]}")
def test_wrong_shapes_fail_while_the_program_is_built(row):
    type, inputs, attrs, outputs, message = row
    with pytest.raises(ShapeError, match=message):
        run_op(type, inputs, attrs, outputs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_concat_on_rows_joins_lods(a, b):
    x, y = np.ones((sum(a), 2), "float32"), np.zeros((sum(b), 2), "float32")
    out = run_op("concat", {"X": [x, y]}, {"axis": 0}, {"Out": 1}, lods={"X_0": [a], "X_1": [b]})["Out"]
    assert out.recursive_sequence_lengths() == [a + b]
    assert np.asarray(out).sum() == x.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(-10, 10), st.integers(-10, 10), st.integers(1, 3))
def test_strided_slice_forwards_is_pythons(n, start, end, stride):
    x = np.arange(n, dtype="float32")
    if not len(x[start:end:stride]):
        return
    attrs = {"axes": [0], "starts": [start], "ends": [end], "strides": [stride], "infer_flags": [1]}
    out = run_op("strided_slice", {"Input": x}, attrs, {"Out": 1})["Out"]
    np.testing.assert_array_equal(np.asarray(out), x[start:end:stride])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.data())
def test_top_k_with_ties(numbers, data):
    k = data.draw(st.integers(1, len(numbers)))
    x = np.array([numbers], "float32")
    got = run_op("top_k", {"X": x}, {"k": k}, {"Out": 1, "Indices": 1})
    values, index = np.asarray(got["Out"]), np.asarray(got["Indices"])
    np.testing.assert_array_equal(values[0], np.sort(x[0])[::-1][:k])
    np.testing.assert_array_equal(x[0][index[0]], values[0])
    assert len(set(index[0].tolist())) == k


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_unique_keeps_the_order_of_first_appearance(numbers):
    x = np.array(numbers, "int64")
    got = run_op("unique_with_counts", {"X": x}, {"dtype": 3}, {"Out": 1, "Index": 1, "Count": 1})
    values, index, count = (np.asarray(got[s]) for s in ("Out", "Index", "Count"))
    assert values.tolist() == list(dict.fromkeys(numbers))
    np.testing.assert_array_equal(values[index], x)
    assert count.tolist() == [numbers.count(v) for v in values.tolist()]


@pytest.mark.parametrize(
    "type, attrs, slots, shape",
    [
        ("reshape2", {"shape": [0, 6]}, {"Out": 1, "XShape": 1}, (-1, 6)),
        ("reshape2", {"shape": [-1, 2]}, {"Out": 1, "XShape": 1}, (-1, 2)),
        ("unsqueeze2", {"axes": [1]}, {"Out": 1, "XShape": 1}, (-1, 1, 2, 3)),
        ("transpose2", {"axis": [1, 0, 2]}, {"Out": 1, "XShape": 1}, (2, -1, 3)),
        ("expand", {"expand_times": [2, 2, 1]}, {"Out": 1}, (-1, 4, 3)),
        ("pad", {"paddings": [1, 1, 1, 1, 0, 0]}, {"Out": 1}, (-1, 4, 3)),
    ],
)
def test_unknown_batch_stays_unknown(type, attrs, slots, shape):
    from many_outputs import build_op

    _, _, outs = build_op(type, {"X": np.ones((4, 2, 3), "float32")}, attrs, slots, shapes={"X_0": [-1, 2, 3]})
    assert outs["Out"][0].shape == shape


def test_sparse_lookup_gives_one_row_an_id():
    program = fluid.Program()
    block = program.global_block()
    w = block.create_var(name="w", shape=[5, 2], dtype="float32", persistable=True)
    ids = block.create_var(name="ids", shape=[-1, 1], dtype="int64", stop_gradient=True)
    out = block.create_var(name="out")
    block.append_op("lookup_table", {"W": w, "Ids": ids}, {"Out": out}, {"is_sparse": True, "padding_idx": 0})
    (grad,) = fluid.gradients([out], [w])
    scope = fluid.Scope()
    scope.var("w").get_tensor().set(np.ones((5, 2), "float32"), fluid.CPUPlace())
    (rows,) = fluid.Executor(fluid.CPUPlace()).run(
        program, feed={"ids": np.array([[3], [0], [3]])}, fetch_list=[grad], scope=scope, return_numpy=False
    )
    assert rows.rows() == [3, 0, 3] and rows.height() == 5
    assert np.asarray(rows.get_tensor()).shape == (3, 2)


def test_ids_outside_the_table_are_an_error():
    with pytest.raises(Exception, match="out of range"):
        run_op("lookup_table", {"W": np.ones((3, 2), "float32"), "Ids": np.array([[3]])}, {}, {"Out": 1})
    with pytest.raises(Exception, match=r"\[0, 3\)"):
        run_op("one_hot", {"X": np.array([[3]])}, {"depth": 3}, {"Out": 1})


def test_lod_reset():
    x = np.ones((4, 1), "float32")
    out = run_op("lod_reset", {"X": x}, {"target_lod": [0, 1, 4]}, {"Out": 1})["Out"]
    assert out.recursive_sequence_lengths() == [[1, 3]]
    with pytest.raises(Exception, match="X has 4 rows"):
        run_op("lod_reset", {"X": x}, {"target_lod": [0, 1, 3]}, {"Out": 1})


@pytest.mark.parametrize(
    "start, end, stride, want",
    [(4, 0, -2, [3, 1]), (5, 0, -2, [5, 3, 1]), (-1, -100, -4, [4, 0]), (100, -3, -1, [5, 4]), (-1, -7, -2, [4, 2, 0])],
)
def test_strided_slice_backwards_as_recorded(start, end, stride, want):
    """Recorded from 1.8.5: the walk is anchored at end + 1, not at start."""
    attrs = {"axes": [0], "starts": [start], "ends": [end], "strides": [stride], "infer_flags": [1]}
    out = run_op("strided_slice", {"Input": np.arange(6, dtype="float32")}, attrs, {"Out": 1})["Out"]
    assert np.asarray(out).tolist() == want


LOD_KEPT = [  # recorded from 1.8.5
    ("flip", {"dims": [1]}, True),
    ("reverse", {"axis": [1]}, False),
    ("roll", {"shifts": [1], "dims": [1]}, True),
    ("tril_triu", {"lower": True}, True),
    ("label_smooth", {"epsilon": 0.1}, True),
    ("pad", {"paddings": [0, 0, 1, 0]}, True),
    ("pad", {"paddings": [1, 0, 1, 0]}, False),
    ("expand", {"expand_times": [1, 2]}, True),
    ("expand", {"expand_times": [2, 1]}, False),
    ("crop", {"offsets": [0, 0], "shape": [3, 1]}, False),
    ("flatten", {"axis": 1}, True),
    ("transpose", {"axis": [0, 1]}, False),
]


@pytest.mark.parametrize("type, attrs, kept", LOD_KEPT)
def test_which_operators_keep_the_lod(type, attrs, kept):
    out = run_op(type, {"X": np.ones((3, 2), "float32")}, attrs, {"Out": 1}, lods={"X_0": [[1, 2]]})["Out"]
    assert out.recursive_sequence_lengths() == ([[1, 2]] if kept else [])
