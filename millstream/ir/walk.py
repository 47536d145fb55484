"""Walks over Programs: uses and definitions, cloning, pruning."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from millstream.errors import FileFormatError, InvalidProgramError
from millstream.ir import library
from millstream.ir.operator import (
    OP_ROLE,
    OP_ROLE_VAR,
    ROLE_BACKWARD,
    ROLE_LOSS,
    ROLE_LR_SCHED,
    ROLE_OPTIMIZE,
    Operator,
)
from millstream.ir.types import VarType
from millstream.ir.variable import Parameter, Variable

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.program import Program

_READ_OPS = frozenset(
    {
        "read",
        "create_py_reader",
        "create_double_buffer_reader",
        "create_custom_reader",
        "create_shuffle_reader",
        "create_batch_reader",
    }
)


def reads_of(op: Operator) -> list[str]:
    """Names the operator reads: its inputs, and what its sub-Blocks read from outside themselves."""
    names = op.input_arg_names
    for block in op.sub_blocks():
        names.extend(outer_reads(block))
    return names


def writes_of(op: Operator) -> list[str]:
    """Names the operator writes: its outputs, and what its sub-Blocks write outside themselves."""
    names = op.output_arg_names
    for block in op.sub_blocks():
        names.extend(outer_writes(block))
    return names


def outer_reads(block: Block) -> list[str]:
    """Variables declared outside `block` that it reads, in first-use order."""
    found: dict[str, None] = {}
    for op in block.ops:
        for name in reads_of(op):
            if name not in block.vars:
                found[name] = None
    return list(found)


def given(block: Block) -> list[str]:
    """Variables of `block` itself that it reads before it writes them: its operator's gifts, as a StaticRNN's memories."""
    found: dict[str, None] = {}
    made: set[str] = set()
    for op in block.ops:
        found.update((name, None) for name in reads_of(op) if name in block.vars and name not in made)
        made.update(writes_of(op))
    return list(found)


def outer_writes(block: Block) -> list[str]:
    """Variables declared outside `block` that it writes, in first-write order."""
    found: dict[str, None] = {}
    for op in block.ops:
        for name in writes_of(op):
            if name not in block.vars:
                found[name] = None
    return list(found)


def needed_ops(block: Block, targets: Iterable[str], stop_at: Iterable[str] = ()) -> list[Operator]:
    """The operators of `block`, in order, that `targets` depend on; does not look behind `stop_at`."""
    need = set(targets)
    stop = set(stop_at)
    kept: list[Operator] = []
    for op in reversed(block.ops):
        if op.is_target or any(n in need and n not in stop for n in writes_of(op)):
            kept.append(op)
            need.update(reads_of(op))
    kept.reverse()
    return kept


def clone(program: Program) -> Program:
    """A deep copy; Parameters stay Parameters."""
    return _copy(program, lambda block: block.ops)


def clone_for_test(program: Program) -> Program:
    """A copy with `is_test` set; where append_backward has marked a loss, without what belongs to training.

    That are the operators of the backward pass, of the optimizer, and of the schedule of its rate: a test must not move
    the counter of steps. Without a loss all stay, gradients that :func:`fluid.gradients` made too.
    """
    trained = any(op.role & ROLE_LOSS for block in program.blocks for op in block.ops)
    training = ROLE_BACKWARD | ROLE_OPTIMIZE | ROLE_LR_SCHED if trained else 0
    new = drop_unreachable_blocks(_copy(program, lambda block: [op for op in block.ops if not op.role & training]))
    new._pass_applied.append("for_test")
    set_is_test(new)
    _drop_unused_grads(new)
    return new


def _drop_unused_grads(program: Program) -> None:
    """Remove gradient variables that no operator mentions any more."""
    used = {n for b in program.blocks for op in b.ops for n in (*op.input_arg_names, *op.output_arg_names)}
    for block in program.blocks:
        for name in [n for n, v in block.vars.items() if "@GRAD" in n and n not in used and not v.persistable]:
            del block.vars[name]


def set_is_test(program: Program) -> None:
    """Set `is_test` on every operator that has it."""
    for block in program.blocks:
        for op in block.ops:
            if op.has_attr("is_test"):
                op._set_attr("is_test", True)


def for_inference(program: Program, prune_read_op: bool = True) -> Program:
    """A copy in inference form: `is_test` set, readers removed."""
    def keep(block: Block) -> list[Operator]:
        if not prune_read_op or block.idx:
            return block.ops
        return [op for op in block.ops if op.type not in _READ_OPS]

    new = _copy(program, keep)
    if prune_read_op:
        root = new.global_block()
        for name in [n for n, v in root.vars.items() if v.type is VarType.READER]:
            del root.vars[name]
    set_is_test(new)
    return new


def prune(program: Program, feeds: Iterable[str], targets: Any) -> Program:
    """A copy with only the operators and variables that `targets` need, given `feeds`.

    Raises InvalidProgramError: a target is not in the Program.
    """
    root = program.global_block()
    names = []
    for t in targets if isinstance(targets, (list, tuple)) else [targets]:
        name = t if isinstance(t, str) else (t.output_arg_names[0] if isinstance(t, Operator) else t.name)
        if root._find_var_recursive(name) is None:
            raise InvalidProgramError(f"prune: target {name!r} is not a variable of the program")
        names.append(name)
    feeds = list(feeds)
    kept = needed_ops(root, names, feeds)
    chosen = {id(op) for op in kept}
    new = _copy(program, lambda block: [op for op in block.ops if id(op) in chosen] if block.idx == 0 else block.ops)
    keep_names = set(names) | set(feeds)
    for op in new.global_block().ops:
        keep_names.update(reads_of(op))
        keep_names.update(writes_of(op))
    new_root = new.global_block()
    for name in [n for n in new_root.vars if n not in keep_names]:
        del new_root.vars[name]
    return drop_unreachable_blocks(new)


def drop_unreachable_blocks(program: Program) -> Program:
    """Remove Blocks that no operator refers to, in place, and renumber the rest; returns `program`."""
    reached: list[Block] = []
    def visit(block: Block) -> None:
        if block in reached:
            return
        reached.append(block)
        for op in block.ops:
            for sub in op.sub_blocks():
                visit(sub)

    visit(program.global_block())
    keep = [b for b in program.blocks if b in reached]
    parents = {id(b): b.parent_block for b in keep}
    program.blocks = keep
    for i, block in enumerate(keep):
        block.idx = i
    for block in keep:
        parent = parents[id(block)]
        block.parent_idx = parent.idx if parent is not None else -1
    program.current_block_idx = 0
    program._touch()
    return program


def _copy(program: Program, ops_of: Any) -> Program:
    new = type(program)()
    new._seed = program._seed
    new.saved_version, new.saved_extra = program.saved_version, program.saved_extra
    new._options = dict(program._options)
    new._is_distributed = program._is_distributed
    new.blocks = []
    for block in program.blocks:
        twin = type(block)(new, block.idx, block.parent_idx)
        twin.forward_block_idx = block.forward_block_idx
        for name, var in block.vars.items():
            twin.vars[name] = copy_var(var, twin)
        new.blocks.append(twin)
    twins: dict[int, Operator] = {}
    for block, twin in zip(program.blocks, new.blocks):
        for op in ops_of(block):
            copied = twins[id(op)] = copy_op(op, twin, new.blocks)
            copied.forward = twins.get(id(op.forward))
            twin.ops.append(copied)
            for name in copied.output_arg_names:
                written = twin._find_var_recursive(name)
                if written is not None:
                    written.op = copied
    new.current_block_idx = program.current_block_idx
    return new


def copy_var(var: Variable, block: Block) -> Variable:
    """The same declaration in another Block."""
    twin = copy.copy(var)
    twin.block = block
    twin.op = None
    if isinstance(twin, Parameter):
        twin.optimize_attr = dict(twin.optimize_attr)
    return twin


def copy_op(op: Operator, block: Block, blocks: list[Block] | None = None) -> Operator:
    """The same operator in another Block; block attributes are mapped onto `blocks` by index."""
    twin = Operator(block, op.type, site=op.site)
    twin.inputs = {s: list(n) for s, n in op.inputs.items()}
    twin.outputs = {s: list(n) for s, n in op.outputs.items()}
    twin._attrs = {k: _map_blocks(v, blocks) for k, v in op._attrs.items()}
    twin.attr_kinds = op.attr_kinds
    twin.is_target = op.is_target
    return twin


def _map_blocks(value: Any, blocks: list[Block] | None) -> Any:
    if blocks is None:
        return value
    if hasattr(value, "idx"):
        return blocks[value.idx]
    if isinstance(value, (list, tuple)) and any(hasattr(v, "idx") for v in value):
        return [blocks[v.idx] for v in value]
    return list(value) if isinstance(value, list) else value


def all_ops(program: Program) -> Iterator[Operator]:
    """Every operator of every Block."""
    for block in program.blocks:
        yield from block.ops


def ends(program: Program, source: str = "<program>") -> tuple[list[str], list[str]]:
    """(names fed, names fetched) by the feed and fetch operators of a saved Program, in the order of their `col`.

    Raises FileFormatError: two have one `col`, or a variable is not declared.
    """
    found: dict[str, dict[int, str]] = {"feed": {}, "fetch": {}}
    ends_of = {"feed": lambda op: op.output("Out"), "fetch": lambda op: op.input("X")}
    root = program.global_block()
    for op in root.ops:
        if op.type not in found:
            continue
        names = ends_of[op.type](op)
        col = op._attrs.get("col")
        if not isinstance(col, int) or len(names) != 1 or names[0] not in root.vars or col in found[op.type]:
            raise FileFormatError(f"{source}: operator {op.type} (col {col!r}, variables {names}) can't be right")
        found[op.type][col] = names[0]
    feeds, fetches = ([by_col[col] for col in sorted(by_col)] for by_col in (found["feed"], found["fetch"]))
    return feeds, fetches


def strip_training_attrs(op: Operator) -> None:
    """Reset the attributes that only training uses."""
    op._attrs[OP_ROLE] = 0
    op._attrs.pop(OP_ROLE_VAR, None)


def declared_types(op: Operator) -> dict[str, Any]:
    """Attribute types from the library (empty without one)."""
    lib = library.installed()
    return lib.attr_types(op.type) if lib is not None else {}
