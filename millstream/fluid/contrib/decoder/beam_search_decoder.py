"""Decoders over sequences with LoD: one state cell, driven by the data to train and by beam search to generate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from millstream.fluid.layers._check import check_variable, refuse
from millstream.fluid.layers.array import array_read, array_write
from millstream.fluid.layers.compare import less_than
from millstream.fluid.layers.control_flow import Switch, While, increment, is_empty
from millstream.fluid.layers.nn.activation import log
from millstream.fluid.layers.nn.dense import embedding, fc
from millstream.fluid.layers.nn.elementwise import elementwise_add
from millstream.fluid.layers.nn.manipulate import reshape
from millstream.fluid.layers.nn.reduce import topk
from millstream.fluid.layers.recurrent import beam_search, beam_search_decode
from millstream.fluid.layers.sequence import lod_reset, sequence_expand
from millstream.fluid.layers.step_rnn import DynamicRNN
from millstream.fluid.layers.tensor import fill_constant, fill_constant_batch_size_like, zeros
from millstream.ir import names
from millstream.ir.program import default_main_program
from millstream.ir.types import VarType

__all__ = ["BeamSearchDecoder", "InitState", "StateCell", "TrainingDecoder"]

_TRAINING, _BEAM_SEARCH = "training", "beam_search"


class InitState:
    """The first value of a state.

    Args:
        init: a Variable; or None, then `shape` filled with `value` for as many rows as `init_boot` has.
        need_reorder: `init` stands in the order of the batch, not of the sequences' lengths (see DynamicRNN.memory).
    """

    def __init__(
        self,
        init: Any = None,
        shape: Any = None,
        value: float = 0.0,
        init_boot: Any = None,
        need_reorder: bool = False,
        dtype: Any = "float32",
    ) -> None:
        if init is None and init_boot is None:
            refuse("InitState", "give 'init', or 'init_boot' to take the batch size from")
        if init is None:
            init = fill_constant_batch_size_like(input=init_boot, value=value, shape=shape, dtype=dtype)
        self._init = init
        self._need_reorder = need_reorder

    @property
    def value(self) -> Any:
        """The Variable."""
        return self._init

    @property
    def need_reorder(self) -> bool:
        """Whether it stands in the order of the batch."""
        return self._need_reorder


class _MemoryState:
    """A state while training: a memory of the DynamicRNN."""

    def __init__(self, decoder: Any, init: InitState) -> None:
        self._rnn = decoder.dynamic_rnn
        self._memory = self._rnn.memory(init=init.value, need_reorder=init.need_reorder)

    def get(self) -> Any:
        return self._memory

    def update(self, value: Any) -> None:
        self._rnn.update_memory(self._memory, value)


class _ArrayState:
    """A state during beam search: an array with a counter of its own."""

    def __init__(self, decoder: Any, init: InitState) -> None:
        with decoder._outside() as block:
            self._counter = block.create_var(
                name=names.generate("array_state_counter"), dtype="int64", shape=[1], persistable=False
            )
            self._array = block.create_var(
                name=names.generate("array_state_array"), type=VarType.LOD_TENSOR_ARRAY, dtype=init.value.dtype
            )
            fill_constant([1], "int64", 0, force_cpu=True, out=self._counter)
            array_write(init.value, self._counter, self._array)

    def get(self) -> Any:
        return array_read(self._array, self._counter)

    def update(self, value: Any) -> None:
        increment(self._counter, value=1, in_place=True)
        array_write(value, i=self._counter, array=self._array)


class StateCell:
    """States, inputs and how one step makes new states of them; the same cell serves both decoders.

    Args:
        inputs: {name: Variable, or None to be given to `compute_state`}; states: {name: InitState}.
        out_state: name of the state that outputs are made of.
        name: accepted for the form; nothing is named after a cell.

    Use::

        cell = StateCell(inputs={'x': None}, states={'h': InitState(init=boot)}, out_state='h')

        @cell.state_updater
        def updater(cell):
            cell.set_state('h', fluid.layers.fc([cell.get_state('h'), cell.get_input('x')], size, act='tanh'))
    """

    def __init__(
        self, inputs: dict[str, Any], states: dict[str, InitState], out_state: str, name: str | None = None
    ) -> None:
        for key, state in states.items():
            if not isinstance(state, InitState):
                raise TypeError(f"StateCell: state {key!r} must be an InitState, received {type(state).__name__}")
        if out_state not in states:
            refuse("StateCell", f"'out_state' {out_state!r} is none of the states {sorted(states)}")
        self._inputs = dict(inputs)
        self._init_states = dict(states)
        self._out_state = out_state
        self._updater: Callable[[StateCell], None] | None = None
        self._decoder: Any = None
        self._kept: dict[str, Any] = {}
        self._current: dict[str, Any] = {}

    def _enter(self, decoder: Any) -> None:
        if self._decoder is not None:
            refuse("StateCell", "the cell is in a decoder's block already")
        self._decoder, self._kept, self._current = decoder, {}, {}

    def _leave(self) -> None:
        self._decoder = None

    def _need_state(self, name: str) -> None:
        """Make the state in the decoder when it is first asked for."""
        if self._decoder is None:
            refuse("StateCell", "states exist only inside a decoder's block")
        if name not in self._init_states:
            refuse("StateCell", f"unknown state {name!r}; the states are {sorted(self._init_states)}")
        if name not in self._current:
            kind = _MemoryState if self._decoder.type == _TRAINING else _ArrayState
            self._kept[name] = kind(self._decoder, self._init_states[name])
            self._current[name] = self._kept[name].get()

    def get_state(self, state_name: str) -> Any:
        """The present value of a state."""
        self._need_state(state_name)
        return self._current[state_name]

    def set_state(self, state_name: str, state_value: Any) -> None:
        """Give a state a value, for the rest of the step."""
        self._need_state(state_name)
        self._current[state_name] = state_value

    def get_input(self, input_name: str) -> Any:
        """The present value of an input."""
        if self._inputs.get(input_name) is None:
            refuse(
                "StateCell", f"input {input_name!r} is unknown or has no value yet; the inputs are {sorted(self._inputs)}"
            )
        return self._inputs[input_name]

    def state_updater(self, updater: Callable[[StateCell], None]) -> Callable[[StateCell], None]:
        """Decorator: `updater(cell)` sets the new states."""
        self._updater = updater

        def checked(cell: StateCell) -> None:
            if cell is not self:
                raise TypeError("StateCell: the updater belongs to another cell")
            updater(cell)

        return checked

    def compute_state(self, inputs: dict[str, Any]) -> None:
        """Take the inputs and run the updater."""
        if self._updater is None:
            refuse("StateCell", "no updater; decorate one with @cell.state_updater")
        for name, value in inputs.items():
            if name not in self._inputs:
                refuse("StateCell", f"unknown input {name!r}; the inputs are {sorted(self._inputs)}")
            self._inputs[name] = value
        self._updater(self)

    def update_states(self) -> None:
        """The present values are the next step's states."""
        for name, kept in self._kept.items():
            kept.update(self._current[name])

    def out_state(self) -> Any:
        """The present value of the output state."""
        return self.get_state(self._out_state)


