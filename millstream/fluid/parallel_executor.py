"""``fluid.parallel_executor``: data parallelism as it was before CompiledProgram."""

from millstream.runtime.compiler import BuildStrategy, ExecutionStrategy, ParallelExecutor

__all__ = ["BuildStrategy", "ExecutionStrategy", "ParallelExecutor"]
