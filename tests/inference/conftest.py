"""Small saved models for the tests of this folder, and a place for remembered choices."""

import numpy as np
import pytest

import millstream.fluid as fluid


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    """Choices are remembered in a directory of the test's own."""
    monkeypatch.setenv("MILLSTREAM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(folder, build):
    """Save what `build()` makes: (feed names, targets). Returns the directory."""
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 5
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        feeds, targets = build()
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), feeds, targets, exe, main)
    return str(folder)


def _image():
    x = fluid.data("x", [None, 3, 16, 16])
    y = fluid.layers.conv2d(x, 8, 3, padding=1, bias_attr=False)
    y = fluid.layers.batch_norm(y, act="relu", is_test=True)
    y = fluid.layers.pool2d(y, 2, "max", 2)
    return ["x"], [fluid.layers.fc(y, 5, act="softmax")]


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """conv, batch norm, relu, pool, fc, softmax of x [N, 3, 16, 16]."""
    return save(tmp_path_factory.mktemp("image"), _image)


def _text():
    words = fluid.data("words", [None, 1], "int64", lod_level=1)
    wide = fluid.data("wide", [None, 4])
    y = fluid.layers.embedding(words, [20, 6])
    same = fluid.layers.scale(y, 2.0)
    pooled = fluid.layers.sequence_pool(y, "sum")
    z = fluid.layers.concat([pooled, wide], 1)
    z = fluid.layers.fc(fluid.layers.fc(z, 8, act="relu"), 3, act="tanh")
    return ["words", "wide"], [z, same]


@pytest.fixture(scope="session")
def text_model(tmp_path_factory):
    """Embedding and pooling of words (LoD), then dense layers with wide [N, 4]; results: [N, 3], and one with LoD."""
    return save(tmp_path_factory.mktemp("text"), _text)


@pytest.fixture
def save_model():
    """The function that saves what a builder makes: (directory, builder) -> directory."""
    return save


@pytest.fixture
def image():
    return np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype("float32")
