"""``fluid.layer_helper_base``: the parts of a LayerHelper that need no arguments of a layer."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.layer_helper import LayerHelper
from millstream.ir import mode

__all__ = ["LayerHelperBase"]


class LayerHelperBase(LayerHelper):
    """Makes parameters and variables named after `name`, for layers of kind `layer_type`."""

    def __init__(self, name: str, layer_type: str) -> None:
        super().__init__(layer_type, name=name)

    def to_variable(self, value: Any, name: str | None = None) -> Any:
        """`value` as a variable of the eager mode. InvalidProgramError outside of it."""
        tracer = mode.tracer()
        if tracer is None:
            raise InvalidProgramError("to_variable could only be called in dygraph mode: use fluid.dygraph.guard()")
        from millstream.fluid.dygraph.base import to_variable

        return to_variable(value, name)
