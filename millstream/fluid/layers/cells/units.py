"""One step of an LSTM or a GRU, from elementary operators; the parameters come with the first call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import refuse
from millstream.fluid.layers.nn.dense import matmul
from millstream.fluid.layers.nn.elementwise import elementwise_add, elementwise_mul
from millstream.fluid.layers.nn.manipulate import split
from millstream.fluid.layers.ops import sigmoid, tanh
from millstream.fluid.layers.tensor import concat, fill_constant
from millstream.fluid.param_attr import ParamAttr
from millstream.ir import names

__all__ = ["GRUUnit", "LSTMUnit"]


def suffixed(attr: Any, suffix: str) -> Any:
    """`attr` with `suffix` after its name; unnamed ones (and False) as they are."""
    attr = ParamAttr._to_attr(attr)
    if not isinstance(attr, ParamAttr) or attr.name is None:
        return attr
    attr = copy.deepcopy(attr)
    attr.name += suffix
    return attr


class _Unit:
    """Name, parameters and activations of a step.

    Args:
        name_scope: prefix of the names: ``<name_scope>/<kind>_<n>``.
        param_attr, bias_attr: of the weights and the biases (False: none).
        gate_activation, activation: functions of a Variable, sigmoid and tanh by default.
        full_name: instead of a new name.
    """

    kind = ""

    def __init__(
        self,
        name_scope: str,
        hidden_size: int,
        param_attr: Any = None,
        bias_attr: Any = None,
        gate_activation: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
        dtype: Any = "float32",
        full_name: str | None = None,
    ) -> None:
        self.full_name = full_name or names.generate(f"{name_scope}/{self.kind}")
        self.hidden_size = hidden_size
        self.param_attr, self.bias_attr = param_attr, bias_attr
        self.gate_activation = gate_activation or sigmoid
        self.activation = activation or tanh
        self.dtype = dtype
        self.input_size: int | None = None

    def _parameter(self, attr: Any, shape: list[int], is_bias: bool = False) -> Any:
        helper = LayerHelper(self.full_name, name=self.full_name)
        start = Constant(0.0) if is_bias else None
        return helper.create_parameter(attr=attr, shape=shape, dtype=self.dtype, is_bias=is_bias, default_initializer=start)

    def _build(self, input: Any) -> None:
        size = int(input.shape[-1])
        if self.input_size is None:
            if size < 1:
                refuse(self.full_name, f"the last dimension of the input must be known, received {input.describe()}")
            self.input_size = size
            self._make_parameters(size)
        elif size != self.input_size:
            refuse(self.full_name, f"made for inputs of size {self.input_size}, received {input.describe()}")

    def _make_parameters(self, size: int) -> None:
        raise NotImplementedError


def _add_bias(x: Any, bias: Any) -> Any:
    return x if bias is None else elementwise_add(x, bias)


class LSTMUnit(_Unit):
    """c = f * c_prev + i * j, h = act(c) * o, gates i, j, f, o of one product with [x, h_prev]; no peepholes.

    Args:
        forget_bias: added to the forget gate before its activation.
    """

    kind = "BasicLSTMUnit"

    def __init__(
        self,
        name_scope: str,
        hidden_size: int,
        param_attr: Any = None,
        bias_attr: Any = None,
        gate_activation: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
        forget_bias: float = 1.0,
        dtype: Any = "float32",
        full_name: str | None = None,
    ) -> None:
        super().__init__(name_scope, hidden_size, param_attr, bias_attr, gate_activation, activation, dtype, full_name)
        self.forget_bias = fill_constant([1], dtype=dtype, value=forget_bias)
        self.forget_bias.stop_gradient = False

    def _make_parameters(self, size: int) -> None:
        self.weight = self._parameter(self.param_attr, [size + self.hidden_size, 4 * self.hidden_size])
        self.bias = self._parameter(self.bias_attr, [4 * self.hidden_size], is_bias=True)

    def __call__(self, input: Any, pre_hidden: Any, pre_cell: Any) -> tuple[Any, Any]:
        """The new hidden and cell states, [batch, hidden_size]."""
        self._build(input)
        gates = _add_bias(matmul(concat([input, pre_hidden], 1), self.weight), self.bias)
        i, j, f, o = split(gates, num_or_sections=4, dim=-1)
        kept = elementwise_mul(pre_cell, self.gate_activation(elementwise_add(f, self.forget_bias)))
        new_cell = elementwise_add(kept, elementwise_mul(self.gate_activation(i), self.activation(j)))
        return self.activation(new_cell) * self.gate_activation(o), new_cell


class GRUUnit(_Unit):
    """h = u * h_prev + (1 - u) * act([x, r * h_prev] W), gates r, u of one product with [x, h_prev].

    Named parameters become ``<name>_gate`` and ``<name>_candidate``.
    """

    kind = "BasicGRUUnit"

    def _make_parameters(self, size: int) -> None:
        width, hidden = size + self.hidden_size, self.hidden_size
        self.gate_weight = self._parameter(suffixed(self.param_attr, "_gate"), [width, 2 * hidden])
        self.candidate_weight = self._parameter(suffixed(self.param_attr, "_candidate"), [width, hidden])
        self.gate_bias = self._parameter(suffixed(self.bias_attr, "_gate"), [2 * hidden], is_bias=True)
        self.candidate_bias = self._parameter(suffixed(self.bias_attr, "_candidate"), [hidden], is_bias=True)

    def __call__(self, input: Any, pre_hidden: Any) -> Any:
        """The new hidden state, [batch, hidden_size]."""
        self._build(input)
        gates = _add_bias(matmul(concat([input, pre_hidden], 1), self.gate_weight), self.gate_bias)
        r, u = split(self.gate_activation(gates), num_or_sections=2, dim=1)
        candidate = matmul(concat([input, r * pre_hidden], 1), self.candidate_weight)
        candidate = self.activation(_add_bias(candidate, self.candidate_bias))
        return u * pre_hidden + (1 - u) * candidate
