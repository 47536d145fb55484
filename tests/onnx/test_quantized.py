"""Quantized models of ONNX Runtime's own tools, read and run here: pairs of (De)QuantizeLinear and operators on integers."""

import numpy as np
import onnx
import pytest
import torch
from golden import session
from onnx import TensorProto, helper, numpy_helper

import millstream
import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import NotSupportedError
from millstream.inference.export import export


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


# ---- what becomes of the pairs ------------------------------------------------------------------------------
@pytest.fixture
def pairs(tmp_path):
    """A file whose convolution takes and gives pairs, with a bias of integers."""
    rng = np.random.RandomState(3)
    one = {"xs": np.float32(0.02), "xz": np.uint8(120), "ys": np.float32(0.05), "yz": np.uint8(100)}
    wide = {"w": rng.randint(-127, 127, (4, 3, 3, 3)).astype("int8"), "ws": (rng.rand(4) / 100 + 0.001).astype("float32"),
            "wz": np.zeros(4, "int8"), "b": np.arange(4, dtype="int32") * 300, "bz": np.zeros(4, "int32")}  # fmt: skip
    wide["bs"] = wide["ws"] * one["xs"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["db"], axis=0),
        helper.make_node("Conv", ["d", "dw", "db"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["qc"]),
        helper.make_node("DequantizeLinear", ["qc", "ys", "yz"], ["out"]),
    ]
    made = model_of(nodes, [("x", 1, ["n", 3, 9, 9])], [("out", 1, ["n", 4, 7, 7])], **one, **wide)
    path = str(tmp_path / "pairs.onnx")
    onnx.save(made, path)
    return path


X = np.random.RandomState(5).randn(2, 3, 9, 9).astype("float32")


@pytest.mark.parametrize("engine", ["native", "onnxruntime", "openvino"])
def test_engines_compute_with_integers(pairs, engine, monkeypatch, tmp_path):
    import onnxruntime

    from millstream.inference import engines

    given = []
    for name, make in list(engines.MAKERS.items()):
        monkeypatch.setitem(engines.MAKERS, name, lambda data, *rest, make=make: given.append(data) or make(data, *rest))
    model = millstream.load(pairs, engine=engine)
    want = session(onnx.load(pairs)).run(None, {"x": X})[0]
    np.testing.assert_allclose(model.run(X)[0], want, atol=0.0501)  # one step of the result
    counts = model._model.native.work.counts()
    assert counts["fold_dequantize"] == 2 and counts["fuse_quantize_pairs"] == 2
    if engine != "native":
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "seen.onnx"), 3
        onnxruntime.InferenceSession(given[0], options, providers=["CPUExecutionProvider"])
        inside = [n.op_type for n in onnx.load(tmp_path / "seen.onnx").graph.node]
        assert "QLinearConv" in inside and "Conv" not in inside


def test_pairs_are_written_again(pairs, tmp_path):
    read = ms_onnx.load(pairs)
    made = ms_onnx.export(read.program, read.feed_names, read.fetch_names, lambda n: torch.from_numpy(read.values[n]))
    kinds = [n.op_type for n in made.graph.node]
    assert kinds.count("QuantizeLinear") == 2 and kinds.count("DequantizeLinear") == 4
    np.testing.assert_allclose(session(made).run(None, {"x": X})[0], session(onnx.load(pairs)).run(None, {"x": X})[0])


def test_for_paddlepaddle_they_are_arithmetic(pairs, tmp_path):
    model = millstream.load(pairs)
    export(model._model, "fluid", str(tmp_path / "fluid"))
    again = millstream.load(tmp_path / "fluid")
    types = {op.type for op in again._model.program.global_block().ops}
    assert not types & {"quantize_linear", "dequantize_linear", "quantize_dequantize_linear"} and "round" in types
    np.testing.assert_allclose(again.run(X)[0], model.run(X)[0], atol=0.0501)


def test_the_fastest_engine_may_round_otherwise(pairs):
    """Results of engines may be a step away from the native ones; how far is the user's to say."""
    model = millstream.load(pairs, engine="auto", remember=False)
    model.run(X)
    assert "not taken" not in model.explain()
    for arguments in ({"max_error": 0.1}, {"engine": "onnxruntime", "max_error": 0.1}, {"calibration": [X]}):
        with pytest.raises(ValueError, match="is for precision="):
            millstream.load(pairs, **arguments)
