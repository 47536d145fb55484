"""Decoding step by step until every sequence has ended."""

from __future__ import annotations

import contextlib
from collections import namedtuple
from typing import Any

import numpy as np

from millstream.fluid.layers._check import check_type, is_variable, refuse_type
from millstream.fluid.layers.array import array_read, array_write, create_array, tensor_array_to_tensor
from millstream.fluid.layers.cells._structure import map_structure
from millstream.fluid.layers.cells.cell import select, swap_batch_time
from millstream.fluid.layers.compare import equal, less_equal
from millstream.fluid.layers.control_flow import While, flatten_structure, increment
from millstream.fluid.layers.nn.activation import log, softmax
from millstream.fluid.layers.nn.elementwise import (
    elementwise_add,
    elementwise_floordiv,
    elementwise_mod,
    elementwise_mul,
    logical_and,
    logical_not,
    logical_or,
)
from millstream.fluid.layers.nn.gather import gather_nd, gather_tree
from millstream.fluid.layers.nn.manipulate import expand, reshape, stack, transpose, unsqueeze
from millstream.fluid.layers.nn.manipulate import shape as shape_of
from millstream.fluid.layers.nn.reduce import reduce_all, topk
from millstream.fluid.layers.tensor import (
    assign,
    cast,
    fill_constant,
    fill_constant_batch_size_like,
    range,
    zeros_like,
)
from millstream.ir.program import default_main_program
from millstream.ir.types import VarType

__all__ = ["BeamSearchDecoder", "Decoder", "dynamic_decode"]

_NEVER = 1e9  # minus this, as a log probability


