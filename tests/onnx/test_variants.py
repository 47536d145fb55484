"""Forms of ONNX operators that exporters write, against ONNX Runtime: one small model each."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import NotSupportedError

RNG = np.random.default_rng(7)  # drawn from while this file is read only, so that the order of tests does not matter


def numbers(*shape):
    return RNG.standard_normal(shape).astype("float32")


def whole(*values):
    return np.array(values, np.int64)


X = numbers(2, 3, 5, 6)
SIZES = whole(2, 3, 7, 4)
ODD = np.array([1, 1, 0.6, 1.7], "float32")
RNN = {"w": numbers(1, 6, 4) / 2, "r": numbers(1, 6, 6) / 2, "b": numbers(1, 12) / 3}
GRU = {"w": numbers(2, 18, 4) / 2, "r": numbers(2, 18, 6) / 2, "b": numbers(2, 36) / 3}
STEPS = {"x": numbers(5, 3, 4), "l": np.array([5, 3, 1], "int32")}


def node(op, inputs, outputs=("y",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def resized(sizes=None, **attributes):
    roi = np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8], "float32")
    inputs = ["x", "roi", "s"] if sizes is None else ["x", "roi", "", "s"]
    return [node("Resize", inputs, **attributes)], {"x": X}, {"roi": roi, "s": ODD if sizes is None else sizes}, 19


def body(nodes, inputs, outputs):
    made = [[helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in ports] for ports in (inputs, outputs)]
    return helper.make_graph(nodes, "body", *made)


SCAN = body(
    [node("Add", ["a", "b"], ["s"]), node("Tanh", ["s"], ["t"]), node("Identity", ["t"], ["o"])],
    [("a", T.FLOAT, [3]), ("b", T.FLOAT, [3])], [("t", T.FLOAT, [3]), ("o", T.FLOAT, [3])],
)  # fmt: skip
FORMS = {
    "resize nearest ceil": resized(mode="nearest", nearest_mode="ceil"),
    "resize nearest pytorch": resized(mode="nearest", coordinate_transformation_mode="pytorch_half_pixel"),
    "resize linear by scales": resized(mode="linear"),
    "resize linear symmetric": resized(mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    "resize linear crop": resized(
        mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=2.0, sizes=SIZES
    ),
    "resize cubic asymmetric": resized(mode="cubic", coordinate_transformation_mode="asymmetric"),
    "resize cubic excluded": resized(mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    "resize antialias": resized(mode="linear", antialias=1, sizes=whole(2, 3, 3, 4)),
    "resize cubic antialias": resized(mode="cubic", antialias=1, sizes=whole(2, 3, 3, 4)),
    "resize channels": resized(mode="linear", sizes=whole(2, 6, 5, 6)),
    "resize keeps aspect": resized(mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger", sizes=whole(10, 9)),
    "pad wrap": ([node("Pad", ["x", "p"], mode="wrap")], {"x": X}, {"p": whole(0, 0, 1, 2, 0, 0, 2, 1)}, 19),
    "pad reflect batch": ([node("Pad", ["x", "p"], mode="reflect")], {"x": X}, {"p": whole(1, 0, 0, 0, 0, 1, 0, 0)}, 17),
    "slice back": (
        [node("Slice", ["x", "s", "e", "a", "t"])], {"x": X},
        {"s": whole(4, 5), "e": whole(0, -10), "a": whole(2, 3), "t": whole(-2, -3)}, 17,
    ),
    "gather elements": (
        [node("GatherElements", ["x", "i"], axis=0)], {"x": numbers(3, 4), "i": whole(0, -1, 2, 1).reshape(1, 4)}, {}, 17,
    ),
    "gather nd": ([node("GatherND", ["x", "i"])], {"x": X, "i": whole(0, -1, -2, 2).reshape(2, 2)}, {}, 17),
    "scatter nd": (
        [node("ScatterND", ["x", "i", "u"])], {"x": numbers(2, 3, 4), "u": numbers(2, 2, 4)},
        {"i": whole(0, 1, 1, 2, 1, 0, 0, -1).reshape(2, 2, 2)}, 17,
    ),
    "scatter elements": (
        [node("ScatterElements", ["x", "i", "u"], axis=0, reduction="add")],
        {"x": numbers(4, 3), "i": whole(0, 1, 2, 1, -1, 0).reshape(2, 3), "u": numbers(2, 3)}, {}, 18,
    ),
    "one hot from the end": (
        [node("OneHot", ["i", "d", "v"], axis=1)], {"i": whole(0, 2, -1, 5).reshape(2, 2)},
        {"d": np.int64(4), "v": np.array([0.5, 3], "float32")}, 17,
    ),
    "group norm 18": (
        [node("GroupNormalization", ["x", "s", "b"], num_groups=3)], {"x": numbers(2, 6, 4, 4)},
        {"s": numbers(3), "b": numbers(3)}, 18,
    ),
    "group norm 21": (
        [node("GroupNormalization", ["x", "s", "b"], num_groups=3)], {"x": numbers(2, 6, 4, 4)},
        {"s": numbers(6), "b": numbers(6)}, 21,
    ),
    "defined by ONNX, default attribute": ([node("MeanVarianceNormalization", ["x"])], {"x": X}, {}, 13),
    "defined by ONNX, given attribute": ([node("Shrink", ["x"], bias=0.3, lambd=0.4)], {"x": X}, {}, 18),
    "defined for the types": (
        [node("Attention", ["q", "k", "v"])], {"q": numbers(1, 2, 3, 4), "k": numbers(1, 2, 5, 4), "v": numbers(1, 2, 5, 4)},
        {}, 23,
    ),
    "transposed convolution of rows": (
        [node("ConvTranspose", ["x", "w"], strides=[2], output_padding=[1])], {"x": numbers(2, 4, 5)},
        {"w": numbers(4, 3, 3)}, 17,
    ),
    "transposed convolution as large as strides": (
        [node("ConvTranspose", ["x", "w"], strides=[2, 2], auto_pad="SAME_UPPER")], {"x": numbers(2, 4, 4, 5)},
        {"w": numbers(4, 3, 3, 3)}, 17,
    ),
    "transposed convolution to a size": (
        [node("ConvTranspose", ["x", "w", "b"], strides=[2, 2], output_shape=[8, 10])], {"x": numbers(2, 4, 4, 5)},
        {"w": numbers(4, 3, 3, 3), "b": numbers(3)}, 17,
    ),
    "averages that count padding": (
        [node("AveragePool", ["x"], kernel_shape=[2, 3], strides=[2, 2], pads=[1, 1, 0, 1], ceil_mode=1,
              count_include_pad=1)],
        {"x": X}, {}, 19,
    ),
    "clip of integers": ([node("Clip", ["x", "a", "b"])], {"x": np.arange(9)}, {"a": np.int64(2), "b": np.int64(6)}, 17),
    "hardmax": ([node("Hardmax", ["x"], axis=1)], {"x": X}, {}, 17),
    "functions of angles": (
        [node("Sinh", ["x"], ["a"]), node("Asinh", ["a"], ["b"]), node("Tan", ["b"], ["c"]), node("Cosh", ["x"], ["d"]),
         node("Acosh", ["d"], ["e"]), node("Tanh", ["x"], ["f"]), node("Atanh", ["f"], ["g"]), node("Sum", ["c", "e", "g"])],
        {"x": X}, {}, 17,
    ),
    "dropout with mask": (
        [node("Dropout", ["x"], ["a", "m"]), node("Cast", ["m"], ["f"], to=T.FLOAT), node("Add", ["a", "f"])],
        {"x": X}, {}, 13,
    ),
    "rnn": (
        [node("RNN", ["x", "w", "r", "b", "l"], ["y", "h"], hidden_size=6, direction="reverse")], STEPS, RNN, 17,
    ),
    "gru before reset, lengths": (
        [node("GRU", ["x", "w", "r", "b", "l"], ["y", "h"], hidden_size=6, direction="bidirectional",
              linear_before_reset=1)],
        STEPS, GRU, 17,
    ),
    "boxes by centres": (
        [node("NonMaxSuppression", ["b", "s", "m", "i"], center_point_box=1)],
        {"b": RNG.random((1, 9, 4)).astype("float32"), "s": RNG.random((1, 2, 9)).astype("float32")},
        {"m": whole(4), "i": np.array([0.4], "float32")}, 17,
    ),
    "scan along other axes": (
        [node("Scan", ["h", "x"], ["hl", "y"], num_scan_inputs=1, body=SCAN, scan_input_axes=[1], scan_output_axes=[-1])],
        {"h": numbers(3), "x": numbers(3, 5)}, {}, 17,
    ),
    "squares of nothing summed": (
        [node("ReduceSumSquare", ["x", "a"], noop_with_empty_axes=1)], {"x": X}, {"a": np.array([], np.int64)}, 18,
    ),
}  # fmt: skip


def modelled(nodes, inputs, constants, opset, known=True):
    ports = []
    for name, array in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        ports.append(
            helper.make_tensor_value_info(name, kind, array.shape if known else [f"{name}{i}" for i in range(array.ndim)])
        )
    made = helper.make_graph(
        nodes, "variant", ports, [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return model


def check(model, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(["y"], feed)[0]
    read, scope = ms_onnx.load(model), fluid.Scope()
    with fluid.scope_guard(scope):
        read.initialize()
        got = np.asarray(fluid.Executor().run(read.program, feed=feed, fetch_list=read.fetch_vars)[0])
    assert got.shape == (want.shape or (1,)) and got.dtype == want.dtype  # Fluid has no scalars
    assert np.allclose(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_form(name):
    nodes, feed, constants, opset = FORMS[name]
    check(modelled(nodes, feed, constants, opset), feed)


SHAPES = {"i": 2, "j": 3, "k": 4, "b": 5, "h": 2, "d": 6}
EQUATIONS = (
    "ij,jk->ik", "bij,bjk->bik", "bhid,bhjd->bhij", "i,j->ij", "ij->ji", "ij->", "...ij,jk->...ik", "ij,jk",
    "bij,jk,kd->bid", "bi,bi->b", "bi,bi->", "bhid,bjhd->bijh", "bij,kji->bk",
)  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation, known):
    terms = equation.split("->")[0].replace("...", "bh").split(",")
    rng = np.random.default_rng(len(equation))
    shapes = [[SHAPES[c] for c in term] for term in terms]
    feed = {f"x{i}": rng.standard_normal(shape).astype("float32") for i, shape in enumerate(shapes)}
    check(modelled([node("Einsum", feed, equation=equation)], feed, {}, 17, known), feed)


@pytest.mark.parametrize(
    "nodes,constants,why",
    [
        ([node("Einsum", ["x"], equation="iijk->ijk")], {}, "the term 'iijk'"),
        ([node("Resize", ["x", "", "s"], mode="linear", antialias=1)], {"s": ODD}, "image of unknown size, or"),
        ([node("Pad", ["x", "p"], mode="wrap")], {"p": whole(0, 0, 1, 2, 0, 0, 2, 1)}, "mode wrap"),
        ([node("Det", ["x"])], {}, "no composition"),
    ],
)
def test_what_cannot_be_said(nodes, constants, why):
    with pytest.raises(NotSupportedError, match=why):
        ms_onnx.load(modelled(nodes, {"x": X}, constants, 19, known=False))


def test_a_claim_makes_no_array():
    """A slice of an input that says it has two thousand million rows."""
    constants = {"s": whole(-1), "e": whole(-(10**9)), "a": whole(0), "t": whole(-2)}
    model = modelled([node("Slice", ["x", "s", "e", "a", "t"])], {"x": X}, constants, 17)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**31 - 1
    with pytest.raises(NotSupportedError, match="places in steps of -2"):
        ms_onnx.load(model)
