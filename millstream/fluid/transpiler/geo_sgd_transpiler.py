"""``fluid.transpiler.geo_sgd_transpiler``."""

from millstream.fluid.transpiler.distribute_transpiler import DistributeTranspiler

__all__ = ["GeoSgdTranspiler"]


class GeoSgdTranspiler(DistributeTranspiler):
    """Would cut a Program for asynchronous servers. Raises NotSupportedError when it is made."""
