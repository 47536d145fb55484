"""Sentiment by three stacked LSTMs, every second one backwards, over 16 unpadded reviews (1,900 words), Adam."""

import described
import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, STACKED, BATCH = 5147, 128, 128, 3, 16
LENGTHS = RNG.randint(40, 200, BATCH)
FEED = {
    "words": described.Sequences(RNG.randint(0, VOCABULARY, (int(LENGTHS.sum()), 1)).astype("int64"), LENGTHS),
    "label": RNG.randint(0, 2, (BATCH, 1)).astype("int64"),
}
TOLERANCE = described.ADAM_TOLERANCE
LSTM_GRADIENT = True


def loss(n, feed):
    x = n.embed(feed["words"], VOCABULARY, WIDTH)
    gates = n.rows_fc([x], 4 * HIDDEN)
    hidden = n.lstm(gates, HIDDEN)
    for k in range(2, STACKED + 1):
        gates = n.rows_fc([gates, hidden], 4 * HIDDEN)
        hidden = n.lstm(gates, HIDDEN, reverse=k % 2 == 0)
    return n.classify(n.concat([n.longest(gates), n.longest(hidden)], 1), 2, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("adam", 0.002))
