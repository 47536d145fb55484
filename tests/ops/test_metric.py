"""Metrics against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_op
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import AttributeTypeError, EnforceNotMet

CHUNKS = dict.fromkeys(("Precision", "Recall", "F1-Score", "NumInferChunks", "NumLabelChunks", "NumCorrectChunks"), 1)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(corner + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


words = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(words, words)
def test_edit_distance(hyps, refs):
    n = min(len(hyps), len(refs))
    hyps, refs = hyps[:n], refs[:n]
    if not (sum(map(len, hyps)) and sum(map(len, refs))):
        return
    inputs = {"Hyps": np.array([[v] for h in hyps for v in h]), "Refs": np.array([[v] for r in refs for v in r])}
    lods = {"Hyps_0": [[len(h) for h in hyps]], "Refs_0": [[len(r) for r in refs]]}
    found = run_op("edit_distance", inputs, {}, {"Out": 1, "SequenceNum": 1}, lods)
    assert np.asarray(found["Out"]).ravel().tolist() == [levenshtein(h, r) for h, r in zip(hyps, refs)]
    assert np.asarray(found["SequenceNum"]).tolist() == [n]


def test_edit_distance_refuses_to_divide_by_an_empty_reference():
    inputs = {"Hyps": np.array([[1]]), "Refs": np.array([[1]])}
    with pytest.raises(EnforceNotMet, match="reference 1 is empty"):
        lods = {"Hyps_0": [[0, 1]], "Refs_0": [[1, 0]]}
        run_op("edit_distance", inputs, {"normalized": True}, {"Out": 1, "SequenceNum": 1}, lods)


@pytest.mark.parametrize(
    ("scheme", "tags", "chunks"),
    [
        ("IOB", [0, 1, 4, 2, 3, 3, 0, 0], 4),  # B I O B' I' I' B B
        ("IOE", [0, 1, 4, 3, 2, 3], 3),
        ("IOBES", [3, 0, 1, 2, 8, 7], 3),
        ("plain", [0, 0, 2, 1, 1, 0], 3),
    ],
)
def test_chunks(scheme, tags, chunks):
    ids = np.array(tags).reshape(-1, 1)
    lods = {"Inference_0": [[len(tags)]], "Label_0": [[len(tags)]]}
    attrs = {"num_chunk_types": 2, "chunk_scheme": scheme}
    found = run_op("chunk_eval", {"Inference": ids, "Label": ids}, attrs, CHUNKS, lods)
    assert [int(np.asarray(found[k])[0]) for k in list(CHUNKS)[3:]] == [chunks] * 3
    assert np.asarray(found["F1-Score"])[0] == 1


def test_chunk_scheme_is_checked():
    ids = np.zeros((1, 1), "int64")
    with pytest.raises(AttributeTypeError, match="one of IOB, IOE, IOBES, plain, received 'BIO'"):
        run_op("chunk_eval", {"Inference": ids, "Label": ids}, {"num_chunk_types": 1, "chunk_scheme": "BIO"}, CHUNKS)


def test_accuracy_counts_hits_among_k():
    indices, label = np.array([[0, 1], [2, 0], [1, 2]]), np.array([[1], [1], [1]])
    inputs = {"Out": np.zeros((3, 2), "float32"), "Indices": indices, "Label": label}
    found = run_op("accuracy", inputs, {}, {"Accuracy": 1, "Correct": 1, "Total": 1})
    assert np.asarray(found["Correct"]).tolist() == [2] and np.asarray(found["Total"]).tolist() == [3]
    assert np.asarray(found["Accuracy"])[0] == np.float32(2 / 3)


def test_auc_is_the_share_of_ordered_pairs():
    rng = np.random.RandomState(0)
    steps = 4095
    score, label = rng.randint(0, steps, 200) / steps, rng.randint(0, 2, 200)
    inputs = {
        "Predict": np.stack([1 - score, score], 1).astype("float32"), "Label": label.reshape(-1, 1),
        "StatPos": np.zeros((1, steps + 1), "int64"), "StatNeg": np.zeros((1, steps + 1), "int64"),
    }
    outputs = {"AUC": 1, "StatPosOut": 1, "StatNegOut": 1}
    found = np.asarray(run_op("auc", inputs, {"num_thresholds": steps, "slide_steps": 0}, outputs)["AUC"])[0]
    bins = (score.astype("float32") * np.float32(steps)).astype(int)
    pos, neg = bins[label == 1][:, None], bins[label == 0][None]
    np.testing.assert_allclose(found, ((pos > neg) + 0.5 * (pos == neg)).mean(), rtol=1e-12)


def test_sliding_auc_forgets_old_batches():
    steps, buckets = 7, 8
    stats = [np.zeros((1, 3 * buckets + 1), "int64") for _ in range(2)]
    outputs = {"AUC": 1, "StatPosOut": 1, "StatNegOut": 1}
    for k in range(5):
        predict = np.full((3, 2), k / 10, "float32")
        inputs = {"Predict": predict, "Label": np.array([[1], [0], [1]]), "StatPos": stats[0], "StatNeg": stats[1]}
        found = run_op("auc", inputs, {"num_thresholds": steps, "slide_steps": 2}, outputs)
        stats = [np.asarray(found[s]).reshape(1, -1) for s in ("StatPosOut", "StatNegOut")]
    total = stats[0][0, 2 * buckets : 3 * buckets]
    assert total.sum() == 4 and total[int(0.3 * steps)] == 4 and stats[0][0, -1] == 5


@pytest.mark.parametrize(
    ("merge", "expected"), [(True, [[1, 2, 1, -1], [3, -1, -1, -1]]), (False, [[1, 1, 2, 1], [3, 3, -1, -1]])]
)
def test_ctc_align_padded(merge, expected):
    inputs = {"Input": np.array([[1, 1, 2, 1], [3, 3, 0, 0]], "int32"), "InputLength": np.array([[4], [3]], "int32")}
    attrs = {"merge_repeated": merge, "padding_value": -1}
    found = run_op("ctc_align", inputs, attrs, {"Output": 1, "OutputLength": 1})
    assert np.asarray(found["Output"]).tolist() == expected


def test_ctc_align_goes_by_the_lod_where_lengths_are_there_too():
    inputs = {"Input": np.array([[1], [1], [0], [2], [2], [3]], "int32"), "InputLength": np.array([[2], [1]])}
    found = run_op("ctc_align", inputs, {}, {"Output": 1, "OutputLength": 1}, {"Input_0": [[4, 2]]})
    assert np.asarray(found["Output"]).ravel().tolist() == [1, 2, 2, 3]
    assert found["Output"].recursive_sequence_lengths() == [[2, 2]]
    assert np.asarray(found["OutputLength"]).size == 0


@pytest.mark.parametrize(
    "found, truth, mean, wrong",
    [([0, 1, 2, 1], [0, 1, 255, 2], 0.5, [0, 1, 2]), ([0, 1, 2, 2], [255, 255, -1, 2], 1 / 6, [1, 1, 1])],
)
def test_mean_iou_ignores_labels_that_are_no_class(found, truth, mean, wrong):
    inputs = {"Predictions": np.array([found], "int32"), "Labels": np.array([truth], "int32")}
    outs = run_op("mean_iou", inputs, {"num_classes": 3}, {"OutMeanIou": 1, "OutWrong": 1, "OutCorrect": 1})
    assert np.asarray(outs["OutMeanIou"])[0] == pytest.approx(mean)
    assert np.asarray(outs["OutWrong"]).tolist() == wrong
    with pytest.raises(EnforceNotMet, match="Predictions"):
        wrong_class = {**inputs, "Predictions": np.array([[0, 1, 2, 3]], "int32")}
        run_op("mean_iou", wrong_class, {"num_classes": 3}, {"OutMeanIou": 1})
