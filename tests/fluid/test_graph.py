"""core.Graph and IrGraph: a Program as nodes, rewired and made a Program again; core.ops; collective._allreduce."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError
from millstream.fluid import core
from millstream.fluid.framework import IrGraph
from millstream.fluid.layers import collective


@pytest.fixture
def program():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.layers.data("x", [4])
        one = fluid.ParamAttr(initializer=fluid.initializer.Constant(1.0))
        fluid.layers.mean(fluid.layers.fc(x, 3, act="relu", param_attr=one))
        yield main, startup


def named(nodes, name):
    return next(n for n in nodes if n.name() == name)


def test_nodes(program):
    graph = IrGraph(core.Graph(program[0].desc), for_test=True)
    assert graph.is_test() and graph.graph_num() == 1 and not graph.has_circle() and len(graph.all_nodes()) == 11
    assert [n.name() for n in graph.topology_sort()] == ["mul", "elementwise_add", "relu", "mean"]
    assert sorted(n.name() for n in graph.all_persistable_nodes()) == ["fc_0.b_0", "fc_0.w_0"]
    mul = named(graph.all_op_nodes(), "mul")
    assert mul.is_op() and mul.input("X") == ["x"] and [v.name() for v in mul.inputs] == ["x", "fc_0.w_0"]
    assert mul.op().type() == "mul" and mul.op().attr("x_num_col_dims") == 1
    out = mul.outputs[0]
    assert out.var().name() == "fc_0.tmp_0" and out.op() is None
    assert out.is_var() and out.shape() == [-1, 3] and out.dtype() == core.VarDesc.VarType.FP32 and not out.persistable()
    before = {k.name(): sorted(v.name() for v in values) for k, values in graph.build_adjacency_list().items()}
    assert before == {"mul": [], "elementwise_add": ["mul"], "relu": ["elementwise_add"], "mean": ["relu"]}


def test_rewiring(program, tmp_path, capsys):
    main, startup = program
    graph = IrGraph(core.Graph(main.desc))
    relu, mean = (named(graph.all_op_nodes(), n) for n in ("relu", "mean"))
    old = relu.outputs[0]
    new = graph.create_var_node("doubled", old.type(), old.shape(), old.dtype())
    scale = graph.create_op_node("scale", {"scale": 2.0}, {"X": old}, {"Out": new})
    graph.link_to(old, scale)
    graph.link_to(scale, new)
    graph.update_input_link(old, new, mean)
    changed = graph.to_program()
    assert [op.type for op in changed.global_block().ops] == ["mul", "elementwise_add", "relu", "scale", "mean"]
    assert len(main.global_block().ops) == 4  # the Program given is as it was
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        feed = {"x": np.ones((2, 4), "float32")}
        assert exe.run(main, feed=feed, fetch_list=["mean_0.tmp_0"])[0] == [4.0]
        assert exe.run(changed, feed=feed, fetch_list=["mean_0.tmp_0"])[0] == [8.0]
        compiled = fluid.CompiledProgram(graph.graph)
        assert exe.run(compiled, feed=feed, fetch_list=["mean_0.tmp_0"])[0] == [8.0]
    graph.draw(str(tmp_path), "picture", {scale})
    assert "yellow" in (tmp_path / "picture.dot").read_text() and "Total ops num = 5." in capsys.readouterr().out
    graph.safe_remove_nodes(scale)
    with pytest.raises(InvalidProgramError, match="not in the graph"):
        graph.link_to(scale, new)
    graph.link_to(named(graph.all_var_nodes(), "mean_0.tmp_0"), named(graph.all_op_nodes(), "mul"))
    mean_again = named(graph.all_op_nodes(), "mean")
    graph.link_to(old, mean_again)
    assert graph.has_circle()


def test_updates_come_after_reads(program):
    main, _ = program
    fluid.optimizer.SGD(0.1).minimize(main.global_block().var("mean_0.tmp_0"))
    graph = core.Graph(main.desc)
    assert [op.type for op in graph.program.global_block().ops] == [op.type for op in main.global_block().ops]
    assert sum(n.name() == "fc_0.w_0" for n in graph.nodes()) == 2 and any(n.is_ctrl_var() for n in graph.nodes())
    graph.set("counted", 3)
    assert graph.clone().get_int("counted") == 3 and not graph.has("other")


def test_eager_operators():
    with fluid.dygraph.guard():
        x = fluid.dygraph.to_variable(np.arange(16, dtype="float32").reshape(1, 1, 4, 4))
        x.stop_gradient = False
        out = core.ops.conv2d(x, fluid.dygraph.to_variable(np.ones((1, 1, 2, 2), "float32")), "strides", [2, 2])
        assert out.numpy().ravel().tolist() == [10, 18, 42, 50]
        core.ops.mean(out).backward()
        assert np.all(x.gradient() == 0.25)
        flat, _ = core.ops.reshape2(x, "shape", [2, -1])
        assert flat.shape == [2, 8]
        left, right = core.ops.split(x, 2, "num", 2, "axis", 2)
        assert left.numpy().sum() == 28 and right.shape == [1, 1, 2, 4]
        normed, mean, _ = core.ops.layer_norm(x, None, None)
        assert mean.numpy() == [7.5] and normed.shape == x.shape
        with pytest.raises(TypeError, match="expected Param, LearningRate, Grad, ParamOut"):
            core.ops.sgd(x, x, x)
        with pytest.raises(InvalidProgramError, match="names and values by turns"):
            core.ops.relu(x, "axis")
    with pytest.raises(InvalidProgramError, match="dygraph mode"):
        core.ops.relu(x)
    with pytest.raises(AttributeError, match="reluu"):
        core.ops.reluu  # noqa: B018


def test_allreduce_of_one_process(program, monkeypatch):
    x = program[0].global_block().var("x")
    out = collective._allreduce(x, reduce_type="max")
    value = np.ones((2, 4), "float32")
    (got,) = fluid.Executor(fluid.CPUPlace()).run(program[0], feed={"x": value}, fetch_list=[out], use_prune=True)
    assert np.array_equal(got, value)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(InvalidProgramError, match="PADDLE_TRAINERS_NUM is 2"):
        collective._allreduce(x)
