"""Checks of a whole Program: what must hold before it runs, and still after a pass has changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.errors import InvalidProgramError
from millstream.ir import library, walk
from millstream.ir.names import EMPTY_VAR
from millstream.ir.types import VarType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program

_UNWRITTEN = frozenset({VarType.LOD_TENSOR_ARRAY, VarType.READER, VarType.RAW, VarType.FEED_MINIBATCH, VarType.FETCH_LIST})


def problems(program: Program, given: Iterable[str] = ()) -> list[str]:
    """What is wrong with `program`, one line each; `given` are variables that have a value before it starts.

    Blocks are nested without gaps; Blocks in attributes belong to the Program; every name is declared in its Block or
    one around it; the global Block reads no variable before the operator that writes it; slots are declared ones.
    """
    found = _blocks(program)
    if found:
        return found
    for block in program.blocks:
        for op in block.ops:
            found += [f"{_place(block, op.type)}: {text}" for text in _operator(program, block, op)]
    return found + _order(program.global_block(), set(given))


def verify(program: Program, given: Iterable[str] = (), after: str = "") -> None:
    """InvalidProgramError with all :func:`problems` of `program`; `after` says what was done to it."""
    found = problems(program, given)
    if found:
        raise InvalidProgramError(f"the Program is not valid{after}:\n    " + "\n    ".join(found))


def _place(block: Block, op_type: str) -> str:
    return f"block {block.idx}, operator {op_type}"


def _blocks(program: Program) -> list[str]:
    found = []
    for i, block in enumerate(program.blocks):
        if block.idx != i:
            found.append(f"block {i} says that it is block {block.idx}")
        if (block.parent_idx >= 0) != (i > 0) or block.parent_idx >= len(program.blocks) or block.parent_idx == i:
            found.append(f"block {i} has block {block.parent_idx} around it, of {len(program.blocks)}")
    return found


def _operator(program: Program, block: Block, op: Operator) -> list[str]:
    found = []
    for sub in op.sub_blocks():
        if sub not in program.blocks:
            found.append(f"it holds a block {sub.idx} that is not the Program's")
    for kind, slots in (("reads", op.inputs), ("writes", op.outputs)):
        for slot, names in slots.items():
            for name in names:
                if name != EMPTY_VAR and not block._has_var_recursive(name):
                    found.append(f"slot {slot} {kind} {name!r}, which no block around it declares")
    installed = library.installed()
    return found + (installed.slot_errors(op) if installed is not None else [])


def _order(root: Block, given: set[str]) -> list[str]:
    writers = {n for op in root.ops for n in walk.writes_of(op)}
    written: set[str] = set()
    found = []
    for op in root.ops:
        for name in walk.reads_of(op):
            if name in written or name in given or name == EMPTY_VAR or name not in writers:
                continue
            var = root._find_var_recursive(name)
            if var is None or var.persistable or var.is_data or var.type in _UNWRITTEN or name in walk.writes_of(op):
                continue
            found.append(f"{_place(root, op.type)}: reads {name!r} before the operator that writes it")
        written.update(walk.writes_of(op))
    return found
