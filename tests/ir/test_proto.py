"""ProgramDesc bytes: equal to Fluid's, lossless both ways, and refusals that say where."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import FileFormatError, InvalidProgramError
from millstream.ir import AttrType, Operator, Program, VarType, library, messages
from millstream.ir.proto import program_from_bytes, program_to_bytes
from millstream.ir.site import Site
from millstream.ir.wire import fields, varint

RECORDED = pathlib.Path(__file__).parents[1] / "files" / "recorded"
MODELS = ["__model__", "train.pdmodel", "startup.pdmodel", "while.pdmodel"]


@pytest.fixture(autouse=True)
def _no_library(monkeypatch):
    """The operator library's checks and defaults are not under test here."""
    monkeypatch.setattr(library._Installed, "library", None)


# ---- files that Fluid wrote ------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
def test_recorded_models_come_back_byte_for_byte(name):
    data = (RECORDED / name).read_bytes()
    program = program_from_bytes(data, name)
    assert program.saved_version == 1008005
    assert program_to_bytes(program) == data
    assert program_to_bytes(program.clone()) == data
    assert Program.parse_from_string(data).serialize_to_string() == data


def test_what_an_inference_model_says():
    program = program_from_bytes((RECORDED / "__model__").read_bytes())
    block = program.global_block()
    feed = block.ops[0]
    assert (feed.type, feed.input("X"), feed.output("Out"), feed.attr("col")) == ("feed", ["feed"], ["ids"], 0)
    assert block.ops[-1].type == "fetch"
    assert block.var("feed").type is VarType.FEED_MINIBATCH
    assert block.var("fetch").type is VarType.FETCH_LIST and block.var("fetch").persistable
    weight = block.var("embedding_0.w_0")
    assert (weight.shape, weight.dtype, weight.persistable) == ((5, 3), VarType.FP32, True)
    ids = block.var("ids")
    assert (ids.shape, ids.dtype, ids.lod_level, ids.need_check_feed) == ((-1, 1), VarType.INT64, 1, True)
    assert ids.op is feed
    lookup = block.ops[1]
    assert lookup.attr_kinds["padding_idx"] is AttrType.LONG and lookup.attr("padding_idx") == -1
    assert lookup.attr_kinds["height_sections"] is AttrType.LONGS and lookup.attr("height_sections") == []


def test_what_a_loop_says():
    program = program_from_bytes((RECORDED / "while.pdmodel").read_bytes())
    assert [(b.parent_idx, b.forward_block_idx) for b in program.blocks] == [(-1, -1), (0, -1), (0, 1)]
    root = program.global_block()
    loop = next(op for op in root.ops if op.type == "while")
    assert loop.sub_blocks() == [program.blocks[1]]
    assert loop.attr("sub_block") == 1
    reader = root.var("create_py_reader_0")
    assert reader.type is VarType.READER
    assert reader.reader_slots == (((-1, 2), VarType.FP32, 0), ((-1, 1), VarType.INT64, 1))
    assert root.var("array_write_0.out").type is VarType.LOD_TENSOR_ARRAY
    assert root.var("rows").type is VarType.SELECTED_ROWS and root.var("rows").dtype is VarType.FP64
    assert not root.var("bare").has_shape and not root.var("bare").has_dtype


def test_products_with_an_unknown_size():
    """layer_norm's Mean of [-1, 8, 4] is [-8] in Fluid's files: any negative dimension is an unknown one."""
    program = program_from_bytes(_with_var(dims=[-8, 4]))
    assert program.global_block().vars["v"].shape == (-8, 4)
    assert program_to_bytes(program) == _with_var(dims=[-8, 4])


def test_a_file_of_fluid_1_1():
    """1.1 wrote the version as field 2, had no compatibility map and no need_check_feed."""
    desc = messages.BlockDesc(idx=0, parent_idx=-1)
    var = desc.vars.add(name=b"x", persistable=False)
    var.type.type = VarType.LOD_TENSOR
    var.type.lod_tensor.tensor.data_type = VarType.FP32
    var.type.lod_tensor.tensor.dims.extend([-1, 3])
    var.type.lod_tensor.lod_level = 0
    payload = desc.SerializeToString()
    for version in (b"\x12\x00", b"\x12\x02\x08\x00"):
        data = b"\x0a" + varint(len(payload)) + payload + version
        program = program_from_bytes(data)
        assert program.saved_version == 0
        assert program_to_bytes(program) == data
    program.saved_version = 1001000
    assert program_to_bytes(program) == b"\x0a" + varint(len(payload)) + payload + b"\x22\x04\x08\xa8\x8c\x3d"


