"""Recurrent operators: against a plain numpy loop, against differences, and on ragged edge cases."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from harness import build_op, numeric_grad_check, run_op
from hypothesis import given, settings
from hypothesis import strategies as st

import millstream.fluid as fluid
from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ops.recurrent import units

ACT = {
    "identity": lambda v: v,
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "tanh": np.tanh,
    "relu": lambda v: np.maximum(v, 0),
}
LSTM_OUT = {"Hidden": 1, "Cell": 1, "BatchGate": 1, "BatchCellPreAct": 1}
GRU_OUT = {"Hidden": 1, "BatchGate": 1, "BatchResetHiddenPrev": 1, "BatchHidden": 1}


def order_of(lengths, reverse):
    start = 0
    for n in lengths:
        rows = range(start, start + n)
        yield list(reversed(rows)) if reverse else list(rows)
        start += n


def plain_lstm(x, w, b, lengths, h0, c0, peepholes, reverse, gate, cell, candidate):
    d = w.shape[0]
    hidden, cells = np.zeros((len(x), d)), np.zeros((len(x), d))
    p = b[0, 4 * d :].reshape(-1, d) if peepholes else np.zeros((3, d))
    for q, rows in enumerate(order_of(lengths, reverse)):
        h, c = h0[q], c0[q]
        for r in rows:
            j, i, f, o = np.split(x[r] + h @ w + b[0, : 4 * d], 4)
            i, f = ACT[gate](i + c * p[0]), ACT[gate](f + c * p[1])
            c = ACT[candidate](j) * i + c * f
            h = ACT[gate](o + c * p[2]) * ACT[cell](c)
            hidden[r], cells[r] = h, c
    return hidden, cells


def plain_gru(x, w, b, lengths, h0, reverse, gate, act, origin):
    d = w.shape[0]
    wg, wc = w.reshape(-1)[: 2 * d * d].reshape(d, 2 * d), w.reshape(-1)[2 * d * d :].reshape(d, d)
    hidden = np.zeros((len(x), d))
    for q, rows in enumerate(order_of(lengths, reverse)):
        h = h0[q]
        for r in rows:
            z = x[r] + b[0]
            u, reset = np.split(ACT[gate](z[: 2 * d] + h @ wg), 2)
            c = ACT[act](z[2 * d :] + (reset * h) @ wc)
            h = u * h + (1 - u) * c if origin else (1 - u) * h + u * c
            hidden[r] = h
    return hidden


lengths_strategy = st.lists(st.integers(0, 5), min_size=1, max_size=20).filter(lambda v: sum(v) > 0)
acts = st.sampled_from(sorted(ACT))


@settings(max_examples=40, deadline=None)
@given(lengths_strategy, st.integers(1, 9), st.booleans(), st.booleans(), acts, acts, acts, st.booleans())
def test_lstm_is_the_plain_loop(lengths, d, peepholes, reverse, gate, cell, candidate, wide):
    rng = np.random.RandomState(sum(lengths) + d)
    dtype = np.float32 if wide else np.float64
    n, total = len(lengths), sum(lengths)
    x, w = rng.randn(total, 4 * d) * 0.5, rng.randn(d, 4 * d) * 0.3
    b, h0, c0 = rng.randn(1, 7 * d if peepholes else 4 * d) * 0.3, rng.randn(n, d) * 0.3, rng.randn(n, d) * 0.3
    expected = plain_lstm(x, w, b, lengths, h0, c0, peepholes, reverse, gate, cell, candidate)
    inputs = {k: v.astype(dtype) for k, v in {"Input": x, "H0": h0, "C0": c0, "Weight": w, "Bias": b}.items()}
    attrs = {
        "use_peepholes": peepholes, "is_reverse": reverse, "gate_activation": gate, "cell_activation": cell,
        "candidate_activation": candidate,
    }
    found = run_op("lstm", inputs, attrs, LSTM_OUT, {"Input_0": [lengths]})
    for slot, value in zip(("Hidden", "Cell"), expected):
        np.testing.assert_allclose(np.asarray(found[slot]), value, rtol=2e-4, atol=2e-5)
        assert found[slot].recursive_sequence_lengths() == [lengths]


@settings(max_examples=40, deadline=None)
@given(lengths_strategy, st.integers(1, 9), st.booleans(), acts, acts, st.booleans(), st.booleans())
def test_gru_is_the_plain_loop(lengths, d, reverse, gate, act, origin, wide):
    rng = np.random.RandomState(sum(lengths) + d)
    dtype = np.float32 if wide else np.float64
    x, w = rng.randn(sum(lengths), 3 * d) * 0.5, rng.randn(d, 3 * d) * 0.3
    b, h0 = rng.randn(1, 3 * d) * 0.3, rng.randn(len(lengths), d) * 0.3
    expected = plain_gru(x, w, b, lengths, h0, reverse, gate, act, origin)
    inputs = {k: v.astype(dtype) for k, v in {"Input": x, "H0": h0, "Weight": w, "Bias": b}.items()}
    attrs = {"is_reverse": reverse, "gate_activation": gate, "activation": act, "origin_mode": origin}
    found = run_op("gru", inputs, attrs, GRU_OUT, {"Input_0": [lengths]})["Hidden"]
    np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-4, atol=2e-5)


LENGTHS = [[2, 3], [3, 0, 1], [1] * 20, [4], [1, 2] * 9 + [3]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm_gradient(lengths, reverse, peepholes):
    rng = np.random.RandomState(1)
    d, n = 2, len(lengths)
    inputs = {
        "Input": rng.randn(sum(lengths), 4 * d), "H0": rng.randn(n, d), "C0": rng.randn(n, d),
        "Weight": rng.randn(d, 4 * d), "Bias": rng.randn(1, 7 * d if peepholes else 4 * d),
    }
    numeric_grad_check(
        "lstm", inputs, {"use_peepholes": peepholes, "is_reverse": reverse}, LSTM_OUT,
        ["Input_0", "H0_0", "C0_0", "Weight_0", "Bias_0"], "Hidden", {"Input_0": [lengths]},
    )


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("reverse", "origin"), [(False, False), (True, True), (False, True)])
def test_gru_gradient(lengths, reverse, origin):
    rng = np.random.RandomState(2)
    d, n = 2, len(lengths)
    inputs = {
        "Input": rng.randn(sum(lengths), 3 * d), "H0": rng.randn(n, d), "Weight": rng.randn(d, 3 * d),
        "Bias": rng.randn(1, 3 * d),
    }
    numeric_grad_check(
        "gru", inputs, {"is_reverse": reverse, "origin_mode": origin}, GRU_OUT, ["Input_0", "H0_0", "Weight_0", "Bias_0"],
        "Hidden", {"Input_0": [lengths]},
    )


@pytest.mark.parametrize("attrs", [{}, {"proj_activation": "identity", "is_reverse": True}, {"use_peepholes": False}])
def test_lstmp_gradient(attrs):
    rng = np.random.RandomState(3)
    d, p, lengths = 3, 2, [2, 0, 3]
    width = 7 * d if attrs.get("use_peepholes", True) else 4 * d
    inputs = {
        "Input": rng.randn(5, 4 * d), "H0": rng.randn(3, p), "C0": rng.randn(3, d), "Weight": rng.randn(p, 4 * d),
        "ProjWeight": rng.randn(d, p), "Bias": rng.randn(1, width),
    }
    outputs = {"Projection": 1, "Cell": 1, "BatchGate": 1, "BatchCellPreAct": 1, "BatchHidden": 1}
    wrt = [f"{k}_0" for k in inputs]
    numeric_grad_check("lstmp", inputs, attrs, outputs, wrt, "Projection", {"Input_0": [lengths]})


def test_lstmp_clips_cells_and_projections():
    rng = np.random.RandomState(4)
    inputs = {
        "Input": rng.randn(6, 8) * 3, "Weight": rng.randn(2, 8), "ProjWeight": rng.randn(2, 2), "Bias": rng.randn(1, 14),
    }
    outputs = {"Projection": 1, "Cell": 1, "BatchGate": 1, "BatchCellPreAct": 1, "BatchHidden": 1}
    found = run_op("lstmp", inputs, {"cell_clip": 0.25, "proj_clip": 0.125}, outputs, {"Input_0": [[4, 2]]})
    assert np.abs(np.asarray(found["Cell"])).max() == 0.25
    assert np.abs(np.asarray(found["Projection"])).max() <= 0.125


@pytest.mark.parametrize("clip", [0.0, 5.0, 0.15])
def test_lstmp_first_of_eight_cells_decides_whether_a_limit_cuts_the_gradient(clip):
    """As PaddlePaddle 1.8.5 does on CPUs with AVX; without a limit it cuts all."""
    width = 16
    x = fluid.data("x", [None, 4 * width], lod_level=1)
    x.stop_gradient = False
    kept, cells = fluid.layers.dynamic_lstmp(x, 4 * width, 3, use_peepholes=False, cell_clip=clip or None)
    gradient = fluid.gradients([fluid.layers.reduce_sum(kept)], [x])[0]
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    data = np.random.RandomState(1).randn(12, 4 * width).astype("float32")
    feed = {"x": fluid.create_lod_tensor(data, [[1] * 12], fluid.CPUPlace())}
    found, cell = (np.array(t) for t in exe.run(feed=feed, fetch_list=[gradient, cells], return_numpy=False))
    blocks = np.abs(found[:, :width].reshape(12, 2, 8)).max(2) > 0
    first = np.abs(cell.reshape(12, 2, 8)[:, :, 0])
    np.testing.assert_array_equal(blocks, first < clip)
    assert {0.0: 0, 5.0: 24}.get(clip, blocks.sum()) == blocks.sum()


@pytest.mark.parametrize("origin", [False, True])
@pytest.mark.parametrize("activation", [0, 1, 2])
def test_gru_unit_gradient(origin, activation):
    rng = np.random.RandomState(5)
    inputs = {"Input": rng.randn(3, 6), "HiddenPrev": rng.randn(3, 2), "Weight": rng.randn(2, 6), "Bias": rng.randn(1, 6)}
    outputs = {"Hidden": 1, "Gate": 1, "ResetHiddenPrev": 1}
    attrs = {"origin_mode": origin, "activation": activation}
    numeric_grad_check("gru_unit", inputs, attrs, outputs, [f"{k}_0" for k in inputs], "Hidden")


@pytest.mark.parametrize("rows, width", [(1, 16), (5, 20), (13, 33)])
@pytest.mark.parametrize("origin, activation, gate_activation", [(False, 2, 1), (True, 3, 2), (False, 0, 3)])
def test_gru_unit_by_kernel(rows, width, origin, activation, gate_activation):
    """In float32 as by torch's calls in float64; with a bias and without, and where some gradients are not wanted."""
    draw = torch.Generator().manual_seed(rows)
    shapes = (rows, 3 * width), (rows, width), (width, 3 * width), (1, 3 * width)
    x, h, w, b = (torch.randn(*s, generator=draw) * (0.2 if s[0] == width else 1) for s in shapes)
    attrs = {"origin_mode": origin, "activation": activation, "gate_activation": gate_activation}
    for bias, want in ((b, (True,) * 4), (None, (True, True, True, False)), (b, (True, False, False, False))):
        found = []
        for cast in (torch.Tensor.float, torch.Tensor.double):
            given = [t if t is None else cast(t) for t in (x, h, w, bias)]
            given[0] = given[0].repeat(1, 2)[:, : 3 * width]  # rows that lie apart, as a step's slice of a batch has them
            gate, reset, hidden = units.gru_unit(*given, **attrs)
            assert units._by_kernel(*given) == (cast is torch.Tensor.float)
            found.append([gate, reset, hidden, *units.gru_unit_grad(*given, gate, reset, cast(h), **attrs, want=want)])
        for number, (mine, exact) in enumerate(zip(*found)):
            if number < 3 or want[number - 3]:
                np.testing.assert_allclose(mine, exact, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("width", [3, 16])
def test_no_gradient_comes_through_the_gates_of_a_gru_unit(width):
    """As in Fluid, whose gradient reads Hidden's alone: by torch's calls (3 wide) and by the kernel (16)."""
    draw = np.random.RandomState(width)
    with fluid.dygraph.guard():
        cell = fluid.dygraph.GRUUnit(3 * width)
        x, h = (fluid.dygraph.to_variable(draw.randn(2, k * width).astype("float32")) for k in (3, 1))
        grads = []
        for more in (False, True):
            hidden, reset, gate = cell(x, h)
            loss = fluid.layers.reduce_sum(hidden)
            (loss + fluid.layers.reduce_sum(gate) + fluid.layers.reduce_sum(reset) if more else loss).backward()
            grads.append(cell.weight.gradient())
            cell.clear_gradients()
    np.testing.assert_array_equal(*grads)


def test_lstm_unit_gradient():
    rng = np.random.RandomState(6)
    inputs = {"X": rng.randn(3, 8), "C_prev": rng.randn(3, 2)}
    for of in ("C", "H"):
        numeric_grad_check("lstm_unit", inputs, {"forget_bias": 0.5}, {"C": 1, "H": 1}, ["X_0", "C_prev_0"], of)


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_narrow_and_wide_batches_agree(op):
    """Whole sequences in one kernel, and a product per step (float32, through oneDNN where there is one)."""
    rng = np.random.RandomState(7)
    d, gates = 96, 4 if op == "lstm" else 3
    lengths = list(rng.randint(0, 6, 40))
    lengths[0] = 6
    x = rng.randn(sum(lengths), gates * d).astype("float32")
    rest = {
        "Weight": (rng.randn(d, gates * d) * 0.1).astype("float32"),
        "Bias": (rng.randn(1, gates * d) * 0.1).astype("float32"),
    }
    attrs = {"use_peepholes": False} if op == "lstm" else {}
    outputs = LSTM_OUT if op == "lstm" else GRU_OUT
    together = np.asarray(run_op(op, {"Input": x, **rest}, attrs, outputs, {"Input_0": [lengths]})["Hidden"])
    start = 0
    for n in lengths[:6]:
        if n:
            alone = run_op(op, {"Input": x[start : start + n], **rest}, attrs, outputs, {"Input_0": [[n]]})["Hidden"]
            np.testing.assert_allclose(together[start : start + n], np.asarray(alone), rtol=1e-4, atol=1e-5)
        start += n


def test_nan_in_the_input_stays_nan():
    x = np.zeros((3, 8), "float32")
    x[1, 0] = np.nan
    inputs = {"Input": x, "Weight": np.eye(2, 8, dtype="float32"), "Bias": np.zeros((1, 8), "float32")}
    found = np.asarray(run_op("lstm", inputs, {"use_peepholes": False}, LSTM_OUT, {"Input_0": [[3]]})["Hidden"])
    assert not np.isnan(found[0]).any()
    assert np.isnan(found[1, 0]) and np.isnan(found[2, 0])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"Weight": np.zeros((2, 6))}, ShapeError, r"Weight must be \[D, 4D\], received \[2, 6\]"),
        ({"Input": np.zeros((5, 6))}, ShapeError, r"Input must be \[rows, 4D\] with D = 2"),
        ({"Bias": np.zeros((1, 8))}, ShapeError, r"Bias must be \[1, 14\] with use_peepholes=True"),
        ({"H0": np.zeros((2, 2))}, ShapeError, "H0 and C0 must be given together"),
    ],
)
def test_lstm_refuses(change, error, words):
    inputs = {"Input": np.zeros((5, 8)), "Weight": np.zeros((2, 8)), "Bias": np.zeros((1, 14)), **change}
    with pytest.raises(error, match=words):
        build_op("lstm", inputs, {}, LSTM_OUT, {"Input_0": [[2, 3]]})


