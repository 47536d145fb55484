"""Places inside a Program, as Fluid up to 0.15 spread work over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import check_choice, check_variable, refuse
from millstream.ir import names
from millstream.ir.types import VarType

__all__ = ["ParallelDo", "get_places"]


def get_places(device_count: int | None = None, device_type: str | None = None) -> Any:
    """A PLACE_LIST Variable for `ParallelDo`.

    Args:
        device_count: how many, all when None; device_type: 'CPU', 'CUDA' or 'AUTO' (None).
    """
    layer = "get_places"
    if device_type is not None:
        check_choice(device_type, "device_type", ("CPU", "CUDA", "AUTO"), layer)
    helper = LayerHelper(layer)
    out = helper.create_variable(name=names.generate(helper.name + ".out"), type=VarType.PLACE_LIST)
    attrs: dict[str, Any] = {}
    if device_count is not None:
        attrs["device_count"] = int(device_count)
    if device_type is not None:
        attrs["device_type"] = device_type
    helper.append_op(type=layer, outputs={"Out": [out]}, attrs=attrs)
    out.stop_gradient = True
    return out


class ParallelDo:
    """A part of a network for each place (Fluid up to 1.1). All of it runs here, on one place, over the whole batch.

    Args:
        places: of `get_places`; use_nccl, name: accepted, without meaning on one place.

    Use::

        pd = fluid.layers.ParallelDo(fluid.layers.get_places())
        with pd.do():
            x = pd.read_input(image)
            pd.write_output(network(x))
        out = pd()
    """

    def __init__(self, places: Any, use_nccl: bool = False, name: str | None = None) -> None:
        check_variable(places, "places", "ParallelDo")
        self._outputs: list[Any] = []
        self._state = "before"

    @contextmanager
    def do(self) -> Iterator[None]:
        """What is built inside is the part."""
        if self._state != "before":
            refuse("ParallelDo", "do() can be entered once")
        self._state = "in"
        yield
        self._state = "after"

    def _inside(self, what: str) -> None:
        if self._state != "in":
            refuse("ParallelDo", f"{what} belongs inside `with pd.do():`")

    def read_input(self, var: Any) -> Any:
        """This place's share of `var`: all of it."""
        self._inside("read_input()")
        check_variable(var, "var", "ParallelDo.read_input")
        return var

    def write_output(self, var: Any) -> None:
        """`var` of every place is an output."""
        self._inside("write_output()")
        check_variable(var, "var", "ParallelDo.write_output")
        self._outputs.append(var)

    def __call__(self) -> Any:
        """The outputs of all places, joined: one Variable or a list."""
        if self._state != "after" or not self._outputs:
            refuse("ParallelDo", "its outputs exist only after do(), and when write_output() was called")
        return self._outputs[0] if len(self._outputs) == 1 else list(self._outputs)
