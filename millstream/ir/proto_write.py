"""Program -> ProgramDesc messages: which fields are written, and which type each attribute gets."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from millstream.errors import InvalidProgramError
from millstream.ir import library, messages, wire
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR
from millstream.ir.types import AttrType, VarType, implied_attr_type, is_block
from millstream.ir.wire import BYTES

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program
    from millstream.ir.variable import Variable

FLUID_VERSION = 1_008_005  # major * 1000000 + minor * 1000 + patch
VERSION_FIELDS = (2, 4)  # where Fluid 1.1 and 1.8 keep the version

TENSOR_FIELDS = {
    VarType.LOD_TENSOR: "lod_tensor",
    VarType.SELECTED_ROWS: "selected_rows",
    VarType.LOD_TENSOR_ARRAY: "tensor_array",
}
VALUE_FIELDS = {  # attribute type -> (field, whether it is repeated)
    AttrType.INT: ("i", False),
    AttrType.FLOAT: ("f", False),
    AttrType.STRING: ("s", False),
    AttrType.INTS: ("ints", True),
    AttrType.FLOATS: ("floats", True),
    AttrType.STRINGS: ("strings", True),
    AttrType.BOOLEAN: ("b", False),
    AttrType.BOOLEANS: ("bools", True),
    AttrType.BLOCK: ("block_idx", False),
    AttrType.LONG: ("l", False),
    AttrType.BLOCKS: ("blocks_idx", True),
    AttrType.LONGS: ("longs", True),
}


def write_block(program: Program, block: Block, position: int) -> bytes:
    """One BlockDesc as bytes; raises InvalidProgramError when the Block's index is not its position."""
    if block.idx != position:
        raise InvalidProgramError(f"block at position {position} says that it is block {block.idx}")
    desc = messages.BlockDesc(idx=block.idx, parent_idx=block.parent_idx)
    if block.forward_block_idx != -1:
        desc.forward_block_idx = block.forward_block_idx
    for var in block.vars.values():
        _write_variable(desc.vars.add(), var)
    for op in block.ops:
        _write_operator(desc.ops.add(), op, program)
    return bytes(desc.SerializeToString())


def write_variable(var: Variable) -> bytes:
    """One VarDesc as bytes."""
    desc = messages.VarDesc()
    _write_variable(desc, var)
    return bytes(desc.SerializeToString())


def write_operator(op: Operator) -> bytes:
    """One OpDesc as bytes."""
    desc = messages.OpDesc()
    _write_operator(desc, op, op.block.program)
    return bytes(desc.SerializeToString())


def write_tail(program: Program) -> bytes:
    """The fields after the Blocks: the ones read from a file, else a version as 1.8.5 writes it."""
    extra, version = program.saved_extra, program.saved_version
    if version is None:
        return extra + _version(FLUID_VERSION)
    stored = 0
    kept = b""
    for field in wire.fields(extra, 0, len(extra)):
        if field.number in VERSION_FIELDS and field.wire_type == BYTES:
            stored = messages.Version.FromString(extra[field.start : field.end]).version
        else:
            kept += extra[field.tag_at : field.end]
    return extra if stored == version else kept + _version(version)


def _version(number: int) -> bytes:
    payload = messages.Version(version=number).SerializeToString()
    return wire.varint(VERSION_FIELDS[1] << 3 | BYTES) + wire.varint(len(payload)) + bytes(payload)


# ---- variables -----------------------------------------------------------------------------------
def _write_variable(desc: Any, var: Variable) -> None:
    desc.name = _encode(var.name)
    desc.type.type = int(var.type)
    if var.persistable or "persistable" in var.stated:
        desc.persistable = var.persistable
    if var.need_check_feed or "need_check_feed" in var.stated:
        desc.need_check_feed = var.need_check_feed
    if var.type is VarType.READER:
        desc.type.reader.SetInParent()
        for shape, dtype, level in var.reader_slots:
            slot = desc.type.reader.lod_tensor.add()
            _write_tensor(slot.tensor, shape, dtype)
            slot.lod_level = level
    elif var.type is VarType.TUPLE:
        desc.type.tuple.element_type.extend(int(t) for t in var.element_types)
    field = TENSOR_FIELDS.get(var.type)
    if field is None or not (var.has_shape or var.has_dtype or var.lod_level):
        return
    holder = getattr(desc.type, field)
    if var.type is not VarType.SELECTED_ROWS:
        if var.lod_level or "lod_level" in var.stated:
            holder.lod_level = var.lod_level
        holder = holder.tensor
    _write_tensor(holder, var.shape, var.dtype)


def _write_tensor(desc: Any, shape: tuple[int, ...], dtype: VarType) -> None:
    desc.data_type = int(dtype)
    desc.dims.extend(shape)


