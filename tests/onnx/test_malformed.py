"""Damaged ONNX files: each a clear error of millstream's, or a model; never a crash, a hang or much memory."""

import time
import tracemalloc

import numpy as np
import onnx
import pytest
from corruptions import corruptions
from onnx import TensorProto, helper

from millstream import onnx as ms_onnx
from millstream.errors import MillstreamError


def test_five_hundred_corruptions():
    loaded, slow = 0, []
    for name, data in corruptions(500):
        start = time.process_time()
        try:
            ms_onnx.load(data)
            loaded += 1
        except MillstreamError as error:
            assert len(str(error)) > 20, name
        if time.process_time() - start > 5:
            slow.append(name)
    assert not slow
    assert loaded < 100  # a flipped bit in a weight is no damage that can be seen


def _grown(nodes, constants):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def _doubled(kind, **attrs):
    nodes = [helper.make_node(kind, [f"c{i}", f"c{i}"], [f"c{i + 1}"], **attrs) for i in range(60)]
    return _grown([*nodes, helper.make_node("Identity", ["c60"], ["y"])], {"c0": np.zeros(1024, "float32")})


BOMBS = {
    "doubled": lambda: _doubled("Concat", axis=0),
    "filled": lambda: _grown([helper.make_node("ConstantOfShape", ["s"], ["y"])], {"s": np.array([1 << 40])}),
    "expanded": lambda: _grown([helper.make_node("Expand", ["c", "s"], ["y"])],
                               {"c": np.zeros((1, 1), "float32"), "s": np.array([1 << 30, 1 << 10])}),
    "counted": lambda: _grown([helper.make_node("Range", ["a", "b", "d"], ["y"])],
                              {"a": np.array(0), "b": np.array(1 << 60), "d": np.array(1)}),
    "outer product": lambda: _grown([helper.make_node("MatMul", ["a", "b"], ["y"])],
                                    {"a": np.zeros((1 << 17, 1), "float32"), "b": np.zeros((1, 1 << 17), "float32")}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_constants_can_not_grow_without_bounds(name):
    data = BOMBS[name]()
    tracemalloc.start()
    try:
        ms_onnx.load(data)
    except MillstreamError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 200e6


def test_no_onnx_at_all():
    for data in (b"", b"\0" * 100, b"not a model", bytes(range(256))):
        with pytest.raises(MillstreamError):
            ms_onnx.load(data)
