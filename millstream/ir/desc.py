"""What ``program.desc``, ``block.desc``, ``op.desc`` and ``var.desc`` give: the methods of Fluid's descriptions.

They hold nothing: each method reads or writes the Program itself. Names may be str or bytes, as callers of 1.x wrote both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream.ir import library, proto_write
from millstream.ir.types import AttrType, VarType

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program
    from millstream.ir.variable import Variable

__all__ = ["BlockDesc", "OpDesc", "ProgramDesc", "VarDesc"]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


class VarDesc:
    """A variable's name, type, shape and flags."""

    def __init__(self, var: Variable) -> None:
        self._var = var

    def name(self) -> str:
        return self._var.name

    def set_name(self, name: str | bytes) -> None:
        self._var.name = _text(name)

    def shape(self) -> list[int]:
        return list(self._var.shape)

    def set_shape(self, shape: Sequence[int]) -> None:
        self._var.shape = list(shape)

    def dtype(self) -> VarType:
        return self._var.dtype

    def set_dtype(self, dtype: Any) -> None:
        self._var.dtype = dtype

    def type(self) -> VarType:
        return self._var.type

    def set_type(self, type: VarType | int) -> None:
        self._var.type = type

    def lod_level(self) -> int:
        return self._var.lod_level

    def set_lod_level(self, level: int) -> None:
        self._var.lod_level = level

    def persistable(self) -> bool:
        return self._var.persistable

    def set_persistable(self, persistable: bool) -> None:
        self._var.persistable = persistable

    def need_check_feed(self) -> bool:
        return bool(self._var.need_check_feed)

    def set_need_check_feed(self, need: bool) -> None:
        self._var.need_check_feed = bool(need)


class OpDesc:
    """An operator's type, slots and attributes."""

    def __init__(self, op: Operator | None = None) -> None:
        if op is None:  # on its own: an operator of a Program that nobody else sees
            from millstream.ir.program import Program

            op = Program().global_block().desc.append_op()._op
        self._op: Operator = op

    def type(self) -> str:
        return self._op.type

    def set_type(self, type: str) -> None:
        self._op.type = type
        self._op.block._touch()

    def input(self, slot: str) -> list[str]:
        return self._op.input(slot)

    def output(self, slot: str) -> list[str]:
        return self._op.output(slot)

    def input_names(self) -> list[str]:
        return self._op.input_names

    def output_names(self) -> list[str]:
        return self._op.output_names

    def input_arg_names(self) -> list[str]:
        return self._op.input_arg_names

    def output_arg_names(self) -> list[str]:
        return self._op.output_arg_names

    def set_input(self, slot: str, names: list[str]) -> None:
        self._op.set_input(slot, [_text(n) for n in names])

    def set_output(self, slot: str, names: list[str]) -> None:
        self._op.set_output(slot, [_text(n) for n in names])

    def _rename_input(self, old: str, new: str) -> None:
        self._op._rename_input(old, new)

    def _rename_output(self, old: str, new: str) -> None:
        self._op._rename_output(old, new)

    def attr(self, name: str) -> Any:
        return self._op.attr(name)

    def has_attr(self, name: str) -> bool:
        return self._op.has_attr(name)

    def attr_names(self) -> list[str]:
        return self._op.attr_names

    def attr_type(self, name: str) -> AttrType:
        return self._op.attr_type(name)

    def _set_attr(self, name: str, value: Any) -> None:
        self._op._set_attr(name, value)

    set_attr = _set_attr

    def remove_attr(self, name: str) -> None:
        self._op._remove_attr(name)

    def _block_attr_id(self, name: str) -> int:
        return self._op._block_attr_id(name)

    def set_block_attr(self, name: str, block: BlockDesc) -> None:
        self._op._set_attr(name, block._block)

    def block(self) -> BlockDesc:
        return BlockDesc(self._op.block)

    def copy_from(self, other: OpDesc) -> None:
        """Be the operator `other`: type, slots and attributes."""
        mine, theirs = self._op, other._op
        mine.type = theirs.type
        mine.inputs = {slot: list(names) for slot, names in theirs.inputs.items()}
        mine.outputs = {slot: list(names) for slot, names in theirs.outputs.items()}
        mine._attrs = dict(theirs._attrs)
        mine.block._touch()

    def infer_shape(self, block: BlockDesc) -> None:
        """Set shape, dtype and LoD level of the outputs, which `block` must have."""
        found = library.installed()
        if found is not None:
            found.check_and_infer(self._op)

    infer_var_type = infer_shape

    def check_attrs(self) -> None:
        """Nothing to do: attributes are checked where shapes are inferred."""

    def serialize_to_string(self) -> bytes:
        """The bytes of an OpDesc message."""
        return proto_write.write_operator(self._op)


