"""``fluid.dygraph.layer_object_helper``: a LayerHelper that belongs to a Layer object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.fluid.dygraph.base import to_variable
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.param_attr import ParamAttr
from millstream.ir import mode

__all__ = ["LayerObjectHelper"]


class LayerObjectHelper(LayerHelper):
    """Names parameters after the layer object `name` and makes its operators."""

    def __init__(self, name: str) -> None:
        super().__init__(name, name=name)

    def to_variable(self, value: Any, name: str | None = None) -> Any:
        """fluid.dygraph.to_variable."""
        return to_variable(value, name)

    def input_dtype(self, inputs_in: Any) -> Any:  # type: ignore[override]
        """The one dtype of `inputs_in`."""
        helper = LayerHelper(self.layer_type, name=self.name, input=inputs_in)
        return helper.input_dtype()

    def iter_inputs_and_params(self, inputs_in: Any, param_attr_in: Any = None) -> Iterator[tuple[Any, Any]]:  # type: ignore[override]
        """Each of `inputs_in` with its ParamAttr."""
        attr = ParamAttr._to_attr(param_attr_in)
        helper = LayerHelper(self.layer_type, name=self.name, input=inputs_in, param_attr=attr)
        return helper.iter_inputs_and_params()

    def append_activation(  # type: ignore[override]
        self, input_var: Any, act: Any = None, use_cudnn: bool | None = None, use_mkl_dnn: bool | None = None
    ) -> Any:
        """Apply `act`: a name, or a dict with `type` and attributes. `use_cudnn`, `use_mkl_dnn` mean nothing here."""
        if act is None:
            return input_var
        if isinstance(act, str) and mode.tracer() is not None:
            return self.run(act, {"X": [input_var]}, None, input_var.dtype)
        return LayerHelper(self.layer_type, name=self.name, act=act).append_activation(input_var)

    def is_instance(self, param: Any, cls: type) -> None:  # type: ignore[override]
        """TypeError unless `param` is an instance of `cls`."""
        if not isinstance(param, cls):
            raise TypeError(f"{self.name}: expected {cls.__name__}, received {type(param).__name__}")

    # ---- what the layer classes write their forward() with ---------------------------------------
    def run(self, op_type: str, inputs: dict[str, Any], attrs: dict[str, Any] | None, dtype: Any, slot: str = "Out") -> Any:
        """Append an operator with one output and return it."""
        eager: Any = mode.tracer()
        if eager is not None:
            out = eager.new_result(dtype)
            eager.trace_op(op_type, inputs, {slot: [out]}, attrs)
            return out
        out = self.create_variable_for_type_inference(dtype)
        self.append_op(type=op_type, inputs=inputs, outputs={slot: [out]}, attrs=attrs or {})
        return out

    def add_bias(self, x: Any, bias: Any, axis: int) -> Any:
        """x + bias over dimension `axis`; x when there is no bias."""
        if bias is None:
            return x
        return self.run("elementwise_add", {"X": [x], "Y": [bias]}, {"axis": axis}, x.dtype)