def test_versionless_and_unknown_fields():
    block = b"\x0a\x0d\x08\x00\x10" + b"\xff" * 9 + b"\x01"
    assert program_to_bytes(program_from_bytes(block)) == block
    data = block + b"\x9a\x06\x03abc" + b"\x22\x04\x08\xa5\x8c\x3d" + b"\xa5\x06wxyz"
    program = program_from_bytes(data)
    assert program.saved_extra == data[len(block) :]
    assert program_to_bytes(program) == data
    assert program_to_bytes(program.clone()) == data


# ---- Programs made here ----------------------------------------------------------------------------
def _small() -> Program:
    program = Program()
    block = program.global_block()
    block.create_var(name="x", shape=[None, 4], dtype="float32", lod_level=1, need_check_feed=True)
    block.create_parameter(name="w", shape=[4, 2], dtype="float32")
    block.create_var(name="y")
    block.append_op(type="mul", inputs={"X": ["x"], "Y": ["w"]}, outputs={"Out": ["y"]}, attrs={"x_num_col_dims": 1})
    return program


def test_a_new_program_looks_like_1_8_5():
    program = _small()
    op = program.global_block().ops[0]
    op.site = Site("train.py", 7, "build")
    data = program_to_bytes(program)
    assert data.endswith(b"\x22\x04\x08\x85\xc3\x3d")  # version 1008005 in field 4
    back = program_from_bytes(data)
    read = back.global_block().ops[0]
    assert read.attrs == {
        "op_role": 0, "op_role_var": [], "op_namescope": "/", "op_device": "", "x_num_col_dims": 1,
        "op_callstack": ['  File "train.py", line 7, in build\n'],
    }  # fmt: skip
    assert back.global_block().var("w").persistable
    assert type(back.global_block().var("w")).__name__ == "Variable"
    assert program_to_bytes(back) == data


class _Library:
    def check_and_infer(self, op):
        pass

    def attr_types(self, op_type):
        kinds = {"axis": AttrType.INT, "scale": AttrType.FLOAT, "ids": AttrType.LONGS, "needed": AttrType.INT}
        return kinds if op_type == "known" else {}

    def attr_default(self, op_type, name):
        return {"axis": -1, "scale": 1.0, "ids": []}[name]


def test_declared_types_and_defaults(monkeypatch):
    monkeypatch.setattr(library._Installed, "library", _Library())
    program = Program()
    block = program.global_block()
    block.append_op(type="known", attrs={"scale": 2})
    block.append_op(type="known", attrs={"axis": np.int64(3), "ids": np.array([5]), "needed": 1})
    back = program_from_bytes(program_to_bytes(program)).global_block().ops
    assert back[0].attr_kinds.items() >= {"axis": AttrType.INT, "scale": AttrType.FLOAT, "ids": AttrType.LONGS}.items()
    assert (back[0].attr("axis"), back[0].attr("scale"), back[0].attr("ids")) == (-1, 2.0, [])
    assert "needed" not in back[0].attrs
    assert (back[1].attr("axis"), back[1].attr("ids"), back[1].attr("needed")) == (3, [5], 1)
    block.ops[0]._set_attr("axis", 2.5)
    wanted = r"known: attribute 'axis' can't be saved: expected INT, received float: 2\.5"
    with pytest.raises(InvalidProgramError, match=wanted):
        program_to_bytes(program)


def test_an_attribute_of_another_kind_than_declared(monkeypatch):
    monkeypatch.setattr(library._Installed, "library", _Library())
    block = _block()
    block.ops.add(type=b"known").attrs.add(name=b"scale", type=4, floats=[1.0])
    with pytest.raises(FileFormatError, match=r"\(scale\): expected FLOAT, found FLOATS"):
        program_from_bytes(_bytes(block))
    block.ops[0].attrs[0].type = 0
    block.ops[0].attrs[0].i = 2  # a whole number for a float is what other writers give
    assert program_from_bytes(_bytes(block)).global_block().ops[0].attr("scale") == 2


