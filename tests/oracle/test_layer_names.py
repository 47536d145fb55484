"""Each recorded layer call, made on millstream, must append the same operators under the same names."""

import json
import os

import pytest
from millstream import fluid

from layer_cases.inputs import INPUTS
from layer_trace import trace

HERE = os.path.dirname(os.path.abspath(__file__))
# switches for other backends: kept by files, meaningless here
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded", "attr_defaults.json")) as _source:
    DEFAULTS = json.load(_source)
IGNORED_ATTRS = {
    "op_callstack",
    "op_namescope",
    "op_device",
    "op_role",
    "op_role_var",
    "use_mkldnn",
    "use_cudnn",
    "use_quantizer",
    "force_cpu",
    "x_data_format",
    "y_data_format",
    "scale_x",
    "scale_y",
    "scale_out",
    "force_fp32_output",
    "workspace_size_MB",
    "exhaustive_search",
    "fuse_relu_before_depthwise_conv",
    "mkldnn_data_type",
    "str_value",
    "skip_eager_deletion_vars",
    "data_format",
    "sub_block",
    "startup_seed",
    "forward_callable_id",  # of py_func: counted over the process, so it depends on what ran before
    "backward_callable_id",
}
# Outputs for which 1.8.5 declares another element type than it computes (that of the first input), or less of the
# shape than is known; here the declaration says what comes.
TRUER = {
    ("deformable_psroi_pooling", "TopCount"),
    ("edit_distance", "Out"),
    ("filter_by_instag", "LossWeight"),
    ("isinf", "Out"),
    ("isnan", "Out"),
    ("max_pool2d_with_index", "Mask"),
    ("max_pool3d_with_index", "Mask"),
    ("roi_pool", "Argmax"),
    ("sample_logits", "LabelsDim"),
    ("sampling_id", "Out"),
    ("sequence_pool", "MaxIndex"),
    ("shuffle_batch", "SeedOut"),
    ("uniform_random", "Out"),
    ("yolov3_loss", "ObjectnessMask"),
}
UNORDERED = {"while", "while_grad", "conditional_block", "conditional_block_grad", "recurrent", "recurrent_grad"}
# blocks made by the gradient of a block are an implementation's own business
GRADIENT_BLOCKS = ("bwd_while_grad", "cond_grad", "static_rnn_grad", "dynamic_rnn_static")
# Gradients spelled otherwise: they read or declare more (LoD levels, MaxIndex), use `<op>_grad` where 1.8.5 reuses the
# inverse operator, or keep second derivatives that it drops. Their values are compared in test_programs.py.
OWN_GRADIENTS = GRADIENT_BLOCKS + ("bwd_lstm_grad", "bwd_gru_grad", "bwd_crf_grad", "min_gradients_twice")
# 1.8.5 lets pass, until it runs, what cannot be right (4 channels of offsets for 2 anchors): refused while building
REFUSED_EARLIER = {"generate_proposals.0": ValueError}
# append_backward of 1.8.5 leaves its work blocks behind when it recomputes
WORK_BLOCKS = ("min_recompute",)


def load_cases(refused=False):
    with open(os.path.join(HERE, "recorded", "layer_names.json")) as source:
        return [case for case in json.load(source) if ("error" in case) == refused]


def slots(found, op_type):
    kept = {slot: names for slot, names in found.items() if names}
    return {slot: sorted(names) for slot, names in kept.items()} if op_type in UNORDERED else kept


