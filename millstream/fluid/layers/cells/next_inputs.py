"""Where the next inputs of a decoder come from: the data, the best word, or a word drawn."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from millstream.fluid.layers.cells._structure import map_structure
from millstream.fluid.layers.cells.decoder import Decoder
from millstream.fluid.layers.compare import equal, less_equal
from millstream.fluid.layers.nn.activation import softmax
from millstream.fluid.layers.nn.manipulate import pad, slice, squeeze
from millstream.fluid.layers.nn.random import sampling_id
from millstream.fluid.layers.tensor import argmax, cast, fill_constant, fill_constant_batch_size_like

__all__ = [
    "BasicDecoder",
    "DecodeHelper",
    "GreedyEmbeddingHelper",
    "SampleEmbeddingHelper",
    "TrainingHelper",
]


class DecodeHelper:
    """How a `BasicDecoder` samples ids from outputs and finds its next inputs."""

    def initialize(self) -> tuple[Any, Any]:
        """(first inputs, bool [batch]: ended already)."""
        raise NotImplementedError(f"{type(self).__name__} must define initialize()")

    def sample(self, time: Any, outputs: Any, states: Any) -> Any:
        """Ids [batch] by the outputs."""
        raise NotImplementedError(f"{type(self).__name__} must define sample(time, outputs, states)")

    def next_inputs(self, time: Any, outputs: Any, states: Any, sample_ids: Any) -> tuple[Any, Any, Any]:
        """(ended, next inputs, next states)."""
        raise NotImplementedError(f"{type(self).__name__} must define next_inputs(time, outputs, states, sample_ids)")


class TrainingHelper(DecodeHelper):
    """Teacher forcing: the inputs are the data.

    Args:
        inputs: [batch, T, …] ([T, batch, …] when `time_major`) or a structure of such; sequence_length: integers [batch].
    """

    def __init__(self, inputs: Any, sequence_length: Any, time_major: bool = False) -> None:
        self.inputs = inputs
        self.sequence_length = sequence_length
        self.time_major = time_major
        # The step after the last one reads inputs too; nothing looks at them.
        self.inputs_ = map_structure(self._padded, inputs)

    def _padded(self, x: Any) -> Any:
        amounts = [0, 1] if self.time_major else [0, 0, 0, 1]
        return pad(x, paddings=amounts + [0] * (2 * len(x.shape) - len(amounts)))

    def _at(self, x: Any, time: Any) -> Any:
        axes = [0 if self.time_major else 1]
        return squeeze(slice(x, axes=axes, starts=[time], ends=[time + 1]), axes=axes)

    def initialize(self) -> tuple[Any, Any]:
        """The first step of the data; sequences of length 0 have ended."""
        zero = fill_constant(shape=[1], dtype=self.sequence_length.dtype, value=0)
        finished = equal(self.sequence_length, zero)
        return map_structure(lambda x: x[0] if self.time_major else x[:, 0], self.inputs), finished

    def sample(self, time: Any, outputs: Any, states: Any) -> Any:
        """The best id."""
        return argmax(outputs, axis=-1)

    def next_inputs(self, time: Any, outputs: Any, states: Any, sample_ids: Any) -> tuple[Any, Any, Any]:
        """The data of the next step; ended when there is none."""
        time = cast(time, "int32")
        if self.sequence_length.dtype != time.dtype:
            self.sequence_length = cast(self.sequence_length, time.dtype)
        next_time = time + 1
        finished = less_equal(self.sequence_length, next_time)
        return finished, map_structure(lambda x: self._at(x, next_time), self.inputs_), states


class GreedyEmbeddingHelper(DecodeHelper):
    """The best id's embedding is the next input.

    Args:
        embedding_fn: ids [batch] -> inputs; start_tokens: int64 [batch]; end_token: id after which a sequence has ended.
    """

    def __init__(self, embedding_fn: Any, start_tokens: Any, end_token: int) -> None:
        self.embedding_fn = embedding_fn
        self.start_tokens = start_tokens
        self.end_token = fill_constant(shape=[1], dtype="int64", value=end_token)

    def initialize(self) -> tuple[Any, Any]:
        """The embedded start tokens; nothing has ended."""
        finished = fill_constant_batch_size_like(
            input=self.start_tokens, shape=[-1], dtype="bool", value=False, force_cpu=True
        )
        return self.embedding_fn(self.start_tokens), finished

    def sample(self, time: Any, outputs: Any, states: Any) -> Any:
        """The best id."""
        return argmax(outputs, axis=-1)

    def next_inputs(self, time: Any, outputs: Any, states: Any, sample_ids: Any) -> tuple[Any, Any, Any]:
        """The embedded ids; ended where the id is the end token."""
        return equal(sample_ids, self.end_token), self.embedding_fn(sample_ids), states


class SampleEmbeddingHelper(GreedyEmbeddingHelper):
    """As `GreedyEmbeddingHelper`, with ids drawn from softmax(outputs / softmax_temperature).

    Args:
        seed: of the draws, None or 0 for a new one every time.
    """

    def __init__(
        self,
        embedding_fn: Any,
        start_tokens: Any,
        end_token: int,
        softmax_temperature: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(embedding_fn, start_tokens, end_token)
        self.softmax_temperature = None
        if softmax_temperature is not None:
            self.softmax_temperature = fill_constant(shape=[1], dtype="float32", value=softmax_temperature)
        self.seed = seed

    def sample(self, time: Any, outputs: Any, states: Any) -> Any:
        """An id drawn."""
        logits = outputs if self.softmax_temperature is None else outputs / self.softmax_temperature
        probabilities = softmax(logits)
        probabilities.stop_gradient = True
        return sampling_id(probabilities, seed=self.seed or 0, dtype=self.start_tokens.dtype)


class BasicDecoder(Decoder):
    """A cell, a helper and an output layer; outputs are `OutputWrapper(cell_outputs, sample_ids)`."""

    OutputWrapper = namedtuple("OutputWrapper", ("cell_outputs", "sample_ids"))

    def __init__(self, cell: Any, helper: DecodeHelper, output_fn: Any = None) -> None:
        self.cell = cell
        self.helper = helper
        self.output_fn = output_fn

    def initialize(self, initial_cell_states: Any) -> tuple[Any, Any, Any]:
        """The helper's first inputs, the given states."""
        inputs, finished = self.helper.initialize()
        return inputs, initial_cell_states, finished

    def step(self, time: Any, inputs: Any, states: Any, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        """The cell, the output layer, the helper."""
        outputs, cell_states = self.cell(inputs, states, **kwargs)
        if self.output_fn is not None:
            outputs = self.output_fn(outputs)
        ids = self.helper.sample(time=time, outputs=outputs, states=cell_states)
        ids.stop_gradient = True
        finished, next_inputs, next_states = self.helper.next_inputs(
            time=time, outputs=outputs, states=cell_states, sample_ids=ids
        )
        return self.OutputWrapper(outputs, ids), next_states, next_inputs, finished

    def finalize(self, outputs: Any, final_states: Any, sequence_lengths: Any) -> tuple[Any, Any]:
        """Both as they are."""
        return outputs, final_states
