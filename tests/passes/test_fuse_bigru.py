"""Both directions of a gru in one operator, from rows and from ids, against the operators one by one."""

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.ops.fused import bigru


def build(width, depth=32, layers=2, padding=None, same_direction=False, gate=False):
    words = fluid.data("words", [None, 1], "int64", lod_level=1)
    x = fluid.layers.embedding(words, [50, depth], padding_idx=padding)
    for _ in range(layers):
        halves = []
        for reverse in (False, not same_direction):
            projected = fluid.layers.fc(x, 3 * width)
            halves.append(fluid.layers.dynamic_gru(projected, width, is_reverse=reverse))
        x = fluid.layers.concat(halves, axis=1)
    return ["words"], [x, halves[0]] if gate else [x]


def saved(folder, **settings):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 2
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        feeds, targets = build(**settings)
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), feeds, targets, exe, main)
    return str(folder)


def types(model):
    return [op.type for op in model._model.native.program.global_block().ops]


WORDS = [[[1, 2, 3, 4, 5]], [[7], [1, 2, 3], []], [list(range(k + 1)) for k in range(30)]]


@pytest.mark.parametrize("width", [16, 32, 5])  # 5: no whole number of vectors, other kernels
def test_from_ids_and_from_rows(tmp_path, width):
    folder = saved(tmp_path / "m", width=width)
    model, plain = millstream.load(folder), millstream.load(folder, optimize=False)
    assert types(model).count("embedded_bigru") == 1 and types(model).count("projected_bigru") == 1
    for words in WORDS:  # one sequence, a few with an empty one, many
        got, want = model(words), plain(words)
        assert got.lod() == want.lod() and np.allclose(got, want, atol=2e-6)
    with pytest.raises(millstream.errors.EnforceNotMet, match="50"):
        model([[3, 50]])


@pytest.mark.parametrize("settings", [{"origin_mode": True}, {"is_reverse": True, "activation": "relu"}])
def test_many_sequences_in_several_threads(settings, monkeypatch):
    import torch

    rng = np.random.default_rng(1)
    x, wx, wh, wx2, wh2 = (torch.from_numpy(rng.standard_normal(s).astype("float32") * 0.5) for s in (
        (24, 8), (8, 48), (16, 48), (8, 48), (16, 48)))  # fmt: skip
    bias = torch.from_numpy(rng.standard_normal((1, 48)).astype("float32"))
    weights = (wx, bias[0], wh, None, wx2, None, wh2, bias)
    lod = (np.array([0, 3, 3, 10, 11, 18, 24]),)
    run = bigru.projected_bigru
    want = [run(bigru.Ragged(x[a:b], (np.array([0, b - a]),)), *weights, **settings).values for a, b in ((0, 3), (3, 10))]
    for threads in (1, 2, 4, 6):
        monkeypatch.setattr(bigru, "parts", lambda work, most, n=threads: min(n, most))
        got = run(bigru.Ragged(x, lod), *weights, **settings).values
        assert got.shape == (24, 32) and torch.allclose(got[:10], torch.cat(want), atol=1e-6)


def test_rows_of_no_words(tmp_path):
    model = millstream.load(saved(tmp_path / "m", width=16))
    assert np.asarray(model([[], []])).shape == (0, 32)


@pytest.mark.parametrize("settings", [{"same_direction": True}, {"gate": True}, {"padding": 3}])
def test_refused(tmp_path, settings):
    folder = saved(tmp_path / "m", width=16, layers=1, **settings)
    model, plain = millstream.load(folder), millstream.load(folder, optimize=False)
    if "padding" not in settings:
        assert not {"embedded_bigru", "projected_bigru"} & set(types(model))
        assert any(name == "fuse_bigru" for name, _, _ in model._model.native.work.refused)
    for got, want in zip(model.run(WORDS[1]), plain.run(WORDS[1])):
        assert np.allclose(got, want, atol=2e-6)


def test_doubles_take_the_general_path():
    import torch

    rng = np.random.default_rng(0)
    x, wx, wh = (torch.from_numpy(rng.standard_normal(s)) for s in ((4, 3), (3, 12), (4, 12)))
    lod = (np.array([0, 1, 4]),)
    out = bigru.projected_bigru(bigru.Ragged(x, lod), wx, None, wh, None, wx, None, wh, None).values
    flipped = torch.cat([x[:1], x[1:].flip(0)])
    back = bigru.projected_bigru(bigru.Ragged(flipped, lod), wx, None, wh, None, wx, None, wh, None).values
    assert out.dtype is torch.float64 and torch.allclose(out[:, 4:], torch.cat([back[:1, :4], back[1:, :4].flip(0)]))
