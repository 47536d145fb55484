"""Every operator of the registry with a batch of one: recorded, a row alone against its row in a batch, or a reason."""

import numpy as np
import pytest
from one_op import run_op
from test_edges import CASES, NO_BATCH_OF_ONE, PARAMETERS, REGISTRY

import millstream.fluid as fluid

# Slots that hold no batch: what a batch is compared with, drawn by, or divided by.
WITHOUT_BATCH = PARAMETERS | {
    "LearningRate", "Beta1Pow", "Beta2Pow", "Param", "param", "InScale", "InState", "InAccum", "Iter", "Seed", "Mean",
    "Variance", "Shape", "ShapeTensor", "AxisTensor", "Mask", "WeightIh", "WeightHh", "ProjWeight", "LSTMWeight",
    "AttentionWeight", "CenterUpdateRate", "I", "Dict", "Min", "Max", "OutSize", "SizeTensor", "depth_tensor", "K",
}  # fmt: skip


def _recorded():
    found = set()
    for name, cases in CASES.items():
        for case in cases:
            inputs = case["ops"][case.get("main", 0)]["inputs"]
            fixed = {n for slot, names in inputs.items() if slot in WITHOUT_BATCH for n in names}
            feeds = [f for f in case["feeds"] if f.get("shape") and f["name"] not in fixed]
            if any(f["shape"][0] == 1 or any(len(level) == 1 for level in f.get("lod") or ()) for f in feeds):
                found.add(name)
    return found


def f(*shape):
    return np.random.RandomState(sum(shape)).randn(*shape).astype("float32")


def g(*shape):
    return f(*shape)[::-1].copy()


def ids(*shape):
    return np.random.RandomState(sum(shape)).randint(0, 5, shape)


def _bigru(**more):
    weights = {"WeightH": f(2, 6), "Bias": f(1, 6), "WeightH2": f(2, 6) / 2, "Bias2": f(1, 6) / 2}
    return {**weights, **more}


# operator -> (operands of three rows or sequences, operands of all rows, attributes, outputs)
ROWS = {
    "softmax_cross_entropy": ({"X": f(3, 5), "Label": ids(3, 1)}, {}, {}, ("Softmax", "Y")),
    "softmax_cross_entropy_ahead": ({"X": f(3, 5), "Label": ids(3, 1)}, {}, {}, ("Y",)),
    "bias_relu_pool": ({"X": f(3, 2, 4, 4)}, {"Bias": f(2)}, {}, ("Out",)),
    "classify_ahead": ({"X": f(3, 4), "Label": ids(3, 1)}, {"W": f(4, 5), "Bias": f(5)}, {}, ("Scores", "Softmax", "Y")),
    "dense_layer": ({"X": f(3, 4)}, {"W": f(4, 5), "Bias": f(5)}, {"activation": "relu"}, ("Out",)),
    "mean_squared_error": ({"X": f(3, 2), "Y": g(3, 2)}, {}, {}, ("Difference",)),
    "fused_add_layer_norm": ({"X": f(3, 4), "Y": g(3, 4)}, {"Scale": f(4), "Bias": f(4)}, {}, ("Out",)),
    "fused_embedding_layer_norm": (
        {"Ids": [ids(3, 2, 1), ids(3, 2, 1)[::-1].copy()]}, {"Tables": [f(5, 4), f(5, 4) + 1], "Scale": f(4), "Bias": f(4)},
        {}, ("Out",),
    ),
    "fused_attention": ({"Q": f(3, 2, 4), "K": f(3, 5, 4), "V": f(3, 5, 4)}, {}, {"scale": 0.5, "heads": 2}, ("Out",)),
    "attention_layer": (
        {"Q": f(3, 2, 4), "K": f(3, 5, 4), "V": f(3, 5, 4)}, {"Mask": f(2, 5)}, {"scale": 0.5}, ("Out", "Weights"),
    ),
    "packed_conv2d": (
        {"Input": f(3, 2, 5, 4), "ResidualData": f(3, 4, 3, 2)}, {"Filter": f(4, 2, 3, 3), "Bias": f(4)},
        {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "activation": "relu"}, ("Output",),
    ),
    "lookup_concat": (
        {"Ids": [ids(3, 1), ids(3, 1)[::-1].copy()], "X": f(3, 2)}, {"W": [f(5, 2), f(5, 3)]},
        {"tables": [0, 1], "order": [0, -1, 1], "sparse": [0, 0]}, ("Out",),
    ),
    "scaled_sum_relu": ({"X": f(3, 2, 4, 5), "Scale": f(3, 2), "Residual": f(3, 2, 4, 5) / 2}, {}, {"axis": 0}, ("Out",)),
    "quantize_linear": ({"X": f(3, 4)}, {"Scale": f(1) * 0 + 0.01}, {"dtype": 20}, ("Y",)),
    "dequantize_linear": ({"X": ids(3, 4)}, {"Scale": f(1)}, {}, ("Y",)),
    "quantize_dequantize_linear": ({"X": f(3, 4)}, {"Scale": f(1) * 0 + 0.01}, {"dtype": 20}, ("Y",)),
    "fused_elementwise": (
        {"X": [f(3, 4), g(3, 4)]}, {},
        {"steps": ["elementwise_add", "relu"],
         "operands": [1, -1], "axes": [-1, -1], "first": [0.0] * 2, "second": [0.0] * 2},
        ("Out",),
    ),
}  # fmt: skip
SEQUENCES = {
    "lookup_pool_concat": ({"Ids": [ids(6, 1)]}, {"W": [f(5, 2)]}, {"tables": [0], "order": [0], "sparse": [0]}, ("Out",)),
    "fused_seqpool_concat": ({"X": [f(6, 2), g(6, 2)]}, {}, {"pooltype": "AVERAGE"}, ("Out",)),
    "fusion_seqconv_eltadd_relu": (
        {"X": f(6, 2)}, {"Filter": f(6, 3), "Bias": f(1, 3)}, {"contextLength": 3, "contextStart": -1}, ("Out", "ColMat"),
    ),
    "projected_gru": (
        {"X": f(6, 3)}, {"WeightX": f(3, 6), "WeightH": f(2, 6), "BiasX": f(6), "Bias": f(1, 6)}, {}, ("Hidden",),
    ),
    "projected_bigru": ({"X": f(6, 3)}, _bigru(WeightX=f(3, 6), WeightX2=f(3, 6) / 2), {}, ("Hidden",)),
    "embedded_bigru": ({"Ids": ids(6, 1)}, _bigru(Table=f(5, 12)), {}, ("Hidden",)),
}  # fmt: skip
LENGTHS = [2, 1, 3]

