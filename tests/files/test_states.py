"""State pickles: the bytes Fluid writes, round trips through both picklers, refusals."""

import collections
import io
import pathlib
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from millstream.errors import FileFormatError
from millstream.files.states import STRUCTURED_NAMES, dump_state, read_state, write_state
from millstream.files.unpickle import read_pickle

RECORDED = pathlib.Path(__file__).parent / "recorded"


def _dumped(state) -> bytes:
    out = io.BytesIO()
    dump_state(out, state)
    return out.getvalue()


@pytest.mark.parametrize("name", ["train.pdparams", "train.pdopt", "dygraph.pdparams", "dygraph.pdopt"])
def test_recorded_files(name, tmp_path):
    state = read_state(RECORDED / name)
    arrays = [v for k, v in state.items() if k != STRUCTURED_NAMES]
    assert all(isinstance(a, np.ndarray) and a.dtype == "f4" and a.flags.writeable for a in arrays)
    write_state(tmp_path / name, state)
    assert (tmp_path / name).read_bytes() == (RECORDED / name).read_bytes()


def test_recorded_structured_names():
    state = read_state(RECORDED / "dygraph.pdparams")
    assert state[STRUCTURED_NAMES] == {"weight": "linear_0.w_0", "bias": "linear_0.b_0"}
    assert state["weight"].shape == (3, 2)


ARRAYS = hnp.arrays(
    st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "i8", "f2", "f4", ">f4", "f8", "c8", "c16"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats() | st.text() | st.binary()
PLAIN = st.recursive(
    SCALARS | ARRAYS,
    lambda x: st.lists(x, max_size=3) | st.tuples(x, x, x, x) | st.tuples(x) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=8,
)


def _same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and (a == b or a != a)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=4), st.integers(0, 5))
def test_reads_what_python_writes(state, protocol):
    assert _same(state, read_pickle(pickle.dumps(state, protocol)))


def _native(value):
    """Byte order is not kept by our writer: it writes little-endian."""
    if isinstance(value, np.ndarray):
        return value.astype(value.dtype.newbyteorder("<")).reshape(value.shape)
    if isinstance(value, dict):
        return {k: _native(v) for k, v in value.items()}
    return type(value)(map(_native, value)) if isinstance(value, (list, tuple)) else value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_python_reads_what_we_write(state):
    data = _dumped(state)
    assert _same(_native(state), pickle.loads(data))  # our own bytes: nothing foreign is unpickled
    assert _same(_native(state), read_pickle(data))
    codes = list(pickletools.genops(data))
    assert not any(code.proto > 2 for code, _, _ in codes)
    assert not any(code.name == "GLOBAL" and "numpy._core" in argument for code, argument, _ in codes)


def test_shared_objects_and_many_items():
    one = np.arange(3)
    state = {f"k{n}": one for n in range(2500)} | {"other": {"k0": "k0"}}
    back = read_pickle(_dumped(state))
    assert _same(state, back)
    assert back["k0"] is back["k2499"]


def test_numpy_things_and_ordered_dict():
    state = {
        "scalar": np.float32(2.5), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "text": np.array(["ab", "c"]),
        "o": collections.OrderedDict(a=1, b=2), "dtype": np.dtype(">i2"), "tuple": (np.ones(2), [np.zeros(1)]),
    }  # fmt: skip
    for protocol in range(6):
        back = read_pickle(pickle.dumps(state, protocol))
        assert back["scalar"] == np.float32(2.5) and back["scalar"].dtype == "f4"
        assert back["f"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert back["text"].tolist() == ["ab", "c"]
        assert type(back["o"]) is collections.OrderedDict and list(back["o"]) == ["a", "b"]
        assert back["dtype"] == np.dtype(">i2")
        assert back["tuple"][1][0].tolist() == [0.0]


def test_python_2_strings():
    data = b"\x80\x02}q\x00U\x04dataq\x01U\x02\xff\x00s."
    assert read_pickle(data) == {"data": "\xff\x00"}
    assert read_pickle(data, encoding="bytes") == {b"data": b"\xff\x00"}
    assert read_pickle(b"(dp0\nS'k'\np1\nS'a\\x00\"'\np2\ns.") == {"k": 'a\0"'}


def test_large_array_is_not_copied(tmp_path):
    path = tmp_path / "w.pdparams"
    array = np.random.default_rng(0).random((1 << 20,), "f4")
    write_state(path, {"w": array})
    tracemalloc.start()
    back = read_state(path)["w"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(back, array)
    assert peak < array.nbytes + (3 << 20)


class _Call:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


GLOBALS = {
    "system": (pickle.dumps({"w": _Call(__import__("os").system, "true")}), r"refused global posix\.system"),
    "eval": (pickle.dumps(_Call(eval, "1"), 0), r"refused global __builtin__\.eval"),
    "class": (pickle.dumps({"w": collections.Counter()}, 4), r"refused global collections\.Counter"),
    "objects": (pickle.dumps(np.array([{}, None])), r"dtype 'O8' is not read"),
    "structured": (pickle.dumps(np.zeros(1, [("a", "f4")])), "dtype 'V4' is not read"),
    "global itself": (b"cnumpy\nndarray\n.", "found the function numpy.ndarray"),
    "ndarray called": (b"cnumpy\nndarray\n(I9\ntR.", "never called"),
    "persistent id": (b"Pname\n.", "opcode b'P'"),
    "extension": (b"\x82\x01.", "opcode b'\\\\x82'"),
    "new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode b'\\\\x81'"),
    "empty array": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9999999999\ntS'b'\ntR.",
        "expected .ndarray",
    ),
}