INFERRED = [
    (True, AttrType.BOOLEAN), (1, AttrType.INT), (-(2**31), AttrType.INT), (2**31, AttrType.LONG), (0.5, AttrType.FLOAT),
    ("a", AttrType.STRING), ([], AttrType.INTS), ([1, 2], AttrType.INTS), ([1, 2**40], AttrType.LONGS),
    ([1, 0.5], AttrType.FLOATS), ([True], AttrType.BOOLEANS), (["a"], AttrType.STRINGS), (VarType.FP32, AttrType.INT),
    (np.float32(0.5), AttrType.FLOAT), (np.bool_(True), AttrType.BOOLEAN), (np.arange(2), AttrType.INTS),
    ((1,), AttrType.INTS),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), INFERRED)
def test_inferred_types(value, kind):
    program = Program()
    program.global_block().append_op(type="t", attrs={"a": value})
    op = program_from_bytes(program_to_bytes(program)).global_block().ops[0]
    assert op.attr_kinds["a"] is kind
    assert op.attr("a") == (list(value) if isinstance(value, (list, tuple, np.ndarray)) else value)


@pytest.mark.parametrize("value", [object(), {"a": 1}, [1, "a"], [[1]], 2**63, [None]])
def test_values_without_a_type(value):
    program = Program()
    program.global_block().append_op(type="t", attrs={"a": value})
    with pytest.raises(InvalidProgramError, match="operator t: attribute 'a' can't be saved"):
        program_to_bytes(program)


def test_a_loaded_attribute_that_outgrows_its_type():
    program = program_from_bytes((RECORDED / "__model__").read_bytes())
    op = program.global_block().ops[1]
    op._set_attr("trainer_id", 2**40)
    back = program_from_bytes(program_to_bytes(program)).global_block().ops[1]
    assert (back.attr("trainer_id"), back.attr_kinds["trainer_id"]) == (2**40, AttrType.LONG)


def test_blocks_of_another_program_are_refused():
    program, other = Program(), Program()
    other._create_block()
    program._create_block()
    program.global_block().append_op(type="while", attrs={"sub_block": other.blocks[1]})
    with pytest.raises(InvalidProgramError, match="sub_block"):
        program_to_bytes(program)


# ---- round trips -----------------------------------------------------------------------------------
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
I32, I64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
F32 = st.floats(width=32, allow_nan=False)
VALUES = {
    AttrType.INT: I32, AttrType.FLOAT: F32, AttrType.STRING: st.text(max_size=5), AttrType.INTS: st.lists(I32, max_size=3),
    AttrType.FLOATS: st.lists(F32, max_size=3), AttrType.STRINGS: st.lists(st.text(max_size=3), max_size=3),
    AttrType.BOOLEAN: st.booleans(), AttrType.BOOLEANS: st.lists(st.booleans(), max_size=3), AttrType.LONG: I64,
    AttrType.LONGS: st.lists(I64, max_size=3), AttrType.BLOCK: st.just(1), AttrType.BLOCKS: st.lists(st.just(1), max_size=2),
}  # fmt: skip
KINDS = [
    VarType.LOD_TENSOR, VarType.SELECTED_ROWS, VarType.LOD_TENSOR_ARRAY, VarType.RAW, VarType.STEP_SCOPES, VarType.READER,
    VarType.TUPLE, VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.LOD_RANK_TABLE, VarType.PLACE_LIST,
]  # fmt: skip
ELEMENTS = [VarType.FP32, VarType.INT64, VarType.BOOL, VarType.UINT8, VarType.BF16, VarType.FP16]
SHAPES = st.lists(st.integers(-1, 2**40), max_size=4)


