"""Cells, their unrolling, and decoders (``fluid.layers.rnn`` and what goes with it)."""

from millstream.fluid.layers.cells.cell import GRUCell, LSTMCell, RNNCell, rnn
from millstream.fluid.layers.cells.decoder import BeamSearchDecoder, Decoder, dynamic_decode
from millstream.fluid.layers.cells.next_inputs import (
    BasicDecoder,
    DecodeHelper,
    GreedyEmbeddingHelper,
    SampleEmbeddingHelper,
    TrainingHelper,
)

__all__ = [
    "BasicDecoder",
    "BeamSearchDecoder",
    "DecodeHelper",
    "Decoder",
    "GRUCell",
    "GreedyEmbeddingHelper",
    "LSTMCell",
    "RNNCell",
    "SampleEmbeddingHelper",
    "TrainingHelper",
    "dynamic_decode",
    "rnn",
]
