"""Engines inside Programs: partition, choice and its memory on disk, reduced precision."""

import json
import pathlib
import warnings

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream import onnx
from millstream.errors import AccuracyError, NotSupportedError
from millstream.fluid import core
from millstream.inference import engines
from millstream.inference.engine_op import PREPARED

pytest.importorskip("onnx")
INSTALLED = [
    pytest.param(n, marks=pytest.mark.skipif(engines.why_not(n) is not None, reason=str(engines.why_not(n))))
    for n in ("onnxruntime", "openvino")
]
WORDS, WIDE = [[1, 2, 3], [4]], np.ones((2, 4), "float32")


@pytest.mark.parametrize("engine", INSTALLED)
def test_whole_model(image_model, image, engine):
    native, model = millstream.load(image_model), millstream.load(image_model, engine=engine)
    assert np.allclose(model(image), native(image), atol=1e-5)
    assert np.allclose(model(image[:1]), native(image[:1]), atol=1e-5)
    assert model.engine_for(image) == engine and "in 1 engine sub-models" in model.explain()
    kept = model(image)
    again = kept.copy()
    model(image * 2)
    assert np.array_equal(kept, again)  # engines use their memory again; results don't


@pytest.mark.parametrize("engine", INSTALLED)
def test_parts_with_sequences_stay_native(text_model, engine, monkeypatch):
    monkeypatch.setattr("millstream.inference.candidates.worth_a_try", lambda model: False)
    native, model = millstream.load(text_model), millstream.load(text_model, engine=engine)
    want, got = native.run(WORDS, WIDE), model.run(WORDS, WIDE)
    assert np.allclose(got[0], want[0], atol=1e-5) and got[1].lod() == want[1].lod()
    assert "'words' has a LoD" in model.explain()


def test_parts_around_a_native_operator(tmp_path, save_model, monkeypatch):
    """An operator that no engine takes stands in the middle and beside: two sub-models, one result from each side."""
    honest = onnx.refusals

    def refuse_fsp(program, *arguments):
        taken = [(o, "none takes it") for o in program.global_block().ops if o.type == "fsp"]
        return honest(program, *arguments) + taken

    monkeypatch.setattr(onnx, "refusals", refuse_fsp)
    def build():
        x = fluid.data("x", [None, 8])
        a = fluid.layers.fc(fluid.layers.fc(x, 8, act="relu"), 8, act="tanh")
        b = fluid.layers.fsp_matrix(*(fluid.layers.reshape(t, [-1, 2, 2, 2]) for t in (a, x)))
        c = fluid.layers.reshape(b, [-1, 4])
        d = fluid.layers.fc(fluid.layers.fc(c, 8, act="relu"), 2)
        return ["x"], [d, a, b]

    folder = save_model(tmp_path / "m", build)
    model = millstream.load(folder, engine="onnxruntime")
    x = np.random.default_rng(1).standard_normal((3, 8)).astype("float32")
    for got, want in zip(model.run(x), millstream.load(folder).run(x)):
        assert np.allclose(got, want, atol=1e-5)
    assert "in 2 engine sub-models" in model.explain() and "not taken: 1 fsp" in model.explain()


def test_auto_tries_bfloat16_where_an_error_is_allowed(image_model, image):
    pytest.importorskip("openvino")
    want = millstream.load(image_model).run(image)[0]
    for allowed, tried in ((None, False), (0.2, True), (1e-9, True)):
        model = millstream.load(image_model, engine="auto", max_error=allowed, remember=False)
        model._candidates._seconds = 0.02
        got = model.run(image)[0]
        assert ("openvino bfloat16" in model.explain()) == tried
        (choice,) = model._candidates.choices.values()
        assert choice.form.name == min(choice.milliseconds, key=choice.milliseconds.get)
        assert np.abs(got - want).max() <= (allowed or 1e-3) * np.abs(want).max()
    assert "openvino bfloat16        not taken: its results are off" in model.explain()


