"""Text of Programs and the message classes of framework.proto: figures of PaddlePaddle 1.8.5."""

import pytest
from google.protobuf import text_format

import millstream.fluid as fluid
from millstream.fluid.proto import framework_pb2

VARIABLE = """name: "x"
type {
  type: LOD_TENSOR
  lod_tensor {
    tensor {
      data_type: FP32
      dims: -1
      dims: 2
    }
    lod_level: 0
  }
}
persistable: false
need_check_feed: true
"""
PARAMETER_DETAILS = """persistable: true
error_clip: None
stop_gradient: False
trainable: True
optimize_attr: {'learning_rate': 1.0}
regularizer: None
do_model_average: True
"""


def network():
    x = fluid.data("x", [None, 2])
    return x, fluid.layers.scale(fluid.layers.fc(x, 3, act="relu"), scale=0.5), fluid.default_main_program()


def parsed(text, kind):
    return text_format.Parse(text, getattr(framework_pb2, kind)())


def test_text_is_read_by_protobuf():
    x, y, program = network()
    assert x.to_string(True) == str(x) == VARIABLE and repr(x) == "<Variable x: float32[-1, 2]>"
    assert str(y.op) == y.op.to_string(True) and repr(y.op).startswith("<Operator scale_0.tmp_0: float32[-1, 3] = scale(")
    desc = parsed(str(program), "ProgramDesc")
    assert str(program) == program.to_string(True) and desc.version.version == 1008005
    assert [op.type for op in desc.blocks[0].ops] == ["mul", "elementwise_add", "relu", "scale"]
    assert desc.blocks[0] == parsed(str(program.global_block()), "BlockDesc")
    assert desc.blocks[0].ops[3] == parsed(y.op.to_string(True), "OpDesc")
    scale = {a.name: a for a in desc.blocks[0].ops[3].attrs}["scale"]
    assert scale.type == framework_pb2.FLOAT and scale.f == 0.5
    again = fluid.Program.parse_from_string(desc.SerializeToString())
    assert again.to_string(True) == program.to_string(True)


def test_details_follow_the_fields():
    _x, _, program = network()
    assert program.all_parameters()[0].to_string(True, True).endswith(PARAMETER_DETAILS)
    text = program.to_string(True, with_details=True)
    assert text.startswith("blocks {\n  idx: 0\n  parent_idx: -1\n  vars {\n    name: \"x\"\n")
    assert "    stop_gradient: True\n" in text


def stated(var):
    """Which fields with default values the text of `var` has: persistable, lod_level."""
    text = str(var)
    return "persistable: false" in text, "lod_level: 0" in text


def test_defaults_that_are_written():
    """As in 1.8.5: a layer says that its result is not persistable, an operator that passes LoD on says the level."""
    _x, y, program = network()
    loss = fluid.layers.mean(y)
    fluid.optimizer.Adam(0.1).minimize(loss)
    block = program.global_block()
    names = ["x", y.name, loss.name, "fc_0.w_0", "fc_0.w_0@GRAD", loss.name + "@GRAD", "fc_0.w_0_moment1_0"]
    found = [stated(block.var(name)) for name in names]
    want = [(True, True), (True, True), (True, False), (False, False), (False, True), (False, False), (False, False)]
    assert found == want


def scopes(program):
    return [(op.type, op.attr("op_namescope")) for op in program.global_block().ops]


def test_name_scopes_of_training():
    with fluid.name_scope("body"):
        loss = fluid.layers.mean(fluid.layers.fc(fluid.data("x", [None, 2]), 1, bias_attr=False))
    clip, decay = fluid.clip.GradientClipByNorm(1.0), fluid.regularizer.L2Decay(0.1)
    fluid.optimizer.SGD(0.1, grad_clip=clip, regularization=decay).minimize(loss)
    found = {kind: scope.strip("/").rstrip("_0123456789") for kind, scope in scopes(fluid.default_main_program())}
    assert found["mul"] == found["mul_grad"] == found["mean_grad"] == "body"
    assert (found["clip_by_norm"], found["scale"], found["sgd"]) == ("gradient_clip", "regularization", "optimizer")


@pytest.mark.parametrize("flags", [{"throw_on_error": "x"}, {"with_details": 1}])
def test_flags(flags):
    with pytest.raises(AssertionError, match=f"{next(iter(flags))} must be a bool"):
        fluid.Program().to_string(**flags)


def test_enums():
    assert framework_pb2.VarType.Type.Name(framework_pb2.VarType.LOD_TENSOR) == "LOD_TENSOR"
    assert framework_pb2.AttrType.Name(9) == "LONG" and framework_pb2.LONGS == 11
    assert framework_pb2.OpProto.Attr.DESCRIPTOR.fields_by_name["type"].enum_type.name == "AttrType"


def test_errors_name_a_variable_in_one_line():
    x = network()[0]
    wrong = (
        lambda: fluid.layers.conv2d(fluid.data("i", [1, 3, 8, 8]), 4, 3, use_cudnn=x),
        lambda: fluid.layers.pool2d(fluid.data("j", [1, 3, 8, 8]), 2, pool_type=x),
        lambda: fluid.default_main_program().global_block().append_op("relu", {"X": [fluid.default_main_program()]}),
        lambda: fluid.default_main_program().global_block().append_op("scale", {"X": x}, {"Out": x}, {"scale": x}),
    )
    for mistake in wrong:
        with pytest.raises((TypeError, ValueError)) as caught:
            mistake()
        assert "lod_tensor {" not in str(caught.value) and "blocks {" not in str(caught.value)
