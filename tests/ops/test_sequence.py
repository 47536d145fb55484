"""Sequence operators: definitions in numpy, gradients by differences, empty sequences, errors."""

from __future__ import annotations

import numpy as np
import pytest
from harness import build_op, numeric_grad_check, run_op
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError

lengths_strategy = st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(lambda v: sum(v) > 0)
LENGTHS = [[2, 3], [0, 3, 0, 2], [1]]
POOLS = {
    "SUM": lambda v: v.sum(0),
    "AVERAGE": lambda v: v.mean(0),
    "SQRT": lambda v: v.sum(0) / np.sqrt(len(v)),
    "MAX": lambda v: v.max(0),
    "LAST": lambda v: v[-1],
    "FIRST": lambda v: v[0],
}


def parts(x, lengths):
    return np.split(x, np.cumsum(lengths)[:-1])


@settings(max_examples=30, deadline=None)
@given(lengths_strategy, st.sampled_from(sorted(POOLS)), st.integers(1, 4))
def test_pool(lengths, kind, width):
    x = np.random.RandomState(0).randn(sum(lengths), width)
    found = run_op("sequence_pool", {"X": x}, {"pooltype": kind, "pad_value": 7.5}, {"Out": 1}, {"X_0": [lengths]})["Out"]
    expected = [POOLS[kind](p) if len(p) else np.full(width, 7.5) for p in parts(x, lengths)]
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9)
    assert found.recursive_sequence_lengths() == []


@pytest.mark.parametrize("kind", sorted(POOLS))
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pool_gradient(kind, lengths):
    x = np.random.RandomState(1).randn(sum(lengths), 2, 2)
    numeric_grad_check(
        "sequence_pool", {"X": x}, {"pooltype": kind}, {"Out": 1, "MaxIndex": 1}, ["X_0"], "Out", {"X_0": [lengths]}
    )


def test_pool_pools_the_last_of_two_levels():
    x = np.arange(7.0).reshape(7, 1)
    found = run_op("sequence_pool", {"X": x}, {"pooltype": "SUM"}, {"Out": 1}, {"X_0": [[2, 1], [3, 2, 2]]})["Out"]
    assert np.asarray(found).ravel().tolist() == [3, 7, 11]
    assert found.recursive_sequence_lengths() == [[2, 1]]


@pytest.mark.parametrize(
    ("type", "attrs", "shape", "lengths"),
    [
        ("sequence_softmax", {}, (5, 1), [[2, 0, 3]]),
        ("sequence_reshape", {"new_dim": 2}, (5, 4), [[2, 3]]),
    ],
)
def test_one_input_gradients(type, attrs, shape, lengths):
    x = np.random.RandomState(2).randn(*shape)
    numeric_grad_check(type, {"X": x}, attrs, {"Out": 1}, ["X_0"], lods={"X_0": lengths})


def test_reverse_gradient_and_involution():
    x = np.random.RandomState(2).randn(6, 2)
    lod = {"X_0": [[3, 0, 1, 2]]}
    numeric_grad_check("sequence_reverse", {"X": x}, {}, {"Y": 1}, ["X_0"], lods=lod)
    once = np.asarray(run_op("sequence_reverse", {"X": x}, {}, {"Y": 1}, lod)["Y"])
    np.testing.assert_array_equal(once[:3], x[2::-1])
    np.testing.assert_array_equal(np.asarray(run_op("sequence_reverse", {"X": once}, {}, {"Y": 1}, lod)["Y"]), x)


@pytest.mark.parametrize(
    ("x_lod", "rows"), [(None, 3), ([[2, 1, 2]], 5), ([[0, 3, 1]], 4)], ids=["rows", "sequences", "an empty one"]
)
def test_expand_gradient(x_lod, rows):
    rng = np.random.RandomState(3)
    inputs = {"X": rng.randn(rows, 2), "Y": rng.randn(5, 1)}
    lods = {"Y_0": [[2, 0, 3]], **({"X_0": x_lod} if x_lod else {})}
    numeric_grad_check("sequence_expand", inputs, {"ref_level": 0}, {"Out": 1}, ["X_0"], lods=lods)


