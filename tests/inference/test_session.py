"""millstream.load: forms of inputs and results, warm-up, clones, memory limit, profile, errors."""

import os
import shutil
import threading

import numpy as np
import pytest
import torch

import millstream
import millstream.fluid as fluid
import millstream.onnx
from millstream.errors import (
    EnforceNotMet,
    FeedError,
    FileFormatError,
    MemoryLimitError,
    MissingFileError,
    NotSupportedError,
)

WORDS = [[1, 2, 3], [4]]
WIDE = np.ones((2, 4), "float32")


def by_executor(folder, feed):
    exe, scope = fluid.Executor(), fluid.Scope()
    with fluid.scope_guard(scope):
        program, _, targets = fluid.io.load_inference_model(folder, exe)
        return exe.run(program, feed=feed, fetch_list=targets, return_numpy=False)


def test_forms_of_a_call(image_model, image):
    model = millstream.load(image_model)
    (want,) = by_executor(image_model, {"x": image})
    (listed,) = model.run(image)
    named = model.run({"x": image})
    assert np.allclose(listed, want, atol=1e-6) and list(named) == [model.outputs[0].name]
    for given in (torch.from_numpy(image), image.astype("float64"), image.tolist(), image[:, :, ::-1][:, :, ::-1]):
        assert np.allclose(model(given), listed, atol=1e-6)
    assert model.inputs == [("x", [-1, 3, 16, 16], "float32", 0)] and model.outputs[0].shape == [-1, 5]
    for batch in (1, 3, 0):
        assert model(np.zeros((batch, 3, 16, 16), "float32")).shape == (batch, 5)


def test_sequences(text_model):
    model = millstream.load(text_model)
    words = fluid.create_lod_tensor(np.array([[1], [2], [3], [4]]), [[3, 1]], fluid.CPUPlace())
    flat = fluid.create_lod_tensor(np.array([1, 2, 3, 4]), [[3, 1]], fluid.CPUPlace())
    want = by_executor(text_model, {"words": words, "wide": WIDE})
    for given in (words, flat, WORDS, [np.array(s) for s in WORDS], [np.array(s).reshape(-1, 1) for s in WORDS]):
        pooled, same = model.run({"wide": WIDE, "words": given}).values()
        assert np.allclose(pooled, want[0], atol=1e-6) and np.allclose(same, want[1])
        assert same.lod() == [[0, 3, 4]] and type(pooled) is np.ndarray
    one = model.run(np.array([[4]]), WIDE[:1])
    assert np.allclose(one[0], np.array(want[0])[1:], atol=1e-6)
    with pytest.raises(FeedError, match="list of sequences"):
        model.run([1, 2], WIDE)
    with pytest.raises(FeedError, match="each sequence must be an array"):
        model.run([np.ones((2, 3), "int64")], WIDE)


def test_two_levels(tmp_path, save_model):
    def build():
        x = fluid.data("x", [None, 2], lod_level=2)
        return ["x"], [fluid.layers.sequence_pool(x, "sum")]

    model = millstream.load(save_model(tmp_path / "m", build))
    rows = np.arange(10, dtype="float32").reshape(5, 2)
    pooled = model([[rows[:1], rows[1:3]], [rows[3:]]])
    assert pooled.lod() == [[0, 2, 3]] and np.allclose(pooled, [rows[0], rows[1:3].sum(0), rows[3:].sum(0)])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda x: {}, "missing: x"),
        (lambda x: {"y": x}, r"missing: x; unknown: y"),
        (lambda x: {"x": x, "y": x}, "unknown: y"),
        (lambda x: {"x": x[0]}, r"expected rank 4, received rank 3.*x\[None\]"),
        (lambda x: {"x": x[:, :2]}, r"dimension 1 must be 3, received 2"),
        (lambda x: {"x": x.astype("int64")}, r"received int64.*astype\('float32'\)"),
        (lambda x: {"x": None}, "received NoneType"),
        (lambda x: {"x": "text"}, "received str"),
        (lambda x: {"x": [[1.0], [1.0, 2.0]]}, "x"),
    ],
)
def test_wrong_inputs(image_model, image, given, text):
    with pytest.raises(FeedError, match=text):
        millstream.load(image_model).run(given(image))


def test_wrong_number_of_inputs(text_model):
    with pytest.raises(FeedError, match=r"takes 2 inputs.*received 1"):
        millstream.load(text_model).run(WORDS)


