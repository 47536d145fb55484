"""Every operator of the registry that takes or passes on sequences, with an empty one; the last batches of one.

Most have recorded cases with an empty sequence (test_edges.py). The others run here with their first recorded operands as
one full and one empty sequence.
"""

import numpy as np
import pytest
from one_op import run_op
from test_edges import CASES, FUZZED, NO_EMPTY_SEQUENCE, PUBLIC, REGISTRY
from test_numeric_gradient import CHECK

import millstream.fluid as fluid

# Each with a test of its own below or elsewhere, or the reason why there is none.
ELSEWHERE = {
    "bipartite_match": "test_edge_layers.py",
    "distribute_fpn_proposals": "below",
    "fusion_seqpool_cvm_concat": "below",
    "match_matrix_tensor": "below",
    "rpn_target_assign": "below",
    "sequence_topk_avg_pooling": "below",
    "var_conv_2d": "below",
    "clip_by_norm": "test_edge_layers.py",
    "tdm_sampler": "gives up the LoD: a row is a row",
    "gaussian_random_batch_size_like": "test_edge_layers.py",
    "uniform_random_batch_size_like": "test_edge_layers.py",
}


def _takes_sequences(definition):
    return any(s.ragged for s in definition.inputs) or bool(definition.lod)


def _with_empty():
    """Operators with a recorded empty sequence."""
    return {t for t, cs in CASES.items() if any(0 in v for c in cs for f in c["feeds"] for v in f.get("lod") or ())}


def _untried():
    """Recorded operators that take sequences and have no recorded empty one."""
    for definition in REGISTRY.declared():
        name = definition.name
        if name in CASES and _takes_sequences(definition) and name not in _with_empty() and name not in ELSEWHERE:
            yield name


def test_the_lists_name_all():
    assert {*ELSEWHERE, *_untried()} >= NO_EMPTY_SEQUENCE
    assert set(ELSEWHERE) & _with_empty() == set()


def _arrays(name):
    for path in PUBLIC + FUZZED:
        document, arrays = CHECK.load_op(path)
        for case in document["cases"]:
            if case["ops"][case.get("main", 0)]["type"] == name:
                return case, arrays
    raise AssertionError(name)


@pytest.mark.parametrize("name", sorted(_untried()))
def test_plain_operators_pass_an_empty_sequence_on(name):
    """The values are those without a LoD."""
    case, arrays = _arrays(name)
    feeds, _ = CHECK.case_inputs(case, arrays)
    case = {k: v for k, v in case.items() if k != "grad"}
    plain = CHECK.execute(fluid, case, feeds, {})
    first = next(f for f in case["feeds"] if f.get("type", "LOD_TENSOR") == "LOD_TENSOR" and f["shape"])
    split = {**first, "lod": [[first["shape"][0], 0]], "var_shape": [-1, *first["shape"][1:]]}
    case["feeds"] = [split if f is first else f for f in case["feeds"]]
    found = CHECK.execute(fluid, case, feeds, {})
    for out, (values, _) in plain.outs.items():
        np.testing.assert_array_equal(found.outs[out][0], values)
    assert all(lod in ([], split["lod"]) for _, lod in found.outs.values())


# ---- the others: numbers of 1.8.5, where it takes an empty sequence at all
def f(*shape):
    return np.random.RandomState(sum(shape)).randn(*shape).astype("float32")


def test_an_empty_image_has_no_averages():
    lods = {"X": [[12, 0]], "ROW": [[2, 0]], "COLUMN": [[3, 0]]}
    ins = {"X": f(12, 1), "ROW": f(2, 1), "COLUMN": f(3, 1)}
    ran = run_op("sequence_topk_avg_pooling", ins, {"topks": [1, 2], "channel_num": 2}, ("Out", "pos"), lods=lods)
    expected = [0.7537664, 0.3546316, 1.4786857, 1.4144368, 1.3451017, 0.9387198, -0.788989, -0.9171831]
    np.testing.assert_allclose(ran["Out"].reshape(-1), expected, rtol=1e-5)
    assert ran.lods["Out"] == [[2, 0]] and ran["pos"].reshape(-1).tolist() == [1, 2, 2, 0, 1, 2, 1, 0]
    ran = run_op(
        "sequence_topk_avg_pooling",
        {**ins, "ROW": f(3, 1)},
        {"topks": [1, 2], "channel_num": 2},
        ("Out", "pos"),
        lods={**lods, "ROW": [[2, 1]]},
    )
    assert ran["Out"][2].tolist() == [0] * 4 and ran["pos"].reshape(-1).tolist()[8:] == [-1] * 4


def test_an_empty_image_has_no_convolution():
    attrs = {"InputChannel": 2, "OutputChannel": 1, "KernelH": 2, "KernelW": 3, "StrideH": 1, "StrideW": 2}
    ins = {"X": f(12, 1), "ROW": f(2, 1), "COLUMN": f(3, 1), "W": f(1, 12)}
    lods = {"X": [[12, 0]], "ROW": [[2, 0]], "COLUMN": [[3, 0]]}
    ran = run_op("var_conv_2d", ins, attrs, ("Out", "Col"), lods=lods)
    np.testing.assert_allclose(ran["Out"].reshape(-1), [-2.7087722, -1.7862576, 5.0097036, 5.0097036], rtol=1e-5)
    assert ran.lods["Out"] == [[4, 0]] and ran.lods["Col"] == [[48, 0]]


