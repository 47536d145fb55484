import numpy as np
import pytest
from one_op import numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import AttributeTypeError, ShapeError

RNG = np.random.RandomState(22)
BN_OUTS = ("Y", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance")


def randn(*shape):
    return RNG.randn(*shape)


def batch_norm_inputs(x, channels):
    stats = {"Mean": randn(channels), "Variance": RNG.rand(channels) + 0.5}
    return {"X": x, "Scale": randn(channels), "Bias": randn(channels), **stats}


def norm(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("op", ["batch_norm", "sync_batch_norm"])
@pytest.mark.parametrize(
    ("shape", "layout"), [((4, 3), "NCHW"), ((2, 3, 4), "NCHW"), ((2, 4, 5, 3), "NHWC"), ((2, 2, 2, 3, 3), "NHWC")]
)
def test_batch_norm_and_its_running_statistics(op, shape, layout):
    axis = 1 if layout == "NCHW" else len(shape) - 1
    ins = batch_norm_inputs(randn(*shape), 3)
    others = tuple(d for d in range(len(shape)) if d != axis)
    got = run_op(op, ins, {"momentum": 0.7, "epsilon": 1e-3, "data_layout": layout}, BN_OUTS)
    wide = [3 if d == axis else 1 for d in range(len(shape))]
    want = norm(ins["X"], others, 1e-3) * ins["Scale"].reshape(wide) + ins["Bias"].reshape(wide)
    np.testing.assert_allclose(got["Y"], want, atol=1e-6)
    mean, var = ins["X"].mean(others), ins["X"].var(others)
    np.testing.assert_allclose(got["MeanOut"], 0.7 * ins["Mean"] + 0.3 * mean, atol=1e-7)
    np.testing.assert_allclose(got["VarianceOut"], 0.7 * ins["Variance"] + 0.3 * var, atol=1e-7)
    np.testing.assert_allclose(got["SavedVariance"], 1 / np.sqrt(var + np.float32(1e-3)), atol=1e-7)
    wrt = ("X", "Scale", "Bias")
    numeric_grad_check(op, ins, {"data_layout": layout, "epsilon": 1e-3}, BN_OUTS, wrt=wrt)
    numeric_grad_check(op, ins, {"data_layout": layout, "use_global_stats": True}, BN_OUTS, wrt=wrt)


def test_batch_norm_leaves_the_fed_statistics_alone():
    program = fluid.Program()
    block = program.global_block()
    arrays = {k: v.astype("float32") for k, v in batch_norm_inputs(randn(4, 3), 3).items()}
    variables = {k: block.create_var(name=k, shape=list(v.shape), dtype="float32") for k, v in arrays.items()}
    outs = {"Y": block.create_var(name="y"), "MeanOut": variables["Mean"], "VarianceOut": variables["Variance"]}
    outs |= {s: block.create_var(name=s) for s in ("SavedMean", "SavedVariance")}
    block.append_op(type="batch_norm", inputs=variables, outputs=outs)
    kept = {k: v.copy() for k, v in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        tensors[name] = fluid.LoDTensor()
        tensors[name].set(array, fluid.CPUPlace())
    (mean,) = fluid.Executor(fluid.CPUPlace()).run(program, feed=tensors, fetch_list=["Mean"])
    assert not np.allclose(mean, kept["Mean"])
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(np.asarray(tensor), kept[name])


def test_momentum_may_be_a_tensor():
    ins = batch_norm_inputs(randn(6, 2), 2)
    got = run_op("batch_norm", {**ins, "MomentumTensor": np.array([0.25])}, {"momentum": 0.9}, BN_OUTS)
    np.testing.assert_allclose(got["MeanOut"], 0.25 * ins["Mean"] + 0.75 * ins["X"].mean(0), atol=1e-7)


def test_one_element_a_channel_passes_through():
    ins = batch_norm_inputs(randn(1, 3), 3)
    got = run_op("batch_norm", ins, {}, BN_OUTS, wrt=("X", "Scale"))
    np.testing.assert_array_equal(got["Y"], ins["X"])
    np.testing.assert_array_equal(got["MeanOut"], ins["Mean"])
    assert (got.grads["X"] == 1).all() and (got.grads["Scale"] == 0).all()


@pytest.mark.parametrize("given", [("Scale", "Bias"), ("Scale",), ()])
def test_layer_norm(given):
    ins = {"X": randn(2, 3, 4), **{n: randn(12) for n in given}}
    outs = ("Y", "Mean", "Variance")
    got = run_op("layer_norm", ins, {"begin_norm_axis": 1}, outs)
    want = norm(ins["X"].reshape(2, 12), (1,), 1e-5) * ins.get("Scale", 1) + ins.get("Bias", 0)
    np.testing.assert_allclose(got["Y"].reshape(2, 12), want, atol=1e-6)
    np.testing.assert_allclose(got["Variance"], ins["X"].reshape(2, 12).var(1), atol=1e-6)
    numeric_grad_check("layer_norm", ins, {"begin_norm_axis": 1}, outs, wrt=("X", *given))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_group_norm(layout):
    shape = (2, 4, 3, 2) if layout == "NCHW" else (2, 3, 2, 4)
    ins = {"X": randn(*shape), "Scale": randn(4), "Bias": randn(4)}
    attrs, outs = {"groups": 2, "data_layout": layout, "epsilon": 1e-3}, ("Y", "Mean", "Variance")
    numeric_grad_check("group_norm", ins, attrs, outs, wrt=("X", "Scale", "Bias"))
    plain = ins["X"] if layout == "NCHW" else ins["X"].transpose(0, 3, 1, 2)
    want = norm(plain.reshape(2, 2, -1), (2,), 1e-3).reshape(2, 4, 3, 2)
    want = want * ins["Scale"].reshape(4, 1, 1) + ins["Bias"].reshape(4, 1, 1)
    got = run_op("group_norm", ins, attrs, outs)["Y"]
    np.testing.assert_allclose(got if layout == "NCHW" else got.transpose(0, 3, 1, 2), want, atol=1e-6)


def test_instance_norm_lrn_and_affine_channel():
    ins = {"X": randn(2, 3, 2, 3), "Scale": randn(3), "Bias": randn(3)}
    outs = ("Y", "SavedMean", "SavedVariance")
    numeric_grad_check("instance_norm", ins, {"epsilon": 1e-3}, outs, wrt=("X", "Scale", "Bias"))
    numeric_grad_check("affine_channel", ins, {"data_layout": "NCHW"}, wrt=("X", "Scale", "Bias"))
    attrs = {"n": 3, "alpha": 0.3, "beta": 0.6}
    numeric_grad_check("lrn", {"X": randn(1, 5, 2, 2)}, attrs, ("Out", "MidOut"), wrt=("X",))


@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "elu"])
def test_inplace_abn_recovers_its_input(activation):
    ins = batch_norm_inputs(randn(5, 3, 2), 3)
    attrs = {"activation": activation, "alpha": 0.5, "epsilon": 1e-3}
    numeric_grad_check("inplace_abn", ins, attrs, BN_OUTS, wrt=("X", "Scale", "Bias"))


BN = batch_norm_inputs(randn(2, 3, 4), 3)


@pytest.mark.parametrize(
    ("op", "ins", "attrs", "outs", "error", "words"),
    [
        ("batch_norm", {**BN, "Scale": randn(4)}, {}, BN_OUTS, ShapeError, r"Scale must have shape \[3\]"),
        ("batch_norm", BN, {"data_layout": "CHWN"}, BN_OUTS, AttributeTypeError, "data_layout"),
        ("layer_norm", {"X": randn(2, 3)}, {"begin_norm_axis": 2}, ("Y",), ShapeError, "begin_norm_axis"),
        ("layer_norm", {"X": randn(2, 3), "Scale": randn(2)}, {}, ("Y",), ShapeError, "Scale must have shape"),
        ("group_norm", {"X": randn(2, 4, 3)}, {"groups": 5}, ("Y",), ShapeError, "must be in \\[1, 4\\]"),
        ("lrn", {"X": randn(2, 4, 3, 3)}, {"n": 4}, ("Out",), AttributeTypeError, "odd"),
    ],
)
def test_wrong_inputs_are_refused_when_built(op, ins, attrs, outs, error, words):
    with pytest.raises(error, match=words):
        run_op(op, ins, attrs, outs)


def test_batch_norm_in_test_form_is_not_trained():
    """1.8.5 refuses; `use_global_stats` is the way to train with the global statistics."""
    def loss(**options):
        with fluid.program_guard(fluid.Program(), fluid.Program()):
            x = fluid.data("x", [None, 3])
            value = fluid.layers.mean(fluid.layers.batch_norm(fluid.layers.fc(x, 2), **options))
            fluid.optimizer.SGD(0.1).minimize(value)
            exe = fluid.Executor(fluid.CPUPlace())
            exe.run(fluid.default_startup_program())
            return exe.run(feed={"x": np.ones((2, 3), "float32")}, fetch_list=[value])[0]

    with fluid.scope_guard(fluid.Scope()):
        assert np.isfinite(loss(use_global_stats=True))
        with pytest.raises(ValueError, match=r"is_test = True.*use_global_stats"):
            loss(is_test=True)
