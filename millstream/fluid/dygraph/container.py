"""``fluid.dygraph.container``: Sequential, LayerList, ParameterList."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from millstream.errors import ArgumentError, MissingEntryError
from millstream.fluid.dygraph.layers import Layer
from millstream.runtime.eager import ParamBase

__all__ = ["LayerList", "ParameterList", "Sequential"]


class Sequential(Layer):
    """Layers that run one after another.

    Args:
        *layers: Layers, or (name, Layer) pairs.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__()
        if layers and isinstance(layers[0], (list, tuple)):
            for name, layer in layers:
                self.add_sublayer(name, layer)
        else:
            for i, layer in enumerate(layers):
                self.add_sublayer(str(i), layer)

    def _key(self, name: Any) -> str:
        key = str(name)
        if key not in self._sub_layers and isinstance(name, int) and -len(self) <= name < len(self):
            return list(self._sub_layers)[name]
        return key

    def __getitem__(self, name: Any) -> Layer:
        return self._sub_layers[self._key(name)]

    def __setitem__(self, name: Any, layer: Layer) -> None:
        self.add_sublayer(self._key(name), layer)

    def __delitem__(self, name: Any) -> None:
        del self._sub_layers[self._key(name)]

    def __len__(self) -> int:
        return len(self._sub_layers)

    def forward(self, input: Any) -> Any:
        for layer in self._sub_layers.values():
            input = layer(input)
        return input


class LayerList(Layer):
    """A list of layers whose parameters are this layer's."""

    def __init__(self, sublayers: Iterable[Layer] | None = None) -> None:
        super().__init__()
        self.extend(sublayers or ())

    def _index(self, idx: Any) -> str:
        i = int(idx)
        if not -len(self) <= i < len(self):
            raise MissingEntryError(f"LayerList: index {i} of {len(self)} layers")
        return str(i % len(self))

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return type(self)(list(self._sub_layers.values())[idx])
        return self._sub_layers[self._index(idx)]

    def __setitem__(self, idx: Any, sublayer: Layer) -> None:
        self.add_sublayer(self._index(idx), sublayer)

    def __delitem__(self, idx: Any) -> None:
        kept = list(self._sub_layers.values())
        del kept[idx]
        self._renumber(kept)

    def _renumber(self, layers: list[Layer]) -> None:
        self._sub_layers.clear()
        for i, layer in enumerate(layers):
            self.add_sublayer(str(i), layer)

    def __len__(self) -> int:
        return len(self._sub_layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(list(self._sub_layers.values()))

    def append(self, sublayer: Layer) -> LayerList:
        """Add a layer at the end."""
        self.add_sublayer(str(len(self)), sublayer)
        return self

    def insert(self, index: int, sublayer: Layer) -> None:
        """Add a layer before `index`."""
        if not isinstance(index, int) or not -len(self) <= index <= len(self):
            raise IndexError(f"LayerList.insert: index {index} of {len(self)} layers")
        if not isinstance(sublayer, Layer):
            raise ArgumentError(f"LayerList.insert takes a Layer, received {type(sublayer).__name__}")
        layers = list(self._sub_layers.values())
        layers.insert(index, sublayer)
        self._renumber(layers)

    def extend(self, sublayers: Iterable[Layer]) -> LayerList:
        """Add layers at the end."""
        for layer in sublayers:
            self.append(layer)
        return self


class ParameterList(Layer):
    """A list of parameters."""

    def __init__(self, parameters: Iterable[ParamBase] | None = None) -> None:
        super().__init__()
        for param in parameters or ():
            self.append(param)

    def _index(self, idx: Any) -> str:
        i = int(idx)
        if not -len(self) <= i < len(self):
            raise IndexError(f"ParameterList: index {i} of {len(self)} parameters")
        return str(i % len(self))

    def __getitem__(self, idx: Any) -> Any:
        return getattr(self, self._index(idx))

    def __setitem__(self, idx: Any, param: ParamBase) -> None:
        setattr(self, self._index(idx), param)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def append(self, parameter: ParamBase) -> ParameterList:
        """Add a parameter at the end."""
        self.add_parameter(str(len(self)), parameter)
        return self