def test_unknown_activation_and_missing_lod():
    inputs = {"Input": np.zeros((5, 6)), "Weight": np.zeros((2, 6))}
    with pytest.raises(AttributeTypeError, match="one of identity, sigmoid, tanh, relu, received 'gelu'"):
        build_op("gru", inputs, {"activation": "gelu"}, GRU_OUT, {"Input_0": [[5]]})
    with pytest.raises(EnforceNotMet, match="must have a LoD"):
        run_op("gru", inputs, {}, GRU_OUT)


@pytest.mark.slow
def test_compiled_kernels_are_kept_on_disk(tmp_path):
    """A second process must find the machine code that the first one wrote."""
    script = (
        "import numpy as np\n"
        "from millstream.kernels import crf\n"
        "a = np.ones((2, 3)), np.ones((5, 3)), np.array([0]), np.array([2]), np.zeros(2, np.int64)\n"
        "crf.viterbi(*a)\n"
        "print(sum(crf.viterbi.stats.cache_hits.values()), sum(crf.viterbi.stats.cache_misses.values()))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [subprocess.check_output([sys.executable, "-c", script], env=env, text=True).split() for _ in range(2)]
    assert found == [["0", "1"], ["1", "0"]]


@pytest.mark.parametrize(
    "width, dtype, whole", [(8, "float32", False), (16, "float32", False), (7, "float32", True), (8, "float64", True)]
)
def test_lstm_gradient_is_that_of_the_cpu_kernels_or_the_whole_one(width, dtype, whole):
    """1.8.5's AVX kernels leave the cell state out of the gradient; a flag asks for the derivative."""
    import millstream.fluid as fluid

    rows = fluid.layers.data("rows", [4 * width], dtype=dtype, lod_level=1)
    rows.stop_gradient = False
    hidden, _ = fluid.layers.dynamic_lstm(rows, 4 * width, dtype=dtype)
    (gradient,) = fluid.gradients(fluid.layers.reduce_sum(fluid.layers.square(hidden)), [rows])
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    data = np.random.RandomState(0).uniform(-1, 1, (5, 4 * width)).astype(dtype)
    feed = {"rows": fluid.create_lod_tensor(data, [[2, 3]], fluid.CPUPlace())}

    def run():
        return exe.run(feed=feed, fetch_list=[gradient])[0]

    state, output = np.abs(run()[:, : 3 * width]).max(), np.abs(run()[:, 3 * width :]).max()
    assert output > 0 and (state > 0) == whole
    fluid.set_flags({"FLAGS_lstm_state_gradient": True})
    try:
        assert np.abs(run()[:, : 3 * width]).max() > 0
    finally:
        fluid.set_flags({"FLAGS_lstm_state_gradient": False})


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["lstm", "lstmp", "gru"])
def test_a_batch_cut_over_threads_gives_the_same(name, whole, monkeypatch):
    from millstream.ops.recurrent import _steps

    d, p, k, lengths = 24, 9, 3 if name == "gru" else 4, [3, 0, 7, 1, 7, 2]
    layer = {
        "lstm": lambda x: fluid.layers.dynamic_lstm(x, k * d, is_reverse=True)[0],
        "lstmp": lambda x: fluid.layers.dynamic_lstmp(x, k * d, p, cell_clip=1.0, proj_clip=0.5)[0],
        "gru": lambda x: fluid.layers.dynamic_gru(x, d, is_reverse=True),
    }[name]
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 3
    with fluid.program_guard(main, startup):
        x = fluid.data("x", [None, k * d], lod_level=1)
        x.stop_gradient = False
        loss = fluid.layers.reduce_sum(layer(x) * layer(x))
        wanted = [v.name + "@GRAD" for v in (x, *main.all_parameters())]
        fluid.append_backward(loss)
    feed = {"x": fluid.create_lod_tensor(np.random.RandomState(5).randn(20, k * d).astype("float32"), [lengths], None)}
    exe, found = fluid.Executor(), []
    exe.run(startup)
    fluid.set_flags({"FLAGS_lstm_state_gradient": whole})
    try:
        for pieces in (1, 4):
            monkeypatch.setattr(_steps, "parts", lambda work, most, pieces=pieces: min(pieces, most))
            found.append(exe.run(main, feed=feed, fetch_list=[loss, *wanted]))
    finally:
        fluid.set_flags({"FLAGS_lstm_state_gradient": False})
    for one, several, what in zip(*found, ["loss", *wanted]):
        assert np.allclose(one, several, rtol=1e-4, atol=1e-4), what
