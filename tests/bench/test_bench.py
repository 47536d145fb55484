"""The benchmark's comparison, table and exit status; and that workloads are what they say."""

import json
import os
import subprocess
import sys
import tempfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(ROOT, "bench")


@pytest.fixture(scope="module", autouse=True)
def _paths():
    added = [ROOT, BENCH]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


def run(*arguments, **environment):
    env = {k: v for k, v in os.environ.items() if not (k.startswith("MILLSTREAM_") and k.endswith("_PYTHON"))}
    env.update(environment, OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "millstream.cli", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
def test_one_run(tmp_path):
    """millstream and torch from the same parameters: one table, one JSON file, a chart, and who is missing."""
    pytest.importorskip("matplotlib")
    done = run("fit_a_line", "--peers", "millstream,torch,jax", "--rounds", "2", "--seconds", "0.01", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| fit_a_line | millstream |" in done.stdout and "agree (1e-04, 1e-02)" in done.stdout
    assert "jax left out of fit_a_line: not installed: MILLSTREAM_JAX_PYTHON names no interpreter" in done.stdout
    result = json.loads((tmp_path / "results.json").read_text())["results"][0]
    ours, torch = result["rows"]
    assert ours["losses"] == pytest.approx(torch["losses"], rel=1e-5)
    assert len(ours["rounds"]) == 2 and torch["ours_over_peer"] > 0 and ours["peak_mib"] > ours["base_mib"] > 0
    assert (tmp_path / "results.svg").read_text().startswith("<?xml") and (tmp_path / "results.png").stat().st_size > 1000
    assert "| fit_a_line | torch |" in (tmp_path / "results.md").read_text()


def test_wrong_arguments():
    for arguments, text in (
        (("nothing",), "unknown workload 'nothing'; known: ctr_dnn, dcgan"),
        (("lenet", "--peers", "x"), "unknown peer 'x'"),
        (("lenet", "--threads", "0"), "--threads 1 or more"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and text in done.stderr


def test_a_missing_interpreter_is_left_out_and_a_failing_one_fails(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module >&2\nexit 1\n")
    broken.chmod(0o755)
    done = run("fit_a_line", "--peers", "fluid", "--rounds", "0", MILLSTREAM_ORACLE_PYTHON=str(broken))
    assert done.returncode == 1 and "fluid FAILED: ended with status 1: no module" in done.stdout
    done = run("fit_a_line", "--peers", "fluid", "--rounds", "0", MILLSTREAM_ORACLE_PYTHON="/nowhere/python")
    assert done.returncode == 0 and "MILLSTREAM_ORACLE_PYTHON=/nowhere/python can't be executed" in done.stdout


def row(peer, losses, ratio=None):
    return {
        "peer": peer, "ms": 1.0, "rounds": [1.0], "cpu_ms": 1.0, "ours_over_peer": ratio, "first_s": 0.1, "base_mib": 1,
        "peak_mib": 2, "losses": losses, "reference": "millstream", "tolerance": [1e-4, 1e-2], "disagreement": "",
    }  # fmt: skip


def test_a_peer_without_figures_is_left_out(tmp_path, monkeypatch):
    from bench import peers

    monkeypatch.setattr(peers, "PATIENCE", 0.05)
    path = str(tmp_path / "parameters.npz")
    with tempfile.TemporaryFile("w+") as log, pytest.raises(peers.LeftOut, match="had taken no step after"):
        peers.Peer("fit_a_line", "millstream", path, 1, log)


def test_disagreement_is_reported_and_fails():
    from bench import report, runner

    assert runner.disagreement([1.0, 2.0], [1.00005, 2.01], (1e-4, 1e-2)) == ""
    text = runner.disagreement([1.0, 2.0], [1.0, 2.1], (1e-4, 1e-2))
    assert text == "step 2: 2.1 for 2, 4.8e-02 apart, allowed 1e-02"
    assert runner.disagreement([1.0], [float("nan")], (1e-4, 1e-2))
    rows = [row("millstream", [1.0]), dict(row("torch", [2.0], 0.5), disagreement="step 1: …")]
    result = {"workload": "w", "rows": rows, "left_out": {"jax": "why"}, "failed": {}, "threads": 1}
    assert not runner.sound([result]) and runner.sound([dict(result, rows=rows[:1])])
    assert not runner.sound([dict(result, rows=rows[:1], failed={"fluid": "it broke"})])
    table = report.markdown([result, dict(result, workload="v")])
    assert "DISAGREE: step 1: …" in table and "- jax left out of w, v: why" in table


def test_what_is_compared_with_what():
    from bench import runner

    peers = {n: n for n in ("millstream", "millstream-derivative", "fluid", "torch")}
    assert runner.reference_for("millstream", peers) == "fluid" and runner.ours_for("fluid", peers) == "millstream"
    assert runner.reference_for("torch", peers) == runner.ours_for("torch", peers) == "millstream-derivative"
    peers["millstream-captured"] = "millstream-captured"
    assert runner.ours_for("torch-compiled", peers) == "millstream-captured"
    assert runner.ours_for("millstream-captured", peers) == "millstream"
    del peers["millstream-derivative"]
    assert runner.reference_for("torch", peers) == "fluid" and runner.ours_for("torch", peers) == "millstream"


@pytest.mark.parametrize("name", ["gru_crf", "dcgan", "seq2seq", "imdb_stacked", "yolo_v3"])
def test_workloads_say_who_is_missing(name):
    """Every file of bench/workloads has a Fluid form, and torch's or a reason for its absence."""
    import importlib

    workload = importlib.import_module("workloads." + name)
    assert hasattr(workload, "fluid_model") or hasattr(workload, "fluid_turn")
    for peer in ("torch", "jax", "paddle3"):
        assert hasattr(workload, peer + "_step") or peer in workload.LEFT_OUT, peer
    assert workload.__doc__


@pytest.mark.slow
def test_torch_repeats_the_tagger():
    """A GRU-CRF in one vocabulary: torch's loss equals millstream's from the same parameters."""
    import worker
    from workloads import gru_crf

    fluid = worker.FluidRun("millstream.fluid", gru_crf)
    step = gru_crf.torch_step(fluid.parameters())
    assert step() == pytest.approx(fluid.step(), rel=1e-5)


def test_soak_and_build_time():
    from bench import build_time, soak

    assert soak.growth([100.0, 101.0, 99.0, 100.0, 102.01]) == pytest.approx(0.0201)
    assert soak.growth([5.0]) == 0
    measured = build_time.measure(30, 2)
    assert measured["operators"] > 60 and measured["step_ms"] > 0
    slow = dict(measured, build_s=3.0, forward=1000)
    assert build_time.missed([slow]) == ["1000 operators: build_s is 3.00, allowed 2.0"]
    assert len(build_time.missed([measured, dict(measured, step_ms=2 * measured["step_ms"])])) == 1
