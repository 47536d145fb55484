"""GridSample and ReverseSequence against ONNX Runtime."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper
from test_import import run, same_as_runtime

from millstream import onnx as ms_onnx
from millstream.errors import NotSupportedError


def model_of(node, infos, opset=17):
    inputs = [helper.make_tensor_value_info(*info) for info in infos]
    outs = [helper.make_tensor_value_info("out", infos[0][1], None)]
    made = helper.make_model(helper.make_graph([node], "g", inputs, outs), opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 9
    return made


FORMS = list(itertools.product(("linear", "nearest"), ("zeros", "border", "reflection"), (0, 1)))


def sampled(opset=20, sizes=("n", 2, 5, 4), **attrs):
    if opset < 20 and attrs.get("mode") == "linear":
        attrs["mode"] = "bilinear"
    node = helper.make_node("GridSample", ["x", "grid"], ["out"], **attrs)
    infos = [("x", TensorProto.FLOAT, list(sizes)), ("grid", TensorProto.FLOAT, ["n", "h", "w", 2])]
    return model_of(node, infos, opset)


@pytest.mark.parametrize("mode,outside,aligned", FORMS)
def test_grid_sample(mode, outside, aligned):
    model = sampled(20 if aligned else 16, mode=mode, padding_mode=outside, align_corners=aligned)
    x = np.random.randn(2, 2, 5, 4).astype("float32")
    # places on and between pixels, on edges, far outside
    along = np.concatenate([np.linspace(-1, 1, 9), np.random.uniform(-4, 4, 40)]).astype("float32")
    grid = np.stack(np.meshgrid(along, along[::-1]), -1)[None].repeat(2, 0).astype("float32")
    if mode == "nearest":  # both sides of a half are right where rounding decides
        pixels = (grid + 1) / 2 * (np.array([4, 5]) - aligned) - (0 if aligned else 0.5)
        halves = np.abs(np.abs(pixels - np.floor(pixels)) - 0.5) < 1e-4
        grid = np.where(halves & (np.abs(grid) < 0.999), grid + 0.01, grid).astype("float32")
    same_as_runtime(model, {"x": x, "grid": grid}, 1e-4)


def test_what_grid_sample_refuses():
    unknown, thin = {"sizes": ("n", 2, "h", 4)}, {"sizes": ("n", 2, 1, 4)}
    for attrs, why in (({"mode": "cubic"}, "cubic"), (unknown, "not known"), (thin, "sizes")):
        with pytest.raises(NotSupportedError, match=why):
            ms_onnx.load(sampled(**attrs).SerializeToString())


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64])
def test_reverse_sequence(batch, known, kind):
    dims = [3, 5, 2] if batch == 0 else [5, 3, 2]
    node = helper.make_node("ReverseSequence", ["x", "lengths"], ["out"], batch_axis=batch, time_axis=1 - batch)
    shape = dims if known else ["a", "b", 2]
    infos = [("x", kind, shape), ("lengths", TensorProto.INT64, ["n"])]
    model = model_of(node, infos)
    x = np.random.randint(-9, 9, dims).astype("float32" if kind == TensorProto.FLOAT else "int64")
    same_as_runtime(model, {"x": x, "lengths": np.array([1, 5, 3])})
    read = ms_onnx.load(model.SerializeToString())
    got = run(read, {"x": x, "lengths": np.array([0, 2, 5])})[0]
    want = np.moveaxis(x, batch, 0).copy()
    for row, length in zip(want, (0, 2, 5)):
        row[:length] = row[:length][::-1].copy()
    assert np.array_equal(got, np.moveaxis(want, 0, batch))


def test_reverse_sequence_of_other_dims():
    node = helper.make_node("ReverseSequence", ["x", "lengths"], ["out"], batch_axis=0, time_axis=2)
    infos = [("x", TensorProto.FLOAT, [2, 3, 4]), ("lengths", TensorProto.INT64, [2])]
    with pytest.raises((NotSupportedError, ValueError), match="first two"):
        ms_onnx.load(model_of(node, infos).SerializeToString())
