"""Programs, Blocks, variables and operators as the text form of their protobuf messages, which 1.8.5 prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from millstream.errors import ArgumentError
from millstream.ir import proto_write
from millstream.ir.framework import message_class
from millstream.ir.variable import Parameter, Variable

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program

_DETAILS = ("error_clip", "stop_gradient")
_PARAMETER_DETAILS = ("trainable", "optimize_attr", "regularizer", "do_model_average")


def variable_text(var: Variable, details: bool = False) -> str:
    """A VarDesc; with `details` also what no VarDesc holds, which makes it unreadable for a parser of protobuf text."""
    text = _text("VarDesc", proto_write.write_variable(var))
    if details:
        names = _DETAILS + (_PARAMETER_DETAILS if isinstance(var, Parameter) else ())
        text += "".join(f"{name}: {getattr(var, name, None)}\n" for name in names)
    return text


def operator_text(op: Operator) -> str:
    """An OpDesc."""
    return _text("OpDesc", proto_write.write_operator(op))


def block_text(block: Block, details: bool = False) -> str:
    """A BlockDesc; see variable_text for `details`."""
    if not details:
        return _text("BlockDesc", proto_write.write_block(block.program, block, block.idx))
    text = f"idx: {block.idx}\nparent_idx: {block.parent_idx}\n"
    text += "".join(_inside("vars", variable_text(var, True)) for var in block.vars.values())
    return text + "".join(_inside("ops", operator_text(op)) for op in block.ops)


def program_text(program: Program, details: bool = False) -> str:
    """A ProgramDesc; see variable_text for `details`."""
    if not details:
        return _text("ProgramDesc", program.serialize_to_string())
    return "".join(_inside("blocks", block_text(block, True)) for block in program.blocks)


def check_flags(**flags: Any) -> None:
    """ArgumentError unless all are bool."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ArgumentError(f"to_string: {name} must be a bool, received {type(value).__name__}")


def _inside(field: str, text: str) -> str:
    return f"{field} {{\n" + "".join(f"  {line}" for line in text.splitlines(True)) + "}\n"


def _text(message: str, data: bytes) -> str:
    return str(text_format.MessageToString(message_class(message).FromString(data)))
