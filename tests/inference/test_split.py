"""A batch cut into parts, one for each thread of an engine."""

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.inference import engines
from millstream.inference import split as room

L = fluid.layers
OPTIONS = engines.Options(threads=2)


def form_of(folder, engine="onnxruntime"):
    model = millstream.load(folder)
    return model, room.split(model._model, engine, OPTIONS).form


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("rows", [2, 5, 16])
def test_results_are_those_of_the_whole(image_model, engine, rows):
    if engines.why_not(engine) is not None:
        pytest.skip(f"{engine} is not installed")
    model, form = form_of(image_model, engine)
    x = np.random.randn(rows, 3, 16, 16).astype("float32")
    values, lods = model._read.values([x])
    for _ in range(2):
        ((found, lod),) = form.run(values, lods, model._context())
        np.testing.assert_allclose(found.numpy(), model.run(x)[0], rtol=1e-4, atol=1e-6)
        assert not lod


@pytest.mark.skipif(engines.why_not("onnxruntime") is not None, reason="onnxruntime is not installed")
def test_auto_measures_it_where_there_are_rows(image_model):
    model = millstream.load(image_model, engine="auto", remember=False, threads=2)
    for rows in (1, 4):
        x = np.random.randn(rows, 3, 16, 16).astype("float32")
        model.run(x)
        assert ("onnxruntime split" in model.explain()) == (rows > 1), model.explain()
        np.testing.assert_allclose(model.run(x)[0], millstream.load(image_model).run(x)[0], rtol=1e-4, atol=1e-6)
    held = [made for made in model._candidates.partitions.values() if made.form is not None]
    assert len(held) <= 2  # those that were slower are gone


MIXING = {
    "softmax": lambda x: L.softmax(L.fc(x, 3), axis=0),
    "reduce": lambda x: L.elementwise_sub(x, L.reduce_mean(x, dim=0, keep_dim=True)),
    "reduce_all": lambda x: L.elementwise_mul(x, L.reduce_sum(x)),
    "reshape": lambda x: L.reshape(L.reshape(x, [6, -1]), [-1, 6]),
    "transpose": lambda x: L.transpose(L.softmax(L.transpose(x, [1, 0])), [1, 0]),
    "cumsum": lambda x: L.cumsum(L.fc(x, 3), axis=0),
    "matmul": lambda x: L.matmul(L.matmul(x, x, transpose_y=True), x),
    "batch_norm": lambda x: L.batch_norm(L.fc(x, 3), use_global_stats=False),
    "concat": lambda x: L.concat([x, x], 0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MIXING)
def test_models_that_mix_rows_stay_whole(tmp_path, save_model, name):
    folder = save_model(tmp_path, lambda: (["x"], [MIXING[name](fluid.data("x", [None, 6]))]))
    model = millstream.load(folder)._model
    why = room.why_not(model)
    if name == "batch_norm":  # in a model to serve it takes its statistics
        assert why is None
    else:
        assert why is not None and ("may mix rows" in why or "no rows of an open number" in why)


def test_models_that_do_not(tmp_path, save_model):
    def build():
        x = fluid.data("x", [None, 4, 6])
        y = L.fc(L.layer_norm(x, begin_norm_axis=2), 6, num_flatten_dims=2, act="gelu")
        z = L.matmul(L.softmax(L.matmul(y, x, transpose_y=True)), x)
        z = L.reshape(L.transpose(z, [0, 2, 1]), [0, -1])
        return ["x"], [L.concat([L.reduce_max(y, dim=1), z], 1)]

    assert room.why_not(millstream.load(save_model(tmp_path, build))._model) is None
