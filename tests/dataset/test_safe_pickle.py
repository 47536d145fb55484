"""The restricted unpickler reads plain data and nothing else."""

import collections
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.dataset import common, safe_pickle
from millstream.errors import FileFormatError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.frozensets(st.integers(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(plain, st.integers(0, 5))
def test_plain_values_round_trip(value, protocol):
    assert safe_pickle.loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", ">i4", "<f8", "f2", "c8", "?", "S3", "U2"])
def test_arrays_round_trip(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for each in (array, array.T, array[:0]):
        back = safe_pickle.loads(pickle.dumps({"a": [each, (each,)]}, protocol))["a"]
        for got in (back[0], back[1][0]):
            assert type(got) is np.ndarray
            # NumPy itself turns foreign byte order into the native one here.
            assert got.dtype == pickle.loads(pickle.dumps(each, protocol)).dtype
            np.testing.assert_array_equal(got, each)
    assert safe_pickle.loads(pickle.dumps(array[1, 1], protocol)) == array[1, 1]


def test_shared_and_cyclic_containers():
    value = [np.arange(2)]
    value.append(value)
    back = safe_pickle.loads(pickle.dumps(value))
    assert back[1] is back and type(back[0]) is np.ndarray


def test_python2_strings():
    data = b"\x80\x02}q\x00U\x04dataq\x01U\x02\xff\x00s."
    assert safe_pickle.loads(data) == {"data": "\xff\0"}
    assert safe_pickle.loads(data, encoding="bytes") == {b"data": b"\xff\0"}


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
        safe_pickle.loads(pickle.dumps(value, 2))


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
        safe_pickle.loads(data)


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
