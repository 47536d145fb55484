"""Tensor records: bytes equal to Fluid's, round trips, refusals."""

import io
import pathlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from millstream.errors import AttributeTypeError, FileFormatError
from millstream.files import records
from millstream.files.source import Source

RECORDED = pathlib.Path(__file__).parent / "recorded"
DTYPES = ["bool", "i2", "i4", "i8", "f2", "f4", "f8", "u1", "i1", "u2"]
LODS = {"t_float32": [[0, 2, 2, 6]], "t_float64": [[0, 1, 3], [0, 2, 4, 6]]}


def _written(array, lod=()):
    out = io.BytesIO()
    records.write_lod_tensor(out, array, lod)
    return out.getvalue()


@pytest.mark.parametrize("name", ["float32", "float64", "int32", "int64", "int16", "int8"])
def test_recorded_files(name):
    path = RECORDED / f"t_{name}"
    array, lod = records.load_lod_tensor(path)
    assert array.dtype == name
    assert [level.tolist() for level in lod] == LODS.get(path.name, [])
    np.testing.assert_array_equal(array, np.arange(12).reshape(6, 2))
    assert _written(array, lod) == path.read_bytes()


def test_recorded_combined_file(tmp_path):
    names = [f"t_{n}" for n in ("int8", "int64", "float32", "int16", "float64", "int32")]
    found = records.load_combined(RECORDED / "t_combined", names)
    assert list(found) == sorted(names)
    records.save_combined(tmp_path / "c", found)
    assert (tmp_path / "c").read_bytes() == (RECORDED / "t_combined").read_bytes()
    assert b"".join((RECORDED / n).read_bytes() for n in sorted(names)) == (tmp_path / "c").read_bytes()


def test_recorded_params_of_a_model():
    separate = {p.name: records.load_lod_tensor(p)[0] for p in (RECORDED / "separate").iterdir()}
    together = records.load_combined(RECORDED / "__params__", separate)
    for name, array in separate.items():
        np.testing.assert_array_equal(together[name][0], array)


def test_recorded_selected_rows(tmp_path):
    found = records.load_selected_rows(RECORDED / "rows.selected")
    assert found.rows.tolist() == [3, 1, 3, 0]
    assert found.height == 5
    assert found.value.shape == (4, 3)
    records.save_selected_rows(tmp_path / "r", *found)
    assert (tmp_path / "r").read_bytes() == (RECORDED / "rows.selected").read_bytes()


def test_documented_bytes():
    head = bytes.fromhex("00000000 0000000000000000 00000000 06000000 0805 1003 1004")
    array = np.arange(12, dtype="f4").reshape(3, 4)
    assert _written(array) == head + array.tobytes()
    packed = bytes.fromhex("00000000 0000000000000000 00000000 06000000 0805 12020304") + array.tobytes()
    back, lod = records.read_lod_tensor(packed)
    assert lod == ()
    np.testing.assert_array_equal(back, array)


@st.composite
def tensors(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    array = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
    lod = []
    rows = array.shape[0] if array.ndim else 1
    for _ in range(draw(st.integers(0, 3))):
        cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
        lod.insert(0, np.array([0, *cuts, rows], "i8"))
        rows = len(lod[0]) - 1
    return array, lod


@settings(max_examples=150, deadline=None)
@given(tensors(), st.sampled_from(["bytes", "file", "memoryview"]))
def test_round_trip(tensor, how):
    array, lod = tensor
    data = _written(array, lod)
    back, levels = records.read_lod_tensor(
        {"bytes": data, "file": io.BytesIO(data), "memoryview": memoryview(bytearray(data))}[how]
    )
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert [x.tolist() for x in levels] == [x.tolist() for x in lod]
    assert back.flags.writeable and back.flags.c_contiguous


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 3))
def test_selected_rows_round_trip(rows, width):
    value = np.arange(len(rows) * width, dtype="f8").reshape(len(rows), width)
    out = io.BytesIO()
    records.write_selected_rows(out, rows, 7, value)
    found = records.read_selected_rows(out.getvalue())
    assert (found.rows.tolist(), found.height) == (rows, 7)
    np.testing.assert_array_equal(found.value, value)


def test_layouts_that_need_a_copy():
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    back, _ = records.read_lod_tensor(_written(array))
    np.testing.assert_array_equal(back, array)


def test_any_bool_byte_is_true():
    data = _written(np.array([True, False, True]))[:-3] + b"\x02\x00\xff"
    back, _ = records.read_lod_tensor(data)
    assert back.view("u1").tolist() == [1, 0, 1]


