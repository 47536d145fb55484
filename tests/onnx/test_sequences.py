"""ONNX's sequences of tensors: what makes, changes and takes them apart, read as arrays and run here as in ONNX Runtime."""

import numpy as np
import onnx
import pytest
from golden import session
from onnx import TensorProto, helper

import millstream.fluid as fluid
from millstream import onnx as ms_onnx


def model_of(nodes, inputs, outputs):
    infos = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs]
    outs = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in outputs]
    graph = helper.make_graph(nodes, "g", infos, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run_here(model, feed):
    read = ms_onnx.load(model.SerializeToString())
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        read.initialize(scope)
        return fluid.Executor(fluid.CPUPlace()).run(read.program, feed=feed, fetch_list=read.fetch_vars)


def same(model, feed):
    here = {name: np.atleast_1d(value) for name, value in feed.items()}  # a scalar is a tensor of one element here
    for want, got in zip(session(model).run(None, feed), run_here(model, here)):
        np.testing.assert_array_equal(np.reshape(got, want.shape), want)


X = ("x", TensorProto.FLOAT, ["n", 2])
AT = ("at", TensorProto.INT64, [])
OUT = ("out", TensorProto.FLOAT, [None, 2])
LENGTH = ("length", TensorProto.INT64, [])


def built(change, at):
    """A sequence of rows of x, changed; concatenated, and its length."""
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0),
        change,
        helper.make_node("ConcatFromSequence", ["changed"], ["out"], axis=0),
        helper.make_node("SequenceLength", ["changed"], ["length"]),
    ]
    return model_of(nodes, [X, AT] if at else [X], [OUT, LENGTH])


@pytest.mark.parametrize("at", [0, 1, 3, -1, -2])
@pytest.mark.parametrize("kind", ["SequenceInsert", "SequenceErase"])
def test_changed_at_a_position(kind, at):
    given = ["rows", "x", "at"] if kind == "SequenceInsert" else ["rows", "at"]
    model = built(helper.make_node(kind, given, ["changed"]), True)
    same(model, {"x": np.arange(8, dtype="float32").reshape(4, 2), "at": np.array(at, "int64")})


@pytest.mark.parametrize("kind", ["SequenceInsert", "SequenceErase"])
def test_changed_at_the_end(kind):
    model = built(helper.make_node(kind, ["rows", "x"] if kind == "SequenceInsert" else ["rows"], ["changed"]), False)
    same(model, {"x": np.arange(8, dtype="float32").reshape(4, 2)})


def test_made_of_tensors_and_read_from_the_end():
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "y"], ["both"]),
        helper.make_node("SequenceAt", ["both", "at"], ["out"]),
    ]
    model = model_of(nodes, [X, ("y", TensorProto.FLOAT, ["m", 2]), AT], [OUT])
    feed = {"x": np.zeros((2, 2), "float32"), "y": np.ones((3, 2), "float32")}
    for at in (0, 1, -1, -2):
        same(model, {**feed, "at": np.array(at, "int64")})


@pytest.mark.parametrize("sizes", [None, np.array(2, "int64"), np.array([1, 3, 1], "int64")])
def test_split(sizes):
    given = ["x"] if sizes is None else ["x", "sizes"]
    nodes = [
        helper.make_node("SplitToSequence", given, ["parts"], axis=0),
        helper.make_node("SequenceAt", ["parts", "at"], ["out"]),
        helper.make_node("SequenceLength", ["parts"], ["length"]),
    ]
    more = [] if sizes is None else [("sizes", TensorProto.INT64, list(sizes.shape))]
    model = model_of(nodes, [X, AT, *more], [OUT, LENGTH])
    feed = {"x": np.arange(10, dtype="float32").reshape(5, 2)} | ({} if sizes is None else {"sizes": sizes})
    for at in (0, 1, 2):
        same(model, {**feed, "at": np.array(at, "int64")})


def test_a_dim_that_grows_in_a_loop():
    """What a body makes of a carried value's shape holds for every step, not for the first alone."""
    body = helper.make_graph(
        [
            helper.make_node("Shape", ["seen"], ["dims"]),
            helper.make_node("Gather", ["dims", "first"], ["count"]),
            helper.make_node("Concat", ["seen", "count"], ["more"], axis=0),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("seen", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("more", TensorProto.INT64, [None])],
        [helper.make_tensor("first", TensorProto.INT64, [1], [0])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["trips", "", "start"], ["out"], body=body)
    model = model_of(
        [loop],
        [("trips", TensorProto.INT64, []), ("start", TensorProto.INT64, [1])],
        [("out", TensorProto.INT64, [None])],
    )
    same(model, {"trips": np.array(4, "int64"), "start": np.array([7], "int64")})


def test_overwriting_in_a_loop_leaves_no_copy_loops():
    """An If that erases before an insert at the same place is Fluid's write to an array, and is read as that."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        x = fluid.data("x", [None, 2])
        zero, limit = fluid.layers.fill_constant([1], "int64", 0), fluid.layers.fill_constant([1], "int64", 3)
        i = fluid.layers.fill_constant([1], "int64", 0)
        array = fluid.layers.array_write(x, zero)
        going = fluid.layers.less_than(i, limit)
        loop = fluid.layers.While(going)
        with loop.block():
            fluid.layers.array_write(fluid.layers.array_read(array, zero) * 2.0, zero, array)
            fluid.layers.increment(i)
            fluid.layers.less_than(i, limit, cond=going)
        out = fluid.layers.array_read(array, zero)
    model = ms_onnx.export(main, ["x"], [out.name], {})
    x = np.ones((2, 2), "float32")
    same(model, {"x": x})
    read = ms_onnx.load(model.SerializeToString())
    assert sum(op.type == "while" for block in read.program.blocks for op in block.ops) == 1
    np.testing.assert_array_equal(run_here(model, {"x": x})[0], x * 8)
