"""OpProto messages: what 1.8.5 says of its operators, and OpDesc messages made from them."""

import pytest

import millstream.fluid as fluid
from millstream.fluid.framework import OpProtoHolder
from millstream.fluid.proto import framework_pb2

# slots (name, duplicable, intermediate, dispensable) and own attributes with their types, of 1.8.5
RECORDED = {
    "scale": (["X"], ["Out"], {"scale": 1, "bias": 1, "bias_after_scale": 6}),
    "dropout": (["X", "Seed?"], ["Out", "Mask~"], {"dropout_prob": 1, "is_test": 6, "fix_seed": 6, "seed": 0}),
    "slice": (["Input", "StartsTensor?", "EndsTensor?"], ["Out"], {"axes": 3, "starts": 3, "decrease_axis": 3}),
    "lookup_table": (["W", "Ids"], ["Out"], {"is_sparse": 6, "is_distributed": 6, "padding_idx": 9}),
    "while": (["X*", "Condition*"], ["Out*", "StepScopes"], {"sub_block": 8}),
}
COMMON = {"op_role": 0, "op_role_var": 5, "op_namescope": 2, "op_callstack": 5, "op_device": 2}


def marked(slots):
    return [s.name + "*" * s.duplicable + "~" * s.intermediate + "?" * s.dispensable for s in slots]


@pytest.mark.parametrize("kind", ["scale", "dropout"])
def test_slots(kind):
    proto = OpProtoHolder.instance().get_op_proto(kind)
    inputs, outputs, _ = RECORDED[kind]
    assert isinstance(proto, framework_pb2.OpProto) and proto.IsInitialized()
    assert (marked(proto.inputs)[: len(inputs)], marked(proto.outputs)) == (inputs, outputs)


@pytest.mark.parametrize("kind", sorted(RECORDED))
def test_attributes(kind):
    proto = OpProtoHolder.instance().get_op_proto(kind)
    inputs, outputs, attrs = RECORDED[kind]
    assert {s.rstrip("*?") for s in inputs} <= {s.name for s in proto.inputs}
    assert {s.rstrip("*~") for s in outputs} <= {s.name for s in proto.outputs}
    found = {a.name: a.type for a in proto.attrs}
    assert {**attrs, **COMMON}.items() <= found.items()


def test_one_holder_of_all():
    holder = OpProtoHolder.instance()
    assert holder is fluid.layers.OpProtoHolder.instance()
    with pytest.raises(AssertionError, match="instance"):
        OpProtoHolder()
    with pytest.raises(ValueError, match='"nonsense" has not been registered'):
        holder.get_op_proto("nonsense")
    assert holder.generated_op_attr_names() == set(COMMON)
    holder.update_op_proto()
    protos = {p.type: p for p in fluid.op.get_all_op_protos()}
    assert protos.keys() == holder.op_proto_map.keys() >= {"mul", "mul_grad", "sgd"}
    data = fluid.core.get_all_op_protos()
    assert {framework_pb2.OpProto.FromString(d).type for d in data} == protos.keys()


def test_descriptions_from_keywords():
    method = fluid.op.OpDescCreationMethod(OpProtoHolder.instance().get_op_proto("scale"))
    desc = method(X="x", Out="y", scale=3.0, nothing=1)
    assert isinstance(desc, framework_pb2.OpDesc) and desc.type == "scale"
    assert {s.parameter: list(s.arguments) for s in desc.inputs} == {"X": ["x"], "ScaleTensor": []}
    assert [(a.name, a.type, a.f) for a in desc.attrs] == [("scale", framework_pb2.FLOAT, 3.0)]
    with pytest.raises(ValueError, match="keyword"):
        method("x")
    with pytest.raises(ValueError, match="Input X expects only one variable, but 2"):
        method(X=["a", "b"], Out="y")
    with pytest.raises(TypeError):
        method(X="a", Out="y", scale="s")
    with pytest.raises(TypeError, match="OpProto"):
        fluid.op.OpDescCreationMethod("scale")
    info = fluid.op.Operator.get_op_info("sum")
    assert (info.name, info.inputs, info.outputs) == ("sum", [("X", True)], [("Out", False)])
    assert list(info.method(X=["a", "b"], Out="y").inputs[0].arguments) == ["a", "b"]
    with pytest.raises(ValueError, match=r"layers\.cond"):
        fluid.op.CondOp()
