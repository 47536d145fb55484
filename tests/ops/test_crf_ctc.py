"""CRF and CTC: against enumeration of all paths, against differences, padded and ragged forms."""

from __future__ import annotations

from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from harness import numeric_grad_check, run_op

from millstream.errors import EnforceNotMet, ShapeError

CRF_OUT = {"LogLikelihood": 1, "Alpha": 1, "EmissionExps": 1, "TransitionExps": 1}
RNG = np.random.RandomState(0)


def score(e, w, path):
    total = w[0, path[0]] + w[1, path[-1]] + sum(e[k, t] for k, t in enumerate(path))
    return total + sum(w[2 + a, b] for a, b in pairwise(path))


def all_scores(e, w):
    return {p: score(e, w, p) for p in product(range(w.shape[1]), repeat=len(e))}


def log_sum(values):
    values = np.array(list(values))
    return values.max() + np.log(np.exp(values - values.max()).sum())


@pytest.mark.parametrize("scale", [1.0, 30.0, 2000.0])
def test_crf_is_the_sum_over_paths(scale):
    lengths, tags = [3, 0, 1, 4], 3
    e, w = RNG.randn(8, tags) * scale, RNG.randn(tags + 2, tags) * scale
    y = RNG.randint(0, tags, (8, 1))
    lods = {"Emission_0": [lengths], "Label_0": [lengths]}
    cost = run_op("linear_chain_crf", {"Emission": e, "Transition": w, "Label": y}, {}, CRF_OUT, lods)["LogLikelihood"]
    path = run_op("crf_decoding", {"Emission": e, "Transition": w}, {}, {"ViterbiPath": 1}, lods)["ViterbiPath"]
    start = 0
    for q, n in enumerate(lengths):
        if n:
            scores = all_scores(e[start : start + n], w)
            label = tuple(y[start : start + n, 0])
            expected = log_sum(scores.values()) - scores[label]
            np.testing.assert_allclose(np.asarray(cost)[q, 0], expected, rtol=1e-9, atol=1e-9)
            assert tuple(np.asarray(path)[start : start + n, 0]) == max(scores, key=scores.get)
        else:
            assert np.asarray(cost)[q, 0] == 0
        start += n


def test_forbidden_transitions_stay_finite():
    """Weights of -1e4 make every factor next to the likeliest tag vanish."""
    e, w = RNG.randn(4, 3), RNG.randn(5, 3)
    e[:, 0] += 50
    w[2, :] = -1e4
    lods = {"Emission_0": [[4]], "Label_0": [[4]]}
    inputs = {"Emission": e, "Transition": w, "Label": np.array([[1], [2], [1], [2]])}
    cost = run_op("linear_chain_crf", inputs, {}, CRF_OUT, lods)["LogLikelihood"]
    scores = all_scores(e, w)
    np.testing.assert_allclose(np.asarray(cost)[0, 0], log_sum(scores.values()) - scores[1, 2, 1, 2], rtol=1e-9)
    wrt = ["Emission_0", "Transition_0"]
    numeric_grad_check("linear_chain_crf", inputs, {}, CRF_OUT, wrt, "LogLikelihood", lods, tolerance=1e-5)


def test_crf_gradient_ragged_and_padded():
    wrt = ["Emission_0", "Transition_0"]
    inputs = {"Emission": RNG.randn(6, 3), "Transition": RNG.randn(5, 3), "Label": RNG.randint(0, 3, (6, 1))}
    lods = {"Emission_0": [[1, 0, 5]], "Label_0": [[1, 0, 5]]}
    numeric_grad_check("linear_chain_crf", inputs, {}, CRF_OUT, wrt, "LogLikelihood", lods)
    inputs = {
        "Emission": RNG.randn(3, 4, 3), "Transition": RNG.randn(5, 3), "Label": RNG.randint(0, 3, (3, 4)),
        "Length": np.array([[4], [1], [0]]),
    }
    numeric_grad_check("linear_chain_crf", inputs, {}, CRF_OUT, wrt, "LogLikelihood")