class TrainingDecoder:
    """A DynamicRNN around a StateCell, over the target sequences.

    Use::

        decoder = TrainingDecoder(cell)
        with decoder.block():
            word = decoder.step_input(words)
            decoder.state_cell.compute_state(inputs={'x': word})
            decoder.output(fluid.layers.fc(decoder.state_cell.get_state('h'), size, act='softmax'))
            decoder.state_cell.update_states()
        out = decoder()
    """

    BEFORE_DECODER, IN_DECODER, AFTER_DECODER = 0, 1, 2

    def __init__(self, state_cell: StateCell, name: str | None = None) -> None:
        self._rnn = DynamicRNN(name)
        self._cell = state_cell
        self._status = TrainingDecoder.BEFORE_DECODER

    @contextmanager
    def block(self) -> Iterator[None]:
        """The Block of one step."""
        if self._status != TrainingDecoder.BEFORE_DECODER:
            refuse("TrainingDecoder", "block() can be entered once")
        self._status = TrainingDecoder.IN_DECODER
        self._cell._enter(self)
        try:
            with self._rnn.block():
                yield
        finally:
            self._cell._leave()
        self._status = TrainingDecoder.AFTER_DECODER

    @property
    def state_cell(self) -> StateCell:
        """The cell, inside block()."""
        self._inside("state_cell")
        return self._cell

    @property
    def dynamic_rnn(self) -> DynamicRNN:
        """The DynamicRNN."""
        return self._rnn

    @property
    def type(self) -> str:
        """'training'."""
        return _TRAINING

    def _inside(self, what: str) -> None:
        if self._status != TrainingDecoder.IN_DECODER:
            refuse("TrainingDecoder", f"{what} belongs inside `with decoder.block():`")

    def step_input(self, x: Any) -> Any:
        """The present step of a sequence."""
        self._inside("step_input()")
        return self._rnn.step_input(x)

    def static_input(self, x: Any) -> Any:
        """A Variable that every step sees whole."""
        self._inside("static_input()")
        return self._rnn.static_input(x)

    def output(self, *outputs: Any) -> None:
        """Collect outputs of every step."""
        self._inside("output()")
        self._rnn.output(*outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The collected outputs, as sequences."""
        if self._status != TrainingDecoder.AFTER_DECODER:
            refuse("TrainingDecoder", "its outputs exist only after block()")
        return self._rnn(*args, **kwargs)


class BeamSearchDecoder:
    """Beam search with a StateCell: each step embeds the words before, runs the cell and keeps the best continuations.

    Args:
        init_ids, init_scores: start words int64 [batch, 1] and scores float32 [batch, 1], two levels of LoD.
        target_dict_dim, word_dim: size of the embedding of the words; sparse_emb: its gradient's form.
        input_var_dict: {input of the cell: Variable} that follow the beams; other inputs get the embedded words.
        topk_size: candidates of each beam; max_len: steps at most; end_id: word that ends a sentence.
        name: accepted for the form; the parts are named after themselves.
    """

    BEFORE_BEAM_SEARCH_DECODER, IN_BEAM_SEARCH_DECODER, AFTER_BEAM_SEARCH_DECODER = 0, 1, 2

    def __init__(
        self,
        state_cell: StateCell,
        init_ids: Any,
        init_scores: Any,
        target_dict_dim: int,
        word_dim: int,
        input_var_dict: dict[str, Any] = {},
        topk_size: int = 50,
        sparse_emb: bool = True,
        max_len: int = 100,
        beam_size: int = 1,
        end_id: int = 1,
        name: str | None = None,
    ) -> None:
        check_variable(init_ids, "init_ids", "BeamSearchDecoder")
        check_variable(init_scores, "init_scores", "BeamSearchDecoder")
        self._counter = zeros(shape=[1], dtype="int64")
        self._max_len = fill_constant(shape=[1], dtype="int64", value=max_len)
        self._cond = less_than(self._counter, fill_constant(shape=[1], dtype="int64", value=max_len))
        self._while = While(self._cond)
        self._cell = state_cell
        self._status = BeamSearchDecoder.BEFORE_BEAM_SEARCH_DECODER
        self._zero_idx: Any = None
        self._arrays: dict[str, Any] = {}
        self._written: list[tuple[Any, Any]] = []
        self._ids_array: Any = None
        self._scores_array: Any = None
        self._beam_size, self._end_id, self._topk_size = beam_size, end_id, topk_size
        self._init_ids, self._init_scores = init_ids, init_scores
        self._target_dict_dim, self._word_dim, self._sparse_emb = target_dict_dim, word_dim, sparse_emb
        self._input_var_dict = dict(input_var_dict)

    @contextmanager
    def block(self) -> Iterator[None]:
        """The Block of one step; at its end the arrays of `update_array` get their values, unless the search stopped."""
        if self._status != BeamSearchDecoder.BEFORE_BEAM_SEARCH_DECODER:
            refuse("BeamSearchDecoder", "block() can be entered once")
        self._status = BeamSearchDecoder.IN_BEAM_SEARCH_DECODER
        self._cell._enter(self)
        try:
            with self._while.block():
                yield
                with Switch() as switch, switch.case(self._cond):
                    increment(x=self._counter, value=1.0, in_place=True)
                    for value, array in self._written:
                        array_write(x=value, i=self._counter, array=array)
                    less_than(x=self._counter, y=self._max_len, cond=self._cond)
        finally:
            self._cell._leave()
        self._status = BeamSearchDecoder.AFTER_BEAM_SEARCH_DECODER

    @property
    def state_cell(self) -> StateCell:
        """The cell, inside block()."""
        self._inside("state_cell")
        return self._cell

    @property
    def type(self) -> str:
        """'beam_search'."""
        return _BEAM_SEARCH

    def _inside(self, what: str) -> None:
        if self._status != BeamSearchDecoder.IN_BEAM_SEARCH_DECODER:
            refuse("BeamSearchDecoder", f"{what} belongs inside `with decoder.block():`")

    @contextmanager
    def _outside(self) -> Iterator[Any]:
        """The Block around the loop, to append to."""
        program = default_main_program()
        current = program.current_block_idx
        program.current_block_idx = program.current_block().parent_idx
        try:
            yield program.current_block()
        finally:
            program.current_block_idx = current

    def early_stop(self) -> None:
        """End the search after this step."""
        fill_constant(shape=[1], value=0, dtype="bool", force_cpu=True, out=self._cond)

    def decode(self) -> None:
        """The usual step; for another one write your own with block(), read_array() and update_array()."""
        with self.block():
            prev_ids = self.read_array(init=self._init_ids, is_ids=True)
            prev_scores = self.read_array(init=self._init_scores, is_scores=True)
            size = [self._target_dict_dim, self._word_dim]
            words = embedding(input=prev_ids, size=size, dtype="float32", is_sparse=self._sparse_emb)
            feeds: dict[str, Any] = {}
            followed = {}
            for name, init in self._input_var_dict.items():
                if name not in self._cell._inputs:
                    refuse("BeamSearchDecoder", f"{name!r} of 'input_var_dict' is no input of the cell")
                followed[name] = self.read_array(init=init)
                feeds[name] = sequence_expand(followed[name], prev_scores)
            for name in self._cell._init_states:
                self._cell.set_state(name, sequence_expand(self._cell.get_state(name), prev_scores))
            for name in self._cell._inputs:
                feeds.setdefault(name, words)
            self._cell.compute_state(inputs=feeds)
            state = lod_reset(x=self._cell.out_state(), y=prev_scores)
            scores = fc(input=state, size=self._target_dict_dim, act="softmax")
            best, candidates = topk(scores, k=self._topk_size)
            total = elementwise_add(x=log(best), y=reshape(prev_scores, shape=[-1]), axis=0)
            ids, kept = beam_search(
                prev_ids, prev_scores, candidates, total, self._beam_size, end_id=self._end_id, level=0
            )  # fmt: skip
            with Switch() as switch:
                with switch.case(is_empty(ids)):
                    self.early_stop()
                with switch.default():
                    self._cell.update_states()
                    self.update_array(prev_ids, ids)
                    self.update_array(prev_scores, kept)
                    for name, array in followed.items():
                        self.update_array(array, feeds[name])

    def read_array(self, init: Any, is_ids: bool = False, is_scores: bool = False) -> Any:
        """The present element of a new array that starts with `init`.

        Args:
            is_ids, is_scores: it is one of the two that the result is made of.
        """
        self._inside("read_array()")
        if is_ids and is_scores:
            refuse("BeamSearchDecoder", "an array cannot hold both ids and scores")
        with self._outside() as block:
            if self._zero_idx is None:
                self._zero_idx = fill_constant(shape=[1], dtype="int64", value=0, force_cpu=True)
            array = block.create_var(
                name=names.generate("beam_search_decoder_array"), type=VarType.LOD_TENSOR_ARRAY, dtype=init.dtype
            )
            array_write(init, i=self._zero_idx, array=array)
        if is_ids:
            self._ids_array = array
        elif is_scores:
            self._scores_array = array
        value = array_read(array, i=self._counter)
        self._arrays[value.name] = array
        return value

    def update_array(self, array: Any, value: Any) -> None:
        """`value` is the next element of the array that `array` was read from."""
        self._inside("update_array()")
        if array.name not in self._arrays:
            refuse("BeamSearchDecoder", f"{array.name!r} was not made by read_array()")
        self._written.append((value, self._arrays[array.name]))

    def __call__(self) -> tuple[Any, Any]:
        """(sentences of ids, their scores), sequences of two levels."""
        if self._status != BeamSearchDecoder.AFTER_BEAM_SEARCH_DECODER:
            refuse("BeamSearchDecoder", "its results exist only after block() or decode()")
        return beam_search_decode(
            ids=self._ids_array, scores=self._scores_array, beam_size=self._beam_size, end_id=self._end_id
        )
