"""``fluid.transpiler``."""

from millstream.fluid.memory_optimization import memory_optimize, release_memory

__all__ = ["memory_optimize", "release_memory"]
