"""Costs, memory, trace and report of profiles; Fluid's table stands in tests/fluid/test_tools.py."""

import json
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream.fluid import layers as L
from millstream.ir.operator import Operator
from millstream.ops import REGISTRY
from millstream.runtime import profiler
from millstream.runtime.profiler.costs import Peaks, cost_of, measure_peaks, measured_peaks
from millstream.runtime.profiler.page import page

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEAKS = Peaks(1e11, 1e10)


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield
    profiler.switch(None)


def recorded(feed, fetch, runs=1, optimizer=None):
    """A Recorder that saw `runs` runs of the default Program."""
    if optimizer is not None:
        optimizer.minimize(fetch)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    recorder = profiler.Recorder(detail=True)
    profiler.switch(recorder)
    for _ in range(runs):
        exe.run(feed=feed, fetch_list=[fetch])
    profiler.switch(None)
    return recorder


def costs(recorder):
    return {e.name: e.cost for e in recorder.events if e.op is not None}


def test_products_and_their_gradients():
    x = fluid.data("x", [None, 8])
    x.stop_gradient = False
    loss = L.mean(L.fc(x, 16, bias_attr=False))
    found = costs(recorded({"x": np.ones((4, 8), "float32")}, loss, optimizer=fluid.optimizer.SGD(0.1)))
    assert found["mul"].flops == 2 * 4 * 8 * 16
    assert found["mul"].bytes == 4 * (4 * 8 + 8 * 16 + 4 * 16)
    assert found["mul_grad"].flops == 2 * found["mul"].flops  # one for each operand
    assert found["mean"].flops == 1 and found["mean"].bytes == 4 * (4 * 16 + 1)


def test_convolutions():
    x = fluid.data("x", [None, 4, 9, 9])
    y = L.conv2d(x, 6, 3, groups=2, bias_attr=False)
    z = L.conv2d_transpose(y, 5, filter_size=2, stride=2, bias_attr=False)
    found = costs(recorded({"x": np.ones((2, 4, 9, 9), "float32")}, L.mean(z), optimizer=fluid.optimizer.SGD(0.1)))
    assert found["conv2d"].flops == 2 * (2 * 6 * 7 * 7) * (2 * 3 * 3)
    assert found["conv2d_grad"].flops == found["conv2d"].flops  # the image needs no gradient
    assert found["conv2d_transpose"].flops == 2 * (2 * 6 * 7 * 7) * (5 * 2 * 2)


def test_recurrent_and_looked_up():
    ids = fluid.data("ids", [None, 1], "int64", lod_level=1)
    gates = L.fc(L.embedding(ids, [50, 4]), 12)
    words = fluid.create_lod_tensor(np.ones((7, 1), "int64"), [[3, 4]], fluid.CPUPlace())
    hidden = L.dynamic_gru(gates, 4)
    joined = costs(recorded({"ids": words}, L.mean(hidden)))
    assert joined["projected_gru"].flops == 2 * 7 * (4 * 12 + 4 * 12)  # fc and gru, joined by a pass
    found = costs(recorded({"ids": words}, L.mean(hidden), optimizer=fluid.optimizer.SGD(0.1)))
    kind = "lookup_table" if "lookup_table" in found else "lookup_table_v2"
    assert found[kind].bytes == 2 * (7 * 4 * 4) + 7 * 8  # rows out of the table and into the result, and ids
    assert found["gru"].flops == 2 * 7 * 4 * 12 and found["gru_grad"].flops == 2 * found["gru"].flops


def test_recurrent_operators_of_other_kinds():
    x = fluid.data("x", [5, 3, 8])
    x.stop_gradient = False
    states = [L.fill_constant([2, 3, 6], "float32", 0.0) for _ in range(2)]
    out, *_ = L.lstm(x, *states, 5, 6, 2)
    found = costs(recorded({"x": np.ones((5, 3, 8), "float32")}, L.mean(out), optimizer=fluid.optimizer.SGD(0.1)))
    weights = 4 * 6 * (8 + 6) + 4 * 6 * (6 + 6)
    assert found["cudnn_lstm"].flops == 2 * (5 * 3) * weights
    assert found["cudnn_lstm_grad"].flops == 2 * found["cudnn_lstm"].flops


