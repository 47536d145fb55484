"""Modules of 1.8.5 around single operators, descriptions, graphs and the runtime's facts; figures are 1.8.5's."""

import os

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import NotSupportedError
from millstream.fluid import core, distribute_lookup_table, graphviz, trainer_factory
from millstream.fluid.annotations import deprecated
from millstream.fluid.contrib import summary
from millstream.fluid.layer_helper_base import LayerHelperBase
from millstream.fluid.layers.layer_function_generator import (
    autodoc,
    generate_activation_fn,
    generate_layer_fn,
    templatedoc,
)
from millstream.fluid.op import Operator

CPU = fluid.CPUPlace()
L = fluid.layers


def test_an_operator_runs_on_a_scope():
    scope = core.Scope()
    scope.var("x").get_tensor().set(np.ones((2, 2), "float32"), CPU)
    op = Operator("scale", X="x", Out="o", scale=3.0)
    assert str(op) == "Op(scale), inputs:{ScaleTensor[], X[x]}, outputs:{Out[o]}."
    assert op.input_vars() == ["x"] and op.no_intermediate_outputs() == ["o"]
    op.run(scope, CPU)
    assert np.array(scope.find_var("o").get_tensor()).tolist() == [[3, 3], [3, 3]]
    with pytest.raises(RuntimeError, match="'nowhere' has no value"):
        Operator("relu", X="nowhere", Out="o").run(scope, CPU)


def test_a_sparse_gradient_and_a_sequence_of_a_scope():
    scope = core.Scope()
    scope.var("p").get_tensor().set(np.ones((4, 2), "float32"), CPU)
    scope.var("lr").get_tensor().set(np.array([0.5], "float32"), CPU)
    rows = scope.var("g").get_selected_rows()
    rows.set_height(4)
    rows.set_rows([1, 3])
    rows.get_tensor().set(np.ones((2, 2), "float32"), CPU)
    Operator("sgd", Param="p", Grad="g", LearningRate="lr", ParamOut="p").run(scope, CPU)
    assert np.array(scope.find_var("p").get_tensor())[:, 0].tolist() == [1, 0.5, 1, 0.5]
    words = scope.var("x").get_tensor()
    words.set(np.arange(6).reshape(3, 2).astype("float32"), CPU)
    words.set_lod([[0, 1, 3]])
    Operator("sequence_pool", X="x", Out="sum", MaxIndex="i", pooltype="SUM").run(scope, CPU)
    assert np.array(scope.find_var("sum").get_tensor()).tolist() == [[0, 1], [6, 8]]


def test_the_factory_knows_the_declarations():
    assert Operator.get_op_inputs("sum") == [("X", True)] and Operator.get_op_outputs("mul") == [("Out", False)]
    assert "mul" in Operator.types() and "x_num_col_dims" in Operator.get_op_info("mul").attrs
    with pytest.raises(ValueError, match="nope is not registered"):
        Operator("nope")
    with pytest.raises(ValueError, match="keyword arguments"):
        Operator("scale", "x", Out="o")
    with pytest.raises(TypeError, match="nothing is neither a slot"):
        Operator("scale", X="x", Out="o", nothing=3)


def test_descriptions_are_built_from_nothing():
    desc = core.ProgramDesc()
    block = desc.block(0)
    op = block.append_op()
    op.set_type("scale")
    op.set_input("X", ["x"])
    op.set_output("Out", ["y"])
    op._set_attr("scale", 2.0)
    block.var(b"x").set_shape([2, 2])
    block.var(b"y")
    op.infer_shape(block)
    assert block.find_var(b"y").shape() == [2, 2]
    program = fluid.Program.parse_from_string(desc.serialize_to_string())
    x = np.ones((2, 2), "float32")
    assert fluid.Executor(CPU).run(program, feed={"x": x}, fetch_list=["y"])[0].sum() == 8
    other = core.OpDesc()
    other.copy_from(op)
    assert (other.type(), other.input("X"), core.ProgramDesc(desc).block(0).op_size()) == ("scale", ["x"], 1)


def test_what_every_operator_carries():
    L.fill_constant([1], "float32", 0.0)
    op = fluid.default_main_program().global_block().ops[0]
    assert op.has_attr("op_role_var") and op.attr("op_role_var") == [] and op.attr("op_device") == ""
    assert "op_callstack" in op.attr_names