def test_an_empty_sequence_matches_nothing():
    ins = {"X": f(3, 2), "Y": f(2, 4), "W": f(2, 1, 4)}
    ran = run_op("match_matrix_tensor", ins, {"dim_t": 1}, ("Out", "Tmp"), lods={"X": [[3, 0]], "Y": [[1, 1]]})
    alone = run_op(
        "match_matrix_tensor", {**ins, "Y": ins["Y"][:1]}, {"dim_t": 1}, ("Out", "Tmp"), lods={"X": [[3]], "Y": [[1]]}
    )
    assert ran.lods["Out"] == [[3, 0]] and ran["Out"].tolist() == alone["Out"].tolist()


def test_the_average_of_nothing_is_zero():
    """1.8.5 gives NaN."""
    ins, attrs = {"X": [np.abs(f(4, 3))], "CVM": f(2, 2)}, {"pooltype": "AVERAGE", "axis": 1, "use_cvm": True}
    ran = run_op("fusion_seqpool_cvm_concat", ins, attrs, lods={"X": [[4, 0]]})
    assert ran["Out"].shape == (2, 3) and np.isfinite(ran["Out"][0]).all() and ran["Out"][1].tolist() == [0, 0, 0]


def test_an_image_without_proposals_is_in_no_level():
    """1.8.5 refuses it."""
    boxes, attrs = np.array([[0, 0, 9, 9], [0, 0, 300, 280]], "float32"), {"min_level": 2, "max_level": 4}
    attrs.update(refer_level=4, refer_scale=224)
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        x = fluid.layers.data("x", [4], lod_level=1)
        levels, restore = fluid.layers.distribute_fpn_proposals(x, **attrs)
    feed = {"x": fluid.create_lod_tensor(boxes, [[2, 0]], fluid.CPUPlace())}
    *found, order = fluid.Executor().run(program, feed=feed, fetch_list=[*levels, restore], return_numpy=False)
    assert [t.recursive_sequence_lengths() for t in found] == [[[1, 0]], [[0, 0]], [[1, 0]]]
    assert np.array(order).reshape(-1).tolist() == [0, 1]


def test_an_image_without_objects_has_background_only():
    """1.8.5 refuses it."""
    anchors = np.array([[0, 0, 9, 9], [2, 2, 20, 20], [10, 10, 25, 25]], "float32")
    ins = {"Anchor": anchors, "GtBoxes": anchors[:1], "IsCrowd": np.zeros((1, 1), "int32")}
    ins["ImInfo"] = np.array([[30, 30, 1], [30, 30, 1]], "float32")
    attrs = {"rpn_batch_size_per_im": 2, "rpn_straddle_thresh": 0.0, "use_random": False}
    outs = ("LocationIndex", "ScoreIndex", "TargetLabel", "TargetBBox", "BBoxInsideWeight")
    ran = run_op("rpn_target_assign", ins, attrs, outs, lods={"GtBoxes": [[1, 0]], "IsCrowd": [[1, 0]]})
    second = ran["TargetLabel"].reshape(-1)[ran["ScoreIndex"].reshape(-1) >= 3]
    assert second.size == 2 and not second.any()


# ---- batches of one
def test_batches_of_one():
    x = f(2, 3)
    ran = run_op("fusion_seqpool_concat", {"X": [x, x]}, {"pooltype": "SUM", "axis": 1}, lods={"X": [[2]]})
    np.testing.assert_allclose(ran["Out"], np.tile(x.sum(0), 2)[None], rtol=1e-6)
    assert ran.lods["Out"] == [[1]]
    ran = run_op("split_byref", {"X": f(1, 3)}, {"sections": [1], "num": 0})
    assert ran["Out"].tolist() == f(1, 3).tolist()
    for taken in (0, 1):
        ins = {"X": f(1, 3), "Mask": np.array([[taken]], "bool")}
        ran = run_op("split_lod_tensor", ins, {"level": 0}, ("OutTrue", "OutFalse"))
        assert ran[("OutFalse", "OutTrue")[taken]].tolist() == f(1, 3).tolist()
        assert not ran[("OutTrue", "OutFalse")[taken]].size


def test_one_sequence_expanded_and_projected():
    """The reference has the state's row beside each step of the only sequence."""
    program = fluid.Program()
    block = program.global_block()
    values = {"a": f(3, 2), "b": f(1, 2), "w": f(4, 3)}
    made = {
        n: block.create_var(name=n, shape=[-1, v.shape[1]], dtype="float32", lod_level=n != "w") for n, v in values.items()
    }
    outs = {s: block.create_var(name=s) for s in ("Out", "FCOut")}
    inputs = {"X": [made["a"], made["b"]], "FCWeight": made["w"]}
    block.append_op("fusion_seqexpand_concat_fc", inputs=inputs, outputs=outs, attrs={"fc_activation": "identity"})
    feed = {n: fluid.create_lod_tensor(v, [[len(v)]], fluid.CPUPlace()) if n != "w" else v for n, v in values.items()}
    out = fluid.Executor().run(program, feed=feed, fetch_list=["Out"], return_numpy=False)[0]
    expected = np.concatenate([values["a"], np.tile(values["b"], (3, 1))], 1) @ values["w"]
    np.testing.assert_allclose(np.array(out), expected, rtol=1e-5, atol=1e-6)
    assert out.recursive_sequence_lengths() == [[3]]
