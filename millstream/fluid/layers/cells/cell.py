"""Recurrent cells and their unrolling over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layers._check import check_type, is_variable, refuse, refuse_type
from millstream.fluid.layers.cells._structure import map_structure
from millstream.fluid.layers.cells.units import GRUUnit, LSTMUnit
from millstream.fluid.layers.control_flow import flatten_structure, pack_structure
from millstream.fluid.layers.nn.elementwise import elementwise_mul
from millstream.fluid.layers.nn.manipulate import shape as shape_of
from millstream.fluid.layers.nn.manipulate import transpose
from millstream.fluid.layers.sequence import sequence_mask
from millstream.fluid.layers.step_rnn import StaticRNN
from millstream.fluid.layers.tensor import fill_constant_batch_size_like, reverse

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "rnn"]


class RNNCell:
    """What takes one step: ``(inputs, states) -> (outputs, new states)``; states may be nested lists of Variables.

    A subclass defines `call`, and `state_shape` (and `state_dtype`) to let `get_initial_states` make zero states.
    """

    def call(self, inputs: Any, states: Any, **kwargs: Any) -> tuple[Any, Any]:
        """One step: (outputs, new states); the new states have the structure of `states`."""
        raise NotImplementedError(f"{type(self).__name__} must define call(inputs, states)")

    def __call__(self, inputs: Any, states: Any, **kwargs: Any) -> tuple[Any, Any]:
        return self.call(inputs, states, **kwargs)

    def get_initial_states(
        self,
        batch_ref: Any,
        shape: Any = None,
        dtype: Any = "float32",
        init_value: float = 0,
        batch_dim_idx: int = 0,
    ) -> Any:
        """States filled with `init_value`.

        Args:
            batch_ref: a Variable (or structure of them) whose dimension `batch_dim_idx` is the batch size.
            shape: shapes of the states without the batch, a list of ints or a structure of such; `state_shape` if None.
            dtype: of all states, or a structure of them; `state_dtype` if None.
        """
        reference = flatten_structure(batch_ref)[0]
        shapes = self.state_shape if shape is None else shape
        dtypes = self.state_dtype if dtype is None else dtype
        leaves = _shape_leaves(shapes)
        kinds = flatten_structure(dtypes)
        if len(kinds) == 1:
            kinds = kinds * len(leaves)
        if len(kinds) != len(leaves):
            refuse("RNNCell.get_initial_states", f"{len(leaves)} shapes and {len(kinds)} dtypes")
        made = [
            fill_constant_batch_size_like(
                input=reference,
                shape=leaf if leaf and leaf[0] == -1 else [-1, *leaf],
                dtype=kind,
                value=init_value,
                input_dim_idx=batch_dim_idx,
            )
            for leaf, kind in zip(leaves, kinds)
        ]
        return _pack_shapes(shapes, iter(made))

    @property
    def state_shape(self) -> Any:
        """Shapes of the states without the batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_shape; give initial states or a shape")

    @property
    def state_dtype(self) -> Any:
        """Element types of the states."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_dtype; give a dtype")


def _is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(d, int) for d in value)


def _shape_leaves(shapes: Any) -> list[list[int]]:
    if _is_shape(shapes):
        return [list(shapes)]
    if isinstance(shapes, dict):
        return [leaf for key in sorted(shapes) for leaf in _shape_leaves(shapes[key])]
    if isinstance(shapes, (list, tuple)):
        return [leaf for item in shapes for leaf in _shape_leaves(item)]
    refuse_type("RNNCell", f"a shape must be a list of ints, received {shapes!r}")


def _pack_shapes(shapes: Any, leaves: Any) -> Any:
    if _is_shape(shapes):
        return next(leaves)
    if isinstance(shapes, dict):
        return {key: _pack_shapes(shapes[key], leaves) for key in sorted(shapes)}
    return type(shapes)([_pack_shapes(item, leaves) for item in shapes])


class GRUCell(RNNCell):
    """A GRU step (Cho et al., 2014, arXiv:1406.1078): states [batch, hidden_size].

    Args:
        param_attr, bias_attr: of the gates (``<name>_gate``) and the candidate (``<name>_candidate``).
        gate_activation, activation: functions, sigmoid and tanh by default.
    """

    def __init__(
        self,
        hidden_size: int,
        param_attr: Any = None,
        bias_attr: Any = None,
        gate_activation: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
        dtype: Any = "float32",
        name: str = "GRUCell",
    ) -> None:
        check_type(hidden_size, "hidden_size", int, "GRUCell")
        self.hidden_size = hidden_size
        self.gru_unit = GRUUnit(name, hidden_size, param_attr, bias_attr, gate_activation, activation, dtype)

    def call(self, inputs: Any, states: Any) -> tuple[Any, Any]:  # type: ignore[override]  # takes nothing more
        """inputs [batch, size], states [batch, hidden_size]: the new state, twice."""
        new_hidden = self.gru_unit(inputs, states)
        return new_hidden, new_hidden

    @property
    def state_shape(self) -> Any:
        """[hidden_size]."""
        return [self.hidden_size]


class LSTMCell(RNNCell):
    """An LSTM step without peepholes (Zaremba et al., 2014, arXiv:1409.2329): states [hidden, cell].

    Args:
        forget_bias: added to the forget gate.
        gate_activation, activation: functions, sigmoid and tanh by default (1.8.5 took these two whatever was given).
    """

    def __init__(
        self,
        hidden_size: int,
        param_attr: Any = None,
        bias_attr: Any = None,
        gate_activation: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
        forget_bias: float = 1.0,
        dtype: Any = "float32",
        name: str = "LSTMCell",
    ) -> None:
        check_type(hidden_size, "hidden_size", int, "LSTMCell")
        self.hidden_size = hidden_size
        self.lstm_unit = LSTMUnit(name, hidden_size, param_attr, bias_attr, gate_activation, activation, forget_bias, dtype)

    def call(self, inputs: Any, states: Any) -> tuple[Any, Any]:  # type: ignore[override]  # takes nothing more
        """inputs [batch, size], states [hidden, cell]: (hidden, [hidden, cell])."""
        if not isinstance(states, (list, tuple)) or len(states) != 2:
            received = f"{len(states)} states" if isinstance(states, (list, tuple)) else type(states).__name__
            refuse(
                "LSTMCell",
                f"states (initial_states of layers.rnn) must be [hidden, cell], received {received}; "
                "get_initial_states(input) makes both",
            )
        pre_hidden, pre_cell = states
        new_hidden, new_cell = self.lstm_unit(inputs, pre_hidden, pre_cell)
        return new_hidden, [new_hidden, new_cell]

    @property
    def state_shape(self) -> Any:
        """[[hidden_size], [hidden_size]]."""
        return [[self.hidden_size], [self.hidden_size]]


def rnn(
    cell: RNNCell,
    inputs: Any,
    initial_states: Any = None,
    sequence_length: Any = None,
    time_major: bool = False,
    is_reverse: bool = False,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """A cell over all steps of its inputs.

    Args:
        inputs: [batch, T, …] ([T, batch, …] when `time_major`), or a structure of such.
        initial_states: zeros if None.
        sequence_length: integers [batch]; states stand still after it.
        is_reverse: from the last step to the first; outputs keep the order of the inputs.
        **kwargs: for ``cell.call``.

    Returns:
        outputs [batch, T, …] (or time major) and the states after the last step.
    """
    if not isinstance(cell, RNNCell) and not callable(getattr(cell, "call", None)):
        refuse_type("rnn", f"'cell' must be an RNNCell, received {type(cell).__name__}")
    if initial_states is None:
        initial_states = cell.get_initial_states(batch_ref=inputs, batch_dim_idx=1 if time_major else 0)
    initial_states = map_structure(_with_gradient, initial_states)
    if not time_major:
        inputs = map_structure(swap_batch_time, inputs)
    mask = None
    if sequence_length is not None:
        longest = shape_of(flatten_structure(inputs)[0])[0]
        dtype = flatten_structure(initial_states)[0].dtype
        mask = transpose(sequence_mask(sequence_length, maxlen=longest, dtype=dtype), [1, 0])
    if is_reverse:
        inputs = map_structure(_reversed, inputs)
        mask = _reversed(mask) if mask is not None else None
    unrolled = StaticRNN()
    with unrolled.step():
        step_inputs = map_structure(unrolled.step_input, inputs)
        states = map_structure(unrolled.memory, initial_states)
        before = map_structure(lambda x: x, states)
        outputs, new_states = cell.call(step_inputs, before, **kwargs)
        if not _same_structure(states, new_states):
            refuse("rnn", f"{type(cell).__name__}.call must return states in the structure of its argument")
        if mask is not None:
            step_mask = unrolled.step_input(mask)
            new_states = map_structure(lambda old, new: select(old, new, step_mask), states, new_states)
        map_structure(unrolled.update_memory, states, new_states)
        flat_outputs = flatten_structure(outputs)
        map_structure(unrolled.step_output, outputs)
        map_structure(unrolled.step_output, new_states)
    collected = unrolled()
    collected = collected if isinstance(collected, list) else [collected]
    final_outputs = pack_structure(outputs, iter(collected[: len(flat_outputs)]))
    last = [var[-1] for var in collected[len(flat_outputs) :]]
    final_states = pack_structure(new_states, iter(last))
    if is_reverse:
        final_outputs = map_structure(_reversed, final_outputs)
    if not time_major:
        final_outputs = map_structure(swap_batch_time, final_outputs)
    return final_outputs, final_states


def _with_gradient(var: Any) -> Any:
    # Made inside or given, the states are part of what is trained.
    if is_variable(var):
        var.stop_gradient = False
    return var


def _reversed(x: Any) -> Any:
    return reverse(x, axis=[0])


def swap_batch_time(x: Any) -> Any:
    """`x` with its first two dimensions exchanged."""
    return transpose(x, [1, 0, *range(2, len(x.shape))])


def select(old: Any, new: Any, mask: Any) -> Any:
    """`new` where `mask` [batch] is 1, `old` where it is 0."""
    return elementwise_mul(new, mask, axis=0) - elementwise_mul(old, (mask - 1), axis=0)


def _same_structure(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and sorted(a) == sorted(b) and all(_same_structure(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_same_structure, a, b))
    return not isinstance(b, (list, tuple, dict))
