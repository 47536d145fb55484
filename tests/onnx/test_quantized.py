"""Quantized models of ONNX Runtime's own tools, read and run here: pairs of (De)QuantizeLinear and operators on integers."""

import numpy as np
import onnx
import pytest
from golden import session
from onnx import TensorProto, helper, numpy_helper

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import NotSupportedError


def run_here(model, feed):
    read = ms_onnx.load(model.SerializeToString())
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        read.initialize(scope)
        return fluid.Executor(fluid.CPUPlace()).run(read.program, feed=feed, fetch_list=read.fetch_vars)


def same(model, feed, steps=0.0):
    """Equal to `steps`: a sum that lies between two integers may be rounded to either."""
    for want, got in zip(session(model).run(None, feed), run_here(model, feed)):
        assert want.dtype == got.dtype
        np.testing.assert_allclose(
            np.reshape(got, want.shape).astype("float64"), want.astype("float64"), atol=steps or 1e-5, rtol=1e-5
        )


def model_of(nodes, inputs, outputs, **constants):
    infos, outs = ([helper.make_tensor_value_info(*i) for i in side] for side in (inputs, outputs))
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, outs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("kind", ["pairs", "pairs by channel", "dynamic"])
def test_models_of_onnxruntime(kind, tmp_path):
    from onnxruntime import quantization as q

    w, v = np.random.randn(6, 3, 3, 3).astype("float32"), np.random.randn(6 * 10 * 10, 4).astype("float32")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["out"]),
    ]
    plain = model_of(nodes, [("x", 1, [2, 3, 12, 12])], [("out", 1, [2, 4])], w=w, v=v, b=np.zeros(6, "float32"))
    source, target = str(tmp_path / "plain.onnx"), str(tmp_path / "quantized.onnx")
    onnx.save(plain, source)

    class Batches(q.CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"x": np.random.randn(2, 3, 12, 12).astype("float32")} for _ in range(3)])

        def get_next(self):
            return next(self.left, None)

    if kind == "dynamic":
        q.quantize_dynamic(source, target)
    else:
        q.quantize_static(
            source, target, Batches(), quant_format=q.QuantFormat.QDQ, per_channel=kind == "pairs by channel",
            weight_type=q.QuantType.QInt8,
        )  # fmt: skip
    model = onnx.load(target)
    largest = float(np.abs(session(model).run(None, {"x": np.ones((2, 3, 12, 12), "float32")})[0]).max())
    same(model, {"x": np.random.randn(2, 3, 12, 12).astype("float32")}, steps=0.02 * max(largest, 1.0))


def test_convolution_of_integers():
    x, w = np.random.randint(0, 255, (2, 3, 8, 8), "uint8"), np.random.randint(-127, 127, (4, 3, 3, 3), "int8")
    scales = {"xs": np.float32(0.02), "xz": np.uint8(120), "ws": np.random.rand(4).astype("float32") / 100 + 0.001,
              "wz": np.zeros(4, "int8"), "ys": np.float32(0.05), "yz": np.uint8(128)}  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", names, ["out"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    made = model_of([node], [("x", TensorProto.UINT8, [2, 3, 8, 8])], [("out", TensorProto.UINT8, [2, 4, 8, 8])], w=w,
                    b=np.random.randint(-500, 500, 4, "int32"), **scales)  # fmt: skip
    same(made, {"x": x}, steps=1.0)


def test_products_of_integers():
    a, b = np.random.randint(0, 255, (5, 6), "uint8"), np.random.randint(-127, 127, (6, 4), "int8")
    node = helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["out"])
    made = model_of([node], [("a", TensorProto.UINT8, [5, 6])], [("out", TensorProto.INT32, [5, 4])], b=b,
                    az=np.uint8(7), bz=np.int8(-3))  # fmt: skip
    same(made, {"a": a})
    node = helper.make_node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["out"])
    made = model_of([node], [("a", TensorProto.UINT8, [5, 6])], [("out", TensorProto.UINT8, [5, 4])], b=b,
                    **{"as": np.float32(0.02), "az": np.uint8(7), "bs": np.float32(0.01), "bz": np.int8(0),
                       "ys": np.float32(0.3), "yz": np.uint8(100)})  # fmt: skip
    same(made, {"a": a}, steps=1.0)


def test_one_scale_for_a_vector_needs_no_axis():
    """The axis (1 unless given) means nothing where there is one scale: biases have one dim."""
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["out"])
    made = model_of([node], [("x", TensorProto.INT32, [7])], [("out", 1, [7])], s=np.float32(0.25))
    same(made, {"x": np.arange(7, dtype="int32")})


def test_scales_by_blocks():
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["out"], axis=1, block_size=3)
    scales = np.random.rand(2, 2).astype("float32")
    made = model_of([node], [("x", TensorProto.INT8, [2, 6])], [("out", 1, [2, 6])], s=scales)
    same(made, {"x": np.arange(12, dtype="int8").reshape(2, 6)})


def test_what_has_no_type_here_is_refused():
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["out"])
    made = model_of([node], [("x", 1, [3])], [("out", TensorProto.UINT16, [3])], s=np.float32(0.1), z=np.uint16(5))
    with pytest.raises(NotSupportedError, match="UINT16"):
        ms_onnx.load(made.SerializeToString())
