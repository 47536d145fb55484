"""``fluid.dygraph_utils``: bias and activation of a layer in eager mode."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper

__all__: list[str] = []


def _append_activation_in_dygraph(
    input: Any, act: str | None = None, use_cudnn: bool | None = None, use_mkldnn: bool | None = None
) -> Any:
    """`act` of `input`, or `input`. `use_cudnn`, `use_mkldnn` mean nothing here."""
    return input if act is None else LayerHelper("activation", act=act).append_activation(input)


def _append_bias_in_dygraph(input: Any, bias: Any = None, axis: int = 1) -> Any:
    """`input` + `bias` over dimension `axis`, or `input`."""
    if bias is None:
        return input
    helper = LayerHelper("bias")
    out = helper.create_variable_for_type_inference(input.dtype)
    inputs = {"X": [input], "Y": [bias]}
    helper.append_op(type="elementwise_add", inputs=inputs, outputs={"Out": [out]}, attrs={"axis": axis})
    return out