def test_decoding_with_labels_marks_agreement():
    e, w = RNG.randn(2, 4, 3), RNG.randn(5, 3)
    length = np.array([[4], [2]])
    inputs = {"Emission": e, "Transition": w, "Length": length}
    path = np.asarray(run_op("crf_decoding", inputs, {}, {"ViterbiPath": 1})["ViterbiPath"])
    assert (path[1, 2:] == 0).all()
    inputs = {"Emission": e, "Transition": w, "Label": path, "Length": length}
    agreed = np.asarray(run_op("crf_decoding", inputs, {}, {"ViterbiPath": 1})["ViterbiPath"])
    assert agreed.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"Transition": np.zeros((4, 3))}, ShapeError, "two rows for start and stop"),
        ({"Emission": np.zeros((2, 4))}, ShapeError, "number of tags 3"),
        ({"Label": np.array([[0], [3]])}, EnforceNotMet, r"Label must lie in \[0, 3\)"),
    ],
)
def test_crf_refuses(change, error, words):
    inputs = {"Emission": np.zeros((2, 3)), "Transition": np.zeros((5, 3)), "Label": np.array([[0], [1]]), **change}
    with pytest.raises(error, match=words):
        run_op("linear_chain_crf", inputs, {}, CRF_OUT, {"Emission_0": [[2]], "Label_0": [[2]]})


# ---- CTC ---------------------------------------------------------------------------------------------
CTC_OUT = {"Loss": 1, "WarpCTCGrad": 1}


def plain_ctc(logits, label, blank):
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    total = 0.0
    for path in product(range(logits.shape[1]), repeat=len(logits)):
        if [k for k, _ in groupby(path) if k != blank] == list(label):
            total += np.prod([p[t, k] for t, k in enumerate(path)])
    return -np.log(total) if total else 0.0


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_is_the_sum_over_paths(blank):
    classes, frames = 3, [4, 5, 2, 1, 0]
    letters = [k for k in range(classes) if k != blank]
    labels = [[letters[0], letters[0]], [letters[1], letters[0]], [letters[0], letters[0]], [], [letters[0]]]
    logits = RNG.randn(sum(frames), classes) * 2
    flat = np.array([[k] for label in labels for k in label], "int32")
    lods = {"Logits_0": [frames], "Label_0": [[len(v) for v in labels]]}
    inputs = {"Logits": logits, "Label": flat}
    loss = np.asarray(run_op("warpctc", inputs, {"blank": blank}, CTC_OUT, lods)["Loss"]).ravel()
    starts = np.concatenate([[0], np.cumsum(frames)])
    expected = [plain_ctc(logits[a:b], v, blank) if b > a else 0.0 for a, b, v in zip(starts, starts[1:], labels)]
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    numeric_grad_check("warpctc", inputs, {"blank": blank}, CTC_OUT, ["Logits_0"], "Loss", lods)


def test_ctc_padded_form_agrees_with_ragged():
    frames, sizes = [4, 3], [2, 1]
    logits = RNG.randn(4, 2, 3)
    labels = np.array([[1, 2], [2, 0]], "int32")
    padded = {"Logits": logits, "Label": labels, "LogitsLength": np.array(frames), "LabelLength": np.array(sizes)}
    ragged = {"Logits": np.concatenate([logits[:4, 0], logits[:3, 1]]), "Label": np.array([[1], [2], [2]], "int32")}
    one = run_op("warpctc", padded, {}, CTC_OUT)["Loss"]
    two = run_op("warpctc", ragged, {}, CTC_OUT, {"Logits_0": [frames], "Label_0": [sizes]})["Loss"]
    np.testing.assert_allclose(np.asarray(one), np.asarray(two), rtol=1e-12)
    numeric_grad_check("warpctc", padded, {}, CTC_OUT, ["Logits_0"], "Loss")


def test_a_batch_cut_over_threads_gives_the_same(monkeypatch):
    from millstream.ops import REGISTRY, Ragged
    from millstream.ops.loss import crf

    rng = np.random.RandomState(2)
    lengths = np.array([3, 0, 5, 1, 8])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("int64")
    e, w, dout = (torch.from_numpy(rng.standard_normal(s).astype("float32")) for s in ((17, 4), (6, 4), (5, 1)))
    label, found = torch.from_numpy(rng.randint(0, 4, (17, 1))), []
    for pieces in (1, 3):
        monkeypatch.setattr(crf, "parts", lambda work, most, pieces=pieces: pieces)
        given = Ragged(e, (offsets,)), w, label, None
        found.append([
            *REGISTRY.get("linear_chain_crf").kernel(*given), *REGISTRY.get("linear_chain_crf_grad").kernel(*given, dout)
        ])  # fmt: skip
    for one, several in zip(*found):
        torch.testing.assert_close(one, several)
