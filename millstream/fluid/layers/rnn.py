"""``fluid.layers.rnn``: recurrent layers, cells and decoders under the module name that 1.7 and 1.8 gave them."""

from millstream.fluid.layers import cells as _cells
from millstream.fluid.layers import recurrent as _recurrent

__all__ = [*_cells.__all__, *_recurrent.__all__]
_here = globals()
for _room in (_cells, _recurrent):
    _here.update((_name, getattr(_room, _name)) for _name in _room.__all__)
