"""``fluid.compiler``: Programs for several places, and how to run them."""

from millstream.runtime.compiler import BuildStrategy, CompiledProgram, ExecutionStrategy

__all__ = ["BuildStrategy", "CompiledProgram", "ExecutionStrategy"]
