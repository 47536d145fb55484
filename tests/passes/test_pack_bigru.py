"""Recurrent weights as 16-bit integers: results keep to the floats', and the pass knows where they would not."""

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.kernels import digits
from millstream.passes import pipelines

HERE = pytest.mark.skipif(not digits.available(), reason="the processor has no products of bytes")
PLAIN = [name for name in pipelines.INFER if name != "pack_bigru"]
WORDS = [[[1, 2, 3, 4, 5]], [[7], [1, 2, 3], []], [list(range(k + 1)) for k in range(30)]]


def saved(folder, width=64, tags=False, bound=0.2, activation="tanh", depth=2):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 2
    attr = fluid.ParamAttr(initializer=fluid.initializer.Uniform(-bound, bound))
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        words = fluid.data("words", [None, 1], "int64", lod_level=1)
        x = fluid.layers.embedding(words, [50, 32])
        for _ in range(depth):
            ways = [
                fluid.layers.dynamic_gru(
                    fluid.layers.fc(x, 3 * width), width, attr, is_reverse=back, candidate_activation=activation
                )
                for back in (False, True)
            ]  # fmt: skip
            x = fluid.layers.concat(ways, axis=1)
        scores = fluid.layers.fc(x, 5)
        fluid.layers.create_parameter([7, 5], "float32", attr=fluid.ParamAttr("moves"))
        out = fluid.layers.crf_decoding(scores, fluid.ParamAttr("moves")) if tags else scores
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), ["words"], [out], exe, main)
    return str(folder)


def packed(model):
    ops = model._model.native.program.global_block().ops
    return [slot for op in ops for slot in op.input_names if slot.startswith("Digits") for _ in op.input(slot)]


def refusals(model):
    return [why for name, _, why in model._model.native.work.refused if name == "pack_bigru"]


@HERE
@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_stay(tmp_path, threads):
    folder = saved(tmp_path)
    model, plain = millstream.load(folder, threads=threads), millstream.load(folder, optimize=False)
    model.warmup()
    # states of the first layer are projected from integers too; word vectors are in the table
    assert sorted(packed(model)) == ["DigitsH"] * 2 + ["DigitsH2"] * 2 + ["DigitsX", "DigitsX2"]
    for words in WORDS:
        got, want = model(words), plain(words)
        assert got.lod() == want.lod() and np.abs(np.asarray(got) - np.asarray(want)).max() < 1e-4


@HERE
def test_decisions_allow_more(tmp_path):
    """Weights about as large as trained ones: refused where the scores are fetched, taken where only tags are."""
    scores, tags = saved(tmp_path / "scores", bound=0.4), saved(tmp_path / "tags", tags=True, bound=0.4)
    model = millstream.load(scores).warmup()
    assert not packed(model) and "too large" in refusals(model)[0]
    model, plain = millstream.load(tags).warmup(), millstream.load(tags, passes=PLAIN)
    assert len(packed(model)) == 6 and not packed(plain.warmup())
    for words in WORDS:
        assert np.array_equal(np.asarray(model(words)), np.asarray(plain(words)))


@HERE
@pytest.mark.parametrize(
    "settings,why",
    [({"width": 48}, "multiple of 64"), ({"activation": "relu"}, "outside of"), ({"tags": True, "bound": 1.5}, "grow")],
)
def test_refused(tmp_path, settings, why):
    folder = saved(tmp_path, **settings)
    model, plain = millstream.load(folder).warmup(), millstream.load(folder, optimize=False)
    assert not packed(model) and why in refusals(model)[0]
    assert np.allclose(np.asarray(model(WORDS[1])), np.asarray(plain(WORDS[1])), atol=5e-6)


def test_refused_without_the_instruction(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "available", lambda: False)
    model = millstream.load(saved(tmp_path)).warmup()
    assert not packed(model) and "VNNI" in refusals(model)[0]


@HERE
@pytest.mark.parametrize("rows", range(1, 9))
def test_products_of_digits(rows):
    rng = np.random.default_rng(rows)
    depth, columns = 20, 128
    w = rng.standard_normal((depth, columns)).astype("float32")
    w[:, 3] = 0
    a = rng.uniform(-1, 1, (rows, depth)).astype("float32")
    a[0, :3] = 1, -1, 0
    first = rng.standard_normal((rows, columns)).astype("float32")
    whole = digits.digits_of(w)
    assert whole.dtype == np.int8 and whole.size == digits.size_of(depth, columns)
    split, out = np.zeros((rows, 2 * depth), np.uint8), np.zeros((rows, columns), "float32")
    for one, two in zip(a, split):
        digits.split(one, two)
    digits.rows_at(
        split.ctypes.data, 2 * depth, whole.ctypes.data, first.ctypes.data, columns, out.ctypes.data, columns, rows, depth,
        columns,
    )  # fmt: skip
    want = a.astype("float64") @ w + first
    assert np.abs(out - want).max() < 1.2e-5 * np.abs(w).max() * depth**0.5 * 3
    assert np.array_equal(out[:, 3], first[:, 3])