def test_wrong_arguments(image_model, tmp_path):
    for arguments, error, text in [
        ({"engine": "fast"}, NotSupportedError, "no engine 'fast'.*onnxruntime"),
        ({"precision": "int4"}, ValueError, "int4"),
        ({"precision": "int8"}, ValueError, "calibration"),
        ({"threads": 0}, ValueError, "at least 1"),
        ({"threads": "two"}, TypeError, "whole number, received 'two'"),
        ({"memory_limit": -5}, ValueError, "at least 1, received -5"),
        ({"precision": "bfloat16", "calibration": [], "max_error": "x"}, ValueError, "max_error must be a number"),
        ({"model_filename": "nope"}, MissingFileError, "no file 'nope'"),
    ]:
        with pytest.raises(error, match=text):
            millstream.load(image_model, **arguments)
    with pytest.raises(MissingFileError, match="there is no"):
        millstream.load(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="received NoneType"):
        millstream.load(None)
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(MissingFileError, match=r"readme\.txt"):
        millstream.load(tmp_path)
    (tmp_path / "__model__").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="__model__"):
        millstream.load(tmp_path)


def test_files_that_are_for_training(tmp_path):
    """What fluid.save writes has no inputs and results: the error says how a model to serve is written."""
    program, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(program, startup), fluid.scope_guard(fluid.Scope()):
        fluid.layers.fc(fluid.data("x", [None, 3]), 2)
        fluid.Executor().run(startup)
        fluid.save(program, str(tmp_path / "m"))
    for path in ("", "m", "m.pdmodel", "m.pdparams"):
        with pytest.raises((MissingFileError, FileFormatError), match=r"save_inference_model"):
            millstream.load(tmp_path / path)


def test_parameters_in_a_file_of_another_name(image_model, image, tmp_path):
    exe = fluid.Executor()
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, targets = fluid.io.load_inference_model(image_model, exe)
        fluid.io.save_inference_model(str(tmp_path), feeds, targets, exe, program, "net.pb", "weights")
    with pytest.raises(MissingFileError, match=r"it holds weights.*params_filename"):
        millstream.load(tmp_path, model_filename="net.pb")
    millstream.load(tmp_path, model_filename="net.pb", params_filename="weights")(image)


def test_arrays_of_other_byte_order_and_no_sequences(image_model, text_model, image):
    model = millstream.load(image_model)
    assert np.array_equal(model(image.astype(">f4")), model(image))
    assert millstream.load(text_model).run([], WIDE[:0])[0].shape[0] == 0


def test_names_of_files(image_model, image, tmp_path):
    model = millstream.load(image_model)
    want = model(image)
    exe, scope = fluid.Executor(), fluid.Scope()
    with fluid.scope_guard(scope):
        program, feeds, targets = fluid.io.load_inference_model(image_model, exe)
        names = [("__model__", "__params__"), ("model", "params"), ("net.pdmodel", "net.pdiparams")]
        for k, (prog, params) in enumerate(names):
            folder = str(tmp_path / str(k))
            fluid.io.save_inference_model(folder, feeds, targets, exe, program, prog, params)
            assert np.allclose(millstream.load(folder)(image), want, atol=1e-6)
            assert np.allclose(millstream.load(os.path.join(folder, prog))(image), want, atol=1e-6)
    shutil.copy(tmp_path / "2" / "net.pdmodel", tmp_path / "2" / "other.pdmodel")
    shutil.copy(tmp_path / "2" / "net.pdiparams", tmp_path / "2" / "other.pdiparams")
    with pytest.raises(FileFormatError, match="net, other"):
        millstream.load(tmp_path / "2")


def test_clones_share_the_weights(image_model, image):
    model = millstream.load(image_model)
    want = model(image)
    twin = model.clone()
    assert np.array_equal(twin(image), want)
    ours, theirs = (
        {n: m._model.parameter(n).data_ptr() for n in m._model.scope.local_var_names()} for m in (model, twin)
    )
    assert ours == theirs and ours


def test_many_threads_on_one_model(text_model):
    model = millstream.load(text_model)
    words = [[list(range(1, 2 + k))] for k in range(6)]
    want = [model.run(w, WIDE[:1])[0] for w in words]
    failed = []

    def work(k):
        for _ in range(40):
            if not np.array_equal(model.run(words[k], WIDE[:1])[0], want[k]):
                failed.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_results_own_their_memory(image_model, image):
    model = millstream.load(image_model)
    first = model(image)
    kept = first.copy()
    model(image * 3)
    assert np.array_equal(first, kept)


def test_warmup(image_model, text_model):
    model = millstream.load(image_model)
    assert model.warmup() is model
    model.warmup((4, 3, 16, 16)).warmup({"x": [1, 3, 16, 16]}).warmup([(1, 3, 16, 16), {"x": (2, 3, 16, 16)}])
    millstream.load(text_model).warmup({"words": [7, 1], "wide": [1, 4]})
    with pytest.raises(FeedError, match="dimension 1"):
        model.warmup((1, 4, 16, 16))


