"""Modules of 1.8.5 that few programs import: what they do, or which name they point to."""

import importlib
import logging

import pytest

import millstream.fluid as fluid
from millstream.errors import NotSupportedError
from millstream.fluid import default_scope_funcs, log_helper, wrapped_decorator
from millstream.fluid.transpiler import ps_dispatcher


def test_scopes_of_a_thread():
    outer = default_scope_funcs.get_cur_scope()
    default_scope_funcs.var("outside").set_int(3)

    def inside():
        assert default_scope_funcs.get_cur_scope() is not outer
        default_scope_funcs.var("inside").set_int(4)
        assert default_scope_funcs.find_var("outside").get_int() == 3
        raise KeyError("left by an error")

    with pytest.raises(KeyError):
        default_scope_funcs.scoped_function(inside)
    assert default_scope_funcs.get_cur_scope() is outer and default_scope_funcs.find_var("inside") is None
    with pytest.raises(RuntimeError, match="no scope has been entered"):
        default_scope_funcs.leave_local_scope()


def test_dispatchers():
    program = fluid.default_main_program()
    variables = [program.global_block().create_var(name=f"v{i}", shape=[1]) for i in range(3)]
    turns = ps_dispatcher.RoundRobin(["a:1", "b:1"])
    assert turns.dispatch(variables) == ["a:1", "b:1", "a:1"]
    assert turns.dispatch(variables[:1]) == ["b:1"]
    turns.reset()
    assert turns.dispatch(variables[:1]) == ["a:1"]
    by_name = ps_dispatcher.HashName(["a:1", "b:1"])
    assert by_name.dispatch(variables) == [by_name.dispatch([v])[0] for v in variables]
    assert turns.eps == ["a:1", "b:1"]


REFUSED = {
    "DistributeTranspiler": lambda: fluid.DistributeTranspiler(fluid.DistributeTranspilerConfig()),
    "GeoSgdTranspiler": lambda: fluid.transpiler.geo_sgd_transpiler.GeoSgdTranspiler(),
    "GradAllReduce": lambda: fluid.transpiler.collective.GradAllReduce(),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_names_say_what_to_use(name):
    with pytest.raises(NotSupportedError, match=rf"{name}.*with_data_parallel"):
        REFUSED[name]()


def test_drawn_network(tmp_path):
    from millstream.fluid import net_drawer

    y = fluid.layers.fc(fluid.data("x", [None, 2]), 1, act="relu")
    start, main = fluid.default_startup_program(), fluid.default_main_program()
    path = tmp_path / "net.gv"
    graph = net_drawer.draw_graph(start, main, filename=str(path), graph_attr={"size": "30"})
    assert path.read_text() == graph.code() and 'size="30"' in graph.code()
    labels = {node.name: node.label for node in graph.nodes}
    arrows = {(labels[e.source.name], labels[e.target.name]) for e in graph.edges}
    made = {("uniform_random", "mul"), ("x", "mul"), ("fill_constant", "elementwise_add"), ("mul", "elementwise_add")}
    assert arrows == made | {("elementwise_add", "relu")}
    assert net_drawer.draw_node(y.op)["label"] == "relu" and net_drawer.unique_id() != net_drawer.unique_id()
    with pytest.raises(TypeError, match="two Programs, received NoneType"):
        net_drawer.draw_graph(None, None)
    with pytest.raises(TypeError, match="no argument file"):
        net_drawer.draw_graph(start, main, file="x")


def test_transpiler_config():
    config = fluid.DistributeTranspilerConfig()
    assert (config.slice_var_up, config.min_block_size, config.mode, config.sync_mode) == (True, 8192, "pserver", True)
    with pytest.raises(TypeError, match="config must be a DistributeTranspilerConfig, received dict"):
        fluid.DistributeTranspiler({})


def test_loggers_and_decorators(capsys):
    logger = log_helper.get_logger("millstream_test", logging.INFO, fmt="%(levelname)s-%(message)s")
    assert log_helper.get_logger("millstream_test", logging.INFO) is logger and len(logger.handlers) == 1
    logger.info("once")
    assert capsys.readouterr().err == "INFO-once\n"

    @wrapped_decorator.wrap_decorator
    def twice(func):
        return lambda *args: 2 * func(*args)

    @twice
    def successor(x):
        return x + 1

    assert successor(2) == 6 and successor.__name__ == "successor"

    @wrapped_decorator.signature_safe_contextmanager
    def five():
        yield 5

    with five() as got:
        assert got == 5


@pytest.mark.parametrize("module, name", [("data_feed_desc", "DataFeedDesc"), ("log_helper", "get_logger")])
def test_modules(module, name):
    assert hasattr(importlib.import_module(f"millstream.fluid.{module}"), name)