@st.composite
def programs(draw):
    program = Program()
    program._create_block()
    root = program.global_block()
    for name in draw(st.lists(NAMES, unique=True, max_size=5)):
        kind = draw(st.sampled_from(KINDS))
        var = root.create_var(name=name, type=kind, persistable=draw(st.booleans()))
        if var.is_tensor and draw(st.booleans()):
            var.shape, var.dtype = draw(SHAPES), draw(st.sampled_from(ELEMENTS))
            if kind is not VarType.SELECTED_ROWS:
                var.lod_level = draw(st.integers(0, 3))
        if kind is VarType.READER:
            slot = st.tuples(SHAPES.map(tuple), st.sampled_from(ELEMENTS), st.integers(0, 2))
            var.reader_slots = tuple(draw(st.lists(slot, max_size=2)))
        if kind is VarType.TUPLE:
            var.element_types = tuple(draw(st.lists(st.sampled_from(KINDS), max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        slots = st.dictionaries(NAMES, st.lists(NAMES, max_size=3), max_size=3)
        op = Operator(root, draw(NAMES), draw(slots), draw(slots), site=Site("", 0, ""))
        op.attr_kinds = draw(st.dictionaries(NAMES, st.sampled_from(list(AttrType)), max_size=5))
        for name, kind in op.attr_kinds.items():
            value = draw(VALUES[kind])
            if kind is AttrType.BLOCK:
                value = program.blocks[value]
            if kind is AttrType.BLOCKS:
                value = [program.blocks[i] for i in value]
            op._attrs[name] = value
        op.is_target = draw(st.booleans())
        root.ops.append(op)
    return program


@settings(max_examples=150, deadline=None)
@given(programs())
def test_round_trip(program):
    data = program_to_bytes(program)
    back = program_from_bytes(data)
    assert program_to_bytes(back) == data
    root, other = program.global_block(), back.global_block()
    assert list(root.vars) == list(other.vars)
    for name, var in root.vars.items():
        twin = other.vars[name]
        assert (twin.type, twin.shape, twin.lod_level, twin.persistable) == (
            var.type, var.shape, var.lod_level, var.persistable,
        )  # fmt: skip
        assert (twin.reader_slots, twin.element_types) == (var.reader_slots, var.element_types)
        assert var._dtype is None or twin.dtype is var.dtype
    for op, twin in zip(root.ops, other.ops):
        assert (twin.type, twin.inputs, twin.outputs, twin.is_target) == (op.type, op.inputs, op.outputs, op.is_target)
        assert twin.attr_kinds == op.attr_kinds
        for name, kind in op.attr_kinds.items():
            if kind not in (AttrType.BLOCK, AttrType.BLOCKS):
                assert twin.attrs[name] == op.attrs[name]
    assert [len(op.sub_blocks()) for op in root.ops] == [len(op.sub_blocks()) for op in other.ops]


def test_attribute_strings_may_hold_any_bytes():
    desc = messages.BlockDesc(idx=0, parent_idx=-1)
    attr = desc.ops.add(type=b"t").attrs.add(name=b"a", type=AttrType.STRING)
    attr.s = b"\xff\x00\xfe"
    payload = desc.SerializeToString()
    data = b"\x0a" + varint(len(payload)) + payload
    assert program_to_bytes(program_from_bytes(data)) == data


# ---- refusals --------------------------------------------------------------------------------------
def _bytes(*blocks) -> bytes:
    out = b""
    for block in blocks:
        payload = block.SerializePartialToString()
        out += b"\x0a" + varint(len(payload)) + payload
    return out


def _block(idx=0, parent=-1, **more):
    return messages.BlockDesc(idx=idx, parent_idx=parent, **more)


def _with_var(**tensor):
    block = _block()
    var = block.vars.add(name=b"v")
    var.type.type = tensor.pop("kind", 7)
    holder = var.type.lod_tensor
    holder.tensor.data_type = tensor.get("data_type", 5)
    holder.tensor.dims.extend(tensor.get("dims", []))
    holder.lod_level = tensor.get("lod_level", 0)
    return _bytes(block)


def _with_attr(*values, **fields_of_attr):
    block = _block()
    op = block.ops.add(type=b"t")
    for _ in range(fields_of_attr.pop("times", 1)):
        op.attrs.add(name=b"a", **fields_of_attr)
    return _bytes(block, *values)


def _held(*uses):
    """Blocks 0.., `uses[i]` are the sub-Blocks that operators of Block i hold."""
    blocks = []
    for idx, subs in enumerate(uses):
        block = _block(idx, idx - 1 if idx < 2 else 0)
        for sub in subs:
            block.ops.add(type=b"while").attrs.add(name=b"sub_block", type=8, block_idx=sub)
        blocks.append(block)
    return _bytes(*blocks)


def _twice():
    block = _block()
    for _ in range(2):
        block.vars.add(name=b"v").type.type = 17
    return _bytes(block)


def _slots():
    block = _block()
    op = block.ops.add(type=b"t")
    op.inputs.add(parameter=b"X")
    op.inputs.add(parameter=b"X")
    return _bytes(block)


def _named(name):
    block = _block()
    block.vars.add(name=name).type.type = 17
    return _bytes(block)


def _missing():
    block = _block()
    block.ops.add(type=b"t").attrs.add(type=0)
    return _bytes(_block(), _block(1, 0), block)


REFUSED = {
    "empty": (b"", "expected at least one Block in 0 bytes"),
    "text": (b"hello, world", r"ProgramDesc at byte 2: field 13 has"),
    "no blocks": (b"\x22\x00", "expected at least one Block"),
    "claims too much": (b"\x0a\xff\x01ab", r"byte 0: field 1 claims 255 bytes, 2 are left"),
    "long varint": (b"\x0a" + b"\xff" * 11, "byte 1: expected a varint of at most 10 bytes"),
    "half a varint": (b"\x0a\xff", "the data ends after 1 bytes"),
    "nested claim": (b"\x0a\x08\x08\x00\x10\x00\x1a\x7f\x0a\x01", r"blocks\[0\] at byte 6: field 3 claims 127 bytes"),
    "missing": (_missing(), r"blocks\[2\]\.ops\[0\]\.attrs\[0\]\.name at byte \d+: required field is missing"),
    "idx": (_bytes(_block(3)), r"blocks\[0\]\.idx: expected 0, found 3"),
    "root has a parent": (_bytes(_block(0, 0)), r"parent_idx: expected -1 \(the global Block\), found 0"),
    "no parent": (_bytes(_block(), _block(1, -1)), r"blocks\[1\]\.parent_idx: expected a Block from 0 to 1, found -1"),
    "parent ring": (_bytes(_block(), _block(1, 2), _block(2, 1)), "expected an earlier Block than 1, found 2"),
    "own parent": (_bytes(_block(), _block(1, 1)), "expected an earlier Block than 1, found 1"),
    "parent range": (_bytes(_block(), _block(1, 9)), "from 0 to 1, found 9"),
    "forward range": (_bytes(_block(forward_block_idx=4)), "no such Block: 4"),
    "deep": (_bytes(*[_block(i, i - 1) for i in range(80)]), "nest more than 64 deep"),
    "var twice": (_twice(), r"blocks\[0\]\.vars\[1\]: variable 'v' is declared twice"),
    "var kind": (_with_var(kind=5), r"vars\[0\] \(v\)\.type: expected the kind of a variable, found number 5"),
    "var kind 99": (_with_var(kind=99), "found number 99"),
    "data type": (_with_var(data_type=16), "unknown type number 16"),
    "data type kind": (_with_var(data_type=7), "unknown type number 7"),
    "lod level": (_with_var(lod_level=-1), "expected a number of LoD levels, found -1"),
    "name": (_named(b"\xff\xfe"), r"vars\[0\]\.name: expected UTF-8, found b'\\xff\\xfe'"),
    "slot twice": (_slots(), "slot 'X' is given twice"),
    "attr twice": (_with_attr(times=2, type=0, i=1), r"ops\[0\] \(t\)\.attrs\[1\]: attribute 'a' is given twice"),
    "attr kind": (_with_attr(type=12), r"attrs\[0\] \(a\): expected an attribute type from 0 to 11, found 12"),
    "attr value": (_with_attr(type=1, i=3), r"the attribute is of type FLOAT and has no value \(f\)"),
    "sub range": (_held([7]), "expected a Block from 1 to 0, found 7"),
    "sub root": (_held([0]), "found 0"),
    "sub itself": (_held([1], [1]), "contains that operator"),
    "sub ring": (_held([1], [2], [1]), "contains that operator"),
    "sub laughs": (_held(*[[i + 1] * 4 for i in range(12)], []), "held too many times"),
    "no op type": (_bytes(messages.BlockDesc(idx=0, parent_idx=-1, ops=[{"type": b""}])), "the operator has no type"),
    "groups": (_bytes(_block()) + b"\x2b" * 5000, "wire type 3"),
    "nested groups": (b"\x0a\xd8\x36\x08\x00\x10\x00" + b"\x33" * 6996, r"blocks\[0\] at byte 7: field 6 has wire type 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    data, message = REFUSED[case]
    with pytest.raises(FileFormatError, match=message) as caught:
        program_from_bytes(data, "model")
    assert str(caught.value).startswith("model: not a Fluid program: ")


def test_every_truncation_is_refused_or_ends_at_a_field():
    data = (RECORDED / "while.pdmodel").read_bytes()
    ends = {f.end for f in fields(data, 0, len(data))}
    for cut in range(1, len(data), 7):
        if cut not in ends:
            with pytest.raises(FileFormatError):
                program_from_bytes(data[:cut])


def test_wrong_argument():
    with pytest.raises(TypeError, match="takes bytes, received str"):
        program_from_bytes("x")
