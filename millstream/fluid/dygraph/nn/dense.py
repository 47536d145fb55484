"""Linear, Embedding, and other layers of matrix products."""

from __future__ import annotations

from typing import Any

from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.initializer import Constant
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    check_choice,
    check_variable_and_dtype,
    refuse,
    refuse_type,
)
from millstream.ir import mode
from millstream.ops.fused.layers import ACTIVATIONS


class Linear(Layer):
    """act(input * weight + bias): [..., input_dim] -> [..., output_dim]."""

    def __init__(
        self, input_dim: int, output_dim: int, param_attr: Any = None, bias_attr: Any = None, act: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        if param_attr is False:
            refuse_type("Linear", "'param_attr' must not be False: the layer needs its weight")
        self._act, self._dtype = act, dtype
        self.weight = self.create_parameter([input_dim, output_dim], param_attr, dtype)
        self.bias = self.create_parameter([output_dim], bias_attr, dtype, is_bias=True)

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        helper, weight, bias = self._helper, self.weight, self.bias
        if bias is not None and mode.runs_at_once() and _is_one_layer(input, weight, bias):
            act = self._act if self._act in ACTIVATIONS else None
            attrs = {"rows": input._ivar.dim() - 1, "activation": act or ""}
            out = helper.run("dense_layer", {"X": [input], "W": [weight], "Bias": [bias]}, attrs, input.dtype)
            return out if act is not None else helper.append_activation(out, act=self._act)
        attrs = {"transpose_X": False, "transpose_Y": False, "alpha": 1.0}
        out = helper.run("matmul", {"X": [input], "Y": [weight]}, attrs, input.dtype)
        return helper.append_activation(helper.add_bias(out, bias, len(input.shape) - 1), act=self._act)


def _is_one_layer(x: Any, weight: Any, bias: Any) -> bool:
    """Whether an operator of product, sum and activation does what the three do: what is odd is left to these."""
    x, w, b = x._ivar, weight._ivar, bias._ivar
    return (
        getattr(x, "is_cpu", False)
        and x.dim() >= 2
        and x.shape[-1] == w.shape[0]
        and x.numel() > 0
        and x.dtype is w.dtype is b.dtype
        and x.itemsize >= 4
        and b.shape == w.shape[1:]
    )


class Embedding(Layer):
    """Rows of a table: ids [...] -> [..., size[1]].

    Args:
        size: [number of rows, width].
        is_sparse: the gradient is SelectedRows.
        is_distributed: accepted; the table is one tensor here.
        padding_idx: ids equal to it give zeros; negative counts from the end.
        name_scope: (form of 1.5) accepted, also as first argument: prefix of the parameter's name.
    """

    def __init__(
        self, size: Any, is_sparse: Any = False, is_distributed: Any = False, padding_idx: Any = None,
        param_attr: Any = None, dtype: Any = "float32", **old: Any,
    ) -> None:  # fmt: skip
        scope = old.pop("name_scope", None)
        if old:
            raise TypeError(f"Embedding: unexpected argument {sorted(old)[0]!r}")
        if isinstance(size, str):  # (name_scope, size, is_sparse, …) of 1.5
            scope, size, is_sparse, is_distributed = size, is_sparse, is_distributed, False
        super().__init__(scope)
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            refuse("Embedding", f"'size' must be [rows, width], received {size!r}")
        if param_attr is False:
            refuse_type("Embedding", "'param_attr' must not be False: the layer needs its table")
        rows = int(size[0])
        if padding_idx is not None and not -rows <= padding_idx < rows:
            refuse("Embedding", f"'padding_idx' must be in [-{rows}, {rows}), received {padding_idx}")
        padding = -1 if padding_idx is None else padding_idx if padding_idx >= 0 else rows + padding_idx
        self._size, self._dtype = list(size), dtype
        self._attributes = {
            "is_sparse": bool(is_sparse),
            "is_distributed": bool(is_distributed),
            "remote_prefetch": False,
            "padding_idx": padding,
        }
        self.weight = self.create_parameter(self._size, param_attr, dtype)

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", INDICES, self._full_name)
        inputs = {"Ids": [input], "W": [self.weight]}
        return self._helper.run("lookup_table_v2", inputs, self._attributes, self._dtype)


class PRelu(Layer):
    """max(0, x) + weight * min(0, x).

    Args:
        mode: "all": one weight; "channel": one for each of `channel` channels; "element": one for each element of a
            sample of shape `input_shape[1:]`.
    """

    def __init__(
        self, mode: str, channel: int | None = None, input_shape: Any = None, param_attr: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__("prelu")
        check_choice(mode, "mode", ("all", "channel", "element"), "PRelu")
        self._mode, self._dtype = mode, dtype
        if mode == "all":
            shape = [1]
        elif mode == "channel":
            if not isinstance(channel, int):
                refuse("PRelu", f"mode 'channel' needs the int 'channel', received {channel!r}")
            shape = [1, channel, 1, 1]
        else:
            if not isinstance(input_shape, (list, tuple)):
                refuse("PRelu", f"mode 'element' needs the list 'input_shape', received {input_shape!r}")
            shape = [1, *list(input_shape)[1:]]
        self.weight = self.create_parameter(shape, param_attr, dtype, default_initializer=Constant(1.0))

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        return self._helper.run("prelu", {"X": [input], "Alpha": [self.weight]}, {"mode": self._mode}, input.dtype)


class BilinearTensorProduct(Layer):
    """act(x W_k y + b_k): ([batch, input1_dim], [batch, input2_dim]) -> [batch, output_dim]."""

    def __init__(
        self, input1_dim: int, input2_dim: int, output_dim: int, name: str | None = None, act: Any = None,
        param_attr: Any = None, bias_attr: Any = None, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        if param_attr is False:
            refuse_type("BilinearTensorProduct", "'param_attr' must not be False: the layer needs its weight")
        self._act, self._dtype, self._name = act, dtype, name
        self.weight = self.create_parameter([output_dim, input1_dim, input2_dim], param_attr, dtype)
        self.bias = self.create_parameter([1, output_dim], bias_attr, dtype, is_bias=True)

    def forward(self, x: Any, y: Any) -> Any:
        for value, argument in ((x, "x"), (y, "y")):
            check_variable_and_dtype(value, argument, FLOATS, self._full_name)
        inputs = {"X": [x], "Y": [y], "Weight": [self.weight]}
        if self.bias is not None:
            inputs["Bias"] = [self.bias]
        name = f"{self._full_name}.{self._name}" if self._name is not None else None
        out = self._helper.create_variable(name=name, dtype=self._dtype)
        self._helper.append_op(type="bilinear_tensor_product", inputs=inputs, outputs={"Out": [out]}, attrs={})
        return self._helper.append_activation(out, act=self._act)


class GRUUnit(Layer):
    """One step of a gated recurrent unit (Cho et al., 2014, arXiv:1406.1078).

    Args:
        size: three times the hidden size D.
        activation: of the candidate; gate_activation: of the gates; "identity", "sigmoid", "tanh" or "relu".
        origin_mode: has no effect, as in 1.8.5: h = (1 - u) * h_prev + u * c (``fluid.layers.gru_unit`` has both forms).

    forward(input [batch, 3D], hidden [batch, D]) -> (hidden, reset hidden, gates).
    """

    _ACTIVATIONS = {"identity": 0, "sigmoid": 1, "tanh": 2, "relu": 3}

    def __init__(
        self, size: int, param_attr: Any = None, bias_attr: Any = None, activation: str = "tanh",
        gate_activation: str = "sigmoid", origin_mode: bool = False, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        for value, argument in ((activation, "activation"), (gate_activation, "gate_activation")):
            check_choice(value, argument, tuple(self._ACTIVATIONS), "GRUUnit")
        if not isinstance(size, int) or size <= 0 or size % 3:
            refuse("GRUUnit", f"'size' must be three times the hidden size, received {size!r}")
        self._dtype = dtype
        self._attributes = {
            "activation": self._ACTIVATIONS[activation],
            "gate_activation": self._ACTIVATIONS[gate_activation],
        }
        self.weight = self.create_parameter([size // 3, size], param_attr, dtype)
        self.bias = self.create_parameter([1, size], bias_attr, dtype, is_bias=True)

    def forward(self, input: Any, hidden: Any) -> tuple[Any, Any, Any]:
        for value, argument in ((input, "input"), (hidden, "hidden")):
            check_variable_and_dtype(value, argument, FLOATS, self._full_name)
        inputs = {"Input": [input], "HiddenPrev": [hidden], "Weight": [self.weight]}
        if self.bias is not None:
            inputs["Bias"] = [self.bias]
        gate, reset, updated = (self._helper.create_variable_for_type_inference(self._dtype) for _ in range(3))
        outputs = {"Gate": [gate], "ResetHiddenPrev": [reset], "Hidden": [updated]}
        self._helper.append_op(type="gru_unit", inputs=inputs, outputs=outputs, attrs=self._attributes)
        return updated, reset, gate