def test_a_loop_of_rows():
    x, rnn = fluid.data("x", [None, 8], lod_level=1), L.DynamicRNN()
    with rnn.block():
        step, memory = rnn.step_input(x), rnn.memory(shape=[6], value=0.0)
        hidden = L.fc([step, memory], 6, act="tanh")
        rnn.update_memory(memory, hidden)
        rnn.output(hidden)
    rows = fluid.create_lod_tensor(np.ones((7, 8), "float32"), [[4, 3]], None)
    loss = L.mean(L.sequence_pool(rnn(), "last"))
    found = costs(recorded({"x": rows}, loss, optimizer=fluid.optimizer.SGD(0.1)))
    assert found["row_loop"].flops == 7 * (2 * 6 * 6 + 3 * 6)  # a product with the state, two sums, tanh
    assert found["row_loop_grad"].flops > found["row_loop"].flops


SHAPES = {  # operator: (inputs, outputs, attributes, operations)
    "lstm_unit": ({"X": [(3, 8)], "C_prev": [(3, 2)]}, {"C": [(3, 2)]}, {}, 60),
    "packed_conv2d": ({"Filter": [(6, 2, 3, 3)]}, {"Output": [(2, 6, 7, 7)]}, {}, 2 * (2 * 6 * 7 * 7) * (2 * 3 * 3)),
    "fused_attention": ({"Q": [(2, 5, 8)], "K": [(2, 7, 8)], "V": [(2, 7, 4)]}, {}, {}, 2 * 2 * 5 * 7 * (8 + 4)),
    "fusion_repeated_fc_relu": ({"X": [(5, 8)], "W": [(8, 4), (4, 2)]}, {}, {}, 2 * 5 * (8 * 4 + 4 * 2)),
    "fusion_squared_mat_sub": ({"X": [(5, 8)], "Y": [(8, 4)]}, {"Out": [(5, 4)]}, {}, 2 * (2 * 5 * 8 * 4)),
    "sequence_conv": ({"X": [(7, 4)], "Filter": [(12, 6)]}, {"Out": [(7, 6)]}, {}, 2 * 7 * 12 * 6),
    "fusion_seqexpand_concat_fc": ({"X": [(7, 4), (2, 3)], "FCWeight": [(7, 5)]}, {}, {}, 2 * 5 * (7 * 4 + 2 * 3)),
    "addmm": ({"X": [(5, 8)], "Y": [(8, 4)]}, {"Out": [(5, 4)]}, {}, 2 * 5 * 8 * 4),
    "bilinear_tensor_product": ({"X": [(5, 8)], "Weight": [(3, 8, 4)]}, {}, {}, 2 * 5 * (3 * 8 * 4)),
    "fusion_gru": ({"X": [(7, 4)], "WeightX": [(4, 9)], "WeightH": [(3, 9)]}, {}, {}, 2 * 7 * (4 * 9 + 3 * 9)),
    "fused_embedding_fc_lstm": ({"Ids": [(7, 1)], "WeightH": [(3, 12)]}, {}, {}, 2 * 7 * (3 * 12)),
    "projected_bigru": (
        {"X": [(7, 4)], "WeightX": [(4, 9)], "WeightH": [(3, 9)], "WeightX2": [(4, 9)], "WeightH2": [(3, 9)]}, {}, {},
        2 * (2 * 7 * (4 * 9 + 3 * 9)),
    ),
    "attention_lstm": (
        {"X": [(6, 4)], "C0": [(2, 3)], "AttentionWeight": [(7, 1)], "LSTMWeight": [(7, 12)]}, {}, {},
        2 * 6 * (7 + 7 * 12 + 3 * 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_operations_by_shapes(name):
    ins, outs, attrs, operations = SHAPES[name]
    assert REGISTRY.get(name).extra["flops"](ins, outs, attrs) == operations


def test_matmul_counts_the_inner_dimension():
    x = fluid.data("x", [None, 3, 5])
    found = costs(recorded({"x": np.ones((2, 3, 5), "float32")}, L.matmul(x, x, transpose_x=True)))
    assert found["matmul"].flops == 2 * (2 * 5 * 5) * 3


def test_loops_count_inside():
    i = L.fill_constant([1], "int64", 0)
    limit = L.fill_constant([1], "int64", 3)
    go = L.less_than(i, limit)
    loop = L.While(go)
    with loop.block():
        L.increment(i, 1)
        L.less_than(i, limit, cond=go)
    recorder = recorded({}, i)
    names = [e.name for e in recorder.events]
    assert names.count("increment") == 3 and names.count("while") == 1
    outer = next(e for e in recorder.events if e.name == "while")
    own = next(r.own for r in recorder.rows() if r.name.endswith("while"))
    assert outer.cost == (0, 0) and 0 < own < (outer.end - outer.start) / 1e6


def test_memory_rises_and_falls():
    """Parameters count from the beginning, activations while they live."""
    x = fluid.data("x", [None, 1000])
    w = L.create_parameter([1000], "float32")
    y = L.mean(L.relu(L.scale(L.elementwise_mul(x, w), 2.0)))
    recorder = recorded({"x": np.ones((100, 1000), "float32")}, y)
    points = [held for _, held in recorder.live_bytes()]
    one = 4 * 100 * 1000
    assert min(points) >= one + 4000  # feed and parameter
    assert max(points) < 4.5 * one
    assert points[-1] < 2.5 * one  # with the mean, only its input is still there


def test_trace_has_costs_and_memory(tmp_path):
    x = fluid.data("x", [None, 4])
    recorder = recorded({"x": np.ones((2, 4), "float32")}, L.mean(L.fc(x, 3)))
    path = tmp_path / "t.json"
    recorder.save(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    kinds = {e["ph"] for e in events}
    assert kinds == {"X", "C"}
    product = next(e for e in events if e["name"] in ("mul", "fc"))
    assert product["args"]["flops"] == 2 * 2 * 4 * 3 and "test_profiler.py" in product["args"]["at"]
    assert all(e["args"]["bytes"] > 0 for e in events if e["ph"] == "C")


def test_page(tmp_path):
    x = fluid.data("x", [None, 4])
    loss = L.mean(L.fc(x, 3, act="relu"))
    recorder = recorded({"x": np.ones((2, 4), "float32")}, loss, runs=3, optimizer=fluid.optimizer.SGD(0.1))
    text = page(recorder, PEAKS)
    assert "<b>3</b>runs" in text and "dense_layer_grad" in text and "test_profiler.py" in text and "100 GFLOP/s" not in text
    assert not re.search(r"(src|href)=", text)  # nothing else is needed
    pictures = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(pictures) == 2 and all(ElementTree.fromstring(p) is not None for p in pictures)
    assert len(set(re.findall(r'style="fill: (#[0-9a-f]{6})"', pictures[1]))) > 7  # beside the seven of the legend
    assert re.search(r"[\d.e-]+ ms x 3, [\d.]+ %", pictures[1])
    empty = page(profiler.Recorder(), PEAKS)
    assert "No operator ran" in empty


def test_no_cost_when_off():
    """A Plan made without a profiler holds no trace of one."""
    x = fluid.data("x", [None, 4])
    y = L.mean(x)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=[y])
    plans = list(exe._plans.values())
    assert plans and all("enter" not in plan.source for plan in plans)


def test_peaks_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MILLSTREAM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("millstream.runtime.profiler.costs.measure_peaks", lambda: measure_peaks(64, 1))
    first = measured_peaks()
    assert first.flops > 1e6 and first.bytes > 1e6 and measured_peaks() == first
    (tmp_path / "peaks.json").write_text("[broken")
    assert measured_peaks().flops > 1e6


def test_command(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, numpy as np, paddle.fluid as fluid\n"
        "x = fluid.data('x', [None, 4])\n"
        "exe = fluid.Executor(fluid.CPUPlace())\n"
        "exe.run(feed={'x': np.ones((2, 4), 'float32')}, fetch_list=[fluid.layers.mean(x)])\n"
        "sys.exit(len(sys.argv))\n"
    )
    out = tmp_path / "report.html"
    command = [sys.executable, "-m", "millstream.cli", "profile", "--out", str(out), str(script), "a"]
    env = dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1", MILLSTREAM_CACHE_DIR=str(tmp_path))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2 and "thread0::mean" in done.stdout and str(out) in done.stdout, done.stderr
    assert out.read_text().startswith("<!doctype html>")


def test_a_reshape_in_place_moves_nothing():
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()):
        x = fluid.data("x", [4, 6])
        fluid.layers.reshape(x, [6, 4])
    op = main.global_block().ops[-1]
    value = torch.zeros(4, 6)
    assert cost_of(op, ["x"], [value], [(op.output("Out")[0], value.view(6, 4))]) == (0, 0)
    assert cost_of(op, ["x"], [value], [(op.output("Out")[0], value.clone().view(6, 4))]).bytes == 2 * 96
    grad = Operator(main.global_block(), "reshape2_grad", {"Out@GRAD": ["g"]}, {"X@GRAD": ["d"]})
    assert cost_of(grad, ["g"], [value], [("d", value.view(6, 4))]) == (0, 0)
