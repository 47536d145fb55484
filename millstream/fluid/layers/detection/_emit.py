"""One operator with several outputs, created in the order given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.fluid.layer_helper import LayerHelper


def emit(
    layer: str,
    inputs: dict[str, Any],
    outputs: Sequence[tuple[str, Any]],
    attrs: dict[str, Any] | None = None,
    *,
    op_type: str | None = None,
    name: str | None = None,
    constant: bool | Sequence[str] = False,
) -> list[Any]:
    """Append `op_type` (or `layer`) and return its outputs.

    Args:
        outputs: (slot, dtype) pairs.
        constant: which outputs carry no gradient: all of them, none, or the slots named.
    """
    helper = LayerHelper(layer, name=name)
    made = {}
    for slot, dtype in outputs:
        fixed = constant if isinstance(constant, bool) else slot in constant
        made[slot] = helper.create_variable_for_type_inference(dtype, stop_gradient=fixed)
    helper.append_op(
        type=op_type or layer,
        inputs={slot: value if isinstance(value, list) else [value] for slot, value in inputs.items() if value is not None},
        outputs={slot: [var] for slot, var in made.items()},
        attrs=attrs or {},
    )
    return list(made.values())
