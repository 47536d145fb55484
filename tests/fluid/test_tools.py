"""Profiler, debugger, metrics, evaluators, install check."""

import json

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid import debugger, evaluator, install_check, memory_optimization, metrics, profiler
from millstream.fluid import layers as L

PLACE = fluid.CPUPlace()
PREDS = np.array([[0.1], [0.7], [0.8], [0.5], [0.2], [0.9]])
LABELS = np.array([[0], [1], [1], [1], [0], [0]])


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield


# ---- metrics: figures of PaddlePaddle 1.8.5 ------------------------------------------------------
@pytest.mark.parametrize("kind, states", [(metrics.Precision, {"tp": 2, "fp": 1}), (metrics.Recall, {"tp": 2, "fn": 1})])
def test_binary(kind, states):
    metric = kind()
    assert metric.eval() == 0
    for _ in range(2):
        metric.update(PREDS, LABELS)
        assert metric.eval() == pytest.approx(2 / 3)
        if states:
            assert metric.get_config() == {"name": kind.__name__, "states": states}
        states = None
    metric.reset()
    assert metric.eval() == 0
    with pytest.raises(ValueError, match="'preds' must be a numpy ndarray"):
        metric.update([1], LABELS)


def test_accuracy():
    metric = metrics.Accuracy()
    with pytest.raises(ValueError, match="no data"):
        metric.eval()
    metric.update(value=0.5, weight=10)
    metric.update(value=np.array([1.0]), weight=30)
    assert metric.eval() == pytest.approx([0.875])
    for wrong in ({"value": "x", "weight": 1}, {"value": 0.5, "weight": -1}):
        with pytest.raises(ValueError):
            metric.update(**wrong)


def test_auc():
    both = np.concatenate([1 - PREDS, PREDS], 1)
    metric = metrics.Auc("auc")
    assert metric.eval() == 0
    for _ in range(2):
        metric.update(both, LABELS)
        assert metric.eval() == pytest.approx(2 / 3)
    metric.reset()  # keeps the histograms, as 1.8.5 does
    assert metric.eval() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="as many"):
        metric.update(both, LABELS[1:])
    coarse = metrics.Auc("auc", num_thresholds=5)
    coarse.update(both, LABELS)
    assert coarse.eval() == pytest.approx(0.7222222222)
    assert metrics.Auc.trapezoid_area(1, 3, 2, 6) == 8
    perfect = metrics.Auc("auc", curve="PR")
    perfect.update(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0], [1]]))
    assert perfect.eval() == 1
    with pytest.raises(ValueError, match="ROC"):
        metrics.Auc("a", curve="x")


def test_chunks_and_edit_distance():
    chunks = metrics.ChunkEvaluator()
    assert chunks.eval() == (0, 0, 0)
    chunks.update(np.array([10]), np.array([9]), np.array([8]))
    assert np.ravel(chunks.eval()) == pytest.approx([0.8, 0.88888889, 0.84210526])
    chunks.update(3, 15, 2)
    assert np.ravel(chunks.eval()) == pytest.approx([0.76923077, 0.41666667, 0.54054054])
    with pytest.raises(ValueError, match="num_infer_chunks"):
        chunks.update("a", 1, 1)
    distance = metrics.EditDistance("ed")
    with pytest.raises(ValueError, match="no data"):
        distance.eval()
    distance.update(np.array([[0.0], [2.0], [1.0]]), 3)
    assert distance.eval() == pytest.approx((1.0, 2 / 3))
    distance.update(np.array([[0.0], [2.0]]), np.array([2]))
    assert np.ravel(distance.eval()) == pytest.approx([1, 0.6])


def test_composite_and_own_metrics():
    both = metrics.CompositeMetric()
    both.add_metric(metrics.Precision())
    both.add_metric(metrics.Recall())
    both.update(PREDS, LABELS)
    assert both.eval() == pytest.approx([2 / 3, 2 / 3])
    both.reset()  # does not reach the metrics, as in 1.8.5
    assert both.eval() == pytest.approx([2 / 3, 2 / 3])
    with pytest.raises(ValueError, match="MetricBase"):
        both.add_metric(3)
    with pytest.raises(ValueError, match="one value a sample"):
        both.update(np.concatenate([PREDS, PREDS], 1), LABELS)

    class Own(metrics.MetricBase):
        def __init__(self):
            super().__init__("own")
            self.a, self.b, self._c, self.d, self.s = 1, 2.0, 3, np.ones(3), "s"

    own = Own()
    own.reset()
    assert (own.a, own.b, own._c, own.d.tolist(), own.s) == (0, 0.0, 3, [0, 0, 0], None)
    with pytest.raises(NotImplementedError):
        own.eval()