class BlockDesc:
    """A Block's variables and operators."""

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def id(self) -> int:
        return self._block.idx

    def __index__(self) -> int:
        return self._block.idx

    __int__ = __index__

    def __eq__(self, other: object) -> bool:
        return self._block is other._block if isinstance(other, BlockDesc) else self._block.idx == other

    def __hash__(self) -> int:
        return hash(self._block.idx)

    @property
    def parent(self) -> int:
        return self._block.parent_idx

    def op_size(self) -> int:
        return len(self._block.ops)

    def op(self, index: int) -> OpDesc:
        return OpDesc(self._block.ops[index])

    def _insert_op(self, index: int) -> OpDesc:
        """A new operator at `index`, to be filled in."""
        from millstream.ir.operator import Operator

        made = Operator(self._block, "")
        self._block.ops.insert(index, made)
        self._block._touch()
        return OpDesc(made)

    def append_op(self) -> OpDesc:
        """A new operator at the end, to be filled in."""
        return self._insert_op(len(self._block.ops))

    def _prepend_op(self) -> OpDesc:
        """A new operator at the front, to be filled in."""
        return self._insert_op(0)

    def _remove_op(self, start: int, end: int) -> None:
        del self._block.ops[start:end]
        self._block._touch()

    def has_var(self, name: str | bytes) -> bool:
        return self._block.has_var(_text(name))

    def has_var_recursive(self, name: str | bytes) -> bool:
        return self._block._has_var_recursive(_text(name))

    def var(self, name: str | bytes) -> VarDesc:
        """The description of variable `name`, which is made when the Block has none."""
        known = self._block.vars.get(_text(name))
        return VarDesc(self._block.create_var(name=_text(name)) if known is None else known)

    def find_var(self, name: str | bytes) -> VarDesc | None:
        found = self._block.vars.get(_text(name))
        return None if found is None else VarDesc(found)

    find_var_recursive = find_var

    def all_vars(self) -> list[VarDesc]:
        return [VarDesc(v) for v in self._block.vars.values()]

    def _remove_var(self, name: str | bytes) -> None:
        self._block._remove_var(_text(name))

    def _rename_var(self, old: str | bytes, new: str | bytes) -> None:
        self._block._rename_var(_text(old), _text(new))


class ProgramDesc:
    """A Program's Blocks and its bytes."""

    def __init__(self, program: Program | ProgramDesc | bytes | None = None) -> None:
        from millstream.ir.program import Program

        self.program: Program
        if isinstance(program, ProgramDesc):
            self.program = program.program.clone()
        elif isinstance(program, bytes):
            self.program = Program.parse_from_string(program)
        else:
            self.program = Program() if program is None else program

    def append_block(self, parent: BlockDesc) -> BlockDesc:
        """A new Block inside `parent`."""
        current = self.program.current_block_idx
        made = self.program._create_block(parent.id)
        self.program.current_block_idx = current
        return BlockDesc(made)

    def num_blocks(self) -> int:
        return self.program.num_blocks

    def block(self, index: int) -> BlockDesc:
        return BlockDesc(self.program.block(index))

    def serialize_to_string(self) -> bytes:
        return self.program.serialize_to_string()

    def flush(self) -> None:
        """Nothing to do: the Program is the only copy."""