def test_a_loop_names_its_block():
    i, n = L.fill_constant([1], "int64", 0), L.fill_constant([1], "int64", 3)
    going = L.less_than(i, n)
    with L.While(going).block():
        L.increment(i)
        L.less_than(i, n, cond=going)
    op = fluid.default_main_program().global_block().ops[-1]
    assert op.attr("sub_block").id == 1 == op._block_attr_id("sub_block")
    assert fluid.default_main_program().block(op.attr("sub_block").id).ops[0].type == "increment"


def test_facts_of_the_runtime():
    assert core.grad_var_suffix() == "@GRAD" and core.kEmptyVarName() == "@EMPTY@"
    assert core.has_non_empty_grad_op_maker("mul") and not core.has_non_empty_grad_op_maker("shape")
    assert core.get_op_attrs_default_value(b"dropout")["dropout_prob"] == 0.5
    assert core.globals()["FLAGS_check_nan_inf"] is False and "FLAGS_check_nan_inf" in core.globals()
    tensor = core.from_dlpack(__import__("torch").arange(3))
    assert np.array(tensor).tolist() == [0, 1, 2]
    core.set_feed_variable(fluid.global_scope(), tensor, "feeds", 1)
    assert core.get_fetch_variable(fluid.global_scope(), "feeds", 1) is tensor
    with pytest.raises(fluid.core.EnforceNotMet, match="'elsewhere' is not in the scope"):
        core.get_variable_tensor(fluid.global_scope(), "elsewhere")


def test_the_executors_helpers():
    from millstream.fluid import executor

    tensor = fluid.create_lod_tensor(np.ones((3, 1), "float32"), [[1, 2]], CPU)
    with pytest.raises(RuntimeError, match="return_numpy"):
        executor.as_numpy(tensor)
    with pytest.raises(AssertionError, match="persistable"):
        executor._fetch_var("nope")
    assert executor.dimension_is_compatible_with([-1, 3], [5, 3])
    assert not executor.dimension_is_compatible_with([2, 3], [5, 3])
    x = fluid.data("x", [None, 2])
    assert executor.check_feed_shape_type(x, np.ones((4, 2), "float32"))
    with pytest.raises(ValueError, match="float64"):
        executor.check_feed_shape_type(x, np.ones((4, 2)))


def test_layer_functions_from_declarations():
    x = L.data("x", [2])
    assert generate_layer_fn("elementwise_mul")(x=x, y=x, axis=-1).shape == (-1, 2)
    assert generate_layer_fn("relu")(x).name == "relu_0.tmp_0"
    assert generate_activation_fn("tanh")(x).name == "tanh_0.tmp_0"
    with pytest.raises(TypeError, match="at most 1 inputs by position, received 2"):
        generate_layer_fn("relu")(x, x)
    with pytest.raises(TypeError, match="no input or attribute 'axes'"):
        generate_layer_fn("elementwise_mul")(x=x, y=x, axes=-1)
    with pytest.raises(ValueError, match="has not been registered"):
        generate_layer_fn("nope")
    with pytest.raises(ValueError, match="Only one non intermediate"):
        generate_layer_fn("lstm")

    @templatedoc("relu")
    def layer(x):
        """About ${comment} and ${other}."""

    @autodoc("Note.")
    def relu(x):
        pass

    assert "${comment}" not in layer.__doc__ and "${other}" in layer.__doc__ and relu.__doc__.startswith("Note.")


def test_a_deprecated_function_says_so(capsys):
    @deprecated("1.0", "other", "hm")
    def old(x):
        return x

    assert old(3) == 3
    assert capsys.readouterr().err == "API old is deprecated since 1.0. Please use other instead.\nhm\n"


def test_layer_helper_base():
    helper = LayerHelperBase("n", "fc")
    assert (helper.name, helper.layer_type) == ("n", "fc")
    assert helper.create_parameter(fluid.ParamAttr(), [2, 3], "float32").name == "n.w_0"
    with pytest.raises(AssertionError, match="dygraph"):
        helper.to_variable(np.ones(2))
    with fluid.dygraph.guard():
        assert helper.to_variable(np.ones(2)).shape == [2]


def test_distributed_tables_are_found():
    program = fluid.default_main_program()
    ids = L.data("ids", [1], dtype="int64")
    assert distribute_lookup_table.find_distributed_lookup_table(program) is None
    out = L.embedding(ids, [10, 3], is_sparse=True, is_distributed=True, param_attr="table")
    assert distribute_lookup_table.find_distributed_lookup_table(program) == "table"
    assert distribute_lookup_table.find_distributed_lookup_table_inputs(program, "table") == [ids]
    assert distribute_lookup_table.find_distributed_lookup_table_outputs(program, "table") == [out]