ELSEWHERE = {
    "batch_norm_relu": "below",
    "bigru_tagger": "tests/passes/test_fuse_bigru_tagger.py",
    "cudnn_lstm": "below",
    "sync_batch_norm": "below",
    **dict.fromkeys(("normed_conv2d", "batch_norm_apply", "batch_norm_statistics"), "tests/ops/test_normed_conv.py"),
    **dict.fromkeys(
        ("batch_norm_average", "scaled_batch_norm", "scaled_batch_norm_sums"), "tests/ops/test_scaled_norm.py"
    ),
    "var_conv_2d": "below",
    "row_loop": "tests/ops/test_row_loop.py",
    "rows_to_steps": "tests/ops/test_row_loop.py",
    "conditional_block": "a Block's operators see the batch", "conditional_block_infer": "as conditional_block",
    "while": "as conditional_block", "recurrent": "as conditional_block", "engine_run": "as conditional_block",
    "py_func": "the user's function sees the batch", "print": "shows what comes",
    **dict.fromkeys(NO_BATCH_OF_ONE, "test_edge_layers.py and test_empty_sequences.py"),
}  # fmt: skip
NO_BATCH = {
    "parameters, their gradients and their updates": """
        adagrad adam adamax average_accumulates clip_gradients clip_gradients_by_norm decayed_adagrad dense_layer_step dgc
        dpsgd ftrl fused_adadelta fused_adagrad fused_adam fused_adamax fused_decayed_adagrad fused_ftrl fused_lamb
        fused_lars_momentum fused_momentum fused_rmsprop fused_sgd global_norm_factor join_rows lamb lars_momentum
        lookup_sparse_table momentum proximal_adagrad proximal_gd scale_gradients sgd""",
    "readers, files, places": """
        create_batch_reader create_double_buffer_reader create_py_reader create_random_data_generator create_shuffle_reader
        delete_var fake_init feed fetch get_places load load_combine read save save_combine""",
    "no operand": """
        assign_value eye fill mean_grad_of_constant randint randperm seed truncated_gaussian_random uniform_random""",
}


def test_every_operator_is_here():
    forward = {d.name for d in REGISTRY.declared() if REGISTRY.forward_type(d.name) is None}
    without = {name for names in NO_BATCH.values() for name in names.split()}
    assert forward - _recorded() - set(ROWS) - set(SEQUENCES) - set(ELSEWHERE) - without == set()
    assert (without | set(ROWS) | set(SEQUENCES) | set(ELSEWHERE)) - forward == set()