# ---- operators -----------------------------------------------------------------------------------
def _write_operator(desc: Any, op: Operator, program: Program) -> None:
    desc.type = _encode(op.type)
    for slots, target in ((op.inputs, desc.inputs), (op.outputs, desc.outputs)):
        for slot, names in slots.items():
            target.add(parameter=_encode(slot), arguments=[_encode(n) for n in names])
    if op.is_target:
        desc.is_target = True
    lib = library.installed()
    declared = lib.attr_types(op.type) if lib is not None else {}
    attrs = op.attrs if op.attr_kinds is not None else {**_implied_attrs(op, declared), **op.attrs}
    for name, value in attrs.items():
        kind, stored = _typed(op, name, value, declared, program)
        field, repeated = VALUE_FIELDS[kind]
        attr = desc.attrs.add(name=_encode(name), type=int(kind))
        if repeated:
            getattr(attr, field).extend(stored)
        else:
            setattr(attr, field, stored)


def _implied_attrs(op: Operator, declared: dict[str, AttrType]) -> dict[str, Any]:
    """What 1.8.5 writes for an operator although nobody gave it: declared defaults and the five op_* attributes."""
    implied: dict[str, Any] = {}
    lib = library.installed()
    for name in declared:
        try:
            value = lib.attr_default(op.type, name) if lib is not None else None
        except KeyError:
            continue
        if value is not None:
            implied[name] = value
    site = op.site
    stack = [] if site is None else [f'  File "{site.file}", line {site.line}, in {site.function}\n']
    implied.update({OP_ROLE: 0, OP_ROLE_VAR: [], "op_namescope": "/", "op_callstack": stack, "op_device": ""})
    return implied


def _typed(
    op: Operator, name: str, value: Any, declared: dict[str, AttrType], program: Program
) -> tuple[AttrType, Any]:
    """(attribute type, value to store): the type remembered from a file, else declared, else by the Python value."""
    remembered = (op.attr_kinds or {}).get(name, _OP_KINDS.get(name))
    for kind in (remembered, declared.get(name), implied_attr_type(value)):
        if kind is None:
            continue
        try:
            return kind, _store(kind, value, program)
        except (TypeError, ValueError):
            if kind is declared.get(name):
                break  # a wrong value for a known attribute must not be saved under another type
    wanted = declared.get(name)
    raise InvalidProgramError(
        f"operator {op.type}: attribute {name!r} can't be saved: expected "
        f"{wanted.name if wanted is not None else 'a bool, int, float, str, Block or a list of one of these'}, "
        f"received {type(value).__name__}: {str(value)[:80]}"
    )


_OP_KINDS = {
    OP_ROLE: AttrType.INT,
    OP_ROLE_VAR: AttrType.STRINGS,
    "op_namescope": AttrType.STRING,
    "op_callstack": AttrType.STRINGS,
    "op_device": AttrType.STRING,
}


def _store(kind: AttrType, value: Any, program: Program) -> Any:
    """`value` as the protobuf field of `kind` takes it; TypeError or ValueError when it does not fit."""
    if kind in (AttrType.BLOCK, AttrType.BLOCKS):
        return _index(value, program) if kind is AttrType.BLOCK else [_index(v, program) for v in value]
    _, repeated = VALUE_FIELDS[kind]
    convert = _CONVERT[kind]
    if not repeated:
        return convert(value)
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (str, bytes)):
        raise TypeError("a list is needed")
    return [convert(v) for v in value]


def _index(value: Any, program: Program) -> int:
    idx = int(value.idx) if is_block(value) else operator.index(value)
    if not 0 <= idx < len(program.blocks):
        raise ValueError("no such block")
    if is_block(value) and program.blocks[idx] is not value:
        raise ValueError("a block of another program")
    return idx


def _integer(bits: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = operator.index(value)
        if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
            raise ValueError(f"{number} needs more than {bits} bits")
        return number

    return convert


def _boolean(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise TypeError("not a bool")


def _real(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError("not a number")
    return float(value)


def _encode(text: Any) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


def _string(value: Any) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise TypeError("not a string")
    return _encode(value)


_CONVERT: dict[AttrType, Callable[[Any], Any]] = {
    AttrType.INT: _integer(32),
    AttrType.INTS: _integer(32),
    AttrType.LONG: _integer(64),
    AttrType.LONGS: _integer(64),
    AttrType.FLOAT: _real,
    AttrType.FLOATS: _real,
    AttrType.BOOLEAN: _boolean,
    AttrType.BOOLEANS: _boolean,
    AttrType.STRING: _string,
    AttrType.STRINGS: _string,
}