@pytest.mark.parametrize("case", GLOBALS)
def test_refused_globals(case):
    data, message = GLOBALS[case]
    with pytest.raises(FileFormatError, match=message):
        read_pickle(data)


HOSTILE = {
    "long string": (b"X\xff\xff\xff\x7fabc.", "truncated: expected 2147483647 bytes of a string, found 4"),
    "long bytes": (b"\x8e" + b"\xff" * 8 + b".", "truncated"),
    "long int": (b"\x8b\xff\xff\xff\x7f.", "an int of at most 16 bytes"),
    "negative int length": (b"\x8b\xff\xff\xff\xff.", "an int of at most 16 bytes"),
    "int line": (b"L" + b"9" * 5000 + b"L\n.", "line of at most"),
    "frame": (b"\x80\x04\x95" + b"\xff" * 8 + b".", "a frame of"),
    "memo index": (b"(lp99999999999\n.", "memo index"),
    "ring": (b"]q\x00h\x00a.", "a container holds itself"),
    "ring through a dict": (b"]q\x00}(X\x01\x00\x00\x00kh\x00ua.", "a container holds itself"),
    "laughs": (b"]q\0" + b"".join(b"0](h%ch%ch%ceq%c" % (n, n, n, n + 1) for n in range(40)) + b".", "most 1000000 objects"),
    "deep": (b"(" * 3000 + b"t" * 3000 + b".", "nested at most 200"),
    "tuple key": (b"})q\x00h\x00h\x00\x86N.", "expected"),
    "float key": (b"}G\0\0\0\0\0\0\0\0Ns.", "dict key, found float"),
    "list key": (b"}]Ns.", "dict key, found list"),
    "no stop": (b"N", "truncated"),
    "stack left": (b"NN.", "2 objects on its stack"),
    "more after stop": (b"N.N", "1 bytes follow"),
    "empty": (b"", "byte 0: truncated"),
    "pop nothing": (b"0.", "an object that is not there"),
    "unknown memo": (b"h\x05.", "recalls object 5"),
    "no mark": (b"Nt.", "closes a group"),
    "append to none": (b"NNa.", "expected a container"),
    "protocol": (b"\x80\x09N.", "protocol 5 or older, found 9"),
    "not utf-8": (b"X\x01\x00\x00\x00\xff.", "can't be decoded"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case):
    data, message = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=message):
            read_pickle(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_one_string_can_not_become_many_arrays():
    text = b"X" + struct.pack("<I", 5000) + b"a" * 5000
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbq\x02"
    scalar = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01M\x88\x13\x85h\x02\x89h\x03tb"
    data = b"\x80\x02](" + dtype + text + b"q\x03" + scalar * 50 + b"e."
    assert len(data) < 10_000 + 50 * len(scalar)
    with pytest.raises(FileFormatError, match="larger than the pickle itself"):
        read_pickle(data)


def test_not_a_state(tmp_path):
    path = tmp_path / "s.pdparams"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(FileFormatError, match=r"s\.pdparams: expected a dict of names to arrays, found list"):
        read_state(path)
    path.write_bytes(pickle.dumps({1: 2}))
    with pytest.raises(FileFormatError, match="dict of names"):
        read_state(path)


@pytest.mark.parametrize("value", [object(), np.array(["a"]), np.array([None]), 1 << 200, {1.5: 2}, {3j: 1}])
def test_what_can_not_be_written(value):
    with pytest.raises(TypeError, match="a state"):
        _dumped({"w": value})


def test_a_container_that_holds_itself_can_not_be_written():
    ring: list = []
    ring.append(ring)
    with pytest.raises(TypeError, match="holds itself"):
        _dumped({"w": ring})