def _taken(operands, at):
    return {s: [a[at].copy() for a in v] if isinstance(v, list) else v[at].copy() for s, v in operands.items()}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_alone_is_its_row_in_the_batch(name):
    batch, fixed, attrs, outs = ROWS[name]
    together = run_op(name, {**batch, **fixed}, attrs, outs)
    for k in range(3):
        alone = run_op(name, {**_taken(batch, np.s_[k : k + 1]), **fixed}, attrs, outs)
        for out in outs:
            np.testing.assert_allclose(alone[out], together[out][k : k + 1], rtol=1e-5, atol=1e-6, err_msg=out)


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_a_sequence_alone_is_its_own_in_the_batch(name):
    batch, fixed, attrs, outs = SEQUENCES[name]
    together = run_op(name, {**batch, **fixed}, attrs, outs, lods={slot: [LENGTHS] for slot in batch})
    ends = np.cumsum([0, *LENGTHS])
    for k, length in enumerate(LENGTHS):
        lods = {slot: [[length]] for slot in batch}
        alone = run_op(name, {**_taken(batch, np.s_[ends[k] : ends[k + 1]]), **fixed}, attrs, outs, lods=lods)
        for out in outs:
            rows = np.s_[ends[k] : ends[k + 1]] if len(together[out]) == ends[-1] else np.s_[k : k + 1]
            np.testing.assert_allclose(alone[out], together[out][rows], rtol=1e-5, atol=1e-6, err_msg=out)


# ---- the others
def test_cudnn_lstm_of_one_row():
    """The batch is the second dimension."""
    attrs = {"hidden_size": 2, "input_size": 3, "num_layers": 1, "is_test": True}
    x, states, w = f(4, 3, 3), f(1, 3, 2), f(4 * 2 * (3 + 2) + 2 * 4 * 2)
    outs = ("Out", "last_h", "last_c")
    together = run_op("cudnn_lstm", {"Input": x, "InitH": states, "InitC": states / 2, "W": w}, attrs, outs)
    for k in range(3):
        one = np.s_[:, k : k + 1]
        alone = run_op("cudnn_lstm", {"Input": x[one], "InitH": states[one], "InitC": states[one] / 2, "W": w}, attrs, outs)
        for out in outs:
            np.testing.assert_allclose(alone[out], together[out][one], rtol=1e-5, atol=1e-6)


def test_var_conv_2d_of_one_image():
    attrs = {"InputChannel": 2, "OutputChannel": 1, "KernelH": 2, "KernelW": 3, "StrideH": 1, "StrideW": 2}
    ins = {"X": f(24, 1), "ROW": f(4, 1), "COLUMN": f(6, 1), "W": f(1, 12)}
    lods = {"X": [[12, 12]], "ROW": [[2, 2]], "COLUMN": [[3, 3]]}
    together = run_op("var_conv_2d", ins, attrs, ("Out", "Col"), lods=lods)["Out"]
    lods = {slot: [level[0][:1]] for slot, level in lods.items()}
    for k in range(2):
        half = {s: v if s == "W" else v[k * len(v) // 2 :][: len(v) // 2] for s, v in ins.items()}
        alone = run_op("var_conv_2d", half, attrs, ("Out", "Col"), lods=lods)["Out"]
        np.testing.assert_allclose(alone, together[k * 4 : k * 4 + 4], rtol=1e-5)


@pytest.mark.parametrize("name", ("batch_norm_relu", "sync_batch_norm"))
def test_statistics_of_one_image(name):
    """They are those of its own positions."""
    x = f(1, 2, 3, 4)
    ins = {"X": x, "Scale": f(2), "Bias": f(2), "Mean": np.zeros(2, "float32"), "Variance": np.ones(2, "float32")}
    ran = run_op(name, ins, {"momentum": 0.9}, ("Y", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance"))
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    factor = (f(2) / np.sqrt(variance + 1e-5))[:, None, None]
    expected = (x - mean[:, None, None]) * factor + f(2)[:, None, None]
    np.testing.assert_allclose(ran["Y"], np.maximum(expected, 0) if "relu" in name else expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ran["VarianceOut"], 0.9 + 0.1 * variance, rtol=1e-5)


def test_layers_of_one_row():
    """What programs call: no layer loses the batch's dimension."""
    x = fluid.data("x", [None, 4])
    out = fluid.layers.fc(fluid.layers.layer_norm(fluid.layers.fc(x, 3, act="relu")), 2, act="softmax")
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    together = exe.run(feed={"x": f(3, 4)}, fetch_list=[out])[0]
    alone = [exe.run(feed={"x": f(3, 4)[k : k + 1]}, fetch_list=[out])[0] for k in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-5)