def test_expand_as_gradient():
    rng = np.random.RandomState(4)
    inputs = {"X": rng.randn(3, 2), "Y": rng.randn(5, 1)}
    numeric_grad_check("sequence_expand_as", inputs, {}, {"Out": 1}, ["X_0"], lods={"Y_0": [[2, 0, 3]]})


@pytest.mark.parametrize(("start", "length"), [(-1, 3), (0, 2), (-4, 3), (1, 2), (-2, 5)])
@pytest.mark.parametrize("trainable", [False, True])
def test_conv_gradient(start, length, trainable):
    rng = np.random.RandomState(5)
    rows = max(0, -start) + max(0, start + length - 1)
    inputs = {"X": rng.randn(6, 2), "Filter": rng.randn(2 * length, 3)}
    if trainable:
        inputs["PaddingData"] = rng.randn(rows, 2)
    attrs = {"contextStart": start, "contextLength": length, "contextStride": 1, "paddingTrainable": trainable}
    if start == -4:  # the window lies wholly before the row: such padding has no counterpart in a short sequence
        lengths = [[4, 2]]
    else:
        lengths = [[1, 0, 3, 2]]
    numeric_grad_check("sequence_conv", inputs, attrs, {"Out": 1}, [f"{k}_0" for k in inputs], lods={"X_0": lengths})


def test_concat_gradient_and_slice():
    rng = np.random.RandomState(6)
    lods = {"X_0": [[2, 0, 3]], "X_1": [[1, 2, 0]]}
    xs = [rng.randn(5, 2), rng.randn(3, 2)]
    numeric_grad_check("sequence_concat", {"X": xs}, {}, {"Out": 1}, ["X_0", "X_1"], lods=lods)
    joined = run_op("sequence_concat", {"X": xs}, {}, {"Out": 1}, lods)["Out"]
    assert joined.recursive_sequence_lengths() == [[3, 2, 3]]
    cut = {"X": np.asarray(joined), "Offset": np.array([[0], [0], [0]]), "Length": np.array([[2], [0], [3]])}
    back = run_op("sequence_slice", cut, {}, {"Out": 1}, {"X_0": [[3, 2, 3]]})["Out"]
    np.testing.assert_array_equal(np.asarray(back), xs[0])
    numeric_grad_check("sequence_slice", cut, {}, {"Out": 1}, ["X_0"], lods={"X_0": [[3, 2, 3]]})


@settings(max_examples=20, deadline=None)
@given(lengths_strategy)
def test_pad_then_unpad_is_the_same(lengths):
    x = np.random.RandomState(7).randn(sum(lengths), 3)
    inputs = {"X": x, "PadValue": np.array([1.0, 2.0, 3.0])}
    found = run_op("sequence_pad", inputs, {}, {"Out": 1, "Length": 1}, {"X_0": [lengths]})
    padded, sizes = np.asarray(found["Out"]), np.asarray(found["Length"])
    assert sizes.tolist() == lengths
    for row, n in zip(padded, lengths):
        np.testing.assert_array_equal(row[n:], np.tile([1.0, 2.0, 3.0], (max(lengths) - n, 1)))
    back = run_op("sequence_unpad", {"X": padded, "Length": sizes}, {}, {"Out": 1})["Out"]
    np.testing.assert_array_equal(np.asarray(back), x)
    assert back.recursive_sequence_lengths() == [lengths]


def test_pad_and_unpad_gradients():
    rng = np.random.RandomState(8)
    inputs = {"X": rng.randn(5, 2), "PadValue": np.zeros(1)}
    attrs = {"padded_length": 4}
    numeric_grad_check("sequence_pad", inputs, attrs, {"Out": 1, "Length": 1}, ["X_0"], "Out", {"X_0": [[3, 0, 2]]})
    numeric_grad_check("sequence_unpad", {"X": rng.randn(2, 3, 2), "Length": np.array([3, 1])}, {}, {"Out": 1}, ["X_0"])


