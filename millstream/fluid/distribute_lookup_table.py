"""``fluid.distribute_lookup_table``: which embedding of a Program is marked as distributed."""

from __future__ import annotations

from millstream.errors import InvalidProgramError
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.variable import Variable

__all__ = [
    "find_distributed_lookup_table",
    "find_distributed_lookup_table_inputs",
    "find_distributed_lookup_table_outputs",
]
LOOKUP_TABLE_TYPE = "lookup_table"
_LOOKUPS = (LOOKUP_TABLE_TYPE,)


def _lookups(program: Program) -> list[Operator]:
    return [op for op in program.global_block().ops if op.type in _LOOKUPS]


def _of_table(program: Program, table_name: str) -> list[Operator]:
    return [op for op in _lookups(program) if op.input("W")[0] == table_name]


def find_distributed_lookup_table_inputs(program: Program, table_name: str) -> list[Variable]:
    """The ids that are looked up in table `table_name`."""
    block = program.current_block()
    return [block.var(name) for op in _of_table(program, table_name) for name in op.input("Ids")]


def find_distributed_lookup_table_outputs(program: Program, table_name: str) -> list[Variable]:
    """The rows that come out of table `table_name`."""
    block = program.current_block()
    return [block.var(name) for op in _of_table(program, table_name) for name in op.output("Out")]


def find_distributed_lookup_table(program: Program) -> str | None:
    """The name of the table of ``layers.embedding(is_distributed=True)``; None when there is none.

    Raises InvalidProgramError: two such tables, or one that another embedding uses as an ordinary one.
    """
    tables = {op.input("W")[0] for op in _lookups(program) if op.attr("is_distributed")}
    if len(tables) > 1:
        raise InvalidProgramError(f"all distributed lookup tables must be one, received {', '.join(sorted(tables))}")
    name = next(iter(tables), None)
    for op in _lookups(program):
        if name is not None and op.input("W")[0] == name and not op.attr("is_distributed"):
            raise InvalidProgramError(f"table {name!r} is used by an embedding with is_distributed=False too")
    return name
