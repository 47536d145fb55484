"""``fluid.transpiler``."""

from millstream.fluid.memory_optimization import memory_optimize, release_memory
from millstream.fluid.transpiler import collective, distribute_transpiler, geo_sgd_transpiler, ps_dispatcher
from millstream.fluid.transpiler.distribute_transpiler import DistributeTranspiler, DistributeTranspilerConfig
from millstream.fluid.transpiler.ps_dispatcher import HashName, RoundRobin

__all__ = [
    "DistributeTranspiler",
    "DistributeTranspilerConfig",
    "HashName",
    "RoundRobin",
    "collective",
    "distribute_transpiler",
    "geo_sgd_transpiler",
    "memory_optimize",
    "ps_dispatcher",
    "release_memory",
]