def test_scatter_and_topk_gradients():
    rng = np.random.RandomState(9)
    inputs = {"X": rng.randn(2, 4), "Ids": np.array([[1], [1], [3], [0]]), "Updates": rng.randn(4, 1)}
    lods = {"Ids_0": [[3, 1]], "Updates_0": [[3, 1]]}
    numeric_grad_check("sequence_scatter", inputs, {}, {"Out": 1}, ["X_0", "Updates_0"], lods=lods)
    inputs = {"X": rng.randn(2 * (6 + 4), 1), "ROW": rng.randn(4, 1), "COLUMN": rng.randn(5, 1)}
    lods = {"X_0": [[12, 8]], "ROW_0": [[2, 2]], "COLUMN_0": [[3, 2]]}
    attrs = {"topks": [1, 3], "channel_num": 2}
    numeric_grad_check("sequence_topk_avg_pooling", inputs, attrs, {"Out": 1, "pos": 1}, ["X_0"], "Out", lods)


def test_tokens():
    ids = np.array([[1], [2], [3], [2], [5]])
    lod = {"X_0": [[3, 2]]}
    found = run_op("sequence_enumerate", {"X": ids}, {"win_size": 2, "pad_value": 9}, {"Out": 1}, lod)["Out"]
    assert np.asarray(found).tolist() == [[1, 2], [2, 3], [3, 9], [2, 5], [5, 9]]
    found = run_op("sequence_erase", {"X": ids}, {"tokens": [2, 5]}, {"Out": 1}, lod)["Out"]
    assert np.asarray(found).ravel().tolist() == [1, 3] and found.recursive_sequence_lengths() == [[2, 0]]


def test_mask_takes_the_longest_by_default():
    found = run_op("sequence_mask", {"X": np.array([1, 3, 0])}, {"out_dtype": 2}, {"Y": 1})["Y"]
    assert np.asarray(found).tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("type", "inputs", "attrs", "lods", "error", "words"),
    [
        (
            "sequence_pool", {"X": np.zeros((3, 2))}, {"pooltype": "MEAN"}, {"X_0": [[3]]}, AttributeTypeError,
            "one of AVERAGE",
        ),
        ("sequence_pool", {"X": np.zeros((3, 2))}, {}, {}, EnforceNotMet, "must have a LoD"),
        (
            "sequence_conv", {"X": np.zeros((3, 2)), "Filter": np.zeros((4, 2))}, {"contextLength": 3}, {"X_0": [[3]]},
            ShapeError, r"contextLength \* X's width = 3 \* 2",
        ),
        (
            "sequence_expand", {"X": np.zeros((2, 2)), "Y": np.zeros((3, 1))}, {}, {"Y_0": [[1, 1, 1]]}, EnforceNotMet,
            "expected 3, received 2",
        ),
        (
            "sequence_slice", {"X": np.zeros((3, 1)), "Offset": np.array([[2]]), "Length": np.array([[2]])}, {},
            {"X_0": [[3]]}, EnforceNotMet, "sequence 0 has 3 rows: a slice from 2 of length 2",
        ),
        ("sequence_reshape", {"X": np.zeros((3, 3))}, {"new_dim": 2}, {"X_0": [[1, 2]]}, EnforceNotMet, "does not divide"),
        (
            "sequence_pad", {"X": np.zeros((3, 1)), "PadValue": np.zeros(1)}, {"padded_length": 2}, {"X_0": [[3]]},
            EnforceNotMet, "at least the longest sequence, 3",
        ),
        ("sequence_reverse", {"X": np.zeros((3, 1))}, {}, {"X_0": [[1, 1], [1, 2]]}, EnforceNotMet, "1 LoD level"),
    ],
)
def test_refusals(type, inputs, attrs, lods, error, words):
    outputs = {"Y": 1} if type == "sequence_reverse" else {"Out": 1}
    with pytest.raises(error, match=words):
        run_op(type, inputs, attrs, outputs, lods)


def test_unknown_rows_are_inferred():
    _, _, outs = build_op("sequence_pool", {"X": np.zeros((3, 2))}, {}, {"Out": 1}, {"X_0": [[3]]})
    assert tuple(outs["Out"][0].shape) == (-1, 2) and outs["Out"][0].lod_level == 0