def test_memory_limit(image_model, image):
    model = millstream.load(image_model)
    small, large = model.memory({"x": [1, 3, 16, 16]}), model.memory({"x": [64, 3, 16, 16]})
    assert large - small > 63 * 3 * 256 * 4
    limited = millstream.load(image_model, memory_limit=small + 1000)
    assert limited(image[:1]).shape == (1, 5)
    with pytest.raises(MemoryLimitError, match=r"x \[64, 3, 16, 16\] needs about .*KiB.*smaller batch"):
        limited(np.zeros((64, 3, 16, 16), "float32"))
    with pytest.raises(FeedError, match="missing: x"):
        model.memory({})


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_memory_limit_counts_what_requests_took(tmp_path, save_model, engine, monkeypatch):
    """A kernel's own memory is in no estimate; requests of that kind, and larger ones, are judged by what it took."""
    if engine != "native":
        pytest.importorskip(engine)

    def build():
        x = fluid.data("x", [None, 8, 64, 64])
        return ["x"], [fluid.layers.reduce_sum(fluid.layers.conv2d(x, 8, 3, padding=1), dim=[1, 2, 3])]

    folder = save_model(tmp_path, build)
    plain = millstream.load(folder, engine=engine)
    small, large = (np.ones((n, 8, 64, 64), "float32") for n in (2, 16))
    plain(small)
    limit = plain.memory({"x": large.shape}) + (1 << 20)
    model = millstream.load(folder, engine=engine, memory_limit=limit)
    np.testing.assert_allclose(model(small), plain(small), rtol=1e-4)
    peaks = iter([0, 30 << 20] * 4)  # every measured run of the small kind takes 30 MiB
    monkeypatch.setattr("millstream.inference.memory._resident", lambda **_: next(peaks))
    other = millstream.load(folder, engine=engine, memory_limit=limit)
    other(small)
    for x in (small, large):
        with pytest.raises(MemoryLimitError, match="smaller batch"):
            other.clone()(x)
    assert model(large).shape == (16,)


def test_profile(image_model, image):
    model = millstream.load(image_model, profile=True)
    model(image)
    model.clone()(image)
    assert "pool2d" in model.profile() and "share" in model.profile()
    with pytest.raises(EnforceNotMet, match="profile=True"):
        millstream.load(image_model).profile()


def test_threads_are_put_back(image_model, image):
    before = torch.get_num_threads()
    millstream.load(image_model, threads=before + 1)(image)
    assert torch.get_num_threads() == before


def test_optimize_off_gives_the_same(image_model, image):
    plain = millstream.load(image_model, optimize=False)
    assert np.allclose(plain(image), millstream.load(image_model)(image), atol=1e-5)
    assert plain.explain() == ""


def test_onnx_files(image_model, image, tmp_path):
    pytest.importorskip("onnx")
    path = str(tmp_path / "net.onnx")
    millstream.onnx.export_model(image_model, path)
    model = millstream.load(path)
    assert model.inputs[0].name == "x" and np.allclose(model(image), millstream.load(image_model)(image), atol=1e-5)
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(FileFormatError, match=r"bad\.onnx"):
        millstream.load(tmp_path / "bad.onnx")


def test_passes_are_chosen(image_model, image):
    from millstream.passes import pipelines

    want = millstream.load(image_model)(image)
    types = {}
    for passes in ((), ("fold_conv_bn",), (*pipelines.CLEAN, "fuse_fc"), pipelines.INFER):
        model = millstream.load(image_model, passes=passes)
        np.testing.assert_allclose(model(image), want, atol=1e-5)
        plan = next(iter(model._model.native._plans.values()))
        types[passes] = {op.type for op in plan.work.block.ops}
        assert ("fold_conv_bn" in model.explain()) == ("fold_conv_bn" in passes)
    assert {"batch_norm", "mul"} <= types[()]
    assert "batch_norm" not in types["fold_conv_bn",] and "mul" in types["fold_conv_bn",]
    assert "fc" in types[(*pipelines.CLEAN, "fuse_fc")] and "packed_conv2d" in types[pipelines.INFER]


def test_passes_that_are_not_there(image_model):
    with pytest.raises(EnforceNotMet, match="there is no pass 'no_such'"):
        millstream.load(image_model, passes=["no_such"])
    with pytest.raises(ValueError, match=r"passes must be a list of names such as \['fuse_fc'\], received 'fuse_fc'"):
        millstream.load(image_model, passes="fuse_fc")
    with pytest.raises(ValueError, match="not both"):
        millstream.load(image_model, passes=["fuse_fc"], optimize=False)
