"""Slopes in float64 of operators that the recorded cases leave out: seeded draws, chosen rows, arrays, moved statistics."""

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers
STEP = 1e-6
RNG = np.random.RandomState(4)
LENGTHS = [[2, 0, 3]]


def op(kind, inputs, attrs=None, slot="Out", count=1, others=()):
    """The variables of output `slot` of one raw operator."""
    block = fluid.default_main_program().current_block()
    outs = [block.create_var(name=fluid.unique_name.generate("out"), dtype="float64") for _ in range(count)]
    outputs = {s: block.create_var(name=fluid.unique_name.generate(s)) for s in others}
    block.append_op(kind, inputs=inputs, outputs={slot: outs, **outputs}, attrs=attrs or {})
    return outs if count > 1 else outs[0]


def held(values, dtype="float64"):
    """A constant of the Program."""
    values = np.asarray(values)
    plain = L.assign(values.astype("float32" if values.dtype.kind == "f" else "int32"))
    return L.cast(plain, dtype)


def dropout(x):
    return op("dropout", {"X": x}, {"dropout_prob": 0.4, "fix_seed": True, "seed": 3}, others=["Mask"])


def sigmoid_focal_loss(x):
    inputs = {"X": x, "Label": held([[1], [0], [-1], [4], [2]], "int32"), "FgNum": held([3], "int32")}
    return op("sigmoid_focal_loss", inputs, {"gamma": 2.0, "alpha": 0.25})


def center_loss(x):
    inputs = {"X": x, "Label": held([[1], [0], [1], [2], [0]], "int64"), "Centers": held(RNG.rand(3, 4))}
    inputs["CenterUpdateRate"] = held([0.1])
    attrs = {"cluster_num": 3, "need_update": False}
    return op("center_loss", inputs, attrs, "Loss", others=["SampleCenterDiff", "CentersOut"])


def filter_by_instag(x):
    inputs = {"Ins": x, "Ins_tag": L.lod_reset(held([[1], [2], [1]], "int64"), target_lod=[0, 1, 2, 3])}
    inputs["Filter_tag"] = held([1], "int64")
    return op("filter_by_instag", inputs, {"is_lod": True}, others=["LossWeight", "IndexMap"])


def sample_logits(x):
    inputs = {"Logits": x, "Labels": held([[0], [1], [3], [2], [2]], "int64")}
    inputs["CustomizedSamples"] = held([[0, 1], [1, 2], [3, 2], [2, 0], [2, 1]], "int64")
    inputs["CustomizedProbabilities"] = held(np.full((5, 2), 0.3))
    attrs = {"use_customized_samples": True, "num_samples": 1, "remove_accidental_hits": True}
    hidden = ["Samples", "Probabilities", "LogitsDim", "LabelsDim", "SampledLabels"]
    return op("sample_logits", inputs, attrs, "SampledLogits", others=hidden)


def normalized(kind, width=4, **attrs):
    def make(x):
        inputs = {"X": x, "Scale": held(np.linspace(0.5, 2, width)), "Bias": held(np.linspace(-1, 1, width))}
        inputs.update(Mean=held(np.full(width, 0.2)), Variance=held(np.full(width, 0.7)))
        return op(kind, inputs, attrs, "Y", others=["MeanOut", "VarianceOut", "SavedMean", "SavedVariance"])

    return make


def lstm(x):
    """The objective is Hidden: the gradient into Cell is ignored, as in Fluid."""
    inputs = {"Input": x, "Weight": held(RNG.randn(1, 4)), "Bias": held(RNG.randn(1, 7))}
    return op("lstm", inputs, {"use_peepholes": True}, "Hidden", others=["Cell", "BatchGate", "BatchCellPreAct"])


def lstmp(x):
    inputs = {"Input": x, "Weight": held(RNG.randn(1, 8)), "ProjWeight": held(RNG.randn(2, 1))}
    inputs["Bias"] = held(RNG.randn(1, 14))
    hidden = ["Cell", "BatchGate", "BatchCellPreAct", "BatchHidden"]
    return op("lstmp", inputs, {"use_peepholes": True}, "Projection", others=hidden)


def shuffle_batch(x):
    shuffled = op("shuffle_batch", {"X": x, "Seed": held([5], "int64")}, others=["ShuffleIdx", "SeedOut"])
    return L.elementwise_mul(shuffled, held(RNG.rand(5, 4)))


def split_byref(x):
    first, second = op("split_byref", {"X": x}, {"sections": [2, 3], "num": 0}, count=2)
    return L.reduce_sum(first * first) * L.reduce_sum(second)


def select_output(x):
    return op("select_output", {"X": x, "Mask": held([1], "int32")}, count=2)[1]


def through_arrays(x):
    table = L.lod_rank_table(x)
    array = L.lod_tensor_to_array(x, table)
    steps = [L.fill_constant([1], "int64", k) for k in range(3)]
    changed = L.array_write(L.sin(L.array_read(array, steps[0])), steps[0])
    for step in steps[1:]:
        changed = L.array_write(L.array_read(array, step) * 2, step, changed)
    return L.array_to_lod_tensor(changed, table)


FORMS = {
    "dropout": dropout,
    "sigmoid_focal_loss": sigmoid_focal_loss,
    "center_loss": center_loss,
    "filter_by_instag": filter_by_instag,
    "sample_logits": sample_logits,
    "batch_norm": normalized("batch_norm"),
    "batch_norm (global statistics)": normalized("batch_norm", use_global_stats=True),
    "inplace_abn": normalized("inplace_abn", activation="leaky_relu", alpha=0.3),
    "inplace_abn (elu)": normalized("inplace_abn", activation="elu", alpha=0.6),
    "lstm": lstm,
    "lstmp": lstmp,
    "shuffle_batch": shuffle_batch,
    "split_byref": split_byref,
    "select_output": select_output,
    "array_to_lod_tensor, lod_tensor_to_array": through_arrays,
    "rnn_memory_helper": lambda x: op("rnn_memory_helper", {"X": x}, {"dtype": 6}),
}
WIDTH = {"lstmp": 8}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_gradient_is_the_slope(name):
    main, startup = fluid.Program(), fluid.Program()
    values = RNG.rand(5, WIDTH.get(name, 4)) + 0.1
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.data("x", [None, values.shape[1]], "float64", lod_level=1)
        x.stop_gradient = False
        out = FORMS[name](x)
        total = L.reduce_sum(L.sin(out) * out)
        (grad,) = fluid.gradients([total], [x])
    exe, scope = fluid.Executor(), fluid.Scope()

    def run(values, fetch):
        fed = fluid.create_lod_tensor(values, LENGTHS, fluid.CPUPlace())
        return np.array(exe.run(main, feed={"x": fed}, fetch_list=[fetch], scope=scope, return_numpy=False)[0])

    exe.run(startup, scope=scope)
    slopes = np.zeros_like(values)
    for at in np.ndindex(*values.shape):
        up, down = values.copy(), values.copy()
        up[at] += STEP
        down[at] -= STEP
        slopes[at] = (run(up, total).item() - run(down, total).item()) / (2 * STEP)
    assert np.abs(slopes).max() > 0.05
    np.testing.assert_allclose(run(values, grad), slopes, rtol=1e-5, atol=1e-6)
