"""The intermediate representation: Program, Block, Operator, Variable as plain data."""

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ir.program import (
    Program,
    default_main_program,
    default_startup_program,
    name_scope,
    program_guard,
    switch_main_program,
    switch_startup_program,
)
from millstream.ir.types import AttrType, VarType, dtype_name, to_numpy_dtype, to_var_type
from millstream.ir.variable import Parameter, Variable

__all__ = [
    "AttrType",
    "Block",
    "Operator",
    "Parameter",
    "Program",
    "VarType",
    "Variable",
    "default_main_program",
    "default_startup_program",
    "dtype_name",
    "name_scope",
    "program_guard",
    "switch_main_program",
    "switch_startup_program",
    "to_numpy_dtype",
    "to_var_type",
]