# ---- evaluators ----------------------------------------------------------------------------------
def test_edit_distance_evaluator():
    i = fluid.data("i", [None, 1], "int64", lod_level=1)
    label = fluid.data("l", [None, 1], "int64", lod_level=1)
    made = evaluator.EditDistance(i, label, ignored_tokens=[0])
    names = [s.name for s in made.states]
    assert names == [f"edit_distance_0_{k}_{n}" for k, n in enumerate(("total_distance", "seq_num", "instance_error"))]
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    made.reset(exe)
    got = []
    for truth in ([[1], [2], [3]], [[1], [2], [2]]):
        feed = {
            "i": fluid.create_lod_tensor(np.array([[1], [2], [0], [3]]), [[3, 1]], PLACE),
            "l": fluid.create_lod_tensor(np.array(truth), [[2, 1]], PLACE),
        }
        got.append([float(v[0]) for v in exe.run(feed=feed, fetch_list=made.metrics)])
    assert got == [[0, 0], [1, 1]]
    assert np.ravel(made.eval(exe)).tolist() == [0.25, 0.25]
    made.reset(exe)
    assert np.isnan(made.eval(exe)[0][0])


def test_chunk_evaluator():
    i = fluid.data("i", [None, 1], "int64", lod_level=1)
    label = fluid.data("l", [None, 1], "int64", lod_level=1)
    made = evaluator.ChunkEvaluator(i, label, "IOB", 3)
    assert made.states[0].name == "chunk_eval_0_0_num_infer_chunks"
    exe = fluid.Executor(PLACE)
    made.reset(exe)
    assert np.ravel(made.eval(exe)).tolist() == [0, 0, 0]
    tags = fluid.create_lod_tensor(np.array([[0], [1], [2]]), [[3]], PLACE)
    exe.run(feed={"i": tags, "l": tags}, fetch_list=made.metrics)
    assert np.ravel(made.eval(exe)).tolist() == [1, 1, 1]


# ---- profiler ------------------------------------------------------------------------------------
def test_profiler(tmp_path, capsys):
    x = fluid.data("x", [None, 4])
    z = L.mean(L.relu(L.scale(L.matmul(x, x, transpose_y=True), 2.0)))  # four operators that no pass joins
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    feed = {"x": np.ones((2, 4), "float32")}
    path = tmp_path / "trace.json"
    with profiler.profiler("CPU", "total", str(path)):
        for _ in range(3):
            exe.run(feed=feed, fetch_list=[z])
    out = capsys.readouterr().out
    assert "Profiling Report" in out and "Sorted by total time in descending order in the same thread" in out
    row = next(line for line in out.splitlines() if line.startswith("thread0::matmul ")).split()
    assert row[1] == "3" and float(row[2]) >= float(row[4]) >= float(row[5]) >= float(row[3]) > 0
    totals = [float(line.split()[2]) for line in out.splitlines() if line.startswith("thread0::")]
    assert totals == sorted(totals, reverse=True) and len(totals) == 4
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] != "C"]  # without counters
    assert sum(e["name"] == "matmul" for e in events) == 3 and all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    profiler.start_profiler("CPU", "OpDetail")
    exe.run(feed=feed, fetch_list=[z])
    profiler.reset_profiler()
    exe.run(feed=feed, fetch_list=[z])
    profiler.stop_profiler(None, str(path))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("thread0::")] == ["1"] * 4
    assert "test_tools.py" in path.read_text()
    exe.run(feed=feed, fetch_list=[z])
    profiler.stop_profiler()
    assert capsys.readouterr().out == ""
    for call in (lambda: profiler.start_profiler("X"), lambda: profiler.start_profiler("CPU", "x")):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError), profiler.profiler("CPU", "bad"):
        pass


def test_cuda_profiler_without_cuda():
    with pytest.raises(NotImplementedError, match="CUDA"), profiler.cuda_profiler("out"):
        pass


# ---- debugger and the rest -----------------------------------------------------------------------
def test_debugger(tmp_path, capsys):
    x = fluid.data("x", [None, 4])
    z = L.mean(L.fc(x, 3, param_attr="w"))
    fluid.append_backward(z)
    main = fluid.default_main_program()
    text = debugger.pprint_program_codes(main)
    assert "mul" in text and "mul_grad" not in text and text in capsys.readouterr().out
    assert "mul_grad" in debugger.pprint_block_codes(main.global_block(), show_backward=True)
    path = tmp_path / "g.dot"
    debugger.draw_block_graphviz(main.global_block(), highlights=["w"], path=str(path))
    dot = path.read_text()
    assert dot.startswith("digraph G {") and 'label="mul"' in dot and "#f9d262" in dot
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    debugger.prepare_fast_nan_inf_debug(main)
    feed = {"x": np.ones((1, 4), "float32")}
    assert len(debugger.run_fast_nan_inf_debug(exe, main, feed, [z])) == 1
    with pytest.raises(RuntimeError, match=r"mul output .* contains 3 NaN"):
        debugger.run_fast_nan_inf_debug(exe, main, {"x": feed["x"] * np.nan}, [z])
    exe.run(main, feed={"x": feed["x"] * np.nan}, fetch_list=[z])


def test_install_check(capsys):
    install_check.run_check()
    assert "successfully" in capsys.readouterr().out


def test_memory_optimize():
    main = fluid.default_main_program()
    assert memory_optimization.memory_optimize(main) is None and memory_optimization.release_memory(main) is None
    with pytest.raises(ValueError):
        memory_optimization.memory_optimize(main, level=2)
    with pytest.raises(TypeError):
        memory_optimization.release_memory(3)
