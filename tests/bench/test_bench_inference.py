"""The comparison with engines, and the soak of predictors: short runs, verdicts, exit status."""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")


def run(module, *arguments):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=400
    )


@pytest.mark.slow
def test_a_short_comparison(tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "table.md"
    done = run("bench.inference", "lac", "--batch", "1,2", "--rounds", "1", "--peers", "onnxruntime", "--limit", "99",
               "--out", str(out))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert out.read_text().count("| lac |") == 2 and "| onnxruntime ms | best other |" in out.read_text()


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON names no interpreter with PaddlePaddle 1.8.5")
@pytest.mark.slow
def test_against_the_predictor_of_1_8_5():
    done = run("bench.inference", "lac", "--batch", "2", "--rounds", "1", "--peers", "paddle 1.8.5", "--paddle-limit", "9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"paddle 1.8.5": 0.0' in done.stdout and "| to paddle |" in done.stdout


def test_requests_of_packages_models():
    """All sentences, one at a time and several together."""
    from bench.predictor_soak import requests_of

    class Models:
        PACKAGED = ("tagger",)

        @staticmethod
        def requests(name, batch):
            return [{"words": [name] * batch}]

    assert [len(r["words"]) for r in requests_of("tagger", Models)] == [1, 5]


@pytest.mark.slow
def test_a_short_soak():
    done = run("bench.predictor_soak", "lac:native", "--minutes", "0.05", "--threads", "3", "--tolerance", "9")
    assert done.returncode == 0 and "| lac:native | native |" in done.stdout and "right and flat" in done.stdout


def test_wrong_arguments():
    done = run("bench.inference", "lenet", "--peers", "onnxruntime")
    assert done.returncode == 2 and "unknown model lenet; known: resnet50" in done.stderr


@pytest.mark.parametrize("change,text", [
    ({}, "right and flat"),
    ({"wrong": 2}, "2 WRONG"),
    ({"failed": ["thread 3: ValueError: x"]}, "FAILED: thread 3"),
    ({"answers": [5, 0]}, "NO ANSWER"),
    ({"memory": [100.0] * 8 + [102.0, 102.0]}, "GROWS"),
])  # fmt: skip
def test_verdicts(change, text, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from bench.predictor_soak import verdict

    good = {"wrong": 0, "failed": [], "answers": [5, 6], "memory": [100.0] * 10}
    assert text in verdict({**good, **change}, 0.01)