def test_auto_keeps_the_fastest_and_remembers(image_model, image, cache_dir):
    model = millstream.load(image_model, engine="auto")
    model._candidates._seconds = 0.02
    want = millstream.load(image_model)(image)
    assert np.allclose(model(image), want, atol=1e-5)
    (choice,) = model._candidates.choices.values()
    assert choice.form.name == min(choice.milliseconds, key=choice.milliseconds.get)
    assert {"native", "onnxruntime"} <= set(choice.milliseconds) and not choice.remembered
    (file,) = pathlib.Path(cache_dir, "engines").iterdir()
    assert set(json.loads(file.read_text())["milliseconds"]) == set(choice.milliseconds)
    again = millstream.load(image_model, engine="auto")
    assert np.allclose(again(image), want, atol=1e-5)
    (found,) = again._candidates.choices.values()
    assert found.remembered and found.form.name == choice.form.name and "(remembered)" in again.explain()
    fresh = millstream.load(image_model, engine="auto", remember=False)
    fresh._candidates._seconds = 0.02
    fresh(image)
    assert not next(iter(fresh._candidates.choices.values())).remembered


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"question": 1}', "\x00\xff", "ms", "other", '{"a":' * 2000])
def test_a_damaged_choice_is_made_again(image_model, image, cache_dir, damage):
    first = millstream.load(image_model, engine="auto")
    first._candidates._seconds = 0.01
    first(image)
    (file,) = pathlib.Path(cache_dir, "engines").iterdir()
    content = json.loads(file.read_text())
    if damage == "ms":
        damage = json.dumps({**content, "milliseconds": {"native": -1}})
    elif damage == "other":
        damage = json.dumps({**content, "question": {}})
    file.write_bytes(damage.encode("latin-1"))
    model = millstream.load(image_model, engine="auto")
    model._candidates._seconds = 0.01
    with pytest.warns(UserWarning, match="damaged and made again"):
        model(image)
    assert json.loads(file.read_text())["question"] == content["question"]


def test_a_cache_that_cannot_be_written_is_no_error(image_model, image, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MILLSTREAM_CACHE_DIR", str(tmp_path / "file"))
    model = millstream.load(image_model, engine="auto")
    model._candidates._seconds = 0.01
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert model(image).shape == (2, 5)
    assert any("can't be remembered" in str(w.message) for w in caught)


def test_an_engine_with_wrong_results_is_not_taken(image_model, image, monkeypatch):
    right = engines.MAKERS["onnxruntime"]

    def wrong(*arguments):
        run = right(*arguments)
        return lambda xs: [y * 1.5 for y in run(xs)]

    monkeypatch.setitem(engines.MAKERS, "onnxruntime", wrong)
    model = millstream.load(image_model, engine="auto")
    model._candidates._seconds = 0.01
    assert np.allclose(model(image), millstream.load(image_model)(image), atol=1e-5)
    (choice,) = model._candidates.choices.values()
    assert "off by 5.00e-01" in choice.rejected["onnxruntime"] and "onnxruntime" not in choice.milliseconds


def test_native_takes_over_from_an_engine_that_fails(image_model, image, monkeypatch):
    right = engines.MAKERS["onnxruntime"]
    broken = []

    def fragile(*arguments):
        run = right(*arguments)

        def call(xs):
            if broken:
                raise RuntimeError("device lost")
            return run(xs)

        return call

    monkeypatch.setitem(engines.MAKERS, "onnxruntime", fragile)
    model = millstream.load(image_model, engine="auto", remember=False)
    monkeypatch.setattr(model._candidates, "_names", lambda *_: ["native", "onnxruntime"])
    monkeypatch.setattr("millstream.inference.candidates.measure", lambda forms, *_: {n: len(n) ** -1.0 for n in forms})
    want = model(image)
    assert model.engine_for(image) == "onnxruntime"
    broken.append(True)
    with pytest.warns(UserWarning, match="native takes over.*device lost"):
        assert np.allclose(model(image), want, atol=1e-5)
    assert model.engine_for(image) == "native"


def test_many_kinds_of_inputs(image_model):
    model = millstream.load(image_model, engine="auto", remember=False)
    model._candidates._seconds = 0.005
    for batch in range(1, 12):
        assert model(np.zeros((batch, 3, 16, 16), "float32")).shape == (batch, 5)
    assert sum(bool(c.milliseconds) for c in model._candidates.choices.values()) == 8


def test_sub_models_die_with_their_model(image_model, image):
    before = len(PREPARED)
    model = millstream.load(image_model, engine="onnxruntime")
    model(image)
    assert len(PREPARED) == before + 1
    del model
    assert len(PREPARED) <= before


def test_engines_that_are_not_here(image_model):
    for name in ("cuda", "tensorrt"):
        if engines.why_not(name) is not None:
            with pytest.raises(NotSupportedError, match="ExecutionProvider"):
                millstream.load(image_model, engine=name)
    if engines.why_not("tensorrt") is not None:
        with pytest.raises(NotSupportedError, match="TensorrtExecutionProvider"):
            core.AnalysisConfig(image_model).enable_tensorrt_engine()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reduced_precision_within_a_bound(image_model, image, precision):
    want = millstream.load(image_model)(image)
    model = millstream.load(
        image_model, engine="auto", precision=precision, calibration=[image, {"x": image[:1]}], max_error=0.2, remember=False
    )
    model._candidates._seconds = 0.01
    assert model.errors and np.abs(model(image) - want).max() <= 0.2 * want.max()
    with pytest.raises(AccuracyError, match=r"max_error=1e-09 does not hold on the 1 calibration batches.*: 0\.0"):
        millstream.load(image_model, engine="auto", precision=precision, calibration=[image], max_error=1e-9)


def test_native_bfloat16_of_convolutions(tmp_path, save_model):
    """Autocast makes some results bfloat16, and what follows takes them beside float32 weights."""

    def build():
        x = fluid.data("x", [None, 3, 8, 8])
        y = fluid.layers.conv2d(fluid.layers.conv2d(x, 8, 1, act="relu"), 8, 3, padding=1, act="relu")
        return ["x"], [fluid.layers.fc(fluid.layers.conv2d(y, 8, 3, groups=8), 4)]

    folder = save_model(tmp_path / "m", build)
    x = np.random.rand(2, 3, 8, 8).astype("float32")
    model = millstream.load(folder, precision="bfloat16", calibration=[x], max_error=0.1)
    assert list(model.errors) == ["native bfloat16"]
    want = millstream.load(folder)(x)
    assert 0 < np.abs(model(x) - want).max() <= 0.1 * np.abs(want).max()


def test_a_model_with_sequences_in_int8(text_model):
    given = {"words": [[1, 2, 3], [4]], "wide": np.ones((2, 4), "float32")}
    model = millstream.load(text_model, engine="onnxruntime", precision="int8", calibration=[given] * 3, max_error=0.5)
    assert model.engine_for(given) == "onnxruntime int8" and model.errors["onnxruntime int8"] < 0.5
    with pytest.raises(TypeError, match="list of requests, received int"):
        millstream.load(text_model, engine="onnxruntime", precision="int8", calibration=5, max_error=0.5)


def test_precisions_that_an_engine_has_not(image_model, image):
    with pytest.raises(NotSupportedError, match="does not compute in bfloat16"):
        millstream.load(image_model, engine="onnxruntime", precision="bfloat16", calibration=[image], max_error=1.0)
    with pytest.raises(ValueError, match="empty"):
        millstream.load(image_model, engine="auto", precision="int8", calibration=[], max_error=1.0)
