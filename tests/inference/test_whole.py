"""A whole Program on one engine: sequences as offsets, loops, beam search inside of it."""

import os
import shutil
import sys

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.errors import MillstreamError, NotSupportedError, OperatorError
from millstream.inference import engines
from millstream.inference import whole as room

if engines.why_not("onnxruntime") is not None:
    pytest.skip("onnxruntime is not installed", allow_module_level=True)

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, r) for r in ("programs", "passes", "oracle")]

from inference_models import family  # noqa: E402
from inference_models import save as save_family  # noqa: E402

OPTIONS = engines.Options(threads=1)


def form_of(folder):
    """(model, its WholeForm)."""
    model = millstream.load(folder)
    return model, room.whole(model._model, "onnxruntime", OPTIONS).form


def run(model, form, given):
    values, lods = model._read.values(model._read.named(given))
    return form.run(values, lods, model._context())


@pytest.mark.filterwarnings("ignore:save_inference_model")
@pytest.mark.parametrize("name", ["text/rnn_search", "text/bigru_crf", "text/sentiment-bilstm"])
def test_families(tmp_path, name):
    with fluid.scope_guard(fluid.Scope()):
        feed = save_family(str(tmp_path), *family(name))
    model, form = form_of(str(tmp_path))
    want = model.run(feed)
    for (value, lod), expected in zip(run(model, form, feed), want.values()):
        np.testing.assert_allclose(value.numpy(), np.array(expected), rtol=1e-4, atol=1e-5)
        assert value.numpy().dtype == np.array(expected).dtype
        assert [list(level) for level in lod] == (expected.lod() if hasattr(expected, "lod") else [])


def test_other_numbers_of_sequences_and_levels(text_model):
    model, form = form_of(text_model)
    for words in ([[1, 2, 3], [4]], [[5]], [[1], [2], [3, 4, 5]]):
        given = {"words": words, "wide": np.random.rand(len(words), 4).astype("float32")}
        (dense, none), (rows, lod) = run(model, form, given)
        want = list(model.run(given).values())
        np.testing.assert_allclose(dense.numpy(), want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows.numpy(), np.array(want[1]), rtol=1e-6)
        assert not none and [list(level) for level in lod] == want[1].lod()
    values, _ = model._read.values(model._read.named(given))
    with pytest.raises(MillstreamError, match="'words' has 0 LoD levels, 1 are declared"):
        form.run(values, [(), ()], model._context())


def test_auto_measures_it_with_the_others(text_model):
    model = millstream.load(text_model, engine="auto", remember=False)
    model._candidates._seconds = 0.01
    given = {"words": [[1, 2, 3], [4]], "wide": np.ones((2, 4), "float32")}
    model.run(given)
    (choice,) = model._candidates.choices.values()
    assert "onnxruntime whole" in choice.milliseconds and "onnxruntime whole: 1" in model.explain()


def test_an_engine_that_takes_no_part_takes_all(tmp_path):
    with fluid.scope_guard(fluid.Scope()):
        feed = save_family(str(tmp_path), *family("text/bigru_crf"))
    model = millstream.load(str(tmp_path), engine="onnxruntime")
    assert model.engine_for(feed) == "onnxruntime whole"
    for got, want in zip(model.run(feed).values(), millstream.load(str(tmp_path)).run(feed).values()):
        np.testing.assert_array_equal(np.array(got), np.array(want))


@pytest.mark.parametrize("faster", ["parts", "whole"])
def test_an_engine_takes_all_where_that_is_faster(text_model, monkeypatch, faster):
    monkeypatch.setattr(
        "millstream.inference.candidates.measure", lambda forms, *_: {name: 1.0 + (name != faster) for name in forms}
    )
    model = millstream.load(text_model, engine="onnxruntime")
    given = {"words": [[1, 2, 3], [4]], "wide": np.ones((2, 4), "float32")}
    assert model.engine_for(given) == {"parts": "onnxruntime", "whole": "onnxruntime whole"}[faster]
    for got, want in zip(model.run(given).values(), millstream.load(text_model).run(given).values()):
        np.testing.assert_allclose(np.array(got), np.array(want), rtol=1e-5, atol=1e-6)


def test_an_engine_that_can_not_take_all_takes_parts(text_model, monkeypatch):
    def refuse(*_):
        raise NotSupportedError("it reads no sequences")

    monkeypatch.setattr("millstream.inference.candidates.whole", refuse)
    model = millstream.load(text_model, engine="onnxruntime")
    assert model.engine_for({"words": [[1]], "wide": np.ones((1, 4), "float32")}) == "onnxruntime"
    assert "not altogether: it reads no sequences" in model.explain()


def test_what_can_not_go_altogether(tmp_path, save_model, image_model):
    def counts():
        x = fluid.data("x", [None, 2], lod_level=1)
        calls = fluid.layers.create_global_var([1], 0.0, "float32", persistable=True)
        return ["x"], [fluid.layers.sequence_pool(x, "sum") + fluid.layers.increment(calls)]

    model = millstream.load(save_model(tmp_path / "counts", counts))
    made = room.whole(model._model, "onnxruntime", OPTIONS)
    assert made.form is None and "changes from run to run" in made.explain()
    assert not room.worth_a_try(millstream.load(image_model)._model)


def test_a_bad_request_does_not_cost_the_engine(text_model):
    """What fails natively too is the request's fault: its error is the native one, and the engine stays."""
    model = millstream.load(text_model, engine="auto", remember=False)
    model._candidates._seconds = 0.01
    good = {"words": [[1, 2, 3], [4]], "wide": np.ones((2, 4), "float32")}
    values, lods = model._read.values(model._read.named(good))
    kind = room.whole(model._model, "onnxruntime", OPTIONS).form
    model.run(good)
    (choice,) = model._candidates.choices.values()
    choice.form = kind
    with pytest.raises(OperatorError, match="out of range"):
        model.run({**good, "words": [[1, 2, 99], [4]]})
    assert model._candidates.form(values, lods, model._context()) is kind


def test_lod_that_nobody_declared(tmp_path):
    """1.8.5 saves proposals, and what is computed of them, as tensors without LoD levels."""
    folder, undeclared = str(tmp_path / "declared"), str(tmp_path / "model")
    with fluid.scope_guard(fluid.Scope()):
        feed = save_family(folder, *family("detect/rcnn-faster"))
    with fluid.scope_guard(fluid.Scope()):
        exe = fluid.Executor()
        program, _, fetches = fluid.io.load_inference_model(folder, exe)
        for var in program.list_vars():
            if not var.persistable and var.name not in [v.name for v in fetches]:
                var._lod_level = 0
        program._touch()
        os.makedirs(undeclared)
        for name in os.listdir(folder):
            shutil.copy(os.path.join(folder, name), undeclared)
        with open(os.path.join(undeclared, "__model__"), "wb") as file:
            file.write(program.desc.serialize_to_string())
    native, engine = millstream.load(undeclared), millstream.load(undeclared, engine="onnxruntime")
    assert not any(p.lod_level for p in native.inputs)
    (want,), (got,) = native.run(feed).values(), engine.run(feed).values()
    assert got.lod() == want.lod() and np.allclose(np.asarray(got), np.asarray(want), atol=1e-4)
