"""``fluid.dygraph.dygraph_to_static``: Programs from Python functions."""

from millstream.fluid.dygraph.dygraph_to_static import convert, partial_program, program_translator, transform
from millstream.fluid.dygraph.dygraph_to_static.convert import call as convert_call
from millstream.fluid.dygraph.dygraph_to_static.program_translator import ProgramTranslator
from millstream.fluid.dygraph.dygraph_to_static.transform import converted as convert_to_static

__all__ = [
    "ProgramTranslator",
    "convert",
    "convert_call",
    "convert_to_static",
    "partial_program",
    "program_translator",
    "transform",
]
