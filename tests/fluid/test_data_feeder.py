"""DataFeeder: dense and nested samples, reshaping, errors that say where."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid.data_feeder import BatchedTensorProvider, DataFeeder, DataToLoDTensorConverter, convert_dtype
from millstream.fluid.layers.io import data


def feed(batch, *declared):
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        names = ["x", "y", "z"]
        feeder = DataFeeder([data(n, **d) for n, d in zip(names, declared)], fluid.CPUPlace(), program)
    return feeder.feed(batch)


def shape_of(batch, **declared):
    x = feed(batch, declared)["x"]
    return np.asarray(x).dtype.name, x.shape(), x.recursive_sequence_lengths()


# What PaddlePaddle 1.8.5 gives for the same samples.
@pytest.mark.parametrize(
    "batch, declared, expected",
    [
        ([(np.zeros(4),)] * 3, {"shape": [2, 2]}, ("float32", [3, 2, 2], [])),
        ([(np.zeros((1, 4)),)] * 3, {"shape": [2, 2]}, ("float32", [3, 1, 4], [])),
        ([(np.zeros(4),)] * 3, {"shape": [3]}, ("float32", [3, 4], [])),
        ([(np.zeros((2, 2)),)] * 3, {"shape": [4]}, ("float32", [3, 4], [])),
        ([(3,), (4,)], {"shape": [1], "dtype": "int64"}, ("int64", [2, 1], [])),
        ([([3],), ([4],)], {"shape": [1], "dtype": "int64"}, ("int64", [2, 1], [])),
        ([([3, 4],), ([4],)], {"shape": [1], "dtype": "int64", "lod_level": 1}, ("int64", [3, 1], [[2, 1]])),
        ([([[3], [4]],), ([[4]],)], {"shape": [1], "dtype": "int64", "lod_level": 1}, ("int64", [3, 1], [[2, 1]])),
        ([([[3, 1], [4, 2]],), ([[4, 2]],)], {"shape": [2], "lod_level": 1}, ("float32", [3, 2], [[2, 1]])),
        ([(np.zeros((2, 2)),), (np.zeros((0, 2)),)], {"shape": [2], "lod_level": 1}, ("float32", [2, 2], [[2, 0]])),
        (
            [([[3, 4], [1]],), ([[4]],)],
            {"shape": [1], "dtype": "int64", "lod_level": 2},
            ("int64", [4, 1], [[2, 1], [2, 1, 1]]),
        ),
        ([([],), ([],)], {"shape": [1], "dtype": "int64", "lod_level": 1}, ("int64", [0, 1], [[0, 0]])),
        ([(np.zeros((3, 2)),)] * 2, {"shape": [-1, -1, 2], "append_batch_size": False}, ("float32", [2, 3, 2], [])),
        ([(np.zeros(6),)] * 2, {"shape": [-1, -1, 2], "append_batch_size": False}, ("float32", [2, 6], [])),
        ([], {"shape": [1], "dtype": "int64"}, ("int64", [0, 1], [])),
        ([(3.7,)], {"shape": [1], "dtype": "int64"}, ("int64", [1, 1], [])),
        ([(3.7,)], {"shape": [1], "dtype": "float16"}, ("float16", [1, 1], [])),
        ([(True,)], {"shape": [1], "dtype": "bool"}, ("bool", [1, 1], [])),
        (np.zeros((3, 1)), {"shape": [1]}, ("float32", [3, 1], [])),
    ],
)
def test_shapes(batch, declared, expected):
    assert shape_of(batch, **declared) == expected


def test_values_survive():
    rows = [np.arange(6).reshape(3, 2), np.arange(2).reshape(1, 2)]
    got = feed(
        [(rows[0], 1, [[1, 2], [3]]), (rows[1], 0, [[4]])],
        {"shape": [2], "lod_level": 1},
        {"shape": [1], "dtype": "int64"},
        {"shape": [1], "dtype": "int32", "lod_level": 2},
    )
    np.testing.assert_array_equal(np.asarray(got["x"]), np.concatenate(rows))
    np.testing.assert_array_equal(np.asarray(got["y"]), [[1], [0]])
    assert got["z"].lod() == [[0, 2, 3], [0, 2, 3, 4]] and np.asarray(got["z"]).ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "batch, declared, message",
    [
        (
            [([3, 4],), ([4],)],
            {"shape": [1], "dtype": "int64"},
            r"x: int64\[-1, 1\].*sample 1 has shape \[1\].*\[2\].*lod_level",
        ),
        ([(1.0,), ("a",)], {"shape": [1]}, r"sample 1 can't be converted to float32.*'a'"),
        ([(1, 2), (1, 2)], {"shape": [1]}, r"sample 0 has 2 fields.*1 variables to feed: x"),
        ([(1,), 5], {"shape": [1]}, r"sample 1 has no \(int\) fields"),
        ([(3,)], {"shape": [1], "lod_level": 1}, r"sample 0 must be a list nested 1 deep, received int"),
        ([([[1]],), ([1],)], {"shape": [1], "lod_level": 2}, r"sample 1 must be a list nested 2 deep"),
        ([(np.zeros(5),)] * 3, {"shape": [2, 2]}, r"can't be reshaped to \[-1, 2, 2\]"),
        ([(np.zeros((2, 3)),), (np.zeros((2, 2)),)], {"shape": [3], "lod_level": 1}, r"sample 1 has shape \[2\]"),
    ],
)
def test_errors_name_the_sample(batch, declared, message):
    with pytest.raises(ValueError, match=message):
        feed(batch, declared)


def test_feed_parallel_and_decorated_readers(monkeypatch):
    monkeypatch.setenv("CPU_NUM", "2")
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        data("x", [1])
    feeder = DataFeeder(["x"], fluid.CPUPlace(), program)
    batches = [[(k,), (k,)] for k in range(5)]
    parts = list(feeder.feed_parallel(batches[:2]))
    assert [np.asarray(p["x"]).tolist() for p in parts] == [[[0], [0]], [[1], [1]]]
    with pytest.raises(ValueError, match="2 places, received 3"):
        list(feeder.feed_parallel(batches[:3]))
    single = feeder.decorate_reader(lambda: iter(batches), multi_devices=False)
    assert [float(np.asarray(f["x"])[0, 0]) for f in single()] == [0, 1, 2, 3, 4]
    several = feeder.decorate_reader(lambda: iter(batches), multi_devices=True)
    assert [len(f) for f in several()] == [2, 2]
    with pytest.raises(ValueError, match="1 batches are left for 2 places"):
        list(feeder.decorate_reader(lambda: iter(batches), multi_devices=True, drop_last=False)())


def test_batched_provider():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        variables = [data("x", [2]), data("y", [1], dtype="int64")]
    samples = [(np.full(2, k), k) for k in range(5)]
    for drop_last, sizes in ((True, [2, 2]), (False, [2, 2, 1])):
        got = list(BatchedTensorProvider(variables, fluid.CPUPlace(), 2, lambda: iter(samples), drop_last)())
        assert [len(x) for x, _ in got] == sizes
        assert np.asarray(got[1][1]).tolist() == [[2], [3]]


def test_converter_by_hand():
    converter = DataToLoDTensorConverter(fluid.CPUPlace(), 1, [-1, 1], "int64")
    for sample in ([1, 2], [3]):
        converter.feed(sample)
    tensor = converter.done()
    assert tensor.recursive_sequence_lengths() == [[2, 1]]
    assert converter.data == []


def test_wrong_arguments():
    with pytest.raises(TypeError, match="list of variable"):
        DataFeeder([3], fluid.CPUPlace())
    assert convert_dtype(np.float32) == "float32"
    with pytest.raises(TypeError):
        convert_dtype("complex64")
