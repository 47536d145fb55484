"""A whole tagger in one operator: one sentence in one kernel, other batches by the operators that it stands for."""

import copy

import numpy as np
import pytest
import torch

import millstream
import millstream.fluid as fluid
from millstream import onnx
from millstream.kernels import digits
from millstream.ops.fused import bigru_tagger
from millstream.passes import pipelines

PLAIN = [name for name in pipelines.INFER if name != "fuse_bigru_tagger"]
WORDS = [[[1, 2, 3, 4, 5]], [[9]], [[7], [1, 2, 3], []], [list(range(30)), [1]], [[], []]]
WORDS.append([list(range(k + 1)) for k in range(30)])


def saved(folder, width=16, widths=None, layers=2, tags=5, bound=0.3, recurrent_bias=None, act=None, more=False):
    layer, attr = fluid.layers, fluid.ParamAttr(initializer=fluid.initializer.Uniform(-bound, bound))
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 2
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        x = layer.embedding(fluid.data("words", [None, 1], "int64", lod_level=1), [50, 32], param_attr=attr)
        for d in widths or [width] * layers:
            ways = [
                layer.dynamic_gru(layer.fc(x, 3 * d, bias_attr=attr), d, attr, recurrent_bias, is_reverse=back)
                for back in (False, True)
            ]
            x = layer.concat(ways, axis=1)
        scores = layer.fc(x, tags, param_attr=attr, act=act)
        moves = fluid.ParamAttr("moves", initializer=fluid.initializer.Uniform(-1, 1))
        layer.create_parameter([tags + 2, tags], "float32", attr=moves)
        out = [layer.crf_decoding(scores, fluid.ParamAttr("moves")), *([scores] if more else [])]
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), ["words"], out, exe, main)
    return str(folder)


def fused(model):
    return [op for op in model._model.native.program.global_block().ops if op.type == "bigru_tagger"]


@pytest.mark.parametrize("instruction", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"layers": 1, "tags": 70}, {"layers": 3}, {"width": 64, "bound": 0.1}, {"tags": 1}],
    ids=["two", "one-many-tags", "three", "wide", "one-tag"],
)
def test_tags_stay(tmp_path, settings, instruction, monkeypatch):
    if not instruction:
        monkeypatch.setattr(digits, "available", lambda: False)
    folder = saved(tmp_path, **settings)
    model, plain = millstream.load(folder).warmup(), millstream.load(folder, passes=PLAIN)
    (op,) = fused(model)
    assert bool(op.input("DigitsH")) == (settings.get("width") == 64 and digits.available())
    for words in WORDS:
        got, want = model(words), plain(words)
        assert got.lod() == want.lod() and np.array_equal(np.asarray(got), np.asarray(want))
        assert np.asarray(got).dtype == np.int64
    for wrong in ([[3, 50]], [[-1]], [[1], [2], [50]]):
        with pytest.raises(millstream.errors.EnforceNotMet, match="50"):
            model(wrong)


@pytest.mark.parametrize(
    "settings,why",
    [
        ({"widths": [16, 32]}, "differ in width"), ({"width": 24}, "multiple of 16"), ({"recurrent_bias": False}, "no bias"),
        ({"act": "relu"}, "plain product"), ({"more": True}, "elsewhere"),
    ],
)  # fmt: skip
def test_refused(tmp_path, settings, why):
    folder = saved(tmp_path, **settings)
    model, plain = millstream.load(folder).warmup(), millstream.load(folder, optimize=False)
    refused = [text for name, _, text in model._model.native.work.refused if name == "fuse_bigru_tagger"]
    assert not fused(model) and why in refused[0]
    assert np.array_equal(np.asarray(model.run(WORDS[0])[0]), np.asarray(plain.run(WORDS[0])[0]))


def test_long_sentences_take_two_threads(tmp_path, monkeypatch):
    model = millstream.load(saved(tmp_path)).warmup()
    want = np.asarray(model([list(range(40))]))
    monkeypatch.setattr(bigru_tagger, "parts", lambda work, most: 2)
    monkeypatch.setattr(bigru_tagger, "_parts", None)  # not reached
    assert np.array_equal(np.asarray(model([list(range(40))])), want)


def test_a_block_of_another_size(tmp_path):
    model = millstream.load(saved(tmp_path)).warmup()
    (op,) = fused(model)
    held = model._model.scope.find_var(op.input("Packed")[0]).get_tensor()
    held._t = held._t[:-64].clone()
    with pytest.raises(millstream.errors.EnforceNotMet, match="Packed must have"):
        model([[1, 2]])
    held._t = torch.zeros(1, dtype=torch.float32)
    with pytest.raises(millstream.errors.EnforceNotMet, match="Packed must"):
        model([[1, 2]])


def test_exported(tmp_path):
    import onnxruntime

    model = millstream.load(saved(tmp_path, width=32)).warmup()
    inner = model._model
    program = copy.copy(inner.native.program)
    data = onnx.export(program, inner.feeds, inner.fetches, inner.parameter).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for words in WORDS[:4]:
        rows = np.concatenate([np.array(w, "int64") for w in words])[:, None]
        feed = {"words": rows, "words.lod0": np.cumsum([0, *map(len, words)]).astype("int64")}
        assert np.array_equal(session.run(None, feed)[0], np.asarray(model(words)))