def same_value(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or abs(a - b) <= 1e-5 * max(abs(a), abs(b))
    return a == b


def compare(want, got, case_id):
    """Differences between two records as text lines; the first is the one to look at."""
    found = []
    if want["returns"] != got["returns"]:
        found.append("returns: want %s, got %s" % (want["returns"], got["returns"]))
    for part in ("main", "startup"):
        blocks = list(zip(want[part], got[part]))
        if case_id in GRADIENT_BLOCKS + WORK_BLOCKS:
            blocks = blocks[:1]
        elif len(want[part]) != len(got[part]):
            found.append("%s: want %d blocks, got %d" % (part, len(want[part]), len(got[part])))
        if case_id in OWN_GRADIENTS:
            blocks = [(forward_part(a), forward_part(b)) for a, b in blocks]
        for index, (a, b) in enumerate(blocks):
            where = "%s%s block %d" % ("randn " if case_id.startswith("randn") else "", part, index)
            found += compare_ops(a["ops"], b["ops"], where)
            truer = {n for op in a["ops"] for slot, names in op["outputs"].items() if (op["type"], slot) in TRUER for n in names}
            unread = {n for op in a["ops"] for n in op["outputs"].get("XShape", ())}
            found += compare_vars(a["vars"], b["vars"], where, truer, unread)
    return found


def forward_part(block):
    """The block up to its first gradient, without gradient variables and updates."""
    ops = block["ops"]
    start = next((k for k, op in enumerate(ops) if any("@GRAD" in n for v in op["outputs"].values() for n in v)), len(ops))
    return {"ops": ops[:start], "vars": {n: v for n, v in block["vars"].items() if "@GRAD" not in n}}


def compare_ops(want, got, where):
    types = [op["type"] for op in want], [op["type"] for op in got]
    if types[0] != types[1]:
        return ["%s: want operators %s, got %s" % (where, types[0], types[1])]
    found = []
    for index, (a, b) in enumerate(zip(want, got)):
        at = "%s op %d %s" % (where, index, a["type"])
        for side in ("inputs", "outputs"):
            x, y = slots(a[side], a["type"]), slots(b[side], a["type"])
            if x != y:
                found.append("%s %s: want %s, got %s" % (at, side, x, y))
        for name, value in a["attrs"].items():
            if name in IGNORED_ATTRS or (name == "seed" and where.startswith("randn")):
                continue
            if name not in b["attrs"]:
                # Switches without a meaning here are not declared; a value other than their default must be kept.
                if same_value(value, DEFAULTS.get(a["type"].replace("_grad", ""), {}).get(name)):
                    continue
                found.append("%s: no attribute %s (want %r)" % (at, name, value))
            elif not same_value(value, b["attrs"][name]):
                found.append("%s attribute %s: want %r, got %r" % (at, name, value, b["attrs"][name]))
    return found


def dims(shape):
    """A product with an unknown factor (1.8.5 declares -4 for -1 * 4) is unknown."""
    return None if shape is None else [-1 if d < 0 else d for d in shape]


def compare_vars(want, got, where, truer=(), unread=()):
    found = []
    if set(want) != set(got):
        found.append(
            "%s variables: missing %s, extra %s" % (where, sorted(set(want) - set(got)), sorted(set(got) - set(want)))
        )
    for name in sorted(set(want) & set(got)):
        a, b = list(want[name]), list(got[name])
        if name in unread:
            a[3] = b[3]  # XShape carries no data
        if name.endswith("_shape"):
            a[1] = b[1]  # gradients() of 1.8.5 declares the shape it starts from without a dtype
        a[4], b[4] = set(a[4]), set(b[4])
        a[2], b[2] = dims(a[2]), dims(b[2])
        if name in truer:
            a[1] = b[1]
            a[2] = [y if x in (-1, 0) else x for x, y in zip(a[2], b[2])] or b[2]
        if a != b:
            found.append("%s variable %s: want %s, got %s" % (where, name, want[name], got[name]))
    return found


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case["id"])
def test_layer(case):
    if case["id"] in REFUSED_EARLIER:
        with pytest.raises(REFUSED_EARLIER[case["id"]]):
            trace(fluid, case["code"], INPUTS)
        return
    differences = compare(case, trace(fluid, case["code"], INPUTS), case["id"])
    assert not differences, "\n".join([case["code"]] + differences)


@pytest.mark.parametrize(
    "case", [c for c in load_cases(refused=True) if c["family"] == "errors"], ids=lambda case: case["id"]
)
def test_refused(case):
    """What 1.8.5 refuses while building is refused, by the same built-in class where it used a telling one."""
    classes = {"TypeError": TypeError, "ValueError": ValueError, "IndexError": IndexError}
    with pytest.raises(classes.get(case["error"], Exception)):
        trace(fluid, case["code"], INPUTS)
