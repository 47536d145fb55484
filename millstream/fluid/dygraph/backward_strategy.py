"""``fluid.dygraph.backward_strategy``."""

from millstream.runtime.eager import BackwardStrategy

__all__ = ["BackwardStrategy"]
