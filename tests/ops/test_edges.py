"""Every recorded operator with unknown dims; which have an empty sequence; that all have a numeric gradient."""

import argparse
import collections
import copy
import glob
import importlib.util
import os

import pytest
from test_not_derivatives import FORMULAS as NOT_DERIVATIVES
from test_numeric_gradient import LEFT_OUT
from test_numeric_gradient_fused import FORMS as FUSED
from test_numeric_gradient_layers import FORMS as LAYERS
from test_numeric_gradient_programs import FORMS as PROGRAMS

import millstream.fluid as fluid
from millstream.ops._opdef import REGISTRY

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SPEC = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CHECK)
ARGS = argparse.Namespace(timeout=0, infer=False)
PUBLIC = sorted(glob.glob(os.path.join(GOLDEN, "cases", "*.json")))
FUZZED = sorted(glob.glob(os.path.join(GOLDEN, "fuzzed", "cases", "*.json")))


def _cases():
    """{operator: its cases}, recorded and varied ones."""
    out = collections.defaultdict(list)
    for path in PUBLIC + FUZZED:
        for case in CHECK.load_op(path)[0]["cases"]:
            out[case["ops"][case.get("main", 0)]["type"]].append(case)
    return out


CASES = _cases()
# No golden case: 1.8.5 refused the variations tried, or read memory that it never wrote. Most are in test_edge_layers.py.
NO_BATCH_OF_ONE = {
    "box_clip", "crop", "fusion_seqexpand_concat_fc", "fusion_seqpool_concat", "roi_align", "roi_pool", "scatter_nd_add",
    "sequence_scatter", "sequence_slice", "sequence_topk_avg_pooling", "split_byref", "split_lod_tensor", "target_assign",
}  # fmt: skip
NO_EMPTY_SEQUENCE = {
    "bipartite_match", "bmm", "clip_by_norm", "distribute_fpn_proposals", "fusion_seqpool_cvm_concat",
    "gaussian_random_batch_size_like", "match_matrix_tensor", "rpn_target_assign", "sequence_topk_avg_pooling",
    "tdm_sampler", "uniform_random_batch_size_like", "var_conv_2d",
}  # fmt: skip
# Slopes (or what 1.8.5 has in their place) that other files of this folder compare.
SLOPES_ELSEWHERE = {
    name.split(" (")[0] for forms in (LAYERS, PROGRAMS, FUSED) for names in forms for name in names.split(", ")
}
SLOPES_ELSEWHERE |= {*NOT_DERIVATIVES, "tree_conv", "pyramid_hash"}
NO_SLOPE = {
    "row_loop": "single precision; test_row_loop.py compares with autograd",
    "conditional_block": "its Block's operators have slopes", "while": "as conditional_block",
    "recurrent": "as conditional_block", "print": "passes the gradient on", "py_func": "the user's own gradient",
    "increment": "adds a constant, in place: tests/autodiff/test_gradients.py",
}  # fmt: skip


PARAMETERS = {"Filter", "W", "Weight", "WeightX", "WeightH", "FCWeight", "Scale", "Bias", "FCBias", "Alpha", "PadValue"}


# 1.8.5 too wants to know the width of a box, the channels that groups divide and the like: first dims alone, then.
KNOWN_DIMS = {
    "affine_grid", "collect_fpn_proposals", "deformable_conv_v1", "depthwise_conv2d", "iou_similarity",
    "match_matrix_tensor",
    "partial_concat", "partial_sum", "pixel_shuffle", "prelu", "scatter_nd_add", "target_assign", "var_conv_2d", "yolo_box",
    "yolov3_loss",
}  # fmt: skip


def _unknown(case):
    """The case with unknown dims: all of everything that is fed, or the first ones, those of parameters left alone."""
    case = copy.deepcopy(case)
    op = case["ops"][case.get("main", 0)]
    some = op["type"] in KNOWN_DIMS
    fixed = {n for slot, names in op["inputs"].items() for n in names if slot in PARAMETERS} if some else ()
    for feed in case["feeds"]:
        plain = feed.get("type") != "SELECTED_ROWS" and not feed.get("persistable")
        if plain and feed["name"] not in fixed and feed["var_shape"]:
            shape = feed["var_shape"]
            feed["var_shape"] = [-1, *shape[1:]] if some else [-1] * len(shape)
    return case


@pytest.mark.parametrize("path", PUBLIC, ids=[os.path.basename(f)[:-5] for f in PUBLIC])
def test_unknown_dims(path):
    document, arrays = CHECK.load_op(path)
    case = document["cases"][0]
    wrong = CHECK.run_cases(fluid, fluid.Executor(fluid.CPUPlace()), [_unknown(case)], arrays, ARGS)[0]
    assert not wrong, f"{case['id']}: {'; '.join(wrong)}"


def test_empty_sequence():
    """Every operator that takes sequences has a case with an empty one."""
    lods = {t: [f["lod"] for c in cs for f in c["feeds"] if f.get("lod")] for t, cs in CASES.items()}
    without = {t for t, found in lods.items() if found and not any(0 in level for lod in found for level in lod)}
    assert without <= NO_EMPTY_SEQUENCE


def test_numeric_gradients():
    """Every operator of the registry with a gradient has a slope: test_numeric_gradient's, or one in another file."""
    checked = set()
    for path in PUBLIC:
        document = CHECK.load_op(path)[0]
        if any(c.get("grad") and not c.get("quirk") for c in document["cases"]):
            checked.add(document["op"])
    forward = {d.name for d in REGISTRY.declared() if REGISTRY.forward_type(d.name) is None and d.differentiable}
    assert forward - (checked - set(LEFT_OUT)) <= SLOPES_ELSEWHERE | set(NO_SLOPE)
