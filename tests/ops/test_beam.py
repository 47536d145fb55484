"""Beam search and its decoding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from harness import as_lod_tensor, run_op

import millstream.fluid as fluid
from millstream.errors import EnforceNotMet
from millstream.ops._opdef import REGISTRY
from millstream.ops._values import Ragged, TensorArray

OUT = {"selected_ids": 1, "selected_scores": 1, "parent_idx": 1}


def step(pre_ids, pre_scores, ids, scores, lod, size, end=0, accumulated=True):
    inputs = {
        "pre_ids": np.array(pre_ids).reshape(-1, 1), "pre_scores": np.array(pre_scores, "float32").reshape(-1, 1),
        "scores": np.array(scores, "float32"),
    }
    if ids is not None:
        inputs["ids"] = np.array(ids)
    attrs = {"level": 0, "beam_size": size, "end_id": end, "is_accumulated": accumulated}
    return run_op("beam_search", inputs, attrs, OUT, {f"{k}_0": lod for k in inputs})


@pytest.mark.parametrize("seed", range(6))
def test_keeps_the_best_of_all_prefixes(seed):
    rng = np.random.RandomState(seed)
    counts, size, width = [2, 3], 3, 5
    scores = rng.permutation(25).reshape(5, width) / 25
    ids = np.arange(1, 26).reshape(5, width)
    found = step([1] * 5, [0.0] * 5, ids, scores, [counts, [1] * 5], size)
    kept = np.asarray(found["selected_ids"]).ravel()
    expected = []
    for rows in (range(2), range(2, 5)):
        best = sorted(((scores[r, c], r, ids[r, c]) for r in rows for c in range(width)), reverse=True)[:size]
        expected += [i for _, _, i in sorted(best, key=lambda b: (b[1], -b[0]))]
    assert kept.tolist() == expected
    assert np.asarray(found["parent_idx"]).tolist() == [(i - 1) // width for i in expected]
    lengths = found["selected_ids"].recursive_sequence_lengths()
    assert lengths[0] == counts and sum(lengths[1]) == len(expected)


def test_probabilities_are_added_as_logs_and_columns_are_ids():
    found = step([1], [-1.0], None, [[0.2, 0.5, 0.3]], [[1], [1]], 2, accumulated=False)
    assert np.asarray(found["selected_ids"]).ravel().tolist() == [1, 2]
    np.testing.assert_allclose(np.asarray(found["selected_scores"]).ravel(), np.log([0.5, 0.3]) - 1, rtol=1e-6)


def test_an_ended_prefix_competes_and_an_ended_source_is_dropped():
    lod = [[2, 2], [1, 1, 1, 1]]
    found = step([0, 5, 0, 0], [0.9, 0.1, 0.5, 0.4], [[1, 2]] * 4, [[9, 9], [0.8, 0.7], [9, 9], [9, 9]], lod, 2)
    assert np.asarray(found["selected_ids"]).ravel().tolist() == [0, 1]
    assert found["selected_ids"].recursive_sequence_lengths() == [[2, 2], [1, 1, 0, 0]]


def test_rows_must_fit_the_lod():
    with pytest.raises(EnforceNotMet, match="one row for each of 2 prefixes, received 1"):
        inputs = {"pre_ids": np.array([[1]]), "pre_scores": np.ones((1, 1), "float32"), "scores": np.ones((2, 3), "float32")}
        lods = {"scores_0": [[2], [1, 1]]}
        run_op("beam_search", inputs, {"level": 0, "beam_size": 2, "end_id": 0}, OUT, lods)


def test_decode_traces_back_and_sorts():
    """Two steps of one source: hypotheses 1-3 and 1-2-0, the better one first."""
    steps = [
        ([[1]], [[0.5]], [[1], [1]]),
        ([[2], [3]], [[0.4], [0.3]], [[1], [2]]),
        ([[0], [0]], [[0.1], [0.6]], [[2], [1, 1]]),
    ]
    program = fluid.Program()
    block, feed = program.global_block(), {}
    arrays = {}
    for slot, place, dtype in (("Ids", 0, "int64"), ("Scores", 1, "float32")):
        kind = fluid.core.VarDesc.VarType.LOD_TENSOR_ARRAY
        arrays[slot] = block.create_var(name=slot, type=kind, dtype=dtype)
        for k, item in enumerate(steps):
            value = np.array(item[place], dtype)
            x = block.create_var(name=f"{slot}{k}", shape=[-1, 1], dtype=dtype, lod_level=2)
            i = block.create_var(name=f"{slot}i{k}", shape=[1], dtype="int64")
            feed[x.name], feed[i.name] = as_lod_tensor(value, item[2]), np.array([k])
            block.append_op(type="write_to_array", inputs={"X": [x], "I": [i]}, outputs={"Out": [arrays[slot]]}, attrs={})
    outs = [block.create_var(name=n, dtype=d) for n, d in (("sentences", "int64"), ("points", "float32"))]
    block.append_op(
        type="beam_search_decode", inputs={k: [v] for k, v in arrays.items()},
        outputs={"SentenceIds": [outs[0]], "SentenceScores": [outs[1]]}, attrs={"beam_size": 2, "end_id": 0},
    )
    found = fluid.Executor(fluid.CPUPlace()).run(program, feed=feed, fetch_list=outs, return_numpy=False)
    assert np.asarray(found[0]).tolist() == [1, 3, 0, 1, 2, 0]
    assert found[0].recursive_sequence_lengths() == [[2], [3, 3]]


def _hypotheses(steps, source, end):
    """Those of one source as (score at the end, tokens), by following each from its last token."""
    found, at = [], []
    for (prefixes, kept), tokens, points in reversed(steps):
        if not found:
            for prefix in range(prefixes[source], prefixes[source + 1]):
                for item in range(kept[prefix], kept[prefix + 1]):
                    found.append((points[item], [tokens[item]]))
                    at.append(prefix)
            continue
        for k, item in enumerate(at):
            if tokens[item] != end:
                found[k][1].append(tokens[item])
        at = [int(np.searchsorted(kept, item, side="right")) - 1 for item in at]
    return sorted(((score, tokens[::-1]) for score, tokens in found), key=lambda h: -h[0])


@pytest.mark.parametrize("seed", range(5))
def test_sources_that_end_at_different_steps(seed):
    rng, end = np.random.RandomState(seed), 0
    prefixes, steps = np.array([0, 1, 2, 3]), []
    for t in range(6):
        counts = np.zeros(prefixes[-1], np.int64)
        for source in range(3):
            mine = slice(prefixes[source], prefixes[source + 1])
            if t < (6, 2 + seed % 3, 4)[source]:
                counts[mine] = rng.randint(0, 3, mine.stop - mine.start)
                counts[mine.start : mine.start + 1] += 1  # somebody goes on
        kept = np.concatenate(([0], np.cumsum(counts)))
        steps.append(((prefixes, kept), rng.randint(0, 4, kept[-1]), rng.rand(kept[-1]).astype("float32")))
        prefixes = kept[prefixes]
    arrays = [TensorArray(Ragged(torch.from_numpy(s[k].reshape(-1, 1)), s[0]) for s in steps) for k in (1, 2)]
    words, marks = REGISTRY.get("beam_search_decode").kernel(*arrays, beam_size=3, end_id=end)
    expected = [_hypotheses(steps, source, end) for source in range(3)]
    assert words.lod[0].tolist() == np.cumsum([0] + [len(found) for found in expected]).tolist()
    cuts = words.lod[1].tolist()
    assert [words.values[a:b].tolist() for a, b in pairwise(cuts)] == [h[1] for found in expected for h in found]
    assert [float(marks.values[b - 1]) for b in cuts[1:]] == [float(h[0]) for found in expected for h in found]
    assert marks.lod[1].tolist() == cuts and words.values.dtype == torch.int64 and marks.values.dtype == torch.float32