def test_graphs_as_text(tmp_path, monkeypatch):
    graph = graphviz.Graph("t", rankdir="TB")
    level = graph.rank_group("same", 2)
    a = graph.node("a", "p", shape="box", rank=level)
    b = graph.node("b", "p")
    graph.edge(a, b, label="e")
    text = graph.code()
    assert text.startswith('digraph G {\ntitle = "t"\nrankdir="TB";\n{rank=same;p_')
    assert f'{a.name} [label="a" ,shape="box" ];' in text and f'{a.name} -> {b.name} [label="e"]' in text
    net = graphviz.GraphPreviewGenerator("net")
    net.add_edge(net.add_param("w", "float32"), net.add_op("mul"), highlight=True)
    assert "<<B>mul</B>>" in net.graph.code() and 'color="orange"' in net.graph.code()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotSupportedError, match="dot"):
        net(os.path.join(tmp_path, "net.dot"))
    assert (tmp_path / "net.dot").read_text() == net.graph.code()


def test_summary_prints_what_1_8_5_printed(capsys):
    x = L.data("img", [1, 8, 8])
    c = L.batch_norm(fluid.nets.simple_img_conv_pool(x, 4, 3, 2, 2, act="relu"))
    L.fc(c, 10, act="softmax")
    summary(fluid.default_main_program())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "+-----+------------+-----------+-----------+--------+-------+",
        "| No. |       TYPE |     INPUT |    OUTPUT | PARAMs | FLOPs |",
        "+-----+------------+-----------+-----------+--------+-------+",
        "|   0 |     conv2d | (1, 8, 8) | (4, 6, 6) |     36 |  2592 |",
    ]
    assert "|   4 |        mul | (4, 3, 3) |     (10,) |    361 |   360 |" in lines
    assert "Total PARAMs: 405(0.0004M)" in lines and "Total FLOPs: 3024(0.00G)" in lines


def test_a_monitor_hands_over_what_the_scope_holds():
    seen = []

    class Handler(fluid.executor.FetchHandler):
        def handler(self, res_dict):
            seen.append(res_dict)

    x = L.create_global_var([1], 3.0, "float32", persistable=True, name="x")
    fluid.Executor(CPU).run(fluid.default_startup_program())
    monitor = trainer_factory.FetchHandlerMonitor(fluid.global_scope(), Handler({"x": x}, period_secs=0.01))
    monitor.start()
    while not seen:
        pass
    monitor.stop()
    assert seen[0]["x"].tolist() == [3.0]


@pytest.mark.parametrize(
    "module, name", [("trainer_desc", "MultiTrainer"), ("device_worker", "Hogwild"), ("trainer_factory", "TrainerFactory")]
)
def test_trainers_of_the_c_runtime_name_what_to_use(module, name):
    import importlib

    with pytest.raises(NotSupportedError, match="train_from_dataset"):
        getattr(importlib.import_module(f"millstream.fluid.{module}"), name)()
    with pytest.raises(NotSupportedError, match="parameter servers"):
        importlib.import_module("millstream.fluid.communicator").Communicator(None, 0)


def test_global_seed(monkeypatch):
    monkeypatch.setattr(fluid.Program, "_first_seed", 0)
    first, other = fluid.Program(), fluid.Program()
    first.global_seed(90)
    assert (first.random_seed, other.random_seed, fluid.Program().random_seed) == (90, 0, 90)


def test_floats_of_a_scope():
    kept = fluid.global_scope().var("rate")
    kept.set_float(2.5)
    assert kept.get_float() == 2.5 and kept.is_float() and not kept.is_int()


def test_names_that_do_not_count_in_eager_mode():
    assert fluid.unique_name.generate_with_ignorable_key("a") == "a_0"
    with fluid.dygraph.guard():
        assert fluid.unique_name.generate_with_ignorable_key("b") == "tmp_0"


def test_flags_as_a_mapping():
    flags = fluid.core.globals()
    assert isinstance(flags, fluid.core.GlobalVarGetterSetterRegistry) and "FLAGS_check_nan_inf" in flags
    assert flags.get("FLAGS_check_nan_inf") is False and flags.get("FLAGS_nothing", 3) == 3
