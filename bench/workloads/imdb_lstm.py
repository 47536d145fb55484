"""Sentiment by one LSTM over 32 reviews of unequal length (3,900 words), unpadded, Adam."""

import described
import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, BATCH = 5147, 128, 128, 32
LENGTHS = RNG.randint(40, 204, BATCH)
LENGTHS[-1] += 3900 - LENGTHS.sum()
FEED = {
    "words": described.Sequences(RNG.randint(0, VOCABULARY, (int(LENGTHS.sum()), 1)).astype("int64"), LENGTHS),
    "label": RNG.randint(0, 2, (BATCH, 1)).astype("int64"),
}
OPTIMIZER = described.Optimizer("adam", 0.002)
TOLERANCE = described.ADAM_TOLERANCE
LSTM_GRADIENT = True
GATES = (1, 2, 0, 3)  # torch's and Paddle 3's order (input, forget, candidate, output) of Fluid's


def loss(n, feed):
    x = n.embed(feed["words"], VOCABULARY, WIDTH)
    hidden = n.lstm(n.rows_fc([x], 4 * HIDDEN), HIDDEN)
    return n.classify(n.longest(hidden), 2, feed["label"])


fluid_model, _, jax_step, _ = described.peers(loss, FEED, OPTIMIZER)


def reordered(value):
    """Blocks of gates (last axis) put into the order of torch and Paddle 3, transposed when a matrix."""
    blocks = np.split(value, 4, -1)
    joined = np.concatenate([blocks[k] for k in GATES], -1)
    return np.ascontiguousarray(joined.T) if len(value) > 1 else joined[0]


def lstm_values(parameters):
    """{name: array} of nn.LSTM, the same in both frameworks; takes four parameters from the iterator."""
    weight, bias, hidden, hidden_bias = (next(parameters) for _ in range(4))
    values = {"weight_ih_l0": weight, "weight_hh_l0": hidden, "bias_ih_l0": bias[None], "bias_hh_l0": hidden_bias}
    return {name: reordered(value) for name, value in values.items()}


def torch_step(parameters, compiled=False):
    """Packed, as torch offers for unequal lengths; the padded form is slower."""
    import torch
    from described import torch_side
    from torch import nn
    from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

    values = iter(parameters.values())
    table = torch_side.set_parameters(nn.Embedding(VOCABULARY, WIDTH), {"weight": torch_side.take(values, 1)[0]})
    lstm = nn.LSTM(WIDTH, HIDDEN)
    torch_side.set_parameters(lstm, {k: torch.from_numpy(v) for k, v in lstm_values(values).items()})
    head = torch_side.linear(values)
    optimizer = torch_side.make_optimizer(OPTIMIZER, [p for m in (table, lstm, head) for p in m.parameters()])
    words = FEED["words"]

    def run():
        x = table(torch.from_numpy(words.values)[:, 0])
        packed = pack_sequence(list(x.split(words.lengths)), enforce_sorted=False)
        hidden, _ = pad_packed_sequence(lstm(packed)[0], padding_value=-2.0)
        return nn.functional.cross_entropy(head(hidden.max(0)[0]), torch.from_numpy(FEED["label"])[:, 0])

    return torch_side.training_step(torch.compile(run) if compiled else run, optimizer)


def paddle3_step(parameters):
    from described import dense, paddle3_side
    from paddle import nn

    values = iter(parameters.values())
    table = paddle3_side.set_parameters(nn.Embedding(VOCABULARY, WIDTH), {"weight": next(values)})
    lstm = nn.LSTM(WIDTH, HIDDEN)
    paddle3_side.set_parameters(lstm, lstm_values(values))
    head = paddle3_side.linear(values)
    optimizer = paddle3_side.make_optimizer(OPTIMIZER, [p for m in (table, lstm, head) for p in m.parameters()])
    feed = dense(FEED)

    def run():
        fed = paddle3_side.tensors(feed)
        n = paddle3_side.Layers(None, fed)
        hidden, _ = lstm(table(fed["words"].squeeze(-1)), sequence_length=n.lengths)
        return nn.functional.cross_entropy(head(n.longest(hidden)), fed["label"])

    return paddle3_side.training_step(run, optimizer)
