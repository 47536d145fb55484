"""``fluid.layers.sequence_lod``: the sequence layers under the module name that 1.7 and 1.8 gave them."""

from millstream.fluid.layers import sequence as _sequence

__all__ = list(_sequence.__all__)
globals().update((_name, getattr(_sequence, _name)) for _name in __all__)
