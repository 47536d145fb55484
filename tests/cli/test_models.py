"""``millstream export``, ``run-model`` and ``bench-model`` on small saved models."""

import json

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.cli import main
from millstream.inference import engines

X = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")


def save(folder, build):
    net, startup = fluid.Program(), fluid.Program()
    with fluid.unique_name.guard(), fluid.program_guard(net, startup), fluid.scope_guard(fluid.Scope()):
        feeds, targets = build()
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), feeds, targets, exe, net)
    return str(folder)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    def build():
        x = fluid.data("x", [None, 4])
        return ["x"], [fluid.layers.fc(fluid.layers.fc(x, 8, act="relu"), 2, act="softmax")]

    return save(tmp_path_factory.mktemp("dense"), build)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    def build():
        x, w = fluid.data("x", [None, 4], lod_level=1), fluid.data("w", [None, 4])
        return ["x", "w"], [fluid.layers.sequence_pool(x, "sum") + w, fluid.layers.relu(x)]

    return save(tmp_path_factory.mktemp("ragged"), build)


@pytest.fixture
def x_file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return str(tmp_path / "x.npy")


def test_export_fluid(dense, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["export", dense, "--to", "fluid", "--out", out]) == 0
    assert "__model__" in capsys.readouterr().out
    assert np.allclose(millstream.load(out)(X), millstream.load(dense)(X), atol=1e-6)


@pytest.mark.skipif(engines.why_not("openvino") is not None, reason="openvino is not installed")
def test_export_openvino(dense, tmp_path):
    import openvino

    assert main(["export", dense, "--to", "openvino", "--out", str(tmp_path / "net.xml")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    got = openvino.Core().compile_model(str(tmp_path / "net.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(X)[0]
    assert np.allclose(got, millstream.load(dense)(X), atol=1e-5)


@pytest.mark.skipif(engines.why_not("onnxruntime") is not None, reason="onnxruntime is not installed")
def test_export_onnx(dense, tmp_path):
    import onnxruntime

    path = str(tmp_path / "net.onnx")
    assert main(["export", dense, "--to", "onnx", "--out", path]) == 0
    got = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]
    assert np.allclose(got, millstream.load(dense)(X), atol=1e-5)


def test_run_model(dense, x_file, tmp_path, capsys):
    folder = tmp_path / "results"
    assert main(["run-model", dense, "--input", x_file, "--output", str(folder), "--profile"]) == 0
    (file,) = folder.iterdir()
    assert np.array_equal(np.load(file), millstream.load(dense)(X))
    printed = capsys.readouterr().out
    assert "float32 [3, 2]" in printed and "softmax" in printed and "share" in printed


def test_run_model_with_sequences(ragged, x_file, tmp_path, capsys):
    np.save(tmp_path / "w.npy", np.zeros((2, 4), "float32"))
    arguments = ["--input", f"x={x_file}", "--input", f"w={tmp_path / 'w.npy'}", "--lengths", "x=1,2"]
    assert main(["run-model", ragged, *arguments, "--output", str(tmp_path / "out")]) == 0
    assert "lengths [[1, 2]]" in capsys.readouterr().out
    found = {p.name: np.load(p) for p in (tmp_path / "out").iterdir()}
    assert any(n.endswith(".lengths.npy") and v.tolist() == [1, 2] for n, v in found.items())
    assert any(np.allclose(v, [X[0], X[1:].sum(0)]) for v in found.values() if v.shape == (2, 4))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run-model", "DENSE"], "missing: x"),
        (["run-model", "DENSE", "--input", "nowhere.npy"], "there is no file 'nowhere.npy'"),
        (["run-model", "DENSE", "--input", "y=FILE"], "the model has no input 'y'; the model's input is x"),
        (["run-model", "DENSE", "--input", "FILE", "--input", "x=FILE"], "x is given twice"),
        (["run-model", "DENSE", "--input", "TEXT"], "not an array file"),
        (["run-model", "DENSE", "--input", "WRONG"], "dimension 1 must be 4, received 5"),
        (["run-model", "RAGGED", "--input", "FILE"], "say for which input: name=…; the model's inputs are x, w"),
        (["run-model", "RAGGED", "--lengths", "x=1,b", "--input", "x=FILE"], "expected numbers with commas"),
        (["run-model", "gone", "--input", "FILE"], "there is no 'gone'"),
        (["run-model", "DENSE", "--engine", "cuda", "--input", "FILE"], "CUDAExecutionProvider"),
        (["export", "DENSE", "--to", "onnx", "--out", "OUT", "--opset", "3"], "opset must be one of"),
        (["run-model", "DENSE", "--input", "FILE", "--output", "FILE"], "a file of that name exists"),
        (["bench-model", "DENSE", "--shape", "999999999999,4", "--engine", "native"], "not enough memory"),
        (["bench-model", "DENSE", "--seconds", "0"], "must be positive"),
        (["bench-model", "DENSE", "--shape", "x=a"], "expected numbers with commas"),
        (["run-model", "RAGGED", "--input", "y=FILE"], "the model has no input 'y'; the model's inputs are x, w"),
    ],
)
def test_errors_are_one_message(dense, ragged, x_file, tmp_path, capsys, arguments, text):
    if "cuda" in arguments and engines.why_not("cuda") is None:
        pytest.skip("there is a CUDA provider")
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "wrong.npy", np.zeros((1, 5), "float32"))
    put = {"DENSE": dense, "RAGGED": ragged, "FILE": x_file, "TEXT": str(tmp_path / "text.npy")}
    put.update(WRONG=str(tmp_path / "wrong.npy"), OUT=str(tmp_path / "out.onnx"))
    assert main([put.get(a, a.replace("FILE", x_file)) for a in arguments]) == 1
    printed = capsys.readouterr().err
    assert text in printed and "Traceback" not in printed and not (tmp_path / "out.onnx").exists()


def test_bench_model(dense, capsys):
    assert main(["bench-model", dense, "--engine", "native", "--seconds", "0.05", "--shape", "8,4"]) == 0
    head, row = capsys.readouterr().out.strip().splitlines()
    assert "p99 ms" in head and row.startswith("native") and float(row.split()[1]) > 0
    assert main(["bench-model", dense, "--engine", "native", "--seconds", "0.05", "--shape", "x=8,5", "--json"]) == 1
    assert "dimension 1 must be 4" in json.loads(capsys.readouterr().out)[0]["error"]


@pytest.mark.slow
def test_bench_model_side_by_side(dense, capsys):
    wanted = ["--engine", "native", "--engine", "auto", "--engine", "cuda"]
    assert main(["bench-model", dense, *wanted, "--seconds", "0.05"]) == 0
    rows = capsys.readouterr().out.strip().splitlines()[1:]
    assert [r.split()[0].split("=")[0] for r in rows] == ["native", "auto", "cuda"]
    if engines.why_not("cuda") is not None:
        assert "CUDAExecutionProvider" in rows[2]