class Decoder:
    """What `dynamic_decode` drives: `initialize` once, `step` while some sequence goes on, `finalize` at the end."""

    def initialize(self, inits: Any) -> tuple[Any, Any, Any]:
        """(first inputs, first states, bool [batch]: ended already)."""
        raise NotImplementedError(f"{type(self).__name__} must define initialize(inits)")

    def step(self, time: Any, inputs: Any, states: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        """(outputs, next states, next inputs, ended)."""
        raise NotImplementedError(f"{type(self).__name__} must define step(time, inputs, states)")

    def finalize(self, outputs: Any, final_states: Any, sequence_lengths: Any) -> tuple[Any, Any]:
        """(outputs, states) made of the stacked outputs of all steps, time first; need not be defined."""
        raise NotImplementedError


class BeamSearchDecoder(Decoder):
    """Beam search with a cell: each step keeps the `beam_size` best continuations of a sequence.

    Args:
        cell: an RNNCell, or a callable of (inputs, states).
        start_token, end_token: ids; an ended beam goes on with the end token at no cost.
        embedding_fn: ids [batch, beam] -> inputs of the cell; output_fn: outputs of the cell -> logits [batch, beam, words].
    """

    OutputWrapper = namedtuple("OutputWrapper", ("scores", "predicted_ids", "parent_ids"))
    StateWrapper = namedtuple("StateWrapper", ("cell_states", "log_probs", "finished", "lengths"))

    def __init__(
        self, cell: Any, start_token: int, end_token: int, beam_size: int, embedding_fn: Any = None, output_fn: Any = None
    ) -> None:
        check_type(beam_size, "beam_size", int, "BeamSearchDecoder")
        self.cell = cell
        self.embedding_fn = embedding_fn
        self.output_fn = output_fn
        self.start_token = start_token
        self.end_token = end_token
        self.beam_size = beam_size

    @staticmethod
    def tile_beam_merge_with_batch(x: Any, beam_size: int) -> Any:
        """[batch, …] -> [batch * beam_size, …], each row `beam_size` times; also over structures."""
        return map_structure(lambda var: _tile_rows(var, beam_size), x)

    def _split(self, x: Any) -> Any:
        return reshape(x, shape=[-1, self.beam_size, *x.shape[1:]])

    def _merge(self, x: Any) -> Any:
        return reshape(x, shape=[-1, *x.shape[2:]])

    def _to_beams(self, x: Any) -> Any:
        x = unsqueeze(x, [1])
        times = [1] * len(x.shape)
        times[1] = self.beam_size
        return expand(x, times)

    def _gather(self, x: Any, indices: Any, batch_size: Any) -> Any:
        """x[i, indices[i, j]] for every sequence i and beam j."""
        if batch_size.dtype != indices.dtype:
            batch_size = cast(batch_size, indices.dtype)
            batch_size.stop_gradient = True
        rows = expand(unsqueeze(range(0, batch_size, 1, dtype=indices.dtype), [1]), [1, self.beam_size])
        where = stack([rows, indices], axis=2)
        where.stop_gradient = True
        return gather_nd(x, where)

    def initialize(self, initial_cell_states: Any) -> tuple[Any, Any, Any]:
        """All beams start alike, so only the first may win: the others' log probability is -1e9."""
        state = flatten_structure(initial_cell_states)[0]
        self.batch_size = shape_of(state)[0]
        start = fill_constant(shape=[1], dtype="int64", value=self.start_token)
        self.end_token_tensor = fill_constant(shape=[1], dtype="int64", value=self.end_token)
        cell_states = map_structure(self._to_beams, initial_cell_states)
        tokens = self._to_beams(expand(start, [self.batch_size]))
        first = np.array([[0.0] + [-_NEVER] * (self.beam_size - 1)], dtype="float32")
        log_probs = expand(assign(first), [self.batch_size, 1])
        finished = fill_constant_batch_size_like(
            input=state, shape=[-1, self.beam_size], dtype="bool", value=False, force_cpu=True
        )
        lengths = zeros_like(tokens)
        inputs = self.embedding_fn(tokens) if self.embedding_fn else tokens
        return inputs, self.StateWrapper(cell_states, log_probs, finished, lengths), finished

    def _masked(self, probs: Any, finished: Any, only_end: Any, words: int) -> Any:
        """Log probabilities; those of ended beams become 0 for the end token and -1e9 for the others."""
        finished = cast(finished, dtype=probs.dtype)
        ended = elementwise_mul(expand(unsqueeze(finished, [2]), [1, 1, words]), only_end, axis=-1)
        return ended - elementwise_mul(probs, (finished - 1), axis=0)

    def _search(self, logits: Any, next_cell_states: Any, beam: Any) -> tuple[Any, Any]:
        words = int(logits.shape[-1])
        words_tensor = fill_constant(shape=[1], dtype="int64", value=words)
        only_end = np.full([words], -_NEVER, dtype="float32")
        only_end[self.end_token] = 0
        only_end_tensor = assign(only_end)
        step_log_probs = self._masked(log(softmax(logits)), beam.finished, only_end_tensor, words)
        log_probs = elementwise_add(x=step_log_probs, y=beam.log_probs, axis=0)
        scores, flat = topk(input=reshape(log_probs, [-1, self.beam_size * words]), k=self.beam_size)
        parents = elementwise_floordiv(flat, words_tensor)
        tokens = elementwise_mod(flat, words_tensor)
        next_log_probs = self._gather(reshape(log_probs, [-1, self.beam_size * words]), flat, self.batch_size)
        next_cell_states = map_structure(lambda x: self._gather(x, parents, self.batch_size), next_cell_states)
        finished = self._gather(beam.finished, parents, self.batch_size)
        lengths = self._gather(beam.lengths, parents, self.batch_size)
        lengths = lengths + cast(logical_not(finished), beam.lengths.dtype)
        finished = logical_or(finished, equal(tokens, self.end_token_tensor))
        output = self.OutputWrapper(scores, tokens, parents)
        return output, self.StateWrapper(next_cell_states, next_log_probs, finished, lengths)

    def step(self, time: Any, inputs: Any, states: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        """One step of all beams."""
        inputs = map_structure(self._merge, inputs)
        cell_states = map_structure(self._merge, states.cell_states)
        outputs, next_cell_states = self.cell(inputs, cell_states, **kwargs)
        outputs = map_structure(self._split, outputs)
        next_cell_states = map_structure(self._split, next_cell_states)
        if self.output_fn is not None:
            outputs = self.output_fn(outputs)
        found, next_states = self._search(outputs, next_cell_states, states)
        tokens = found.predicted_ids
        tokens.stop_gradient = True
        next_inputs = self.embedding_fn(tokens) if self.embedding_fn else tokens
        return found, next_states, next_inputs, next_states.finished

    def finalize(self, outputs: Any, final_states: Any, sequence_lengths: Any) -> tuple[Any, Any]:
        """The ids of each beam followed back from the last step, [T, batch, beam]."""
        return gather_tree(outputs.predicted_ids, outputs.parent_ids), final_states


def _tile_rows(x: Any, times: int) -> Any:
    rank = len(x.shape)
    x = unsqueeze(x, [1])
    x = expand(x, [1, times] + [1] * (rank - 1))
    x = transpose(x, [*_numbers(2, rank + 1), 0, 1])
    x = reshape(x, shape=[0] * (rank - 1) + [-1])
    return transpose(x, [rank - 1, *_numbers(0, rank - 1)])


def _numbers(start: int, end: int) -> list[int]:
    return np.arange(start, end).tolist()


def dynamic_decode(
    decoder: Decoder,
    inits: Any = None,
    max_step_num: int | None = None,
    output_time_major: bool = False,
    impute_finished: bool = False,
    is_test: bool = False,
    return_length: bool = False,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Run `decoder` until all sequences have ended, or past `max_step_num` steps.

    Args:
        inits: for ``decoder.initialize``.
        impute_finished: states of ended sequences stand still.
        is_test: no gradient will be asked for; states are overwritten instead of kept for each step.
        return_length: also return the lengths, int64.
        **kwargs: for ``decoder.step``.

    Returns:
        (outputs [batch, T, …] or time major, final states) and, if asked, the lengths.
    """
    inputs, states, finished = decoder.initialize(inits)
    step_idx = fill_constant(shape=[1], dtype="int64", value=0)
    cond = logical_not(reduce_all(finished))
    limit = None
    if max_step_num is not None:
        limit = fill_constant(shape=[1], dtype="int64", value=max_step_num)
    loop = While(cond, is_test=is_test)
    lengths = cast(zeros_like(finished), "int64")
    lengths.stop_gradient = True
    kept_inputs, kept_states = inputs, states
    if not is_test:
        kept_inputs = map_structure(lambda x: array_write(x, step_idx), inputs)
        kept_states = map_structure(lambda x: array_write(x, step_idx), states)
    with loop.block():
        if not is_test:
            inputs = map_structure(lambda array: array_read(array, step_idx), kept_inputs)
            states = map_structure(lambda array: array_read(array, step_idx), kept_states)
        outputs, next_states, next_inputs, next_finished = decoder.step(step_idx, inputs, states, **kwargs)
        next_finished = logical_or(next_finished, finished)
        next_lengths = elementwise_add(lengths, cast(logical_not(finished), lengths.dtype))
        if impute_finished:
            next_states = map_structure(lambda old, new: _impute(old, new, finished), states, next_states)
        arrays = map_structure(_outer_array, outputs)
        map_structure(lambda x, array: array_write(x, i=step_idx, array=array), outputs, arrays)
        increment(x=step_idx, value=1.0, in_place=True)
        if is_test:
            map_structure(assign, next_inputs, kept_inputs)
            map_structure(assign, next_states, kept_states)
        else:
            map_structure(lambda x, array: array_write(x, i=step_idx, array=array), next_inputs, kept_inputs)
            map_structure(lambda x, array: array_write(x, i=step_idx, array=array), next_states, kept_states)
        assign(next_finished, finished)
        assign(next_lengths, lengths)
        going_on = logical_not(reduce_all(finished), out=None if limit is not None else cond)
        if limit is not None:
            logical_and(going_on, less_equal(step_idx, limit), out=cond)
    final_outputs = map_structure(lambda array: tensor_array_to_tensor(array, axis=0, use_stack=True)[0], arrays)
    final_states = kept_states
    if not is_test:
        final_states = map_structure(lambda array: array_read(array, step_idx), kept_states)
    if type(decoder).finalize is not Decoder.finalize:
        with contextlib.suppress(NotImplementedError):  # a decoder may say in its method that it has none
            final_outputs, final_states = decoder.finalize(final_outputs, final_states, lengths)
    if not output_time_major:
        final_outputs = map_structure(swap_batch_time, final_outputs)
    return (final_outputs, final_states, lengths) if return_length else (final_outputs, final_states)


def _outer_array(x: Any) -> Any:
    """An array for `x` of all steps, in the Block around the loop."""
    if not is_variable(x):
        refuse_type("dynamic_decode", f"the outputs of a decoder's step must be Variables, received {type(x).__name__}")
    program = default_main_program()
    current = program.current_block_idx
    program.current_block_idx = program.current_block().parent_idx
    try:
        return create_array(dtype=x.dtype)
    finally:
        program.current_block_idx = current


def _impute(old: Any, new: Any, finished: Any) -> Any:
    """`old` where `finished`; flags are blended as numbers."""
    is_flag = old.dtype == VarType.BOOL
    if is_flag:
        old, new = cast(old, "float32"), cast(new, "float32")
    ended = cast(finished, old.dtype)
    ended.stop_gradient = True
    mixed = select(new, old, ended)
    return cast(mixed, "bool") if is_flag else mixed
