"""Stacked LSTM and GRU networks from elementary operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.layers._check import check_type, refuse
from millstream.fluid.layers.cells.cell import select
from millstream.fluid.layers.cells.units import GRUUnit, LSTMUnit, suffixed
from millstream.fluid.layers.nn.manipulate import reshape, transpose
from millstream.fluid.layers.nn.manipulate import shape as shape_of
from millstream.fluid.layers.nn.norm import dropout
from millstream.fluid.layers.sequence import sequence_mask
from millstream.fluid.layers.step_rnn import StaticRNN
from millstream.fluid.layers.tensor import concat, reverse

__all__ = ["BasicGRUUnit", "BasicLSTMUnit", "basic_gru", "basic_lstm"]


class BasicLSTMUnit(Layer):
    """One LSTM step as a Layer: ``unit(input, pre_hidden, pre_cell)`` -> (hidden, cell); see `LSTMUnit` for the formula.

    Parameters, made by the first call: ``_weight`` [size + hidden_size, 4 * hidden_size], ``_bias`` [4 * hidden_size].
    """

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
    ) -> None:
        super().__init__(f"{name_scope}/BasicLSTMUnit", dtype)
        self._unit = LSTMUnit(
            name_scope, hidden_size, param_attr, bias_attr, gate_activation, activation, forget_bias, dtype, self.full_name()
        )

    def forward(self, input: Any, pre_hidden: Any, pre_cell: Any) -> tuple[Any, Any]:
        """input [batch, size], states [batch, hidden_size]."""
        first = self._unit.input_size is None
        found = self._unit(input, pre_hidden, pre_cell)
        if first:
            self._weight, self._bias = self._unit.weight, self._unit.bias
        return found


class BasicGRUUnit(Layer):
    """One GRU step as a Layer: ``unit(input, pre_hidden)`` -> hidden; see `GRUUnit` for the formula.

    Parameters, made by the first call: ``_gate_weight`` [size + hidden_size, 2 * hidden_size], ``_candidate_weight``
    [size + hidden_size, hidden_size], ``_gate_bias``, ``_candidate_bias``.
    """

    def __init__(
        self,
        name_scope: str,
        hidden_size: int,
        param_attr: Any = None,
        bias_attr: Any = None,
        gate_activation: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__(f"{name_scope}/BasicGRUUnit", dtype)
        self._unit = GRUUnit(
            name_scope, hidden_size, param_attr, bias_attr, gate_activation, activation, dtype, self.full_name()
        )

    def forward(self, input: Any, pre_hidden: Any) -> Any:
        """input [batch, size], state [batch, hidden_size]."""
        first = self._unit.input_size is None
        found = self._unit(input, pre_hidden)
        if first:
            self._gate_weight, self._candidate_weight = self._unit.gate_weight, self._unit.candidate_weight
            self._gate_bias, self._candidate_bias = self._unit.gate_bias, self._unit.candidate_bias
        return found


class _Network:
    """What both kinds have in common; a state is a tuple of Variables, of one (GRU) or two (LSTM)."""

    def __init__(self, layer: str, hidden_size: int, num_layers: int, dropout_prob: float, bidirectional: bool) -> None:
        check_type(hidden_size, "hidden_size", int, layer)
        check_type(num_layers, "num_layers", int, layer)
        if num_layers < 1:
            refuse(layer, f"'num_layers' must be positive, received {num_layers}")
        self.layer = layer
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout_prob = dropout_prob or 0.0
        self.directions = 2 if bidirectional else 1

    def units(self, make: Callable[[str, Any, Any], Any], name: str, param_attr: Any, bias_attr: Any) -> list[list[Any]]:
        """The units of each direction; named parameters become ``<name>_fw_w_<layer>``, ``_bw_b_<layer>`` and so on."""
        found = []
        for scope, way in (("layers", "fw"), ("reverse_layers", "bw"))[: self.directions]:
            units = []
            for i in range(self.num_layers):
                weight, bias = suffixed(param_attr, f"_{way}_w_{i}"), suffixed(bias_attr, f"_{way}_b_{i}")
                units.append(make(f"{name}_{scope}_{i}", weight, bias))
            found.append(units)
        return found

    def initial(self, given: list[Any]) -> list[Any]:
        """Given states [layers * directions, batch, hidden], as [layers, directions, batch, hidden]."""
        shape = [self.num_layers, self.directions, -1, self.hidden_size]
        return [reshape(state, shape) if state is not None else None for state in given]

    def run(self, units: list[Any], states: list[Any], direction: int, x: Any, mask: Any) -> tuple[Any, list[Any]]:
        """One direction over `x` [T, batch, size]: outputs and, for each kind of state, [layers, batch, hidden]."""
        starts = [[state[i, direction] if state is not None else None for state in states] for i in range(self.num_layers)]
        unrolled = StaticRNN()
        with unrolled.step():
            flow = unrolled.step_input(x)
            step_mask = unrolled.step_input(mask) if mask is not None else None
            for unit, start in zip(units, starts):
                old = [self._memory(unrolled, init, x) for init in start]
                new = unit(flow, *old)
                new = list(new) if isinstance(new, tuple) else [new]
                if step_mask is not None:
                    new = [select(before, after, step_mask) for before, after in zip(old, new)]
                for before, after in zip(old, new):
                    unrolled.update_memory(before, after)
                for after in new:
                    unrolled.step_output(after)
                flow = new[0]
                if self.dropout_prob > 0.0:
                    flow = dropout(flow, dropout_prob=self.dropout_prob, dropout_implementation="upscale_in_train")
            unrolled.step_output(flow)
        collected = unrolled()
        last = [state[-1] for state in collected[:-1]]
        kinds = len(states)
        finals = []
        for k in range(kinds):
            final = concat(last[k::kinds], axis=0)
            finals.append(reshape(final, shape=[self.num_layers, -1, self.hidden_size]))
        return collected[-1], finals

    def _memory(self, unrolled: StaticRNN, init: Any, x: Any) -> Any:
        if init is not None:
            return unrolled.memory(init=init)
        return unrolled.memory(shape=[-1, self.hidden_size], batch_ref=x)

    def __call__(
        self, units: list[list[Any]], input: Any, given: list[Any], sequence_length: Any, batch_first: bool
    ) -> list[Any]:
        """[outputs, one final state of each kind [layers * directions, batch, hidden]]."""
        if batch_first:
            input = transpose(input, [1, 0, 2])
        mask = None
        if sequence_length is not None:
            mask = transpose(sequence_mask(sequence_length, maxlen=shape_of(input)[0], dtype="float32"), [1, 0])
        states = self.initial(given)
        out, finals = self.run(units[0], states, 0, input, mask)
        if self.directions == 2:
            input = reverse(input, axis=[0])
            mask = reverse(mask, axis=[0]) if mask is not None else None
            backward, last = self.run(units[1], states, 1, input, mask)
            out = concat([out, reverse(backward, axis=[0])], axis=2)
            finals = [
                reshape(concat([f, b], axis=1), shape=[self.num_layers * 2, -1, self.hidden_size])
                for f, b in zip(finals, last)
            ]
        if batch_first:
            out = transpose(out, [1, 0, 2])
        return [out, *finals]


def basic_lstm(
    input: Any,
    init_hidden: Any,
    init_cell: Any,
    hidden_size: int,
    num_layers: int = 1,
    sequence_length: Any = None,
    dropout_prob: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = True,
    param_attr: Any = None,
    bias_attr: Any = None,
    gate_activation: Callable[[Any], Any] | None = None,
    activation: Callable[[Any], Any] | None = None,
    forget_bias: float = 1.0,
    dtype: Any = "float32",
    name: str = "basic_lstm",
) -> tuple[Any, Any, Any]:
    """Layers of LSTM without peepholes (Zaremba et al., 2014), in one direction or both.

    Args:
        input: [batch, T, size], or [T, batch, size] unless `batch_first`; T must be known.
        init_hidden, init_cell: [num_layers * directions, batch, hidden_size], zeros if None.
        sequence_length: integers [batch]; states stand still after it.
        dropout_prob: of every layer's outputs, scaled up while training.
        param_attr, bias_attr: named ones become ``<name>_fw_w_<layer>``, ``<name>_bw_w_<layer>`` (``_b_`` for biases).

    Returns:
        outputs [batch, T, hidden_size * directions] (or time major), final hidden and cell states, as `init_hidden`.
    """
    network = _Network("basic_lstm", hidden_size, num_layers, dropout_prob, bidirectional)

    def make(scope: str, weight: Any, bias: Any) -> Any:
        return BasicLSTMUnit(scope, hidden_size, weight, bias, gate_activation, activation, forget_bias, dtype)

    units = network.units(make, name, param_attr, bias_attr)
    out, hidden, cell = network(units, input, [init_hidden, init_cell], sequence_length, batch_first)
    return out, hidden, cell


def basic_gru(
    input: Any,
    init_hidden: Any,
    hidden_size: int,
    num_layers: int = 1,
    sequence_length: Any = None,
    dropout_prob: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = True,
    param_attr: Any = None,
    bias_attr: Any = None,
    gate_activation: Callable[[Any], Any] | None = None,
    activation: Callable[[Any], Any] | None = None,
    dtype: Any = "float32",
    name: str = "basic_gru",
) -> tuple[Any, Any]:
    """Layers of GRU (Cho et al., 2014), in one direction or both; arguments as `basic_lstm`.

    Named parameters become ``<name>_fw_w_<layer>_gate``, ``<name>_fw_w_<layer>_candidate`` and so on.

    Returns:
        outputs and final hidden states, as `basic_lstm`.
    """
    network = _Network("basic_gru", hidden_size, num_layers, dropout_prob, bidirectional)

    def make(scope: str, weight: Any, bias: Any) -> Any:
        return BasicGRUUnit(scope, hidden_size, weight, bias, gate_activation, activation, dtype)

    units = network.units(make, name, param_attr, bias_attr)
    out, hidden = network(units, input, [init_hidden], sequence_length, batch_first)
    return out, hidden
