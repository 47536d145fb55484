"""ProgramDesc bytes <-> Program, both ways without loss.

What is kept from a file: the version and in which field it stood (2 in Fluid 1.1, 4 in 1.8), the operator
compatibility map and unknown fields of the ProgramDesc (all three as bytes in `Program.saved_extra`), every attribute
with its exact type (`Operator.attr_kinds`), every variable kind. Unknown fields inside Blocks, operators and variables
(later Paddle versions have some) are dropped. A file does not say which persistable variables are Parameters, so all
come back as plain Variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from millstream.errors import FileFormatError
from millstream.ir import library, messages, wire
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.proto_write import TENSOR_FIELDS, VALUE_FIELDS, VERSION_FIELDS, write_block, write_tail
from millstream.ir.types import AttrType, VarType
from millstream.ir.variable import Variable
from millstream.ir.wire import BYTES, Buffer, WireError

MAX_NESTING = 64  # of Blocks; walks over Programs recurse
MAX_WALK = 100_000  # Blocks met by a walk that enters every sub-Block of every operator
_MAP_FIELD = 3
_ELEMENT_TYPES: frozenset[int] = frozenset({*range(7), VarType.SIZE_T, VarType.UINT8, VarType.INT8, VarType.BF16})
_KINDS = frozenset(VarType) - _ELEMENT_TYPES


def program_to_bytes(program: Program) -> bytes:
    """`program` as ProgramDesc bytes, as Fluid 1.8.5 writes them (a loaded Program: as it was).

    Raises InvalidProgramError: an attribute holds a value that no attribute type can store, or Blocks do not fit.
    """
    parts: list[bytes] = []
    for position, block in enumerate(program.blocks):
        payload = write_block(program, block, position)
        parts += [wire.varint(1 << 3 | BYTES), wire.varint(len(payload)), payload]
    parts.append(write_tail(program))
    return b"".join(parts)


def program_from_bytes(data: Buffer, source: str = "<bytes>") -> Program:
    """The Program in ProgramDesc bytes written by any Fluid 1.x.

    `source` names the bytes in errors. Raises FileFormatError: they are truncated, no ProgramDesc, or a ProgramDesc
    whose Blocks, names or indices cannot be right.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"program_from_bytes takes bytes, received {type(data).__name__}")
    return _Reader(data, source).program()


