"""``fluid.transpiler.memory_optimization_transpiler``, where 1.x programs import these from."""

from millstream.fluid.memory_optimization import memory_optimize, release_memory

__all__ = ["memory_optimize", "release_memory"]