def _record(dims=b"\x10\x03", data=b"\0" * 12, version=0, inner=0, dtype=5, levels=b"\0" * 8, length=None):
    desc = bytes([8, dtype]) + dims
    size = len(desc) if length is None else length
    return struct.pack("<I", version) + levels + struct.pack("<Ii", inner, size) + desc + data


MINUS = b"\x10" + b"\xff" * 9 + b"\x01"
HUGE = b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
REFUSED = {
    "outer version": (_record(version=1), r"byte 0: expected LoDTensor version 0, found 1"),
    "inner version": (_record(inner=7), r"byte 12: expected tensor version 0, found 7"),
    "negative length": (_record(length=-5), r"byte 16: expected the length of a TensorDesc .* found -5"),
    "long desc": (_record(length=1 << 30), r"expected the length of a TensorDesc"),
    "unknown dtype": (_record(dtype=7), r"byte 20: unknown element type 7"),
    "negative dim": (_record(MINUS), r"dimensions >= 0, found \[-1\]"),
    "huge dim": (_record(HUGE), r"truncated: expected \d+ bytes of tensor data .* found 12"),
    "huge product": (_record(HUGE * 8), r"truncated: expected \d+ bytes"),
    "zero times huge": (_record(b"\x10\x00" + HUGE * 2, b""), r"no array can have the shape"),
    "rank": (_record(b"\x10\x01" * 65), r"at most 64 dimensions"),
    "short data": (_record(data=b"\0" * 11), r"byte 24: truncated: expected 12 bytes of tensor data .*found 11"),
    "levels": (_record(levels=b"\xff" * 8), r"byte 4: expected a number of LoD levels"),
    "level length": (_record(levels=struct.pack("<QQ", 1, 9) + b"\0" * 9), r"LoD level 0: expected a multiple of 8"),
    "level start": (_record(levels=struct.pack("<QQqq", 1, 16, 1, 3)), r"offsets that start at 0"),
    "level falls": (_record(levels=struct.pack("<QQqqq", 1, 24, 0, 5, 3)), r"offsets that never fall"),
    "level end": (_record(levels=struct.pack("<QQqq", 1, 16, 0, 2)), r"end at 3 \(rows of the tensor\), found 2"),
    "unknown field": (_record(b"\x18\x03"), r"byte 22: TensorDesc: unexpected field 3"),
    "no dtype": (b"\0" * 16 + struct.pack("<i", 2) + b"\x10\x03", r"without an element type"),
    "nothing": (b"", r"byte 0: truncated: expected 4 bytes of the LoDTensor version, found 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    data, message = REFUSED[case]
    with pytest.raises(FileFormatError, match=message):
        records.read_lod_tensor(Source(data, "w_0"))
    with pytest.raises(FileFormatError, match=r"^w_0: at byte"):
        records.read_lod_tensor(Source(data, "w_0"))


def test_files_with_too_much_or_too_little(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(_written(np.ones(3, "f4")) + b"x")
    with pytest.raises(FileFormatError, match=r"p: at byte 36: 1 bytes follow the tensor"):
        records.load_lod_tensor(path)
    with pytest.raises(FileFormatError, match="1 bytes follow the last of 1 variables"):
        records.load_combined(path, ["w"])
    with pytest.raises(FileFormatError, match=r"p \(variable 'v_2'\): at byte 36: truncated"):
        records.load_combined(path, ["v_2", "v_1"])
    with pytest.raises(FileNotFoundError):
        records.load_lod_tensor(tmp_path / "none")


def test_wrong_selected_rows():
    with pytest.raises(ValueError, match=r"row numbers in \[0, height\), found 1 to 9 with height 5"):
        records.write_selected_rows(io.BytesIO(), [1, 9], 5, np.ones((2, 1)))
    with pytest.raises(ValueError, match="expected a value with 1 rows"):
        records.write_selected_rows(io.BytesIO(), [1], 5, np.ones((2, 1)))


def test_what_can_not_be_written():
    for array in (np.ones(2, "c8"), np.ones(2, "u4"), np.array([None])):
        with pytest.raises(AttributeTypeError, match="can't be saved; expected one of bool, int16"):
            records.write_tensor(io.BytesIO(), array)
    with pytest.raises(ValueError, match="write_lod_tensor: LoD level 0: expected offsets that end at 2"):
        records.write_lod_tensor(io.BytesIO(), np.ones((2, 1)), [[0, 1]])