class _Reader:
    """One reading; `source` and the data are needed by every error."""

    def __init__(self, data: Buffer, source: str) -> None:
        self.data = data
        self.source = source
        self.result = Program()

    def fail(self, where: str, problem: str, offset: int | None = None) -> FileFormatError:
        at = "" if offset is None else f" at byte {offset}"
        return FileFormatError(f"{self.source}: not a Fluid program: {where}{at}: {problem}")

    # ---- the ProgramDesc itself --------------------------------------------------------------
    def program(self) -> Program:
        view = memoryview(self.data)
        descs: list[Any] = []
        extra = bytearray()
        version: int | None = None
        try:
            for field in wire.fields(view, 0, len(view)):
                if field.number == 1 and field.wire_type == BYTES:
                    path = f"blocks[{len(descs)}]"
                    descs.append(self.parse("BlockDesc", messages.BlockDesc, view, field, path))
                    continue
                if field.number in VERSION_FIELDS and field.wire_type == BYTES:
                    version = self.parse("Version", messages.Version, view, field, "version").version
                elif field.number == _MAP_FIELD and field.wire_type == BYTES:
                    self.parse("OpCompatibleMap", messages.OpCompatibleMap, view, field, "op_compatible_map")
                extra += view[field.tag_at : field.end]
        except WireError as error:
            raise self.fail("ProgramDesc", error.problem, error.offset) from None
        if not descs:
            raise self.fail("ProgramDesc", f"expected at least one Block in {len(view)} bytes, found none")
        self.result.saved_version = version or 0
        self.result.saved_extra = bytes(extra)
        self.blocks(descs)
        return self.result

    def parse(self, name: str, message: Any, view: memoryview, field: wire.Field, path: str) -> Any:
        made = message()
        try:
            made.MergeFromString(view[field.start : field.end])
        except DecodeError:
            offset, path, problem = messages.locate_error(name, view, field.start, field.end, path)
            raise self.fail(path, problem, offset) from None
        if not made.IsInitialized():
            raise self.fail(messages.first_missing(made, path), f"required field is missing ({name})", field.tag_at)
        return made

    # ---- Blocks ------------------------------------------------------------------------------
    def blocks(self, descs: list[Any]) -> None:
        made: list[Block] = []
        depth: list[int] = []
        for position, desc in enumerate(descs):
            path = f"blocks[{position}]"
            if desc.idx != position:
                raise self.fail(f"{path}.idx", f"expected {position}, found {desc.idx}")
            parent = desc.parent_idx
            if not -1 <= parent < len(descs) or (position == 0) != (parent == -1):
                wanted = "-1 (the global Block)" if position == 0 else f"a Block from 0 to {len(descs) - 1}"
                raise self.fail(f"{path}.parent_idx", f"expected {wanted}, found {parent}")
            if parent >= position:
                raise self.fail(f"{path}.parent_idx", f"expected an earlier Block than {position}, found {parent}")
            depth.append(depth[parent] + 1 if position else 0)
            if depth[position] > MAX_NESTING:
                raise self.fail(f"{path}.parent_idx", f"Blocks nest more than {MAX_NESTING} deep")
            if not -1 <= desc.forward_block_idx < len(descs):
                raise self.fail(f"{path}.forward_block_idx", f"no such Block: {desc.forward_block_idx}")
            block = Block(self.result, position, parent)
            block.forward_block_idx = desc.forward_block_idx
            made.append(block)
        self.result.blocks = made
        for block, desc in zip(made, descs):
            self.variables(block, desc)
        for block, desc in zip(made, descs):
            for n, op in enumerate(desc.ops):
                self.operator(block, op, f"blocks[{block.idx}].ops[{n}]")
        self.check_walk()

    def check_walk(self) -> None:
        """Refuse Blocks that hold each other in a ring, or so often that a walk would not end in reasonable time."""
        blocks = self.result.blocks
        uses = [[sub.idx for op in block.ops for sub in op.sub_blocks()] for block in blocks]
        weight: dict[int, int] = {}
        height: dict[int, int] = {}
        for root in range(len(blocks)):
            stack, open_now = [root], set()
            while stack:
                idx = stack[-1]
                todo = [] if idx in weight else [n for n in uses[idx] if n not in weight]
                if todo and idx not in open_now:
                    open_now.add(idx)
                    if open_now.intersection(todo):
                        raise self.fail(f"blocks[{idx}].ops", "an operator's sub-Block contains that operator")
                    stack.extend(dict.fromkeys(todo))
                    continue
                stack.pop()
                if idx not in weight:
                    open_now.discard(idx)
                    weight[idx] = 1 + sum(weight[n] for n in uses[idx])
                    height[idx] = 1 + max((height[n] for n in uses[idx]), default=0)
                    if weight[idx] > MAX_WALK or height[idx] > MAX_NESTING:
                        raise self.fail(f"blocks[{idx}].ops", "sub-Blocks are nested too deep or held too many times")

    # ---- variables ---------------------------------------------------------------------------
    def variables(self, block: Block, desc: Any) -> None:
        for n, var_desc in enumerate(desc.vars):
            path = f"blocks[{block.idx}].vars[{n}]"
            name = self.text(var_desc.name, f"{path}.name")
            if name in block.vars:
                raise self.fail(path, f"variable {name!r} is declared twice in this Block")
            block.vars[name] = self.variable(block, name, var_desc, f"{path} ({name})")

    def variable(self, block: Block, name: str, desc: Any, path: str) -> Variable:
        typed = desc.type
        if typed.type not in _KINDS:
            raise self.fail(f"{path}.type", f"expected the kind of a variable, found number {typed.type}")
        kind = VarType(typed.type)
        shape, dtype, level = None, None, 0
        stated = {f for f in ("persistable", "need_check_feed") if desc.HasField(f) and not getattr(desc, f)}
        field = TENSOR_FIELDS.get(kind)
        if field is not None and typed.HasField(field):
            holder = getattr(typed, field)
            if kind is not VarType.SELECTED_ROWS:
                level = self.level(holder, path)
                if holder.HasField("lod_level") and level == 0:
                    stated.add("lod_level")
                holder = holder.tensor
            shape, dtype = self.tensor(holder, path)
        var = Variable(
            block, name, shape or None, dtype, level, kind, desc.persistable, need_check_feed=desc.need_check_feed
        )
        if kind is VarType.READER:
            slots = typed.reader.lod_tensor
            var.reader_slots = tuple((*self.tensor(t.tensor, path), self.level(t, path)) for t in slots)
        if kind is VarType.TUPLE:
            types = typed.tuple.element_type
            var.element_types = tuple(self.element(t, f"{path}.tuple", frozenset(VarType)) for t in types)
        var.stated = frozenset(stated)
        return var

    def tensor(self, desc: Any, path: str) -> tuple[tuple[int, ...], VarType]:
        # Any negative dimension is an unknown one: Fluid writes products such as -1 * 8 for the rows of normalisations.
        return tuple(desc.dims), self.element(desc.data_type, f"{path}.data_type", _ELEMENT_TYPES)

    def element(self, number: int, path: str, allowed: frozenset[int]) -> VarType:
        if number not in allowed:
            raise self.fail(path, f"unknown type number {number}")
        return VarType(number)

    def level(self, desc: Any, path: str) -> int:
        if not 0 <= desc.lod_level <= 64:
            raise self.fail(f"{path}.lod_level", f"expected a number of LoD levels, found {desc.lod_level}")
        return int(desc.lod_level)

    # ---- operators ---------------------------------------------------------------------------
    def operator(self, block: Block, desc: Any, path: str) -> None:
        kind = self.text(desc.type, f"{path}.type")
        path = f"{path} ({kind})"
        if not kind:
            raise self.fail(path, "the operator has no type")
        op = Operator(block, kind, site=_NO_SITE)
        op.site = None
        op.inputs = self.slots(desc.inputs, f"{path}.inputs")
        op.outputs = self.slots(desc.outputs, f"{path}.outputs")
        op.is_target = desc.is_target
        kinds: dict[str, AttrType] = {}
        installed = library.installed()
        declared = installed.attr_types(kind) if installed is not None else {}
        for n, attr in enumerate(desc.attrs):
            name = self.text(attr.name, f"{path}.attrs[{n}].name")
            if name in kinds:
                raise self.fail(f"{path}.attrs[{n}]", f"attribute {name!r} is given twice")
            if not 0 <= attr.type < len(AttrType):
                raise self.fail(
                    f"{path}.attrs[{n}] ({name})", f"expected an attribute type from 0 to 11, found {attr.type}"
                )
            kinds[name] = AttrType(attr.type)
            wanted = declared.get(name, kinds[name])
            if _FAMILY[wanted] != _FAMILY[kinds[name]]:
                raise self.fail(f"{path}.attrs[{n}] ({name})", f"expected {wanted.name}, found {kinds[name].name}")
            op._attrs[name] = self.attribute(attr, f"{path}.attrs[{n}] ({name})")
        op.attr_kinds = kinds
        block.ops.append(op)
        for name in op.output_arg_names:
            var = block._find_var_recursive(name)
            if var is not None:
                var.op = op

    def slots(self, descs: Any, path: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for n, desc in enumerate(descs):
            slot = self.text(desc.parameter, f"{path}[{n}].parameter")
            if slot in found:
                raise self.fail(f"{path}[{n}]", f"slot {slot!r} is given twice")
            found[slot] = [self.text(a, f"{path}[{n}] ({slot})") for a in desc.arguments]
        return found

    def attribute(self, attr: Any, path: str) -> Any:
        kind = AttrType(attr.type)
        field, repeated = VALUE_FIELDS[kind]
        if not repeated and not attr.HasField(field):
            raise self.fail(path, f"the attribute is of type {kind.name} and has no value ({field})")
        value = getattr(attr, field)
        take = _TAKE.get(kind)
        if kind in (AttrType.BLOCK, AttrType.BLOCKS):
            return [self.sub_block(i, path) for i in value] if repeated else self.sub_block(value, path)
        if repeated:
            return list(value) if take is None else [take(v) for v in value]
        return value if take is None else take(value)

    def sub_block(self, idx: int, path: str) -> Block:
        blocks = self.result.blocks
        if not 0 < idx < len(blocks):
            raise self.fail(path, f"expected a Block from 1 to {len(blocks) - 1}, found {idx}")
        return blocks[idx]

    def text(self, raw: bytes, path: str) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.fail(path, f"expected UTF-8, found {raw[:40]!r} ({error.reason})") from None


def _loose_text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")  # attributes may hold any bytes; encoded back the same way


# Types that stand for each other: writers of other versions gave numbers another width.
_FAMILY: dict[AttrType, str] = {
    **dict.fromkeys((AttrType.INT, AttrType.LONG, AttrType.FLOAT, AttrType.BOOLEAN), "number"),
    **dict.fromkeys((AttrType.INTS, AttrType.LONGS, AttrType.FLOATS, AttrType.BOOLEANS), "numbers"),
    **{kind: kind.name for kind in (AttrType.STRING, AttrType.STRINGS, AttrType.BLOCK, AttrType.BLOCKS)},
}
_TAKE: dict[AttrType, Callable[[Any], Any]] = {AttrType.STRING: _loose_text, AttrType.STRINGS: _loose_text}
_NO_SITE: Any = ("", 0, "")  # keeps Operator from looking for the user's line
