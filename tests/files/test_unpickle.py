"""read_pickle reads plain data and nothing else."""

import collections
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.dataset import common
from millstream.errors import FileFormatError
from millstream.files.unpickle import read_pickle

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(plain, st.integers(0, 5))
def test_plain_values_round_trip(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", ">i4", "<f8", "f2", "c8", "?", "S3", "U2"])
def test_arrays_round_trip(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for each in (array, array.T, array[:0]):
        back = read_pickle(pickle.dumps({"a": [each, (each,)]}, protocol))["a"]
        for got in (back[0], back[1][0]):
            assert type(got) is np.ndarray
            # Protocol 5 pickles of NumPy hold the native byte order; others keep what the array had.
            assert got.dtype.newbyteorder("=") == each.dtype.newbyteorder("=")
            np.testing.assert_array_equal(got, each)
    assert read_pickle(pickle.dumps(array[1, 1], protocol)) == array[1, 1]


def test_containers_that_hold_themselves_are_refused():
    value = [np.arange(2)]
    value.append(value)
    with pytest.raises(FileFormatError, match="holds itself"):
        read_pickle(pickle.dumps(value))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [b"\xff\x00a" * 50_000, "ä b" * 50_000])
def test_long_strings(value, protocol):
    back = read_pickle(pickle.dumps({"a": [value, (value,)]}, protocol))["a"]
    assert back == [value, (value,)]


def test_paths_files_and_bytes(tmp_path):
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps([1, "a"]))
    assert read_pickle(path) == read_pickle(str(path)) == read_pickle(path.read_bytes()) == [1, "a"]
    with open(path, "rb") as stream:
        assert read_pickle(stream) == [1, "a"]
    with pytest.raises(FileFormatError, match="follow the end"):
        read_pickle(path.read_bytes() + b"x")


def test_python2_strings():
    data = b"\x80\x02}q\x00U\x04dataq\x01U\x02\xff\x00s."
    assert read_pickle(data) == {"data": "\xff\0"}
    assert read_pickle(data, encoding="bytes") == {b"data": b"\xff\0"}


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.system, "true"),
        Evil(eval, "1"),
        Evil(getattr, "", "join"),
        Evil(np.ndarray, (3,)),
        Evil(np.dtype, "O"),
        Evil(np.dtype, "f4,O"),
        np.array([object], dtype=object),
        np.zeros(1, dtype=[("a", "f4")]),
        collections.Counter("a"),
        np.load,
    ],
)
def test_everything_else_is_refused(value):
    with pytest.raises(FileFormatError):
        read_pickle(pickle.dumps(value, 2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pickle.dumps(np.arange(3), 2)[:-20],
        # BUILD on a constructor: would set attributes if it were a real class
        b"cnumpy\ndtype\n(N}Vx\nI1\nstb.",
        b"cnumpy\nndarray\n}Vx\nI1\nsb.",
        b"cnumpy\nndarray\n.",
    ],
)
def test_damaged_or_hostile_streams(data):
    with pytest.raises(FileFormatError):
        read_pickle(data)


def test_split_and_cluster_files_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = [(i, np.full(2, i)) for i in range(5)]
    common.split(lambda: iter(samples), 2, "part-%02d.pickle")
    assert sorted(os.listdir(tmp_path)) == [f"part-0{i}.pickle" for i in range(3)]
    mine = list(common.cluster_files_reader("part-*.pickle", 2, 0)())
    other = list(common.cluster_files_reader("part-*.pickle", 2, 1)())
    assert [i for i, _ in mine] == [0, 1, 4] and [i for i, _ in other] == [2, 3]
    with pytest.raises(TypeError):
        common.split(lambda: iter(samples), 2, dumper=3)
